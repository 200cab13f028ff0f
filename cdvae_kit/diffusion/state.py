"""Crystals somewhere between noise and data, and what a score network says of them."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from cdvae_kit.crystal.orbits import Orbits

MASKED = 0
"""The atomic number of an orbit whose element is not yet known."""


@dataclass(frozen=True)
class NoisyCrystals:
    """Crystals somewhere between noise and data, as orbits: whatever the noise, they have the symmetry of their group.

    Attributes:
        orbits: groups and Wyckoff positions, which are never noised; of P1 where symmetry is not kept.
        free: (num_orbits, 3) the parameters of each orbit, 0 where it has none.
        elements: (num_orbits,) long; 0 is a masked orbit.
        lattice_parameters: (num_crystals, 6), standardised, of the conventional cell.
        lattice: (num_crystals, 3, 3) in angstrom, the primitive cell that `lattice_parameters` stands for.
        pairs: (2, num_pairs) long: atoms as seen from orbits, see `Orbits.pairs`.
        number: (num_orbits,) long, see `Orbits.numbers`; by the elements that are given first, unless it is given.
        anchors: (num_orbits,) long, see `Orbits.anchors`; likewise.
    """

    orbits: Orbits
    free: Tensor
    elements: Tensor
    lattice_parameters: Tensor
    lattice: Tensor
    pairs: Tensor
    number: Tensor = None  # type: ignore[assignment]
    anchors: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        # numbers stay when elements are replaced by others on the way
        if self.number is None:
            object.__setattr__(self, "number", self.orbits.numbers(self.elements))
        if self.anchors is None:
            object.__setattr__(self, "anchors", self.orbits.anchors(self.elements))

    @cached_property
    def frac_coords(self) -> Tensor:
        """(num_atoms, 3) in [0, 1), in the primitive cell."""
        return self.orbits.frac_coords(self.free)

    @cached_property
    def atomic_numbers(self) -> Tensor:
        """(num_atoms,) long; 0 is a masked atom."""
        return self.elements.index_select(0, self.orbits.of_atom)

    @property
    def num_atoms(self) -> Tensor:
        """(num_crystals,) long."""
        return self.orbits.num_atoms

    @property
    def num_crystals(self) -> int:
        return len(self.orbits.num_orbits)

    @cached_property
    def batch(self) -> Tensor:
        """(num_atoms,) long: the crystal of each atom."""
        return self.orbits.batch.index_select(0, self.orbits.of_atom)


@dataclass(frozen=True)
class ScoreOutput:
    """What a score network says of noisy crystals.

    Attributes:
        free: (num_orbits, 3), the way from the clean to the noisy parameters over the noise level: what the process's
            `target` is. For a Gaussian kernel it is minus the score times the noise level, in the orbit's metric.
        type_logits: (num_orbits, num_elements) for Z = 1, 2, ...
        lattice: (num_crystals, 6), likewise for the standardised lattice parameters.
    """

    free: Tensor
    type_logits: Tensor
    lattice: Tensor
