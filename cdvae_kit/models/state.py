"""What the networks are given: crystals with their pairs, and the noisy crystals of a moment."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import lattice_from_log_parameters


@dataclass(frozen=True)
class NoisyCrystals:
    """Crystals somewhere between noise and data.

    Attributes:
        frac_coords: (num_atoms, 3) in [0, 1).
        lattice_parameters: (num_crystals, 6), standardised logarithms of the stretch.
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


@dataclass(frozen=True)
class ScoreOutput:
    """What a score network says of noisy crystals.

    Attributes:
        coords: (num_atoms, 3), the way from the clean to the noisy point divided by the noise level, as fractions
            of the cell. For a Gaussian kernel it is -sigma times the score.
        type_logits: (num_atoms, num_elements) for Z = 1, 2, ...
        lattice: (num_crystals, 6), likewise for the standardised lattice parameters.
    """

    coords: Tensor
    type_logits: Tensor
    lattice: Tensor
