"""From noise to a crystal, as a row of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.diffusion.state import NoisyCrystals
from cdvae_kit.visualization.crystals.canvas import add_legend, draw, new_figure
from cdvae_kit.visualization.crystals.projection import frame_of
from cdvae_kit.visualization.crystals.scene import corner_atom, make_scene
from cdvae_kit.visualization.crystals.structures import ATOM_SCALE, VIEW, Origin, check_options, elements_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_denoising(
    path: Iterable[NoisyCrystals | CrystalBatch],
    *,
    crystal: int = 0,
    num_frames: int = 6,
    images: bool = True,
    origin: Origin = "cell",
    view: tuple[float, float] = VIEW,
    atom_scale: float = ATOM_SCALE,
) -> Figure:
    """A row of pictures of one crystal on its way from noise, all at one scale.

    An atom whose element is not known yet is grey.

    Args:
        path: the start and the state after each step, as `cdvae_kit.models.decoding.denoise` gives them.
        crystal: which of the path's crystals.
        num_frames: pictures, the first state and the last among them; fewer where the path has fewer states.
        images: as the rest, see `plot_structure`. With `origin="atom"` one atom lies on the corner in all pictures.
    """
    check_options(atom_scale, origin)
    states = list(path)
    if len(states) < 2:
        raise ValueError(f"a denoising path has a start and at least one step, got {len(states)} states")
    if num_frames < 2:
        raise ValueError(f"num_frames must be at least 2, the start and the end, got {num_frames}")
    if not 0 <= crystal < len(states[0].num_atoms):
        raise IndexError(f"the path is of {len(states[0].num_atoms)} crystals, from 0; there is no crystal {crystal}")
    last = len(states) - 1
    steps = np.unique(np.linspace(0, last, min(num_frames, len(states))).round().astype(int)).tolist()
    # elements may change on the way, and are settled at the end
    on_corner = corner_atom(states[-1], crystal) if origin == "atom" else None
    scenes = [make_scene(states[step], crystal, images=images, on_corner=on_corner) for step in steps]
    half_side = frame_of(scenes, view, atom_scale)
    figure = new_figure(1.9 * len(scenes), 2.6)
    for panel, scene, step in zip(figure.subplots(1, len(scenes)), scenes, steps, strict=True):
        draw(panel, scene, view=view, atom_scale=atom_scale, half_side=half_side, axis_names=False)
        panel.set_title("noise" if step == 0 else f"step {step} of {last}", fontsize="small")
    add_legend(figure, elements_of(scenes))
    return figure
