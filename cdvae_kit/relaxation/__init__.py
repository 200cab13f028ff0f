"""Relaxation through ASE calculators and batched potentials, and the hull that crystals are compared with."""

from cdvae_kit.relaxation.calculators import (
    CALCULATORS,
    CalculatorError,
    PotentialCalculator,
    describe_calculator,
    make_calculator,
    make_potential,
)
from cdvae_kit.relaxation.formation import element_energies, formation_energies, mp_correction, needs_corrections
from cdvae_kit.relaxation.hull import (
    HullDistance,
    Phase,
    ReferenceHull,
    formation_hull,
    phases_of,
    phases_of_relaxations,
)
from cdvae_kit.relaxation.potentials import BatchedPotential, CHGNetPotential, LennardJones, PotentialValues
from cdvae_kit.relaxation.reference import CalculatedHull, calculate_hull, elemental_phases
from cdvae_kit.relaxation.relax import iter_relax, relax
from cdvae_kit.relaxation.result import Frame, Relaxation, RelaxationSettings, decode, encode
from cdvae_kit.relaxation.sevennet import SevenNetPotential

__all__ = [
    "CALCULATORS",
    "BatchedPotential",
    "CHGNetPotential",
    "CalculatedHull",
    "CalculatorError",
    "Frame",
    "HullDistance",
    "LennardJones",
    "Phase",
    "PotentialCalculator",
    "PotentialValues",
    "ReferenceHull",
    "Relaxation",
    "RelaxationSettings",
    "SevenNetPotential",
    "calculate_hull",
    "decode",
    "describe_calculator",
    "element_energies",
    "elemental_phases",
    "encode",
    "formation_energies",
    "formation_hull",
    "iter_relax",
    "make_calculator",
    "make_potential",
    "mp_correction",
    "needs_corrections",
    "phases_of",
    "phases_of_relaxations",
    "relax",
]
