"""Six standardised numbers for a lattice, and back: what the networks see and predict."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from cdvae_kit.crystal import lattice as lattices
from cdvae_kit.crystal.lattice_families import project_change, project_parameters
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.nn.stored_names import RenamedModule

_DIAGONAL, _SMALLEST_SCALE = 3, 0.02


class LatticeCoding(RenamedModule):
    """Standardised parameters of conventional cells, with the size taken out: lengths go by (atoms of the cell)^(1/3).

    Args:
        kind: `log_stretch` has a cell for any six numbers, and the crystal families are planes in it; `lengths_angles`
            is the published choice, for crystals of P1 only.
    """

    _EARLIER_NAMES: ClassVar[Mapping[str, str]] = {"deviation": "std"}

    mean: Tensor
    std: Tensor

    def __init__(self, kind: Literal["log_stretch", "lengths_angles"]) -> None:
        super().__init__()
        self.kind = kind
        self.is_fixed = False
        """Whether `fit` leaves the scales as they are, because trained weights go with them."""
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("std", torch.ones(6))

    def fit(self, lattice: Tensor, orbits: Orbits) -> None:
        """Takes mean and standard deviation from the training crystals' primitive cells.

        Of `log_stretch`, the diagonal entries share theirs, and so do the others, about 0: a family stays a plane.
        """
        if self.is_fixed:
            return
        raw = self._raw(lattice, orbits)
        if self.kind == "lengths_angles":
            spread = raw.std(0) if len(raw) > 1 else torch.zeros_like(raw[0])
            self.mean.copy_(raw.mean(0))
            # a set of cubic crystals has no spread in its angles; noise there must stay small, too
            self.std.copy_(spread + raw.new_tensor([_SMALLEST_SCALE] * 3 + [1.0] * 3))
            return
        diagonal, other = raw[:, :_DIAGONAL], raw[:, _DIAGONAL:]
        spread = diagonal.std() if diagonal.numel() > _DIAGONAL else raw.new_zeros(())
        self.mean.copy_(torch.cat([diagonal.mean().expand(3), raw.new_zeros(3)]))
        scales = torch.stack([spread] * 3 + [other.square().mean().sqrt()] * 3)
        self.std.copy_(scales + _SMALLEST_SCALE)

    def _log_size(self, orbits: Orbits, dtype: torch.dtype) -> Tensor:
        return torch.log(orbits.num_conventional_atoms.to(dtype)).unsqueeze(-1) / 3.0

    def _raw(self, lattice: Tensor, orbits: Orbits) -> Tensor:
        conventional = orbits.primitive_to_conventional(lattice)
        log_size = self._log_size(orbits, lattice.dtype)
        if self.kind == "log_stretch":
            parameters = lattices.log_parameters(conventional)
            return torch.cat([parameters[:, :_DIAGONAL] - log_size, parameters[:, _DIAGONAL:]], dim=-1)
        lengths, angles = lattices.lattice_parameters(conventional)
        return torch.cat([lengths / torch.exp(log_size), angles], dim=-1)

    def encode(self, lattice: Tensor, orbits: Orbits) -> Tensor:
        """(num_crystals, 6) from primitive cells (num_crystals, 3, 3) in angstrom."""
        return (self._raw(lattice, orbits) - self.mean) / self.std

    def primitive(self, parameters: Tensor, orbits: Orbits) -> Tensor:
        """Primitive cells (num_crystals, 3, 3) in angstrom; gradients flow through.

        `lengths_angles` clamps lengths to at least 0.5 angstrom and angles to 30..150 degrees. Three angles that no
        cell has together (of a wild network) give a flat cell.
        """
        raw = parameters * self.std + self.mean
        log_size = self._log_size(orbits, raw.dtype)
        if self.kind == "log_stretch":
            # e^5 angstrom is no crystal; the clamp keeps a wild network finite
            raw = torch.cat([raw[:, :_DIAGONAL] + log_size, raw[:, _DIAGONAL:]], dim=-1).clamp(-5.0, 5.0)
            conventional = lattices.lattice_from_log_parameters(raw)
        else:
            lengths = (raw[:, :_DIAGONAL] * torch.exp(log_size)).clamp_min(0.5)
            conventional = lattices.lattice_from_parameters(lengths, raw[:, _DIAGONAL:].clamp(30.0, 150.0))
        return orbits.conventional_to_primitive(conventional)

    def volume_per_atom(self, parameters: Tensor) -> Tensor:
        """(num_crystals,) cubic angstrom, from parameters (num_crystals, 6); gradients flow through."""
        raw = parameters * self.std + self.mean
        if self.kind == "log_stretch":
            return raw[:, :_DIAGONAL].sum(-1).exp()
        return lattices.volume(lattices.lattice_from_parameters(raw[:, :_DIAGONAL], raw[:, _DIAGONAL:]))

    def project(self, parameters: Tensor, orbits: Orbits) -> Tensor:
        """The nearest parameters that each crystal's family has."""
        if self.kind == "lengths_angles":
            return parameters
        return project_parameters(parameters, orbits.family, scale=self.std)

    def project_change(self, change: Tensor, orbits: Orbits) -> Tensor:
        """Changes less what would leave the family."""
        return change if self.kind == "lengths_angles" else project_change(change, orbits.family)
