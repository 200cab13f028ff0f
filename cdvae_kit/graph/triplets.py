"""Pairs of edges that meet in an atom, for networks that see angles."""

import torch
from torch import Tensor

from cdvae_kit.crystal.batch import ragged_index
from cdvae_kit.graph.periodic_graph import PeriodicGraph


def triplets(graph: PeriodicGraph, num_atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Edges k -> j and edges j -> i, (num_triplets,) long each: all ways over two edges, sorted by the second.

    The way back (the second edge's own reverse, to the same image) is left out; to another image of i it is not.

    Args:
        graph: edges sorted by target, as all of this package's graphs are.
        num_atoms: (num_crystals,) long.

    >>> graph = PeriodicGraph(torch.tensor([[1, 0], [0, 1]]), torch.tensor([[0, 0, 0], [1, 0, 0]]), torch.tensor([2]))
    >>> triplets(graph, torch.tensor([2]))
    (tensor([1, 0]), tensor([0, 1]))
    """
    source, target = graph.edge_index
    atoms = torch.arange(int(num_atoms.sum()) + 1, device=target.device)
    bounds = torch.searchsorted(target.contiguous(), atoms)
    counts = bounds.diff()[source]
    incoming = ragged_index(bounds[:-1][source], counts)
    outgoing = torch.repeat_interleave(counts, output_size=len(incoming))
    back = (source[incoming] == target[outgoing]) & (graph.cell_offsets[incoming] == -graph.cell_offsets[outgoing]).all(
        1
    )
    keep = torch.nonzero(~back).squeeze(1)
    return incoming[keep], outgoing[keep]
