"""The table of crystals that `sample`, `reconstruct`, `interpolate` and `info` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cdvae_kit.cli.console import output, print_result

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch
    from cdvae_kit.metrics.validity import Validity

MAX_ROWS = 50
"""More crystals than this are counted in the summary, not shown."""

GRAMS_PER_CUBIC_CENTIMETRE = 1.66053906660
"""Of one unified atomic mass unit per cubic angstrom (CODATA 2018)."""

UNKNOWN = "-"


def print_crystals(crystals: CrystalBatch) -> None:
    """The table and, under it, the summary, on standard output."""
    from cdvae_kit.metrics.validity import validity

    verdicts = validity(crystals)
    output().print(crystal_table(crystals, verdicts))
    print_result(summary(verdicts))


def crystal_table(crystals: CrystalBatch, verdicts: Sequence[Validity], *, max_rows: int = MAX_ROWS) -> Table:
    """One row a crystal, at most `max_rows`: what it is, and whether it is valid or why not."""
    from cdvae_kit.crystal.symmetry import space_group

    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for title in ("#", "formula", "atoms", "space group", "density\ng/cm³", "shortest\ndistance, Å"):
        table.add_column(title, justify="left" if title in ("formula", "space group") else "right")
    table.add_column("valid?", overflow="fold")
    shown = crystals.select(range(min(len(crystals), max_rows)))
    groups = space_group(shown)
    rows = zip(shown, shown.formulas(), groups, verdicts, strict=False)
    for i, (crystal, formula, group, verdict) in enumerate(rows):
        table.add_row(
            str(i + 1),
            formula,
            str(int(crystal.num_atoms)),
            UNKNOWN if group.number is None else f"{group.symbol} ({group.number})",
            _density(crystal),
            _shortest_distance(crystal),
            "[green]yes[/]" if verdict.valid else f"[red]{escape(verdict.reason or 'no')}[/]",
        )
    return table


def summary(verdicts: Sequence[Validity], *, max_rows: int = MAX_ROWS) -> str:
    """How many crystals there are and how many of them are valid, in one line.

    >>> from cdvae_kit.metrics.validity import Validity
    >>> summary([Validity(True, True), Validity(True, False, "not neutral")])
    '2 crystals, 1 valid (50.0 %): structure 100.0 %, composition 50.0 %'
    """
    total = len(verdicts)
    if total == 0:
        return "no crystals"
    valid = sum(verdict.valid for verdict in verdicts)
    structure, composition = (
        100 * sum(part) / total for part in zip(*((v.structure, v.composition) for v in verdicts), strict=True)
    )
    line = (
        f"{total} crystal{'s' * (total != 1)}, {valid} valid ({100 * valid / total:.1f} %): "
        f"structure {structure:.1f} %, composition {composition:.1f} %"
    )
    return line if total <= max_rows else f"{line}; the first {max_rows} are shown"


def _density(crystal: CrystalBatch) -> str:
    from pymatgen.core import Element

    from cdvae_kit.crystal.lattice import volume

    cubic_angstrom = float(volume(crystal.lattice))
    if not cubic_angstrom > 0.0:
        return UNKNOWN
    mass = sum(float(Element.from_Z(number).atomic_mass) for number in crystal.atomic_numbers.tolist())
    return f"{mass * GRAMS_PER_CUBIC_CENTIMETRE / cubic_angstrom:.2f}"


def _shortest_distance(crystal: CrystalBatch) -> str:
    from cdvae_kit.crystal.images import shortest_distances

    try:
        return f"{float(shortest_distances(crystal)):.2f}"
    except ValueError:  # a collapsed or non-finite cell; the verdict says so
        return UNKNOWN
