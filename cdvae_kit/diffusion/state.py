"""Crystals somewhere between noise and data, and what a score network says of them."""

from dataclasses import dataclass

from torch import Tensor

MASKED = 0
"""The atomic number of an atom whose element is not yet known."""


@dataclass(frozen=True)
class NoisyCrystals:
    """Crystals somewhere between noise and data.

    Attributes:
        frac_coords: (num_atoms, 3) in [0, 1).
        lattice_parameters: (num_crystals, 6), standardised.
        lattice: (num_crystals, 3, 3) in angstrom, which `lattice_parameters` stands for.
        atomic_numbers: (num_atoms,) long; 0 is a masked atom.
        num_atoms: (num_crystals,) long.
        batch: (num_atoms,) long.
        pairs: (2, num_pairs) long: all ordered pairs of different atoms of a crystal, sorted by target (row 1).
    """

    frac_coords: Tensor
    lattice_parameters: Tensor
    lattice: Tensor
    atomic_numbers: Tensor
    num_atoms: Tensor
    batch: Tensor
    pairs: Tensor

    @property
    def num_crystals(self) -> int:
        return len(self.num_atoms)


@dataclass(frozen=True)
class ScoreOutput:
    """What a score network says of noisy crystals.

    Attributes:
        coords: (num_atoms, 3), the fractional way from the clean to the noisy point over the noise level: what the
            process's `target` is. For a Gaussian kernel it is minus the score times the noise level.
        type_logits: (num_atoms, num_elements) for Z = 1, 2, ...
        lattice: (num_crystals, 6), likewise for the standardised lattice parameters.
    """

    coords: Tensor
    type_logits: Tensor
    lattice: Tensor
