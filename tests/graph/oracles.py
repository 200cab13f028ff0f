"""Neighbour lists of other packages, and the form in which lists are compared."""

import csv
import gzip
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matscipy.neighbours
import numpy as np
import torch
import vesin
from ase.data import atomic_numbers
from ase.neighborlist import primitive_neighbor_list

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import lattice_from_parameters
from cdvae_kit.graph import PeriodicGraph

Edges = list[tuple[int, ...]]
Oracle = Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _ase(positions: np.ndarray, cell: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return primitive_neighbor_list("ijS", (True, True, True), cell, positions, cutoff)


def _matscipy(positions: np.ndarray, cell: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return matscipy.neighbours.neighbour_list(
        "ijS", positions=positions, cell=cell, pbc=np.ones(3, dtype=bool), cutoff=cutoff
    )


def _vesin(positions: np.ndarray, cell: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return vesin.NeighborList(cutoff=cutoff, full_list=True).compute(positions, cell, True, quantities="ijS")


ORACLES: dict[str, Oracle] = {"ase": _ase, "matscipy": _matscipy, "vesin": _vesin}


def oracle_edges(batch: CrystalBatch, cutoff: float, oracle: Oracle) -> Edges:
    """(source, target, offset) of every edge, sorted; the others call the target i."""
    edges: Edges = []
    bounds = batch.ptr.tolist()
    lattice, cart = batch.lattice.double().numpy(), batch.frac_coords.double().numpy()
    for k, (start, end) in enumerate(pairwise(bounds)):
        i, j, offset = oracle(cart[start:end] @ lattice[k], lattice[k], cutoff)
        table = np.column_stack([np.asarray(j).astype(int) + start, np.asarray(i).astype(int) + start, offset])
        edges += map(tuple, table.astype(int).tolist())
    return sorted(edges)


def graph_edges(graph: PeriodicGraph) -> Edges:
    return sorted(map(tuple, torch.cat([graph.edge_index.T, graph.cell_offsets], dim=1).tolist()))


def read_p1(path: Path, count: int) -> CrystalBatch:
    """The first crystals of a CDVAE-form CSV whose CIFs list every atom, float64, without a CIF library."""
    lattices, coords, numbers, num_atoms = [], [], [], []
    with gzip.open(path, "rt") as file:
        for _, row in zip(range(count), csv.DictReader(file), strict=False):
            cell = dict(re.findall(r"_cell_(?:length|angle)_(\w+)\s+([\d.]+)", row["cif"]))
            sites = re.findall(r"^\s+([A-Z][a-z]?)\S*\s+\S+\s+1\s+(\S+)\s+(\S+)\s+(\S+)\s+1", row["cif"], re.MULTILINE)
            lattices.append([float(cell[name]) for name in ("a", "b", "c", "alpha", "beta", "gamma")])
            coords += [[float(x) for x in site[1:]] for site in sites]
            numbers += [atomic_numbers[site[0]] for site in sites]
            num_atoms.append(len(sites))
    parameters = torch.tensor(lattices, dtype=torch.float64)
    return CrystalBatch(
        torch.tensor(coords, dtype=torch.float64),
        lattice_from_parameters(parameters[:, :3], parameters[:, 3:]),
        torch.tensor(numbers),
        torch.tensor(num_atoms),
    )
