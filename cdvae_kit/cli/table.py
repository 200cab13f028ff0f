"""The table of crystals that `sample`, `reconstruct`, `interpolate` and `info` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cdvae_kit.cli.console import print_result, print_table

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
    rows = crystal_rows(crystals, verdicts)
    print_table(crystal_table(rows), crystals=rows)
    print_result(summary(verdicts), num_crystals=len(crystals), num_valid=sum(verdict.valid for verdict in verdicts))


def crystal_rows(crystals: CrystalBatch, verdicts: Sequence[Validity]) -> list[dict[str, Any]]:
    """What each crystal is, by name; None for what cannot be told."""
    from cdvae_kit.crystal.symmetry import space_group

    names: Sequence[str | None] = crystals.material_ids or [None] * len(crystals)
    found = zip(crystals, names, crystals.formulas(), space_group(crystals), verdicts, strict=True)
    return [
        {
            "name": name,
            "formula": formula,
            "num_atoms": int(crystal.num_atoms),
            "space_group": group.number,
            "space_group_symbol": None if group.number is None else group.symbol,
            "density": _density(crystal),
            "shortest_distance": _shortest_distance(crystal),
            "valid": verdict.valid,
            "reason": None if verdict.valid else verdict.reason or "no",
            **{key: float(values[0]) for key, values in crystal.properties.items()},
        }
        for crystal, name, formula, group, verdict in found
    ]


def crystal_table(rows: Sequence[dict[str, Any]], *, max_rows: int = MAX_ROWS) -> Table:
    """One row a crystal, at most `max_rows`: what it is, and whether it is valid or why not."""
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for title in ("#", "formula", "atoms", "space group", "density\ng/cm³", "shortest\ndistance, Å"):
        table.add_column(title, justify="left" if title in ("formula", "space group") else "right")
    table.add_column("valid?", overflow="fold")
    for i, row in enumerate(rows[:max_rows]):
        table.add_row(
            str(i + 1),
            row["formula"],
            str(row["num_atoms"]),
            UNKNOWN if row["space_group"] is None else f"{row['space_group_symbol']} ({row['space_group']})",
            *(UNKNOWN if row[key] is None else f"{row[key]:.2f}" for key in ("density", "shortest_distance")),
            "[green]yes[/]" if row["valid"] else f"[red]{escape(row['reason'])}[/]",
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


def _density(crystal: CrystalBatch) -> float | None:
    from pymatgen.core import Element

    from cdvae_kit.crystal.lattice import volume

    cubic_angstrom = float(volume(crystal.lattice))
    if not cubic_angstrom > 0.0:
        return None
    mass = sum(float(Element.from_Z(number).atomic_mass) for number in crystal.atomic_numbers.tolist())
    return mass * GRAMS_PER_CUBIC_CENTIMETRE / cubic_angstrom


def _shortest_distance(crystal: CrystalBatch) -> float | None:
    from cdvae_kit.crystal.periodic_images import shortest_distances

    try:
        return float(shortest_distances(crystal))
    except ValueError:  # a collapsed or non-finite cell; the verdict says so
        return None
