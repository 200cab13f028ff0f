"""SevenNet, an equivariant potential whose package brings its weights, on many crystals at once."""

from __future__ import annotations

import contextlib
import io
import warnings
from itertools import pairwise
from typing import Any

import torch
from ase import Atoms

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.relaxation.potentials import PotentialValues, no_values

SEVENNET_MODEL = "7net-l3i5"
"""SevenNet-l3i5, of the weights in the wheel the one with the best F1 on Matbench Discovery (0.76; CHGNet 0.61)."""


class SevenNetPotential:
    """SevenNet (Park et al., J. Chem. Theory Comput. 20, 4857 (2024), arXiv 2402.03789) as its package has it.

    Energies are those of the Materials Project's PBE calculations without its corrections, so a hull of corrected
    energies is not theirs. The package unpickles the weights that it brings: this package never does, and a checkpoint
    of somebody else's should be trusted before it is named here.

    Args:
        device: of the model.
        batch_size: crystals that go through the network together.
        model: a name of `sevenn`'s, or the path of a checkpoint of one fidelity.
    """

    def __init__(self, *, device: str = "cpu", batch_size: int = 32, model: str = SEVENNET_MODEL) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        from sevenn.calculator import SevenNetCalculator

        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # of kernels that are not installed
            warnings.simplefilter("ignore")
            made: Any = SevenNetCalculator(model, device=device)
        made.model.set_is_batch_data(True)
        self.model: Any = made.model
        self.cutoff, self.known = float(made.cutoff), frozenset(int(number) for number in made.type_map)
        self.device, self.batch_size, self.model_name = device, batch_size, model

    @property
    def name(self) -> str:
        from importlib.metadata import version

        return f"SevenNet {self.model_name} (sevenn {version('sevenn')})"

    def evaluate(self, crystals: CrystalBatch) -> PotentialValues:
        values = no_values(crystals)
        reasons: list[str | None] = [None] * len(crystals)
        bounds = crystals.ptr.tolist()
        graphs, good = [], []
        for i, (start, end) in enumerate(pairwise(bounds)):
            atoms = Atoms(
                numbers=crystals.atomic_numbers[start:end].numpy(),
                cell=crystals.lattice[i].numpy(),
                scaled_positions=crystals.frac_coords[start:end].numpy(),
                pbc=True,
            )
            graph, reasons[i] = self._graph(atoms)
            if graph is not None:
                graphs.append(graph)
                good.append(i)
        for first in range(0, len(graphs), self.batch_size):
            members = good[first : first + self.batch_size]
            energies, forces, stresses = self._predict(graphs[first : first + self.batch_size])
            values.energies[members] = energies
            values.stresses[members] = stresses
            sizes = [bounds[i + 1] - bounds[i] for i in members]
            for i, of_crystal in zip(members, forces.split(sizes), strict=True):
                values.forces[bounds[i] : bounds[i + 1]] = of_crystal
        return PotentialValues(values.energies, values.forces, values.stresses, reasons)

    def _graph(self, atoms: Atoms) -> tuple[Any, str | None]:
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph

        if unknown := sorted(set(atoms.get_chemical_symbols()) - self._symbols):
            return None, f"SevenNet does not know {', '.join(unknown)}"
        graph = unlabeled_atoms_to_graph(atoms, self.cutoff)
        num_neighbors = torch.bincount(torch.as_tensor(graph["edge_index"][1]), minlength=len(atoms))
        if bool((num_neighbors == 0).any()):
            return None, f"SevenNet makes no graph of it: an atom has no neighbour within {self.cutoff:g} A"
        return AtomGraphData.from_numpy_dict(graph), None

    @property
    def _symbols(self) -> set[str]:
        from ase.data import chemical_symbols

        return {chemical_symbols[number] for number in self.known}

    def _predict(self, graphs: list[Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Energies (eV), forces (eV/angstrom) and stresses (eV/angstrom^3) of one batch, in double precision."""
        from torch_geometric.data import Batch

        output = self.model(Batch.from_data_list(graphs).to(self.device))
        # xx, yy, zz, xy, yz, zx, of the other sign
        six = -output["inferred_stress"].detach().cpu().double()
        return (
            output["inferred_total_energy"].detach().cpu().double().flatten(),
            output["inferred_force"].detach().cpu().double(),
            six[:, [[0, 3, 5], [3, 1, 4], [5, 4, 2]]],
        )
