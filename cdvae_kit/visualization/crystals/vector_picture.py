"""A crystal as a small still SVG picture, and as the few numbers from which a page makes the one that turns.

One picture takes a few kilobytes whatever the printer or the screen; spheres are circles whose shading, one gradient an
element, is defined once a page.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import groupby
from typing import Any

import numpy as np

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.symmetry import symmetry_of
from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.visualization.crystals.projection import camera, frame_of, project
from cdvae_kit.visualization.crystals.scene import (
    Scene,
    corner_atom,
    element_color,
    element_radius,
    element_symbol,
    make_scene,
)
from cdvae_kit.visualization.crystals.structures import ATOM_SCALE, VIEW

SIDE = 200
"""Of the square that the picture is drawn in, user units."""

_HEIGHT_SEEN = 2.05
_SYMMETRIC = 0.01
_LAST_TRICLINIC = 2
_MOST_REDRAWN = 200


def scene_of_arrays(crystal: CrystalArrays) -> Scene:
    """The scene with an atom of the rarest element on the corner of the cell; `ValueError` where there is none."""
    if crystal.fault is not None:
        raise ValueError(f"there is nothing to draw: {crystal.fault}")
    import torch

    batch = CrystalBatch(
        torch.tensor(crystal.frac_coords, dtype=torch.float64),
        torch.tensor(crystal.lattice, dtype=torch.float64)[None],
        torch.tensor(crystal.atomic_numbers, dtype=torch.int64),
        torch.tensor([len(crystal.atomic_numbers)]),
    )
    return make_scene(batch, on_corner=corner_atom(batch))


def conventional_cell(crystal: CrystalArrays) -> CrystalArrays:
    """The crystal in the conventional cell of its space group, which shows its symmetry; else as it is.

    Only what is symmetric to 0.01 angstrom is redrawn, so that no distortion is hidden.
    """
    if crystal.fault is not None:
        return crystal
    found = symmetry_of(
        crystal.lattice.tolist(), crystal.frac_coords.tolist(), crystal.atomic_numbers.tolist(), _SYMMETRIC
    )
    if found is None or found.number <= _LAST_TRICLINIC or len(found.std_cell.numbers) > _MOST_REDRAWN:
        return crystal
    cell = found.std_cell
    return CrystalArrays(np.array(cell.basis), np.array(cell.positions), np.array(cell.numbers, dtype=np.int64))


def picture(scene: Scene, label: str) -> str:
    """An SVG element, which needs the `gradients` of its elements in the same page.

    Args:
        scene: the crystal.
        label: read out by a screen reader.
    """
    seen = project(scene, VIEW, ATOM_SCALE)
    zoom = SIDE / 2 / frame_of([scene], VIEW, ATOM_SCALE)

    def on_paper(points: np.ndarray) -> np.ndarray:
        return SIDE / 2 + zoom * points[..., :2] * np.array([1.0, -1.0])

    drawn: dict[int, str] = {}
    for lines, kind in ((scene.bonds, "bond"), (scene.edges, "edge")):
        pieces, painted_before = seen.pieces(lines)
        for rank in np.unique(painted_before).tolist():
            drawn[rank] = drawn.get(rank, "") + _lines(on_paper(pieces[painted_before == rank]), kind)
    centres = on_paper(seen.atoms)
    parts = []
    for rank in range(len(seen.order) + 1):
        parts.append(drawn.get(rank, ""))
        if rank < len(seen.order):
            i = int(seen.order[rank])
            (x, y), radius = centres[i], zoom * seen.radii[i]
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="url(#e{scene.atomic_numbers[i]})"/>'
            )
    return (
        f'<svg class="still" viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _lines(pieces: np.ndarray, kind: str) -> str:
    """Pieces of one depth as one path; those that go on where the last one ended are joined."""
    if not len(pieces):
        return ""
    starts, ends = pieces[:, 0], pieces[:, 1]
    run = np.cumsum([True, *(np.abs(starts[1:] - ends[:-1]).max(-1) > 1e-6)])
    path = []
    for _, members in groupby(range(len(pieces)), key=lambda i: run[i]):
        whole = list(members)
        (x, y), (u, v) = starts[whole[0]], ends[whole[-1]]
        path.append(f"M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}")
    return f'<path class="{kind}" d="{"".join(path)}"/>'


def gradients(elements: Iterable[int]) -> str:
    """An invisible SVG with the shading of each element, lit from the upper left."""
    shades = []
    for number in sorted(set(elements)):
        color = np.array(element_color(number))
        stops = ((0, 0.45 + 0.55 * color), (45, color), (100, 0.68 * color))
        inner = "".join(f'<stop offset="{share}%" stop-color="{_css(rgb)}"/>' for share, rgb in stops)
        shades.append(f'<radialGradient id="e{number}" cx="36%" cy="32%" r="75%">{inner}</radialGradient>')
    return f'<svg width="0" height="0" class="away" aria-hidden="true"><defs>{"".join(shades)}</defs></svg>'


def turning(scene: Scene) -> dict[str, Any]:
    """What the page's script builds the meshes from: spheres by element, bonds, edges of the cell, the eye."""
    atoms = [
        {
            "symbol": element_symbol(number),
            "color": _css(np.array(element_color(number))),
            "radius": round(ATOM_SCALE * element_radius(number), 3),
            "at": scene.positions[members].round(3).tolist(),
            "where": scene.frac_coords[members].round(3).tolist(),
        }
        for number, members in scene.by_element.items()
    ]
    return {
        "atoms": atoms,
        "edges": scene.edges.round(3).tolist(),
        "bonds": scene.bonds.round(3).tolist(),
        "eye": (2.5 * camera(VIEW)[2]).round(4).tolist(),
        "aspect": _aspect(scene).round(4).tolist(),
    }


def _aspect(scene: Scene) -> np.ndarray:
    """(3,) sides of the box, in plotly's units, that make its picture as large as the still one.

    plotly's orthographic camera sees a height of `_HEIGHT_SEEN` such units from wherever it stands.
    """
    radii = scene.radii(ATOM_SCALE)[:, None]
    corners = scene.edges.reshape(-1, 3)
    points = np.concatenate([scene.positions - radii, scene.positions + radii, corners])
    return np.ptp(points, axis=0) * _HEIGHT_SEEN / (2 * frame_of([scene], VIEW, ATOM_SCALE))


def css_color(atomic_number: int) -> str:
    """The colour of an element, as the pictures have it.

    >>> css_color(8)
    '#ff0d0d'
    """
    return _css(np.array(element_color(atomic_number)))


def _css(rgb: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in np.clip(rgb, 0.0, 1.0))
