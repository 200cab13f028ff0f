"""Short paths between noise and data: which noise point belongs to which atom.

Without it the noise point of an atom lies anywhere; two equal atoms then swap places half of the time, and the
network learns the average of both. Pairing within an element, and shifting the noise as a whole, changes nothing
that a network which sees neither labels nor origin could tell, and makes the paths shorter and straighter
(Klein et al., "Equivariant flow matching", arXiv 2306.15030).
"""

import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import wrap_displacement


def match_noise(noise: Tensor, frac_coords: Tensor, labels: Tensor, num_atoms: Tensor, *, rounds: int = 3) -> Tensor:
    """The same noise points, shifted as a whole and permuted among atoms of equal label, closer to `frac_coords`.

    A local optimum: per round the best shift for the present pairing, then the best swaps until none helps.

    Args:
        noise: (num_atoms, 3) fractional noise points.
        frac_coords: (num_atoms, 3) fractional coordinates.
        labels: (num_atoms,) long; atoms are exchanged within a label only.
        num_atoms: (num_crystals,) long.
        rounds: how often shift and pairing take turns.

    Returns:
        (num_atoms, 3) noise, not wrapped: `noise - frac_coords` is the path, with mean zero over each crystal.
    """
    layout = _DenseLayout(num_atoms)
    x0, x1 = layout.pad(frac_coords), layout.pad(noise)
    mask = layout.mask
    label = layout.pad(labels.unsqueeze(-1)).squeeze(-1)
    may_swap = (label.unsqueeze(2) == label.unsqueeze(1)) & mask.unsqueeze(2) & mask.unsqueeze(1)
    for _ in range(rounds):
        x1 = x1 - _best_shift(x1 - x0, mask)
        x1 = _swap_until_short(x0, x1, may_swap)
    path = wrap_displacement(x1 - x0)
    path = path - (path * mask.unsqueeze(-1)).sum(1, keepdim=True) / num_atoms.view(-1, 1, 1)
    return frac_coords + layout.flatten(path)


class _DenseLayout:
    """Between one row an atom and (num_crystals, most atoms, ...)."""

    def __init__(self, num_atoms: Tensor) -> None:
        self.width = int(num_atoms.max())
        columns = torch.arange(self.width, device=num_atoms.device)
        self.mask = columns < num_atoms.unsqueeze(-1)

    def pad(self, values: Tensor) -> Tensor:
        out = values.new_zeros(*self.mask.shape, *values.shape[1:])
        out[self.mask] = values
        return out

    def flatten(self, values: Tensor) -> Tensor:
        return values[self.mask]


def _best_shift(displacement: Tensor, mask: Tensor) -> Tensor:
    """(num_crystals, 1, 3): the circular mean of the displacements, then one step of the ordinary mean around it."""
    phase = 2.0 * torch.pi * displacement
    weight = mask.unsqueeze(-1).to(displacement.dtype)
    shift = torch.atan2((phase.sin() * weight).sum(1, keepdim=True), (phase.cos() * weight).sum(1, keepdim=True))
    shift = shift / (2.0 * torch.pi)
    rest = wrap_displacement(displacement - shift) * weight
    return shift + rest.sum(1, keepdim=True) / weight.sum(1, keepdim=True)


def _swap_until_short(x0: Tensor, x1: Tensor, may_swap: Tensor) -> Tensor:
    """Exchanges noise points of pairs of atoms, the most useful pair of each crystal first, until none is useful."""
    crystals = torch.arange(len(x0), device=x0.device)
    width = x0.shape[1]
    cost = wrap_displacement(x1.unsqueeze(1) - x0.unsqueeze(2)).square().sum(-1)  # [crystal, atom, noise point]
    assignment = torch.arange(width, device=x0.device).repeat(len(x0), 1)
    for _ in range(2 * width):
        now = cost.gather(2, assignment.unsqueeze(-1)).squeeze(-1)
        crossed = cost.gather(2, assignment.unsqueeze(1).expand(-1, width, -1))  # atom i with the point of atom j
        gain = now.unsqueeze(2) + now.unsqueeze(1) - crossed - crossed.transpose(1, 2)
        gain = gain.masked_fill(~may_swap, 0.0)
        best, flat = gain.flatten(1).max(dim=1)
        useful = best > 1e-9
        if not bool(useful.any()):
            break
        i, j = flat // width, flat % width
        point_i, point_j = assignment[crystals, i], assignment[crystals, j]
        assignment[crystals, i] = torch.where(useful, point_j, point_i)
        assignment[crystals, j] = torch.where(useful, point_i, point_j)
    return x1.gather(1, assignment.unsqueeze(-1).expand(-1, -1, 3))
