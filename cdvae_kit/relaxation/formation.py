"""Formation energies of relaxed crystals: what a calculator's total energies are next to tabulated ones.

Total energies of a potential have a zero of their own. Less the energies of the pure elements by the same potential
they are formation energies, which a table such as MP-20's has too. The Materials Project's energies are corrected
(anions, and transition metals in oxides and fluorides; Wang et al., Scientific Reports 11, 15496 (2021)). A potential
that was fitted to corrected energies has that in it; one that was fitted to raw ones needs the correction first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cdvae_kit.relaxation.calculators import describe_calculator
from cdvae_kit.relaxation.reference import elemental_phases
from cdvae_kit.relaxation.relax import AnyCalculator
from cdvae_kit.relaxation.result import Relaxation, RelaxationSettings

if TYPE_CHECKING:
    from pymatgen.core import Structure

RAW = ("sevenn", "mace")
"""Calculators whose energies are uncorrected, since they were fitted to the raw energies of MPtrj."""
CORRECTED = ("chgnet",)
"""Calculators whose energies are corrected already."""

# the Hubbard U of the Materials Project's oxides and fluorides, eV (pymatgen's MPRelaxSet)
_HUBBARD_U = {"Co": 3.32, "Cr": 3.7, "Fe": 5.3, "Mn": 3.9, "Mo": 4.38, "Ni": 6.2, "V": 3.25, "W": 6.2}


def needs_corrections(calculator: AnyCalculator) -> bool | None:
    """Whether the energies of a calculator have to be corrected; None where that is not known.

    >>> needs_corrections("sevenn"), needs_corrections("chgnet"), needs_corrections("lj")
    (True, False, None)
    """
    name = calculator if isinstance(calculator, str) else describe_calculator(calculator).split()[0].lower()
    return True if name in RAW else False if name in CORRECTED else None


def mp_correction(structure: Structure) -> float:
    """The Materials Project's correction of 2020 to the energy of a crystal, eV for the whole cell.

    Oxides, peroxides and superoxides are told apart by their O-O distances, other anions by oxidation states that
    pymatgen guesses.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> round(mp_correction(salt.get_primitive_structure()), 3)
    -0.687
    """
    from pymatgen.entries.compatibility import CompatibilityError, MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    symbols = [element.symbol for element in structure.composition.elements]
    # as the Materials Project sets U: where the most electronegative element is oxygen or fluorine
    anion = max(structure.composition.elements, key=lambda element: element.X).symbol
    hubbards = {name: _HUBBARD_U.get(name, 0.0) for name in symbols} if anion in ("O", "F") else {}
    with_u = any(hubbards.values())
    entry = ComputedStructureEntry(
        structure,
        0.0,
        parameters={"run_type": "GGA+U" if with_u else "GGA", "is_hubbard": with_u, "hubbards": hubbards},
    )
    try:
        adjustments = MaterialsProject2020Compatibility(check_potcar=False).get_adjustments(entry)
    except CompatibilityError as error:
        raise ValueError(f"the Materials Project has no correction for {structure.formula}: {error}") from error
    return float(sum(adjustment.value for adjustment in adjustments))


def formation_energies(
    relaxations: Sequence[Relaxation],
    elements: Mapping[int, float],
    *,
    corrected: bool = False,
) -> list[Relaxation]:
    """The relaxations with their formation energies (eV a cell) in the place of total ones.

    A crystal with an element that has no energy, or without a correction where one is asked for, fails with the reason.

    Args:
        relaxations: of one calculator.
        elements: atomic number to eV/atom of the pure element by the same calculator.
        corrected: add the Materials Project's corrections first.
    """
    from ase.data import chemical_symbols

    found = []
    for one in relaxations:
        if one.energy is None:
            found.append(one)
            continue
        missing = sorted(number for number in one.composition if number not in elements)
        if missing:
            names = ", ".join(chemical_symbols[number] for number in missing)
            found.append(_failed(one, f"there is no energy of pure {names} by this calculator"))
            continue
        correction = 0.0
        if corrected:
            try:
                correction = mp_correction(one.structure())
            except ValueError as error:
                found.append(_failed(one, str(error)))
                continue
        zero = sum(count * elements[number] for number, count in one.composition.items())
        first = None if one.initial_energy is None else one.initial_energy + correction - zero
        found.append(replace(one, energy=one.energy + correction - zero, initial_energy=first))
    return found


def element_energies(
    numbers: Iterable[int],
    calculator: AnyCalculator,
    settings: RelaxationSettings | None = None,
    *,
    device: str = "auto",
) -> tuple[dict[int, float], dict[int, str]]:
    """eV/atom of pure elements by a calculator, and why an element has none."""
    phases, missing = elemental_phases(numbers, calculator, settings, device=device)
    energies = {number: phase.energy_per_atom for phase in phases for number in phase.composition}
    return energies, missing


def _failed(one: Relaxation, reason: str) -> Relaxation:
    changes: dict[str, Any] = {"energy": None, "converged": False, "reason": reason}
    return replace(one, **changes)
