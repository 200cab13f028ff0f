"""Messages between edges that know the angle between them, on invariant features of edges.

The layers see edges and pairs of edges that meet; where those come from is no matter here.
Source of the idea: Gasteiger et al., "GemNet: Universal directional graph neural networks for molecules" (NeurIPS
2021, arXiv 2106.08903), the variant with triplets alone and direct outputs. Differences: an edge gets messages from
the edges that end where it starts, as in DimeNet (arXiv 2003.03123), and no reverse edge is needed, which a list of
nearest neighbours need not hold.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from cdvae_kit.nn.mlp import mlp

_HALF = 0.5**0.5
"""Keeps the variance of a sum of two."""


class AngularTable(NamedTuple):
    """The incoming edges of each edge, one row an edge, as many columns as the edge with the most of them needs."""

    incoming: Tensor  # (num_edges, most) long; 0 where a row is over
    weights: Tensor  # (num_edges, num_angular, most); 0 where a row is over


def legendre(cosine: Tensor, count: int) -> Tensor:
    """P_0 .. P_(count - 1) of the cosines, times sqrt(2 l + 1), in a new last axis.

    >>> legendre(torch.tensor([1.0, 0.0]), 3)
    tensor([[ 1.0000,  1.7321,  2.2361],
            [ 1.0000,  0.0000, -1.1180]])
    """
    values = [torch.ones_like(cosine), cosine]
    for degree in range(2, count):
        values.append(((2 * degree - 1) * cosine * values[-1] - (degree - 1) * values[-2]) / degree)
    return torch.stack([math.sqrt(2 * degree + 1) * p for degree, p in enumerate(values[:count])], dim=-1)


def angular_table(direction: Tensor, incoming: Tensor, outgoing: Tensor, num_angular: int) -> AngularTable:
    """Legendre polynomials of the angles between edges, laid out for one matrix product an edge.

    Args:
        direction: (num_edges, 3), unit vectors from target to source.
        incoming: (num_triplets,) long, edges k -> j.
        outgoing: (num_triplets,) long, edges j -> i, sorted.
        num_angular: number of polynomials.
    """
    num_edges = len(direction)
    counts = torch.bincount(outgoing, minlength=num_edges)
    first = counts.cumsum(0) - counts
    column = torch.arange(len(outgoing), device=outgoing.device) - first.index_select(0, outgoing)
    # the angle at j, between the ways to k and to i
    cosine = -(direction.index_select(0, incoming) * direction.index_select(0, outgoing)).sum(-1)
    most = int(counts.max()) if num_edges else 0
    place = outgoing * most + column
    weights = direction.new_zeros(num_edges * most, num_angular).index_copy(0, place, legendre(cosine, num_angular))
    table = incoming.new_zeros(num_edges * most).index_copy(0, place, incoming)
    return AngularTable(table.view(num_edges, most), weights.view(num_edges, most, num_angular).transpose(1, 2))


class ResidualBlock(nn.Module):
    """(x + f(x)) / sqrt 2 with two layers in f."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = mlp([width, width, width], final_activation=True)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.layers(x)) * _HALF


class AngularMessage(nn.Module):
    """The message to an edge from the edges that end where it starts, by both lengths and the angle between them.

    Args:
        width: features of an edge.
        inner: features while they are summed.
        num_radial: radial features of an edge.
        num_mixed: radial functions of the receiving edge for each angular one.
        num_neighbors: typical number of neighbours; sums are divided by its square root.
    """

    def __init__(self, width: int, inner: int, num_radial: int, num_mixed: int, num_neighbors: float) -> None:
        super().__init__()
        self.num_neighbors = num_neighbors
        self.before = nn.Linear(width, width)
        self.radial = nn.Linear(num_radial, width, bias=False)
        self.down = nn.Linear(width, inner)
        self.bilinear = nn.Linear(num_mixed * inner, inner, bias=False)
        self.up = nn.Linear(inner, width)

    def forward(self, m: Tensor, radial: Tensor, table: AngularTable, mixed: Tensor) -> Tensor:
        """(num_edges, width).

        Args:
            m: (num_edges, width).
            radial: (num_edges, num_radial).
            table: who is heard, and at which angle.
            mixed: (num_edges, num_mixed, num_angular), of the hearing edge's length.
        """
        sent = nn.functional.silu(self.down(nn.functional.silu(self.before(m)) * self.radial(radial)))
        num_edges, most = table.incoming.shape
        heard = sent.index_select(0, table.incoming.flatten()).view(num_edges, most, sent.shape[-1])
        by_angle = torch.bmm(table.weights, heard) / self.num_neighbors**0.5
        return nn.functional.silu(self.up(self.bilinear(torch.bmm(mixed, by_angle).flatten(1))))


class DirectionalLayer(nn.Module):
    """One round of messages: from edges to edges, from edges to their atoms, and from the two atoms back to each edge.

    Args:
        width: features of an edge, and of an atom.
        inner: features of an edge while they are summed over angles.
        num_radial: radial features of an edge.
        num_mixed: radial functions of the receiving edge for each angular one.
        num_neighbors: typical number of neighbours; sums are divided by its square root.
    """

    def __init__(self, width: int, inner: int, num_radial: int, num_mixed: int, num_neighbors: float) -> None:
        super().__init__()
        self.num_neighbors = num_neighbors
        self.own = nn.Linear(width, width)
        self.angular = AngularMessage(width, inner, num_radial, num_mixed, num_neighbors)
        self.before_skip = ResidualBlock(width)
        self.after_skip = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.radial = nn.Linear(num_radial, width, bias=False)
        self.atoms = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), ResidualBlock(width), ResidualBlock(width), ResidualBlock(width)
        )
        self.from_atoms = nn.Linear(width, 2 * width, bias=False)
        self.from_edge = nn.Linear(width, width)
        self.joined = ResidualBlock(width)

    def forward(
        self, h: Tensor, m: Tensor, edge_index: Tensor, radial: Tensor, table: AngularTable, mixed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Atoms' features (num_atoms, width) and edges' features (num_edges, width) after the round.

        Args:
            h: (num_atoms, width).
            m: (num_edges, width).
            edge_index: (2, num_edges) long, source and target, sorted by target.
            radial: (num_edges, num_radial).
            table: who is heard, and at which angle.
            mixed: (num_edges, num_mixed, num_angular).
        """
        source, target = edge_index
        new = (nn.functional.silu(self.own(m)) + self.angular(m, radial, table, mixed)) * _HALF
        m = self.after_skip((m + self.before_skip(new)) * _HALF)
        received = scatter(m * self.radial(radial), target, dim=0, dim_size=len(h), reduce="sum")
        h = (h + self.atoms(received / self.num_neighbors**0.5)) * _HALF
        from_source, from_target = self.from_atoms(h).chunk(2, dim=-1)
        joined = from_source.index_select(0, source) + from_target.index_select(0, target) + self.from_edge(m)
        return h, (m + self.joined(nn.functional.silu(joined))) * _HALF


class DirectionalReadout(nn.Module):
    """A vector an atom: its edges' directions, each times a number of the edge's own."""

    def __init__(self, width: int, num_radial: int, num_neighbors: float) -> None:
        super().__init__()
        self.num_neighbors = num_neighbors
        self.edges = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), ResidualBlock(width), ResidualBlock(width), ResidualBlock(width)
        )
        self.radial = nn.Linear(num_radial, width, bias=False)
        self.out = nn.Linear(width, 1, bias=False)

    def forward(self, m: Tensor, target: Tensor, direction: Tensor, radial: Tensor, num_atoms: int) -> Tensor:
        """(num_atoms, 3)."""
        size = self.out(self.edges(m) * self.radial(radial))
        return scatter(size * direction, target, dim=0, dim_size=num_atoms, reduce="sum") / self.num_neighbors**0.5
