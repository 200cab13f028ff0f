"""Short paths between noise and data: which noise point belongs to which orbit.

Without it the noise point of an orbit lies anywhere; two equal orbits then swap places half of the time, and the
network learns the average of both. Pairing orbits of one element and Wyckoff position, and shifting the noise as a
whole where the group leaves the origin free, changes nothing that a network which sees neither labels nor origin could
tell, and makes the paths shorter and straighter (Klein et al., "Equivariant flow matching", arXiv 2306.15030).
"""

import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import wrap_displacement
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.wyckoff import NUM_POSITIONS


def match_noise(
    noise: Tensor, free: Tensor, elements: Tensor, orbits: Orbits, *, exchange: bool = True, rounds: int = 3
) -> Tensor:
    """The same noise points, shifted along polar axes and permuted among equal orbits, closer to `free`.

    A local optimum: per round the best shift for the present pairing, then the best swaps until none helps. In P1,
    orbits are atoms, and equal atoms are exchanged.

    Args:
        noise: (num_orbits, 3) noise points.
        free: (num_orbits, 3) parameters of the orbits.
        elements: (num_orbits,) long.
        orbits: their groups and positions; orbits are exchanged within one element and position of a crystal.
        exchange: whether orbits are exchanged at all.
        rounds: how often shift and pairing take turns.

    Returns:
        (num_orbits, 3) noise, not wrapped: `noise - free` is the path, 0 where nothing is free, without drift along
        polar axes.
    """
    layout = _DenseLayout(orbits.num_orbits)
    is_free, is_polar = layout.pad(orbits.is_free), layout.pad(orbits.is_polar).any(1, keepdim=True)
    x0 = layout.pad(free)
    x1 = torch.where(is_free, layout.pad(noise), x0)
    mask = layout.mask
    label = layout.pad(elements * NUM_POSITIONS + orbits.position)
    may_swap = (label.unsqueeze(2) == label.unsqueeze(1)) & mask.unsqueeze(2) & mask.unsqueeze(1)
    may_swap &= exchange
    any_polar = bool(is_polar.any())
    for _ in range(rounds if any_polar else 1):
        if any_polar:
            x1 = x1 - torch.where(is_polar, _best_shift(x1 - x0, mask), 0.0)
        if exchange:
            x1 = _swap_until_short(x0, x1, may_swap)
    path = layout.flatten(wrap_displacement(x1 - x0)) * orbits.is_free
    return free + orbits.without_drift(path)


class _DenseLayout:
    """Between one row an orbit and (num_crystals, most orbits, ...)."""

    def __init__(self, num_orbits: Tensor) -> None:
        self.width = int(num_orbits.max())
        columns = torch.arange(self.width, device=num_orbits.device)
        self.mask = columns < num_orbits.unsqueeze(-1)

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
    """Exchanges noise points of pairs of orbits, the most useful pair of each crystal first, until none is useful."""
    crystals = torch.arange(len(x0), device=x0.device)
    width = x0.shape[1]
    cost = wrap_displacement(x1.unsqueeze(1) - x0.unsqueeze(2)).square().sum(-1)  # [crystal, orbit, noise point]
    assignment = torch.arange(width, device=x0.device).repeat(len(x0), 1)
    for _ in range(2 * width):
        now = cost.gather(2, assignment.unsqueeze(-1)).squeeze(-1)
        crossed = cost.gather(2, assignment.unsqueeze(1).expand(-1, width, -1))  # orbit i with the point of orbit j
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
