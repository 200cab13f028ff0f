"""Edges between atoms: periodic neighbour lists of whole batches, k-nearest pruning, angles, CrystalNN bonds."""

from cdvae_kit.crystal.periodic_images import fully_connected_pairs
from cdvae_kit.graph.crystal_nn import crystal_nn_graph
from cdvae_kit.graph.neighbor_list import nearest_neighbors, neighbor_list
from cdvae_kit.graph.periodic_graph import PeriodicGraph
from cdvae_kit.graph.triplets import triplets

__all__ = [
    "PeriodicGraph",
    "crystal_nn_graph",
    "fully_connected_pairs",
    "nearest_neighbors",
    "neighbor_list",
    "triplets",
]
