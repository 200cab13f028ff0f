"""The network from a crystal to intensive properties, one member of a `PropertyPredictor`.

Which symmetry holds: rotation, reflection, translation, permutation of atoms, choice of the cell (primitive,
reduced, supercell), all exactly: it sees elements, edges as vectors, and the volume of an atom, and takes means over
atoms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.utils import scatter

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.elements import NUM_FEATURES, element_features
from cdvae_kit.crystal.lattice import volume
from cdvae_kit.graph import PeriodicGraph, neighbor_list
from cdvae_kit.models import pretrained
from cdvae_kit.models.limits import NUM_ELEMENTS
from cdvae_kit.models.predictor_config import PropertyPredictorConfig
from cdvae_kit.nn.dropout import dropout
from cdvae_kit.nn.embeddings import BesselBasis
from cdvae_kit.nn.equivariant import EquivariantConvolution
from cdvae_kit.nn.mlp import mlp
from cdvae_kit.nn.vector_messages import VectorMessage, VectorUpdate
from cdvae_kit.typing import Progress

_LMAX = 2


class PropertyNetwork(pretrained.PretrainedModule):
    """Messages between near atoms, a mean over atoms, and an MLP. It fits `cdvae_kit.training.fit`.

    Args:
        config: the settings of the ensemble that it belongs to.
    """

    _EARLIER_NAMES: ClassVar[Mapping[str, str]] = {"property_deviation": "property_std"}

    property_mean: Tensor
    property_std: Tensor
    known_elements: Tensor
    volume_scale: Tensor
    element_table: Tensor

    def __init__(self, config: PropertyPredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.card: dict[str, Any] = {}
        channels, width = config.channels, config.width
        self.basis = BesselBasis(config.num_basis, config.cutoff)
        self.element = nn.Embedding(NUM_ELEMENTS + 1, channels)
        # what tells elements apart is at first their place in the table, which unlike atoms share
        nn.init.normal_(self.element.weight, std=0.3)
        self.element_map = mlp([NUM_FEATURES, 2 * channels, channels])
        self.messages = _Convolutions(config) if config.kind == "equivariant" else _VectorMessages(config)
        self.volume_map = mlp([1, channels, channels])
        self.atom = mlp([self.messages.num_features + channels, width, width], final_activation=True)
        self.readout = mlp([width, width, len(config.properties)])
        self.register_buffer("property_mean", torch.zeros(len(config.properties)))
        self.register_buffer("property_std", torch.ones(len(config.properties)))
        self.register_buffer("known_elements", torch.zeros(0, dtype=torch.long))
        self.register_buffer("volume_scale", torch.tensor([0.0, 1.0]))
        self.register_buffer("element_table", torch.zeros(NUM_ELEMENTS + 1, NUM_FEATURES))

    def graph(self, crystals: CrystalBatch) -> PeriodicGraph:
        """All edges within the cutoff."""
        return neighbor_list(crystals, self.config.cutoff)

    def forward(self, crystals: CrystalBatch, graph: PeriodicGraph) -> Tensor:
        """(num_crystals, num_properties), standardised: less `property_mean`, over `property_std`."""
        return self._from_edges(crystals, graph, graph.vectors(crystals))

    def _from_edges(
        self,
        crystals: CrystalBatch,
        graph: PeriodicGraph,
        edge_vectors: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        batch = crystals.batch
        basis = self.basis(edge_vectors.norm(dim=-1)) * self.config.cutoff
        table = self.element_table.to(edge_vectors.dtype).index_select(0, crystals.atomic_numbers)
        start = self.element(crystals.atomic_numbers) + self.element_map(table)
        log_volume = torch.log(volume(crystals.lattice) / crystals.num_atoms).unsqueeze(-1)
        room = self.volume_map((log_volume - self.volume_scale[0]) / self.volume_scale[1])
        features = self.messages(start, graph.edge_index, edge_vectors, basis, room, batch)
        atoms = self.atom(torch.cat([features, room.index_select(0, batch)], dim=-1))
        pooled = scatter(atoms, batch, dim=0, dim_size=len(crystals), reduce="mean")
        return self.readout(dropout(pooled, self.config.dropout, generator))

    # -- training ------------------------------------------------------------------------------------------------

    def prepare(self, crystals: CrystalBatch, *, progress: Progress | None = None) -> CrystalBatch:
        """The crystals as they are: the network does not know the choice of the cell."""
        return crystals

    def fit_statistics(self, crystals: CrystalBatch) -> None:
        """Scales of the properties and of the volume, the elements that occur, and what is known of elements."""
        truth = self._truth(crystals)
        for i, name in enumerate(self.config.properties):
            values = truth[:, i][truth[:, i].isfinite()]
            if len(values) < 2:
                raise ValueError(f"property {name!r} has {len(values)} values in the training crystals; it needs 2")
            self.property_mean[i] = values.mean()
            self.property_std[i] = values.std().clamp_min(1e-6)
        log_volume = torch.log(volume(crystals.lattice) / crystals.num_atoms)
        self.volume_scale[0] = log_volume.mean()
        self.volume_scale[1] = log_volume.std(correction=0).clamp_min(0.05)
        self.known_elements = torch.unique(crystals.atomic_numbers).to(self.property_mean.device)
        self.element_table.copy_(element_features())

    def loss(
        self, crystals: CrystalBatch, graph: PeriodicGraph, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The mean absolute error of the properties, standardised; a value that is missing counts for nothing.

        In training mode, with a generator, the atoms are moved at random (`training_noise`) while edges and labels
        stay, and features are dropped.
        """
        edge_vectors = graph.vectors(crystals)
        generator = generator if self.training else None
        if generator is not None and self.config.training_noise > 0.0:
            edge_vectors = edge_vectors + self._edge_noise(crystals, graph, generator)
        scaled = (self._truth(crystals) - self.property_mean) / self.property_std
        there = scaled.isfinite()
        predicted = self._from_edges(crystals, graph, edge_vectors, generator)
        error = (predicted - torch.where(there, scaled, 0.0)).abs()
        return {"error": torch.where(there, error, 0.0).sum() / there.sum().clamp_min(1)}

    def _edge_noise(self, crystals: CrystalBatch, graph: PeriodicGraph, generator: torch.Generator) -> Tensor:
        """(num_edges, 3), angstrom: what the edges change by when each atom moves."""
        device = crystals.lattice.device
        level = self.config.training_noise * torch.rand(len(crystals), 1, generator=generator, device=device)
        moved = torch.randn(crystals.frac_coords.shape, generator=generator, device=device)
        moved = (moved * level.index_select(0, crystals.batch)).to(crystals.lattice.dtype)
        source, target = graph.edge_index
        return moved.index_select(0, source) - moved.index_select(0, target)

    def total_loss(self, terms: dict[str, Tensor]) -> Tensor:
        """The only term of `loss`."""
        return terms["error"]

    def _truth(self, crystals: CrystalBatch) -> Tensor:
        missing = [name for name in self.config.properties if name not in crystals.properties]
        if missing:
            raise ValueError(
                f"the crystals have no property {', '.join(map(repr, missing))}; they have "
                f"{', '.join(sorted(crystals.properties)) or 'none'}"
            )
        return torch.stack([crystals.properties[name] for name in self.config.properties], dim=-1)


class _Convolutions(nn.Module):
    """Equivariant convolutions; an atom's features are the scalars after each of them."""

    def __init__(self, config: PropertyPredictorConfig) -> None:
        super().__init__()
        self.harmonics = o3.Irreps.spherical_harmonics(_LMAX)
        self.channels = config.channels
        self.num_features = config.channels * (config.num_convolutions + 1)
        irreps = o3.Irreps([(config.channels, (0, 1))])
        layers = []
        for i in range(config.num_convolutions):
            degrees = 1 if i == config.num_convolutions - 1 else _LMAX + 1
            layers.append(
                EquivariantConvolution(
                    irreps,
                    (config.channels,) * degrees,
                    lmax=_LMAX,
                    num_basis=config.num_basis,
                    num_neighbors=config.typical_neighbors,
                )
            )
            irreps = layers[-1].irreps_out
        self.layers = nn.ModuleList(layers)

    def forward(
        self, h: Tensor, edge_index: Tensor, edge_vectors: Tensor, basis: Tensor, room: Tensor, batch: Tensor
    ) -> Tensor:
        harmonics = o3.spherical_harmonics(self.harmonics, edge_vectors, normalize=True, normalization="component")
        scalars = [h]
        for layer in self.layers:
            h = layer(h, edge_index, harmonics, basis)
            scalars.append(h[:, : self.channels])
        return torch.cat(scalars, dim=-1)


class _VectorMessages(nn.Module):
    """PaiNN messages, told the volume of an atom; an atom's features are its scalars in the end."""

    def __init__(self, config: PropertyPredictorConfig) -> None:
        super().__init__()
        width = config.channels
        self.num_features = width
        rounds = range(config.num_convolutions)
        self.layers = nn.ModuleList(VectorMessage(width, config.num_basis, config.typical_neighbors) for _ in rounds)
        self.updates = nn.ModuleList(VectorUpdate(width) for _ in rounds)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, h: Tensor, edge_index: Tensor, edge_vectors: Tensor, basis: Tensor, room: Tensor, batch: Tensor
    ) -> Tensor:
        vectors = h.new_zeros(len(h), 3, h.shape[-1])
        direction = edge_vectors / edge_vectors.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        for layer, update in zip(self.layers, self.updates, strict=True):
            h, vectors = layer(h, vectors, edge_index, direction, basis, room, batch)
            h, vectors = update(h, vectors)
        return self.norm(h)
