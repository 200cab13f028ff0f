"""A crystal on a screen, turned with the mouse: plotly, loaded when it is asked for."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.visualization.crystals.projection import camera
from cdvae_kit.visualization.crystals.scene import Scene, element_color, element_radius, element_symbol

if TYPE_CHECKING:
    import plotly.graph_objects as go


def interactive_figure(scene: Scene, *, title: str, view: tuple[float, float], atom_scale: float) -> go.Figure:
    """One mesh for all spheres of an element, which a click in the legend hides, and a line for the cell's edges."""
    import plotly.graph_objects as go

    traces = [_mesh(scene, number, members, atom_scale) for number, members in scene.by_element.items()]
    eye = 1.8 * camera(view)[2]
    hidden = {"visible": False}
    return go.Figure(
        data=[*traces, _cell(scene)],
        layout={
            "title": {"text": title},
            "scene": {
                "xaxis": hidden,
                "yaxis": hidden,
                "zaxis": hidden,
                "aspectmode": "data",
                "camera": {
                    "eye": dict(zip("xyz", eye.tolist(), strict=True)),
                    "projection": {"type": "orthographic"},
                },
            },
            "margin": {"l": 0, "r": 0, "t": 40, "b": 0},
            "legend": {"itemsizing": "constant"},
        },
    )


def _mesh(scene: Scene, atomic_number: int, members: np.ndarray, atom_scale: float) -> go.Mesh3d:
    import plotly.graph_objects as go

    vertices, faces = unit_sphere()
    centres = scene.positions[members]
    points = (centres[:, None] + atom_scale * element_radius(atomic_number) * vertices[None]).reshape(-1, 3)
    corners = (faces[None] + len(vertices) * np.arange(len(members))[:, None, None]).reshape(-1, 3)
    red, green, blue = (round(255 * part) for part in element_color(atomic_number))
    symbol = element_symbol(atomic_number)
    labels = [
        f"{symbol}{', image' if scene.is_image[i] else ''}<br>" + ", ".join(f"{x:.3f}" for x in scene.frac_coords[i])
        for i in members
    ]
    x, y, z = points.astype(np.float32).T
    i, j, k = corners.astype(np.int32).T
    return go.Mesh3d(
        x=x,
        y=y,
        z=z,
        i=i,
        j=j,
        k=k,
        name=symbol,
        color=f"rgb({red},{green},{blue})",
        text=[label for label in labels for _ in range(len(vertices))],
        hoverinfo="text",
        showlegend=True,
        flatshading=False,
        lighting={"ambient": 0.55, "diffuse": 0.7, "specular": 0.25, "roughness": 0.5},
    )


def _cell(scene: Scene) -> go.Scatter3d:
    import plotly.graph_objects as go

    # a gap after each edge, so that one trace draws all twelve
    gaps = np.full((12, 1, 3), np.nan)
    x, y, z = np.concatenate([scene.edges, gaps], axis=1).reshape(-1, 3).T
    return go.Scatter3d(
        x=x, y=y, z=z, mode="lines", name="cell", line={"color": "rgb(90,90,90)", "width": 3}, hoverinfo="skip"
    )


@cache
def unit_sphere(num_rings: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (num_vertices, 3) and triangles (num_triangles, 3), outside up, of a sphere of radius 1."""
    around = 2 * num_rings
    polar = np.linspace(0.0, np.pi, num_rings + 1)[1:-1, None]
    turn = np.linspace(0.0, 2 * np.pi, around, endpoint=False)[None]
    rings = np.stack(
        [np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar) * np.ones_like(turn)], axis=-1
    ).reshape(-1, 3)
    vertices = np.concatenate([rings, [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]])
    top, bottom = len(rings), len(rings) + 1
    faces: list[tuple[int, int, int]] = []
    for step in range(around):
        after = (step + 1) % around
        faces.append((top, step, after))
        faces.append((bottom, top - around + after, top - around + step))
        for ring in range(num_rings - 2):
            upper, lower = ring * around, (ring + 1) * around
            faces.append((upper + step, lower + step, lower + after))
            faces.append((upper + step, lower + after, upper + after))
    return vertices, np.array(faces)
