"""What networks are told of a Wyckoff position and of a space group: learnt features, and the facts of the tables.

The facts (site symmetry, freedom, multiplicity, where the points lie) are shared by all positions, so that one which
was rare in training, or never seen, is close to those that are like it.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn

from cdvae_kit.crystal.wyckoff import NUM_GROUPS, NUM_POSITIONS, all_positions, parse_coordinates, wyckoff_table

_OWN_WIDTH = 32


@lru_cache(maxsize=1)
def _facts() -> Tensor:
    """(num_positions, num_facts)."""
    positions = all_positions()
    table = wyckoff_table()
    symbols = sorted({position.site_symmetry.replace(".", "") for position in positions})
    symbol = torch.zeros(len(positions), len(symbols))
    points = torch.zeros(len(positions), 12)
    for i, position in enumerate(positions):
        symbol[i, symbols.index(position.site_symmetry.replace(".", ""))] = 1.0
        matrix, offset = parse_coordinates(position.coordinates)
        points[i] = torch.cat([torch.as_tensor(matrix).flatten(), torch.as_tensor(offset)]).float()
    group = table.space_group
    family = nn.functional.one_hot(table.family[group], int(table.family.max()) + 1).float()
    multiplicity = table.multiplicity.float().log2().unsqueeze(-1) / 3.0
    order = table.order[group].float().log2().unsqueeze(-1)
    polar = table.is_polar[group].float()
    return torch.cat([symbol, points, table.is_free.float(), multiplicity, order, family, polar], dim=-1)


class PositionEmbedding(nn.Module):
    """Features of Wyckoff positions: the facts through a linear map, and a vector of each position's own."""

    facts: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("facts", _facts().clone(), persistent=False)
        self.own = nn.Embedding(NUM_POSITIONS, _OWN_WIDTH)
        self.join = nn.Linear(self.facts.shape[1] + _OWN_WIDTH, width)

    def forward(self, position: Tensor) -> Tensor:
        """(n,) long, indices of positions, to (n, width)."""
        # a batch has the same positions many times
        unique, inverse = torch.unique(position, return_inverse=True)
        features = torch.cat([self.facts.index_select(0, unique), self.own(unique)], dim=-1)
        return self.join(features).index_select(0, inverse)


class GroupEmbedding(nn.Module):
    """A vector for each space group."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Embedding(NUM_GROUPS + 1, width)

    def forward(self, space_group: Tensor) -> Tensor:
        """(num_crystals,) long to (num_crystals, width)."""
        return self.own(space_group)


def where_it_stands(free: Tensor, is_told: Tensor, num_frequencies: int) -> Tensor:
    """(num_orbits, 6 num_frequencies): sin and cos of 2 pi k u for the parameters that are told, 0 for the others.

    Told is what is free and does not depend on an arbitrary origin along a polar axis.
    """
    frequencies = torch.arange(1, num_frequencies + 1, device=free.device, dtype=free.dtype)
    phase = 2.0 * torch.pi * free.unsqueeze(-1) * frequencies
    waves = torch.cat([phase.sin(), phase.cos()], dim=-1) * is_told.unsqueeze(-1)
    return waves.flatten(1)
