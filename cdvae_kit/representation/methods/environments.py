"""Atoms by their surroundings: a small message-passing encoder, and the hand-made features that it is compared with.

All that is here is blind to rotation, origin, the order of atoms and the choice of the cell: an atom's features depend
on the crystal around it and not on its description, and those of a crystal are means over atoms. For training in
minutes; what generates crystals has its encoders in `cdvae_kit.models`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.batch import MAX_ATOMIC_NUMBER
from cdvae_kit.graph import neighbor_list
from cdvae_kit.nn.embeddings import BesselBasis
from cdvae_kit.nn.mlp import mlp


class EnvironmentEncoder(nn.Module):
    """Messages from all atoms within a cutoff, weighted by filters of the distance, summed; then the mean over atoms.

    As SchNet (Schütt et al., NeurIPS 2017, arXiv 1706.08566), with the radial basis of DimeNet, which takes a message
    smoothly to zero at the cutoff: no atom counts as a neighbour all at once.

    Args:
        width: of the features.
        num_layers: of messages; an atom sees `num_layers` cutoffs far.
        cutoff: angstrom.
        num_basis: radial functions.

    >>> salt = CrystalBatch(torch.tensor([[0.0] * 3, [0.5] * 3]), 4.1 * torch.eye(3)[None], torch.tensor([55, 17]),
    ...                     torch.tensor([2]))
    >>> encoder = EnvironmentEncoder(width=8)
    >>> encoder(salt).shape, encoder.local_features(salt)[0].shape
    (torch.Size([1, 8]), torch.Size([2, 8]))
    """

    def __init__(self, *, width: int = 64, num_layers: int = 2, cutoff: float = 5.0, num_basis: int = 12) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.element = nn.Embedding(MAX_ATOMIC_NUMBER + 1, width)
        self.basis = BesselBasis(num_basis, cutoff)
        self.filters = nn.ModuleList(nn.Linear(num_basis, width, bias=False) for _ in range(num_layers))
        self.senders = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))
        self.updates = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(num_layers)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.ReLU())
        self.out_features = width

    def forward(self, batch: CrystalBatch) -> Tensor:
        features, sample = self.local_features(batch)
        return mean_over_atoms(features, sample, batch)

    def local_features(self, batch: CrystalBatch) -> tuple[Tensor, Tensor]:
        """Features (num_atoms, width), not negative, and the crystal of each atom."""
        graph = neighbor_list(batch, self.cutoff)
        source, target = graph.edge_index
        # basis functions of about unit size: the normalisation of DimeNet makes them small
        basis = self.cutoff * self.basis(graph.distances(batch))
        h = self.element(batch.atomic_numbers)
        for filters, sender, update in zip(self.filters, self.senders, self.updates, strict=True):
            messages = filters(basis) * sender(h).index_select(0, source)
            h = h + update(torch.zeros_like(h).index_add(0, target, messages))
        return self.last(h), batch.batch


class RadialEncoder(nn.Module):
    """Distances between the atoms of a crystal and their elements, and nothing else: the mean of its atoms' features.

    An atom gathers, over its neighbours within the cutoff, the neighbour's element times a filter of the distance
    (one layer of SchNet, Schütt et al. 2017). Blind to rotations, to the choice of the cell and of the origin, and to
    the order of atoms; cheap.

    Args:
        width: of the features.
        cutoff: angstrom.
        num_basis: functions of the distance.
        num_neighbors: by whose root the sum over neighbours is divided, to bring it to order one.
    """

    def __init__(
        self, *, width: int = 64, cutoff: float = 5.0, num_basis: int = 12, num_neighbors: float = 40.0
    ) -> None:
        super().__init__()
        self.element = nn.Embedding(MAX_ATOMIC_NUMBER + 1, width)
        self.neighbor = nn.Embedding(MAX_ATOMIC_NUMBER + 1, width)
        self.basis = BesselBasis(num_basis, cutoff)
        self.filter = nn.Linear(num_basis, width, bias=False)
        self.update = mlp([2 * width, width, width])
        self.scale = num_neighbors**-0.5
        self.out_features = width

    def forward(self, batch: CrystalBatch) -> Tensor:
        features, sample = self.local_features(batch)
        return mean_over_atoms(features, sample, batch)

    def local_features(self, batch: CrystalBatch) -> tuple[Tensor, Tensor]:
        graph = neighbor_list(batch, self.basis.cutoff)
        source, target = graph.edge_index
        basis = self.basis(graph.distances(batch).to(self.filter.weight.dtype))
        messages = self.neighbor(batch.atomic_numbers)[source] * self.filter(basis)
        gathered = messages.new_zeros(len(batch.batch), self.out_features).index_add(0, target, messages)
        h = torch.cat([self.element(batch.atomic_numbers), self.scale * gathered], dim=1)
        return self.update(h), batch.batch


class Composition(nn.Module):
    """All that a formula says: the share of each element among the atoms, and the shares in descending order.

    The latter, the six largest, tell AB2 from ABX3 where no element was seen before.
    """

    num_sorted = 6
    out_features = MAX_ATOMIC_NUMBER + 1 + num_sorted

    def forward(self, batch: CrystalBatch) -> Tensor:
        present = torch.nn.functional.one_hot(batch.atomic_numbers, MAX_ATOMIC_NUMBER + 1).to(batch.lattice.dtype)
        shares = mean_over_atoms(present, batch.batch, batch)
        return torch.cat([shares, shares.topk(self.num_sorted, dim=1).values], dim=1)


class RadialDistribution(nn.Module):
    """How many atoms stand at which distance from an atom, in units of the crystal's own length; blind to elements.

    The unit is the cube root of the volume of an atom, so that a large and a small cell of one structure look alike.

    Args:
        num_bins: over 0 .. `reach`.
        reach: in these units.
        standard_deviation: of the Gaussian that an atom is smeared into, in widths of a bin.
    """

    def __init__(self, *, num_bins: int = 48, reach: float = 2.4, standard_deviation: float = 1.0) -> None:
        super().__init__()
        self.reach = reach
        self.out_features = num_bins
        self.width = reach / num_bins
        self.standard_deviation = standard_deviation

    def forward(self, batch: CrystalBatch) -> Tensor:
        unit = (torch.linalg.det(batch.lattice).abs() / batch.num_atoms).pow(1.0 / 3.0)
        scaled = batch.replace(lattice=batch.lattice / unit[:, None, None])
        # beyond the last bin, so that its Gaussian has both its sides
        graph = neighbor_list(scaled, self.reach + 3.0 * self.standard_deviation * self.width)
        distances = graph.distances(scaled)
        middles = (torch.arange(self.out_features, device=distances.device) + 0.5) * self.width
        heights = torch.exp(-0.5 * ((distances[:, None] - middles) / (self.standard_deviation * self.width)).square())
        # each atom receives from its own neighbours; the growth of shells with the distance squared is taken out
        found = heights.new_zeros(len(batch.batch), self.out_features).index_add(0, graph.edge_index[1], heights)
        return mean_over_atoms(found / middles.square(), batch.batch, batch)


def mean_over_atoms(features: Tensor, sample: Tensor, batch: CrystalBatch) -> Tensor:
    """(b, d): the mean of atoms' features (num_atoms, d) over each crystal; a sum would grow with the cell."""
    summed = features.new_zeros(len(batch), features.shape[1]).index_add(0, sample, features)
    return summed / batch.num_atoms[:, None].to(features.dtype)
