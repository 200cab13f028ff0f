"""Relaxation through ASE calculators and batched potentials, and the hull that crystals are held against."""

from cdvae_kit.relaxation.calculators import (
    CALCULATORS,
    CalculatorError,
    PotentialCalculator,
    describe_calculator,
    make_calculator,
    make_potential,
)
from cdvae_kit.relaxation.potentials import BatchedPotential, CHGNetPotential, LennardJones, PotentialValues
from cdvae_kit.relaxation.relax import iter_relax, relax
from cdvae_kit.relaxation.result import Frame, Relaxation, RelaxationSettings, decode, encode

__all__ = [
    "CALCULATORS",
    "BatchedPotential",
    "CHGNetPotential",
    "CalculatorError",
    "Frame",
    "LennardJones",
    "PotentialCalculator",
    "PotentialValues",
    "Relaxation",
    "RelaxationSettings",
    "decode",
    "describe_calculator",
    "encode",
    "iter_relax",
    "make_calculator",
    "make_potential",
    "relax",
]
