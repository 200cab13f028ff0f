"""Potentials that give energies, forces and stresses of many crystals at once: Lennard-Jones, and CHGNet.

Lennard-Jones knows radii and nothing else. It is there for tests and for trying a pipeline in seconds: no number that
comes from it says anything of a real material.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.contacts import covalent_radii
from cdvae_kit.crystal.lattice import volume
from cdvae_kit.crystal.periodic_images import pairs_within

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class PotentialValues:
    """What a potential says of a batch.

    Attributes:
        energies: (num_crystals,) eV, of the whole cell.
        forces: (num_atoms, 3) eV/angstrom.
        stresses: (num_crystals, 3, 3) eV/angstrom^3, dE/d(strain) over the volume, as in ASE.
        reasons: why a crystal has no values, None where it has; its rows are NaN then.
    """

    energies: Tensor
    forces: Tensor
    stresses: Tensor
    reasons: Sequence[str | None]


@runtime_checkable
class BatchedPotential(Protocol):
    """What relaxes crystals batch by batch."""

    @property
    def name(self) -> str:
        """What stands beside a number that it gave."""
        ...

    def evaluate(self, crystals: CrystalBatch) -> PotentialValues:
        """Values of double-precision crystals on the CPU; the result is that too."""
        ...


class LennardJones:
    """A 12-6 potential whose pairs are at rest where the covalent radii touch. Not physical.

    u(r) = 4 epsilon ((sigma/r)^12 - (sigma/r)^6) with sigma_ij = 2^(-1/6) (R_i + R_j), R the covalent radii that ASE
    lists, brought to zero with its slope between `onset` and `cutoff` by the switch in r^2 that ASE's
    `LennardJones(smooth=True)` has.

    Args:
        epsilon: eV, one for all pairs.
        cutoff: in units of sigma_ij.
        onset: likewise.
        device: of the sums; crystals come and go on the CPU.
    """

    def __init__(
        self, *, epsilon: float = 0.2, cutoff: float = 2.5, onset: float = 1.8, device: torch.device | str = "cpu"
    ) -> None:
        if not 0 < onset < cutoff:
            raise ValueError(f"expected 0 < onset < cutoff in units of sigma, got {onset} and {cutoff}")
        self.epsilon, self.cutoff, self.onset = epsilon, cutoff, onset
        self.device = torch.device(device)
        radii = covalent_radii()
        # ASE writes 0.2 where no radius is known: in its older releases, of elements from berkelium on
        self._sizes = torch.where(radii > 0.2, radii / 2 ** (1 / 6), float("nan")).to(self.device)

    @property
    def name(self) -> str:
        return "Lennard-Jones on covalent radii (not physical)"

    def evaluate(self, crystals: CrystalBatch) -> PotentialValues:
        from ase.data import chemical_symbols

        size = self._sizes[crystals.atomic_numbers.to(self.device)]
        lost = size.isnan().cpu()
        reasons: list[str | None] = [None] * len(crystals)
        for crystal, number in zip(crystals.batch[lost].tolist(), crystals.atomic_numbers[lost].tolist(), strict=True):
            reasons[crystal] = f"Lennard-Jones has no covalent radius of {chemical_symbols[number]}"
        good = [i for i, reason in enumerate(reasons) if reason is None]
        if len(good) == len(crystals):
            return PotentialValues(*self._sums(crystals.to(self.device), size), reasons)
        values = no_values(crystals)
        if good:
            kept = ~torch.isin(crystals.batch, crystals.batch[lost])
            part = crystals.select(good).to(self.device)
            values.energies[good], values.forces[kept], values.stresses[good] = self._sums(part, size[kept])
        return PotentialValues(values.energies, values.forces, values.stresses, reasons)

    def _sums(self, crystals: CrystalBatch, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        largest = torch.zeros_like(crystals.lattice[:, 0, 0]).scatter_reduce_(0, crystals.batch, size, "amax")
        pairs = pairs_within(crystals, 2 * self.cutoff * largest)
        source, target = pairs.edge_index
        crystal = crystals.batch[target]
        sigma = size[source] + size[target]
        squared = pairs.squared_distances
        assert squared is not None
        near = torch.nonzero(squared < (self.cutoff * sigma) ** 2).squeeze(1)
        source, target, crystal, sigma = source[near], target[near], crystal[near], sigma[near]
        coords = crystals.cart_coords
        offsets = pairs.cell_offsets[near].to(coords.dtype)
        vectors = coords[source] - coords[target] + torch.einsum("ei,eij->ej", offsets, crystals.lattice[crystal])
        energy, slope = self._pair(vectors.square().sum(-1), sigma**2)
        pull = slope.unsqueeze(-1) * vectors
        # every pair is there from both ends, and half of its energy belongs to each
        energies = coords.new_zeros(len(crystals)).index_add_(0, crystal, energy / 2)
        forces = torch.zeros_like(coords).index_add_(0, target, pull)
        virials = coords.new_zeros(len(crystals), 9).index_add_(
            0, crystal, (pull.unsqueeze(-1) * vectors.unsqueeze(-2) / 2).flatten(1)
        )
        stresses = virials.unflatten(1, (3, 3)) / volume(crystals.lattice)[:, None, None]
        return energies.cpu(), forces.cpu(), stresses.cpu()

    def _pair(self, squared: Tensor, sigma_squared: Tensor) -> tuple[Tensor, Tensor]:
        """u and (du/dr)/r of each pair."""
        x = squared / sigma_squared
        sixth = x**-3
        bare = 4 * self.epsilon * (sixth**2 - sixth)
        bare_slope = -24 * self.epsilon * (2 * sixth**2 - sixth) / squared
        first, last = self.onset**2, self.cutoff**2
        width = (last - first) ** 3
        inside = x < first
        switch = torch.where(inside, 1.0, (last - x) ** 2 * (last + 2 * x - 3 * first) / width)
        # d(switch)/dr over r, as x = r^2 / sigma^2
        switch_slope = torch.where(inside, 0.0, 12 * (last - x) * (first - x) / width / sigma_squared)
        return switch * bare, switch * bare_slope + switch_slope * bare


class CHGNetPotential:
    """CHGNet (Deng et al., Nat. Mach. Intell. 5, 1031 (2023), arXiv 2302.14231) with the weights that its package has.

    Args:
        device: of the model.
        batch_size: crystals that go through the network together.
        model: a `chgnet.model.CHGNet`; the published one where None.
    """

    def __init__(self, *, device: str = "cpu", batch_size: int = 16, model: Any = None) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        from chgnet.model.model import CHGNet

        # its calculators and its library functions print
        with contextlib.redirect_stdout(io.StringIO()):
            self.model = CHGNet.load(use_device=device, verbose=False) if model is None else model
        self.model.graph_converter.set_isolated_atom_response("error")
        self.batch_size = batch_size

    @property
    def name(self) -> str:
        return f"CHGNet {self.model.version}"

    def evaluate(self, crystals: CrystalBatch) -> PotentialValues:
        reasons: list[str | None] = [None] * len(crystals)
        graphs, good = [], []
        for i, structure in enumerate(crystals.structures()):
            graph, reasons[i] = self._graph(structure)
            if graph is not None:
                graphs.append(graph)
                good.append(i)
        values = no_values(crystals)
        bounds = crystals.ptr.tolist()
        self.model.eval()
        for first in range(0, len(graphs), self.batch_size):
            members = good[first : first + self.batch_size]
            energies, forces, stresses = self._predict(graphs[first : first + self.batch_size])
            values.energies[members] = energies
            values.stresses[members] = stresses
            for i, of_crystal in zip(members, forces, strict=True):
                values.forces[bounds[i] : bounds[i + 1]] = of_crystal
        return PotentialValues(values.energies, values.forces, values.stresses, reasons)

    def _predict(self, graphs: list[Any]) -> tuple[Tensor, list[Tensor], Tensor]:
        """Energies (eV), forces (eV/angstrom) and stresses (eV/angstrom^3) of one batch, in double precision.

        CHGNet's own `predict_graph` differentiates once for the forces and once for the stress, and keeps both graphs
        for a second derivative that only training needs; here one pass gives both.
        """
        from chgnet.model.model import BatchedGraph

        model = self.model
        graphs = [graph.to(next(model.parameters()).device) for graph in graphs]
        batched = BatchedGraph.from_graphs(
            graphs,
            bond_basis_expansion=model.bond_basis_expansion,
            angle_basis_expansion=model.angle_basis_expansion,
            compute_stress=True,
        )
        found = model._compute(batched)
        counts = found["atoms_per_graph"] if model.is_intensive else torch.ones_like(found["atoms_per_graph"])
        energies = found["e"] * counts
        slopes = torch.autograd.grad(energies.sum(), [*batched.atom_positions, *batched.strains])
        composition = 0.0 if model.composition_model is None else model.composition_model(graphs) * counts
        stresses = torch.stack(slopes[len(graphs) :]) / batched.volumes[:, None, None]
        return (
            (energies + composition).detach().cpu().double(),
            [-slope.cpu().double() for slope in slopes[: len(graphs)]],
            stresses.cpu().double(),
        )

    def _graph(self, structure: Structure) -> tuple[Any, str | None]:
        if heavy := [site.specie.symbol for site in structure if site.specie.Z > _CHGNET_ELEMENTS]:
            return None, f"CHGNet does not know {heavy[0]}"
        try:
            return self.model.graph_converter(structure), None
        except ValueError as error:
            return None, f"CHGNet makes no graph of it: {error}"


_CHGNET_ELEMENTS = 94


def no_values(crystals: CrystalBatch) -> PotentialValues:
    """NaN throughout, for a potential to fill in."""
    nan = float("nan")
    return PotentialValues(
        torch.full((len(crystals),), nan, dtype=torch.float64),
        torch.full((len(crystals.frac_coords), 3), nan, dtype=torch.float64),
        torch.full((len(crystals), 3, 3), nan, dtype=torch.float64),
        [None] * len(crystals),
    )
