"""Six standardised numbers for a lattice, and back: what the networks see and predict."""

from typing import Literal

import torch
from torch import Tensor, nn

from cdvae_kit.crystal import lattice as lattices


class LatticeCoding(nn.Module):
    """Standardised lattice parameters, with the size of the cell taken out: lengths go by num_atoms^(1/3).

    Args:
        kind: `log_stretch` has a cell for any six numbers; `lengths_angles` is the published choice.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, kind: Literal["log_stretch", "lengths_angles"]) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("deviation", torch.ones(6))

    def fit(self, lattice: Tensor, num_atoms: Tensor) -> None:
        """Takes mean and deviation from the training crystals."""
        raw = self._raw(lattice, num_atoms)
        self.mean.copy_(raw.mean(0))
        # a set of cubic crystals has no spread in its angles; noise there must stay small, too
        floor = 0.02 if self.kind == "log_stretch" else raw.new_tensor([0.02] * 3 + [1.0] * 3)
        spread = raw.std(0) if len(raw) > 1 else torch.zeros_like(raw[0])
        self.deviation.copy_(spread + floor)

    def _raw(self, lattice: Tensor, num_atoms: Tensor) -> Tensor:
        log_size = torch.log(num_atoms.to(lattice.dtype)).unsqueeze(-1) / 3.0
        if self.kind == "log_stretch":
            parameters = lattices.log_parameters(lattice)
            return torch.cat([parameters[:, :3] - log_size, parameters[:, 3:]], dim=-1)
        lengths, angles = lattices.lattice_parameters(lattice)
        return torch.cat([lengths / torch.exp(log_size), angles], dim=-1)

    def encode(self, lattice: Tensor, num_atoms: Tensor) -> Tensor:
        """(num_crystals, 6) from lattices (num_crystals, 3, 3) in angstrom."""
        return (self._raw(lattice, num_atoms) - self.mean) / self.deviation

    def decode(self, parameters: Tensor, num_atoms: Tensor) -> Tensor:
        """Lattices (num_crystals, 3, 3) in angstrom; gradients flow through.

        `lengths_angles` clamps lengths to at least 0.5 angstrom and angles to 30..150 degrees. Three angles that no
        cell has together (of a wild network) give a flat cell.
        """
        raw = parameters * self.deviation + self.mean
        log_size = torch.log(num_atoms.to(raw.dtype)).unsqueeze(-1) / 3.0
        if self.kind == "log_stretch":
            # e^5 angstrom is no crystal; the clamp keeps a wild network finite
            raw = torch.cat([raw[:, :3] + log_size, raw[:, 3:]], dim=-1).clamp(-5.0, 5.0)
            return lattices.lattice_from_log_parameters(raw)
        lengths = (raw[:, :3] * torch.exp(log_size)).clamp_min(0.5)
        return lattices.lattice_from_parameters(lengths, raw[:, 3:].clamp(30.0, 150.0))
