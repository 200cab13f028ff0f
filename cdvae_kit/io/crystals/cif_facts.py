"""What a CIF says of its crystal beside the sites, compared with the crystal that was built of them.

Formula (times Z), volume, density, multiplicities of the sites: a crystal that does not fit them is another one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cdvae_kit.crystal.species import element_symbols
from cdvae_kit.io.crystals.cif_grammar import NULLS, CifBlock

_VOLUME_TOLERANCE = 0.01
_DENSITY_TOLERANCE = 0.03
_FRACTION_TOLERANCE = 0.02
_GRAMS = 1.66053907  # one atomic mass unit in a cubic angstrom, g/cm3
_PART = re.compile(r"([A-Z][a-z]?)(\d+(?:\.\d*)?|\.\d+)?")
_WORD = re.compile(r"([A-Za-z]{1,2})(\d+(?:\.\d*)?|\.\d+)?")
_MULTIPLICITIES = ("_atom_site_site_symmetry_multiplicity", "_atom_site_symmetry_multiplicity")


class Built(NamedTuple):
    """A crystal and how it came about: `counts` positions of each listed site, of `num_operations`.

    `rows` are the rows of the sites in the file's loop.
    """

    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    counts: np.ndarray
    num_operations: int
    rows: np.ndarray


def stated_formula(block: CifBlock) -> dict[str, float] | None:
    """Symbol to count of `_chemical_formula_sum`, deuterium as hydrogen; None where it says nothing that is clear."""
    text = block.value("_chemical_formula_sum")
    if text is None:
        return None
    counts: dict[str, float] = {}
    for word in text.split():
        whole = _WORD.fullmatch(word)
        parts = [whole.groups()] if whole else [part.groups() for part in _PART.finditer(word)]
        if not whole and "".join(symbol + (count or "") for symbol, count in parts) != word:
            return None
        for symbol, count in parts:
            if whole and len(symbol) == 2 and symbol.capitalize() not in element_symbols():
                return None
            name = {"D": "H", "T": "H"}.get(symbol.capitalize(), symbol.capitalize())
            if name not in element_symbols():
                return None
            counts[name] = counts.get(name, 0.0) + float(count or 1)
    return {name: count for name, count in counts.items() if count > 0.0} or None


def contradictions_of(block: CifBlock, built: Built) -> list[str]:
    """Each statement of the file that the crystal does not fit, with both sides."""
    found = [_of_formula(block, built), _of_volume(block, built), _of_density(block, built)]
    found.append(_of_multiplicities(block, built))
    return [text for text in found if text is not None]


def _number_of(block: CifBlock, *tags: str) -> float | None:
    text = block.value(*tags)
    if text is None:
        return None
    try:
        value = float(re.sub(r"\(\d*\)?$", "", text.strip()))
    except ValueError:
        return None
    return value if np.isfinite(value) and value > 0.0 else None


def _of_formula(block: CifBlock, built: Built) -> str | None:
    formula = stated_formula(block)
    if formula is None:
        return None
    symbols = {number: symbol for symbol, number in element_symbols().items()}
    numbers, counts = np.unique(built.atomic_numbers, return_counts=True)
    have = {symbols[int(number)]: int(count) for number, count in zip(numbers, counts, strict=True)}
    stated = block.value("_chemical_formula_sum")
    shown = " ".join(f"{symbol}{count}" for symbol, count in have.items())
    fault = f"the formula is {stated!r}, and the cell holds {shown}"
    if have.keys() != formula.keys():
        return fault
    whole = all(count == round(count) for count in formula.values())
    times = sum(have.values()) / sum(formula.values())
    if not all(_alike(have[name], count * times, whole=whole) for name, count in formula.items()):
        return fault
    units = _number_of(block, "_cell_formula_units_z", "_cell_z_pdb")
    # programs that write the formula of the cell leave Z as it is
    if units is not None and not _alike(times, units, whole=whole) and not _alike(times, 1.0, whole=whole):
        return f"{fault}, {times:g} times the formula where Z is {units:g}"
    return None


def _alike(left: float, right: float, *, whole: bool) -> bool:
    return abs(left - right) <= (1e-6 if whole else _FRACTION_TOLERANCE) * max(abs(left), abs(right))


def _of_volume(block: CifBlock, built: Built) -> str | None:
    stated = _number_of(block, "_cell_volume")
    if stated is None:
        return None
    volume = abs(float(np.linalg.det(built.lattice)))
    if abs(volume - stated) <= _VOLUME_TOLERANCE * stated + 0.01:
        return None
    return f"the stated volume is {stated:g} cubic angstrom, and the cell has {volume:.6g}"


def _of_density(block: CifBlock, built: Built) -> str | None:
    stated = _number_of(block, "_exptl_crystal_density_diffrn")
    if stated is None:
        return None
    from ase.data import atomic_masses

    masses = atomic_masses[built.atomic_numbers]
    light = masses.sum()
    # in a file with deuterium each hydrogen may be heavy
    heavy = light + 1.006 * float((built.atomic_numbers == 1).sum()) if _has_deuterium(block) else light
    volume = abs(float(np.linalg.det(built.lattice)))
    low, high = light * _GRAMS / volume, heavy * _GRAMS / volume
    if low * (1 - _DENSITY_TOLERANCE) - 0.01 <= stated <= high * (1 + _DENSITY_TOLERANCE) + 0.01:
        return None
    return f"the stated density is {stated:g} g/cm3, and the crystal has {low:.4g}"


def _has_deuterium(block: CifBlock) -> bool:
    words = [*(block.column("_atom_site_type_symbol") or []), block.value("_chemical_formula_sum") or ""]
    return any(re.search(r"\bD(?![a-z])", word) for word in words)


def _of_multiplicities(block: CifBlock, built: Built) -> str | None:
    rows = built.rows
    stated = _integers(block, _MULTIPLICITIES, rows)
    # an old version of SHELX wrote the order of the site's symmetry under this tag
    if stated is not None and not (
        (stated == built.counts).all() or (stated * built.counts == built.num_operations).all()
    ):
        place = int((stated != built.counts).argmax())
        return _of_site(block, rows[place], "multiplicity", stated[place], built.counts[place])
    orders = _integers(block, ("_atom_site_site_symmetry_order",), rows)
    if orders is not None and not (orders * built.counts == built.num_operations).all():
        place = int((orders * built.counts != built.num_operations).argmax())
        order = built.num_operations // int(built.counts[place])
        return _of_site(block, rows[place], "order of the site symmetry", orders[place], order)
    return None


def _of_site(block: CifBlock, row: int, what: str, stated: int, found: int) -> str:
    labels = block.column("_atom_site_label", "_atom_site_type_symbol") or []
    return f"the {what} of the site {labels[row]} is stated as {stated}, and the operations give {found}"


def _integers(block: CifBlock, tags: Sequence[str], rows: np.ndarray) -> np.ndarray | None:
    """A column of the sites as integers; None where one of them is not stated."""
    column = block.column(*tags)
    if column is None or len(column) <= int(rows.max()):
        return None
    texts = [column[row] for row in rows]
    if any(text in NULLS or not text.isdigit() or len(text) > 6 for text in texts):
        return None
    return np.array([int(text) for text in texts])
