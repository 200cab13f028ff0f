"""Graphs by distance: every neighbour within a cutoff, and the k nearest of them. Bonds are in `crystal_nn`."""

from __future__ import annotations

import torch
from torch import Tensor

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.periodic_images import pairs_within
from cdvae_kit.graph.periodic_graph import PeriodicGraph

_MAX_TABLE = 1 << 24  # distances in memory at once while the k-th are looked up


def neighbor_list(
    batch: CrystalBatch, cutoff: float, *, max_neighbors: int | None = None, tie_tolerance: float = 1e-3
) -> PeriodicGraph:
    """The graph of all pairs no farther apart than `cutoff`, images of an atom itself included.

    Right for every cell, however skewed or thin, and for all crystals at once, on any device. The search takes no
    part in the gradient; the graph's `distances` do.

    Args:
        batch: crystals of finite coordinates and volume.
        cutoff: angstrom; a pair at the cutoff itself, up to rounding, is in.
        max_neighbors: keep the nearest this many of each target, and all that tie with the last of them (which keeps
            the crystal's symmetry); then an edge may lack its reverse. None keeps all.
        tie_tolerance: angstrom, how much farther than the last one counts as a tie.

    >>> from cdvae_kit.crystal import CrystalBatch
    >>> cubic = CrystalBatch(torch.zeros(1, 3), 3.0 * torch.eye(3)[None], torch.tensor([84]), torch.tensor([1]))
    >>> neighbor_list(cubic, 3.5).distances(cubic)
    tensor([3., 3., 3., 3., 3., 3.])
    """
    if not cutoff > 0.0:
        raise ValueError(f"cutoff must be a positive distance in angstrom, got {cutoff}")
    pairs = pairs_within(batch, cutoff, distances=max_neighbors is not None)
    edge_index, cell_offsets = pairs.edge_index, pairs.cell_offsets
    if max_neighbors is not None:
        assert pairs.squared_distances is not None
        near = nearest_neighbors(
            edge_index[1],
            pairs.squared_distances.clamp_min(0.0).sqrt(),
            batch.frac_coords.shape[0],
            max_neighbors,
            tie_tolerance=tie_tolerance,
        )
        edge_index, cell_offsets = (
            torch.stack([row.index_select(0, near) for row in edge_index]),
            cell_offsets.index_select(0, near),
        )
    return PeriodicGraph(edge_index, cell_offsets, torch.searchsorted(edge_index[1], batch.ptr).diff())


@torch.no_grad()
def nearest_neighbors(
    target: Tensor, distances: Tensor, num_targets: int, max_neighbors: int, *, tie_tolerance: float = 1e-3
) -> Tensor:
    """The edges to keep, ascending: each target's nearest `max_neighbors`, and all that tie with the last of them.

    Args:
        target: (num_edges,) long, sorted.
        distances: (num_edges,), angstrom.
        num_targets: the number of atoms.
        max_neighbors: at least 1.
        tie_tolerance: angstrom, how much farther than the last one counts as a tie.
    """
    if max_neighbors < 1:
        raise ValueError(f"max_neighbors must be at least 1, or None for all, got {max_neighbors}")
    if tie_tolerance < 0.0:
        raise ValueError(f"tie_tolerance must not be negative, got {tie_tolerance}")
    bounds = torch.searchsorted(target, torch.arange(num_targets + 1, device=target.device))
    degree = bounds.diff()
    widest = int(degree.max()) if num_targets else 0
    if widest <= max_neighbors:
        return torch.arange(len(target), device=target.device)
    farthest = torch.empty(num_targets, dtype=distances.dtype, device=distances.device)
    column = torch.arange(widest, device=target.device)
    chunk = max(1, _MAX_TABLE // widest)
    for start in range(0, num_targets, chunk):
        rows = slice(start, min(start + chunk, num_targets))
        entry = (bounds[:-1][rows, None] + column).clamp_max_(max(len(target) - 1, 0))
        table = distances.take(entry).masked_fill_(column >= degree[rows, None], float("inf"))
        farthest[rows] = table.topk(max_neighbors, dim=1, largest=False, sorted=False).values.amax(1)
    return torch.nonzero(distances <= farthest.index_select(0, target) + tie_tolerance).squeeze(1)
