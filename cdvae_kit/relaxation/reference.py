"""A reference hull by the calculator that judges the crystals too: a reference set, and the elements it lacks.

Sets of compounds seldom hold the elements, without which nothing has a distance to the hull. Their structures are
known, so the calculator can say what they cost: crystals as ASE lists them, some that ASE lists without positions,
and molecules in a box. A calculator that errs on an element (O2 above all) errs on all of its compounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols
from ase.spacegroup import crystal

from cdvae_kit.relaxation.calculators import describe_calculator
from cdvae_kit.relaxation.hull import Phase, ReferenceHull, phases_of_relaxations
from cdvae_kit.relaxation.relax import AnyCalculator, iter_relax
from cdvae_kit.relaxation.result import Crystals, Relaxation, RelaxationSettings
from cdvae_kit.typing import Progress

_BOX = 12.0

_BONDS = {"H": 0.741, "N": 1.098, "O": 1.208, "F": 1.412}
"""Lengths of the diatomic molecules, angstrom (CRC Handbook of Chemistry and Physics)."""

# space group, cell in angstrom and degrees, sites; Wyckoff, Crystal Structures (1963) and Donohue, The Structures of
# the Elements (1974); any calculator moves them, so the last digits do not matter
_CRYSTALS: dict[str, tuple[int, tuple[float, ...], list[tuple[float, float, float]]]] = {
    "B": (166, (4.908, 4.908, 12.567, 90, 90, 120), [(0.1189, -0.1189, 0.8913), (0.1969, -0.1969, 0.0243)]),
    # graphite, where ASE has diamond
    "C": (194, (2.464, 2.464, 6.711, 90, 90, 120), [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25)]),
    "P": (64, (3.314, 10.478, 4.376, 90, 90, 90), [(0, 0.1017, 0.0806)]),
    "Cl": (64, (6.24, 4.48, 8.26, 90, 90, 90), [(0, 0.130, 0.100)]),
    "Mn": (
        217,
        (8.911, 8.911, 8.911, 90, 90, 90),
        [(0, 0, 0), (0.3177, 0.3177, 0.3177), (0.3571, 0.3571, 0.0347), (0.0896, 0.0896, 0.2819)],
    ),
    "Ga": (64, (4.519, 7.659, 4.526, 90, 90, 90), [(0, 0.1539, 0.081)]),
    "Se": (152, (4.366, 4.366, 4.954, 90, 90, 120), [(0.2254, 0, 1 / 3)]),
    "Br": (64, (6.67, 4.48, 8.72, 90, 90, 90), [(0, 0.135, 0.110)]),
    "Te": (152, (4.457, 4.457, 5.929, 90, 90, 120), [(0.2636, 0, 1 / 3)]),
    # ASE makes U and Np with one atom in the cell of four and eight
    "U": (63, (2.854, 5.870, 4.955, 90, 90, 90), [(0, 0.1025, 0.25)]),
    "Np": (62, (6.663, 4.723, 4.887, 90, 90, 90), [(0.036, 0.25, 0.208), (0.319, 0.25, 0.842)]),
    "I": (64, (7.18, 4.71, 9.81, 90, 90, 90), [(0, 0.1543, 0.1174)]),
}


@dataclass(frozen=True)
class CalculatedHull:
    """A hull and what it was made of.

    Attributes:
        hull: of the reference crystals that have an energy, and of the elements.
        relaxations: of the reference crystals, in order.
        missing: elements that no phase was found for, and why: crystals that hold them get no verdict.
    """

    hull: ReferenceHull
    relaxations: list[Relaxation]
    missing: Mapping[int, str]


def elemental_structure(number: int) -> Atoms | None:
    """The element as a crystal, or as a molecule in a box of 12 angstrom (H, N, O, F, S); None where none is known.

    >>> elemental_structure(26).get_chemical_formula(), elemental_structure(8).get_chemical_formula()
    ('Fe', 'O2')
    """
    symbol = chemical_symbols[number]
    if symbol in _BONDS:
        sites = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, _BONDS[symbol]]])
        return Atoms([symbol] * 2, positions=sites, cell=[_BOX] * 3, pbc=True)
    if symbol == "S":
        return Atoms("S8", positions=_crown(bond=2.05, angle=108.0), cell=[_BOX] * 3, pbc=True)
    if symbol in _CRYSTALS:
        group, cell, sites_of_cell = _CRYSTALS[symbol]
        symbols = [symbol] * len(sites_of_cell)
        return crystal(symbols, sites_of_cell, spacegroup=group, cellpar=cell, primitive_cell=True)
    try:
        return bulk(symbol)
    except (RuntimeError, ValueError):  # what ASE raises where it lists no structure, or one without positions
        return None


def is_molecule(number: int) -> bool:
    """Whether the element is taken as a molecule, whose box must not be relaxed."""
    return chemical_symbols[number] in {*_BONDS, "S"}


def elemental_phases(
    numbers: Iterable[int],
    calculator: AnyCalculator,
    settings: RelaxationSettings | None = None,
    *,
    device: str = "auto",
) -> tuple[list[Phase], dict[int, str]]:
    """A phase of each element, and the reason for each that has none.

    Args:
        numbers: atomic numbers.
        calculator: as in `relax`.
        settings: `relax_cell` does not matter: cells of crystals are relaxed, boxes of molecules are not.
        device: for a calculator that is given by name.
    """
    settings = settings or RelaxationSettings()
    wanted = sorted(set(numbers))
    structures = {number: structure for number in wanted if (structure := elemental_structure(number)) is not None}
    missing = {number: "no structure of the element is known here" for number in wanted if number not in structures}
    phases = []
    for molecular in (False, True):
        chosen = [number for number in structures if is_molecule(number) == molecular]
        how = replace(settings, relax_cell=not molecular)
        results = dict(iter_relax([structures[number] for number in chosen], calculator, how, device=device))
        for i, number in enumerate(chosen):
            result = results[i]
            if result.energy_per_atom is None:
                missing[number] = result.reason or "there is no energy"
            else:
                phases.append(Phase({number: 1}, result.energy_per_atom, chemical_symbols[number]))
    return phases, missing


def calculate_hull(
    reference: Crystals,
    calculator: AnyCalculator,
    settings: RelaxationSettings | None = None,
    *,
    name: str = "reference set",
    elements: Iterable[int] = (),
    device: str = "auto",
    num_workers: int = 1,
    progress: Progress | None = None,
) -> CalculatedHull:
    """The hull of a reference set that the calculator relaxes, with the elements that the set lacks.

    Args:
        reference: crystals; those that fail are left out of the hull.
        calculator: as in `relax`; the crystals that are judged need the same one.
        settings: how to relax; give the same for the crystals that are judged.
        name: of the set.
        elements: atomic numbers that crystals to be judged hold, besides those of the set.
        device: for a calculator that is given by name.
        num_workers: processes; -1 takes every core.
        progress: told how many reference crystals are done.
    """
    settings = settings or RelaxationSettings()
    results: dict[int, Relaxation] = {}
    for place, result in iter_relax(reference, calculator, settings, device=device, num_workers=num_workers):
        results[place] = result
        if progress is not None:
            progress(len(results), len(reference))
    relaxations = [results[i] for i in range(len(results))]
    phases = phases_of_relaxations(relaxations)
    pure = {number for phase in phases if len(phase.composition) == 1 for number in phase.composition}
    wanted = {number for relaxation in relaxations for number in relaxation.composition} | set(elements)
    # the lowest counts, so a set's own elements are compared with these too
    added, missing = elemental_phases(wanted, calculator, settings, device=device)
    phases += added
    if not phases:
        raise ValueError(
            f"none of {len(relaxations)} reference crystals and {len(wanted)} elements has an energy by "
            f"{describe_calculator(calculator)}; the first reason: "
            f"{next((r.reason for r in relaxations), None) or next(iter(missing.values()), 'the reference is empty')}"
        )
    text = f"{name} and elements by {describe_calculator(calculator)}, {settings}"
    still = {number: reason for number, reason in missing.items() if number not in pure}
    return CalculatedHull(ReferenceHull(phases, name=text), relaxations, still)


def _crown(*, bond: float, angle: float) -> np.ndarray:
    """(8, 3) positions of an eight-membered ring whose atoms go up and down in turn."""
    radius = 2 * bond * math.sin(math.radians(angle / 2)) / (2 * math.sin(math.pi / 4))
    height = math.sqrt(bond**2 - (2 * radius * math.sin(math.pi / 8)) ** 2) / 2
    turns = np.arange(8) * math.pi / 4
    return np.stack([radius * np.cos(turns), radius * np.sin(turns), height * (-1.0) ** np.arange(8)], axis=1)
