"""Crystals as pictures: one, still or to be turned, or many side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args, overload

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.symmetry import space_group
from cdvae_kit.visualization.crystals.canvas import add_legend, draw, new_figure
from cdvae_kit.visualization.crystals.projection import frame_of
from cdvae_kit.visualization.crystals.scene import Scene, corner_atom, make_scene, one_crystal, several_crystals

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from ase import Atoms
    from matplotlib.figure import Figure
    from pymatgen.core import Structure

VIEW = (14.0, -68.0)
"""Elevation and azimuth of the eye, degrees: c up, a to the right, b away from the reader."""

ATOM_SCALE = 0.45

Origin: TypeAlias = Literal["cell", "atom"]
"""What lies on the corner of the drawn cell: the cell's own origin, or an atom of the rarest element."""

MOST_IN_A_GRID = 100


@overload
def plot_structure(
    crystal: CrystalBatch | Structure | Atoms,
    *,
    interactive: Literal[False] = False,
    images: bool = True,
    origin: Origin = "cell",
    view: tuple[float, float] = VIEW,
    atom_scale: float = ATOM_SCALE,
    title: str | None = None,
) -> Figure: ...
@overload
def plot_structure(
    crystal: CrystalBatch | Structure | Atoms,
    *,
    interactive: Literal[True],
    images: bool = True,
    origin: Origin = "cell",
    view: tuple[float, float] = VIEW,
    atom_scale: float = ATOM_SCALE,
    title: str | None = None,
) -> go.Figure: ...
def plot_structure(
    crystal: CrystalBatch | Structure | Atoms,
    *,
    interactive: bool = False,
    images: bool = True,
    origin: Origin = "cell",
    view: tuple[float, float] = VIEW,
    atom_scale: float = ATOM_SCALE,
    title: str | None = None,
) -> Figure | go.Figure:
    """A picture of one crystal: its cell, its atoms in Jmol's colours, to scale.

    A matplotlib figure, which `savefig` writes to a file and a notebook shows after `%matplotlib inline`; or, with
    `interactive`, a plotly figure that the mouse turns.

    Args:
        crystal: a batch of one crystal, a pymatgen structure or ASE atoms.
        interactive: a figure of plotly's.
        images: draw an atom on a face of the cell on the opposite face too, which makes eight of one on a corner.
        origin: "atom" moves the crystal so that an atom of its rarest element lies on the corner. A generated crystal
            lies anywhere in its cell, and is recognised more easily so.
        view: elevation and azimuth of the eye, degrees.
        atom_scale: radius of a sphere over the element's covalent radius; 1 makes bonded atoms touch.
        title: over the picture; formula and space group if None.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> plot_structure(salt).axes[0].get_title()
    'CsCl, Pm-3m (221)'
    """
    check_options(atom_scale, origin)
    batch = one_crystal(crystal)
    scene = make_scene(batch, images=images, on_corner=corner_atom(batch) if origin == "atom" else None)
    heading = describe(batch)[0] if title is None else title
    if interactive:
        from cdvae_kit.visualization.crystals.interactive import interactive_figure

        return interactive_figure(scene, title=heading, view=view, atom_scale=atom_scale)
    figure = new_figure(4.2, 4.4)
    axes = figure.subplots()
    half_side = frame_of([scene], view, atom_scale)
    draw(axes, scene, view=view, atom_scale=atom_scale, half_side=half_side, axis_names=True)
    axes.set_title(heading, fontsize="medium")
    add_legend(figure, scene.elements)
    return figure


def plot_grid(
    crystals: CrystalBatch | Sequence[Structure | Atoms],
    *,
    columns: int = 4,
    titles: Sequence[str] | None = None,
    images: bool = True,
    origin: Origin = "cell",
    view: tuple[float, float] = VIEW,
    atom_scale: float = ATOM_SCALE,
) -> Figure:
    """A picture of several crystals, row by row, each with its formula and space group and at a scale of its own.

    Args:
        crystals: a batch, or pymatgen structures, or ASE atoms; at most `MOST_IN_A_GRID`.
        columns: pictures in a row.
        titles: one a crystal, in place of formula and space group.
        images: as the rest, see `plot_structure`.
    """
    check_options(atom_scale, origin)
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    batch = several_crystals(crystals)
    if len(batch) > MOST_IN_A_GRID:
        raise ValueError(
            f"a grid shows at most {MOST_IN_A_GRID} crystals, got {len(batch)}; choose some, as in "
            f"batch.select(range({MOST_IN_A_GRID}))"
        )
    headings = describe(batch, line_break=True) if titles is None else list(titles)
    if len(headings) != len(batch):
        raise ValueError(f"expected one title for each of the {len(batch)} crystals, got {len(headings)}")
    scenes = [
        make_scene(batch, i, images=images, on_corner=corner_atom(batch, i) if origin == "atom" else None)
        for i in range(len(batch))
    ]
    columns = min(columns, len(scenes))
    rows = -(-len(scenes) // columns)
    figure = new_figure(1.9 * columns, 2.15 * rows + 0.3)
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for panel in panels[len(scenes) :]:
        panel.remove()
    for panel, scene, heading in zip(panels, scenes, headings, strict=False):
        half_side = frame_of([scene], view, atom_scale)
        draw(panel, scene, view=view, atom_scale=atom_scale, half_side=half_side, axis_names=False)
        panel.set_title(heading, fontsize="small")
    add_legend(figure, elements_of(scenes))
    return figure


def describe(crystals: CrystalBatch, *, line_break: bool = False) -> list[str]:
    """Formula and space group of each crystal, for people: `CsCl, Pm-3m (221)`."""
    from pymatgen.util.string import unicodeify

    groups = space_group(crystals)
    formulas = [unicodeify(structure.composition.reduced_formula) for structure in crystals.structures()]
    between = "\n" if line_break else ", "
    return [
        formula + between + ("no symmetry found" if group.number is None else f"{group.symbol} ({group.number})")
        for formula, group in zip(formulas, groups, strict=True)
    ]


def elements_of(scenes: Sequence[Scene]) -> list[int]:
    return sorted({number for scene in scenes for number in scene.elements})


def check_options(atom_scale: float, origin: str) -> None:
    if not 0.0 < atom_scale <= 2.0:
        raise ValueError(f"atom_scale must lie between 0 and 2, got {atom_scale}")
    if origin not in get_args(Origin):
        raise ValueError(f"origin must be 'cell' or 'atom', got {origin!r}")
