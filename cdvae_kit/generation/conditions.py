"""What a user asks crystals for, in words: formulas, symbols and groups into conditions, and back into checks."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.symmetric import describe
from cdvae_kit.crystal.symmetry import CRYSTAL_SYSTEMS, crystal_system, space_group
from cdvae_kit.crystal.wyckoff import all_positions, position_of, wyckoff_positions
from cdvae_kit.metrics.composition_rules import CompositionRule, check_composition
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.contents import fits_groups, generic_crystal, has_its_group

if TYPE_CHECKING:
    from cdvae_kit.models import CDVAE

_TOLERANCE = 0.01
"""Angstrom, for the group of a crystal that was made with its symmetry."""


def conditions_from(
    *,
    formula: str | None = None,
    formula_units: int | Literal["all"] = "all",
    elements: Sequence[str] | None = None,
    contains: Sequence[str] | None = None,
    without: Sequence[str] | None = None,
    num_atoms: int | None = None,
    space_group: int | None = None,
    crystal_system: str | None = None,
    sites: Mapping[str, Sequence[str]] | None = None,
    properties: Mapping[str, float] | None = None,
    neutral: CompositionRule | None = None,
) -> Conditions | None:
    """What is asked for, None if nothing is.

    Args:
        formula: such as `BaTiO3`; crystals have exactly this ratio of elements.
        formula_units: in a primitive cell; "all" leaves the number to the model.
        elements: symbols of the chemical system: each occurs, and no other.
        contains: symbols of elements that occur.
        without: symbols of elements that do not.
        num_atoms: in the primitive cell.
        space_group: 1 to 230.
        crystal_system: triclinic to cubic.
        sites: symbol to the letters of the Wyckoff positions that its orbits have in the space group, all of them; from
            these the formula follows.
        properties: name to value.
        neutral: the SMACT rule that compositions pass.

    Raises:
        ValueError: a symbol or formula that there is not, or wishes that contradict each other.

    >>> conditions_from(formula="BaTiO3").composition
    {8: 3, 22: 1, 56: 1}
    """
    given = (formula, elements, contains, without, num_atoms, space_group, crystal_system, sites, properties, neutral)
    if all(value is None for value in given):
        return None
    composition = None if formula is None else parse_formula(formula)
    units = None if formula is None or formula_units == "all" else (formula_units,)
    orbits = None
    if sites is not None:
        orbits = [(parse_element(symbol), letter) for symbol, letters in sites.items() for letter in letters]
        orbits = _canonical(orbits, space_group)
        composition, found = _of_sites(orbits, space_group, composition)
        units = units or found
    return Conditions(
        composition=composition,
        units=units,
        elements=None if elements is None else [parse_element(symbol) for symbol in elements],
        contains=None if contains is None else [parse_element(symbol) for symbol in contains],
        without=None if without is None else [parse_element(symbol) for symbol in without],
        num_atoms=num_atoms,
        space_group=space_group,
        crystal_system=None if crystal_system is None else _parse_system(crystal_system),
        sites=orbits,
        properties=properties or None,
        is_allowed=None if neutral is None else _Neutral(neutral),
    )


def _canonical(orbits: Sequence[tuple[int, str]], group: int | None) -> list[tuple[int, str]]:
    """The same Wyckoff positions as the canonical description has them, seen from the origin that it takes."""
    if group is None:
        raise ValueError("letters of Wyckoff positions belong to a space group; give that, too")
    if not orbits:
        raise ValueError("no Wyckoff position is given; name those of all atoms, such as Na:a and Cl:b in group 225")
    elements = torch.tensor([number for number, _ in orbits])
    positions = torch.tensor([position_of(group, letter).index for _, letter in orbits])
    found = describe(generic_crystal(group, positions, elements).plain(), tolerance=_TOLERANCE)
    if int(found.space_group) != group or len(found.position) != len(orbits):
        raise ValueError(
            f"crystals with these Wyckoff positions have more symmetry than space group {group}, or atoms that coincide"
        )
    letters = [all_positions()[position].letter for position in found.position.tolist()]
    return list(zip(found.elements.tolist(), letters, strict=True))


def _of_sites(
    orbits: Sequence[tuple[int, str]], group: int | None, formula: Mapping[int, int] | None
) -> tuple[dict[int, int], tuple[int]]:
    """Formula and formula units in the primitive cell of all orbits of a crystal; the formula as given, if it is."""
    assert group is not None
    counts: dict[int, int] = {}
    for number, letter in orbits:
        counts[number] = counts.get(number, 0) + position_of(group, letter).primitive_multiplicity
    unit = sum(formula.values()) if formula is not None else 0
    units = sum(counts.values()) // unit if unit else int(np.gcd.reduce(list(counts.values())))
    return dict(formula or {n: count // units for n, count in sorted(counts.items())}), (max(1, units),)


def parse_sites(words: Sequence[str]) -> dict[str, list[str]]:
    """Symbol to letters, from words such as `Na:a` and `O:e,f`.

    >>> parse_sites(["Ba:a", "Ti:b", "O:c"])
    {'Ba': ['a'], 'Ti': ['b'], 'O': ['c']}
    """
    found: dict[str, list[str]] = {}
    for word in words:
        symbol, colon, letters = word.partition(":")
        split = [letter.strip() for letter in letters.split(",")]
        if not colon or not all(len(letter) == 1 and letter.isalpha() for letter in split):
            raise ValueError(f"{word!r} says of no element which Wyckoff positions it has; write Na:a or O:e,f")
        found.setdefault(symbol.strip(), []).extend(split)
    return found


class _Neutral:
    """Whether a composition passes a SMACT rule; compares by the rule."""

    def __init__(self, rule: CompositionRule) -> None:
        self.rule = rule

    def __call__(self, composition: Mapping[int, int]) -> bool:
        divisor = int(np.gcd.reduce(list(composition.values())))
        reduced = tuple(sorted((number, count // divisor) for number, count in composition.items()))
        return check_composition(reduced, self.rule) is None

    def __repr__(self) -> str:
        return f"neutral by {self.rule}"


def parse_element(symbol: str) -> int:
    """The atomic number of a symbol.

    >>> parse_element("Ti")
    22
    """
    from ase.data import atomic_numbers

    number = atomic_numbers.get(symbol.strip())
    if not number:
        raise ValueError(f"there is no element {symbol.strip()!r}; write symbols such as Li, Fe, O")
    return int(number)


def parse_formula(formula: str) -> dict[int, int]:
    """{atomic number: atoms}, in order of atomic number, of one formula unit as it is written.

    >>> parse_formula("Ca3(PO4)2")
    {8: 8, 15: 2, 20: 3}
    """
    from pymatgen.core import Composition, Element

    try:
        composition = Composition(formula)
    except (ArithmeticError, LookupError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"{formula[:80]!r} is no formula; write it as BaTiO3 or Ca3(PO4)2") from error
    counts: dict[int, int] = {}
    for species, amount in composition.items():
        if not isinstance(species, Element) or species.symbol in ("D", "T"):
            symbol = re.sub(r"[^A-Za-z].*", "", str(species))
            raise ValueError(f"{formula[:80]!r} holds {symbol}, which is no element of the models")
        if not 0.5 <= amount < math.inf or abs(amount - round(amount)) > 1e-6:
            raise ValueError(f"{formula[:80]!r} has {amount:g} {species}; integers are expected")
        counts[species.Z] = round(amount)
    if not counts:
        raise ValueError("the formula is empty; write it as BaTiO3")
    return dict(sorted(counts.items()))


def _parse_system(name: str) -> str:
    if name.lower() not in CRYSTAL_SYSTEMS:
        raise ValueError(f"the crystal systems are {', '.join(CRYSTAL_SYSTEMS)}, got {name!r}")
    return name.lower()


def check_possible(model: CDVAE, conditions: Conditions) -> None:
    """Raises `ValueError` where no crystal of the model can be what is asked for, and says why.

    Elements, sizes and properties are compared with what the model knows; a formula in a space group with the
    multiplicities of its Wyckoff positions.
    """
    from ase.data import chemical_symbols

    limits = conditions.limits()
    known = set(model.known_elements.tolist())
    if unknown := sorted(set(limits.required) - known):
        raise ValueError(f"the model has never seen {', '.join(chemical_symbols[number] for number in unknown)}")
    sizes = limits.allowed_sizes(model.config.max_atoms)
    model.conditions.asked(conditions)
    if (
        limits.is_allowed is not None
        and limits.composition is not None
        and not limits.is_allowed(dict(limits.composition))
    ):
        raise ValueError(f"the formula itself is not {limits.is_allowed!r}")
    if limits.space_groups is None:
        return
    head = model.symmetry_head
    groups = [group for group in limits.space_groups if bool(head.known_groups[group])]
    if not groups:
        asked = ", ".join(map(str, limits.space_groups[:8]))
        raise ValueError(
            f"the model has never seen a crystal of space group {asked}; it knows "
            f"{', '.join(map(str, head.known_groups.nonzero().squeeze(-1).tolist()))}"
        )
    if limits.sites is not None:
        if never := sorted({all_positions()[p].letter for _, p in limits.sites if not head.known_positions[p]}):
            raise ValueError(
                f"the model has never seen an atom on position {', '.join(never)} of space group {groups[0]}; it knows "
                f"{', '.join(p.letter for p in wyckoff_positions(groups[0]) if head.known_positions[p.index])}"
            )
        elements, positions = (torch.tensor(column) for column in zip(*limits.sites, strict=True))
        if not has_its_group(groups[0], positions, elements):
            raise ValueError(f"crystals with these Wyckoff positions have more symmetry than space group {groups[0]}")
        return
    if limits.composition is None:
        return
    unit = limits.unit_counts(torch.device("cpu")).numpy()
    allowed = torch.zeros_like(head.known_groups)
    allowed[groups] = True
    if not any(fits_groups(model, allowed, unit * (size // unit.sum())) for size in sizes):
        raise ValueError(_does_not_fit(model, groups, unit, sizes))


def _does_not_fit(model: CDVAE, groups: Sequence[int], unit: np.ndarray, sizes: Sequence[int]) -> str:
    from ase.data import chemical_symbols

    formula = "".join(f"{chemical_symbols[i + 1]}{unit[i]}" for i in np.flatnonzero(unit))
    told = []
    for group in groups[:3]:
        positions = [p for p in wyckoff_positions(group) if bool(model.symmetry_head.known_positions[p.index])]
        once = sorted(p.primitive_multiplicity for p in positions if not p.num_free)
        often = sorted({p.primitive_multiplicity for p in positions if p.num_free})
        told.append(
            f"space group {group} has positions for {', '.join(map(str, once)) or 'no'} atoms (once each) and for "
            f"{', '.join(map(str, often)) or 'no'} atoms (any number of times) in the primitive cell"
        )
    return (
        f"{formula} does not fit: with {', '.join(map(str, sizes[:6]))} atoms no choice of Wyckoff positions has its "
        f"numbers of atoms; {'; '.join(told)}. Ask for another group, or another number of formula units"
    )


def check_crystals(conditions: Conditions, crystals: CrystalBatch) -> list[dict[str, bool]]:
    """Whether each crystal is what was asked for, wish by wish, found out from the finished crystal itself."""
    groups = space_group(crystals, _TOLERANCE)
    bounds = crystals.ptr.tolist()
    numbers = crystals.atomic_numbers.tolist()
    found = [
        _check(conditions, numbers[start:end], groups[i].number) for i, (start, end) in enumerate(pairwise(bounds))
    ]
    if conditions.sites is not None:
        asked = _orbit_sizes(conditions.site_positions())
        described = describe(crystals, tolerance=_TOLERANCE)
        for i, checks in enumerate(found):
            one = described.select([i])
            # letters depend on the choice of origin; how many points an orbit has does not
            checks["sites"] = asked == _orbit_sizes(zip(one.elements.tolist(), one.position.tolist(), strict=True))
    return found


def _orbit_sizes(sites: Iterable[tuple[int, int]]) -> Counter[tuple[int, int]]:
    """How many orbits there are of each element and multiplicity."""
    return Counter((number, all_positions()[position].primitive_multiplicity) for number, position in sites)


def _check(conditions: Conditions, numbers: Sequence[int], group: int | None) -> dict[str, bool]:
    there = set(numbers)
    counts = {number: numbers.count(number) for number in sorted(there)}
    checks: dict[str, bool] = {}
    if conditions.composition is not None:
        unit = dict(conditions.composition)
        times = len(numbers) // sum(unit.values())
        checks["formula"] = counts == {number: count * times for number, count in sorted(unit.items())}
        if conditions.units is not None:
            checks["formula units"] = times in conditions.units
    if conditions.elements is not None:
        checks["elements"] = there == set(conditions.elements)
    if conditions.contains is not None:
        checks["contains"] = there >= set(conditions.contains)
    if conditions.without is not None:
        checks["without"] = not there & set(conditions.without)
    if conditions.num_atoms is not None:
        checks["number of atoms"] = len(numbers) == conditions.num_atoms
    if conditions.space_group is not None:
        checks["space group"] = group == conditions.space_group
    if conditions.crystal_system is not None:
        checks["crystal system"] = group is not None and crystal_system(group) == conditions.crystal_system
    if conditions.is_allowed is not None:
        checks["composition rule"] = conditions.is_allowed(counts)
    return checks
