"""The fully connected score network on fractional coordinates, orbit by orbit.

Features live on orbits; an orbit receives messages from every atom of the cell, as seen from its first atom, and says
how its free parameters should move. In P1, where orbits are atoms, these are messages between all atoms.

Which symmetry holds: order of orbits, translation along polar axes, periodic images and rotation of the crystal are
exact, since it sees types, positions, differences of fractional coordinates through functions of period 1, and
rotation-invariant lattice parameters alone. Another choice of cell gives other outputs: crystals are brought to their
canonical description first. The idea of messages on Fourier features of fractional differences is CSPNet's (Jiao et
al., arXiv 2309.04475).
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from cdvae_kit.diffusion.state import NoisyCrystals, ScoreOutput
from cdvae_kit.models.config import ScoreNetworkConfig
from cdvae_kit.models.noisy_graph import Conditioning, ScoreHeads
from cdvae_kit.models.positions import where_it_stands
from cdvae_kit.models.sites import SiteEmbedding
from cdvae_kit.models.slots import NUM_WAVES
from cdvae_kit.nn.embeddings import PeriodicFourier
from cdvae_kit.nn.fractional import FractionalLayer, PairwiseReadout
from cdvae_kit.nn.mlp import mlp
from cdvae_kit.nn.stored_names import RenamedModule


class FractionalScoreNetwork(RenamedModule):
    """Messages from all atoms of a cell to its orbits, conditioned on z, the noise level, the group and the lattice."""

    _EARLIER_NAMES: ClassVar[Mapping[str, str]] = {
        **{name: f"conditioning.{name}" for name in ("sites", "count", "group", "condition")},
        **{name: f"heads.{name}" for name in ("norm", "gain", "types_out", "lattice_out")},
    }

    def __init__(
        self, config: ScoreNetworkConfig, *, latent_dim: int, max_atoms: int, is_numbered: bool = False
    ) -> None:
        super().__init__()
        width = config.width
        self.num_frequencies = config.num_frequencies
        self.conditioning = Conditioning(
            config,
            latent_dim=latent_dim,
            max_atoms=max_atoms,
            knows_group=True,
            most_orbits=max_atoms if is_numbered else None,
        )
        self.fourier = PeriodicFourier(config.num_frequencies)
        self.place = nn.Linear(6 * config.num_frequencies, width, bias=False)
        self.layers = nn.ModuleList(FractionalLayer(width, self.fourier.num_features) for _ in range(config.num_layers))
        self.free_out = PairwiseReadout(width, config.num_frequencies)
        self.place_out = mlp([width + 6 * config.num_frequencies, width, 3])
        self.heads = ScoreHeads(width)
        self.guess = GuidedByGuess(width) if is_numbered else None

    @property
    def sites(self) -> SiteEmbedding:
        """What the orbits start from; it can be asked for their surroundings."""
        return self.conditioning.sites

    def forward(self, crystals: NoisyCrystals, z: Tensor, level: Tensor, blur: Tensor | None = None) -> ScoreOutput:
        """
        Args:
            crystals: the noisy crystals.
            z: (num_crystals, latent_dim).
            level: (num_crystals,) noise level in [0, 1].
            blur: (num_crystals,) how blurred z is, in [0, 1], of a network that knows; None: not at all.
        """
        orbits = crystals.orbits
        batch = orbits.batch
        rows, condition, level_features = self.conditioning.of_orbits(crystals, z, level, blur)
        told = orbits.is_free & ~orbits.is_polar
        place = where_it_stands(crystals.free, told, self.num_frequencies)
        h = rows + condition.index_select(0, batch) + self.place(place)
        if self.guess is not None:
            free = orbits.seen_from(crystals.anchors, crystals.free)
            waves = self.sites.waves(rows, z, orbits, crystals.number)
            seen_from_guess = self.sites.seen_from_guess(waves, free, orbits.is_free)
            h = h + self.guess.features(seen_from_guess)
        atoms, seen_from = crystals.pairs
        first = orbits.first_atom.index_select(0, seen_from)
        frac_coords = crystals.frac_coords
        pair_features = self.fourier(frac_coords.index_select(0, atoms) - frac_coords.index_select(0, first))
        pairs = torch.stack([orbits.of_atom.index_select(0, atoms), seen_from])
        for layer in self.layers:
            h = layer(h, pairs, pair_features, condition, batch)
        h = self.heads.norm(h)
        moved = orbits.pull_first(self.free_out(h, pairs, pair_features))
        moved = moved + self.place_out(torch.cat([h, place], dim=-1))
        if self.guess is not None:
            moved = moved + self.guess(h, seen_from_guess)
        return self.heads.of_orbits(orbits, h, moved, condition, level_features)


class GuidedByGuess(nn.Module):
    """What is made of the parameters that z speaks of: features of an orbit, and a part of its way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        seen = 3 + 6 * NUM_WAVES
        self.features = nn.Linear(seen, width, bias=False)
        self.out = mlp([width + seen, width, 6])
        last = self.out[-1]
        assert isinstance(last, nn.Linear)
        for start in (self.features.weight, last.weight, last.bias):
            nn.init.zeros_(start)

    def forward(self, h: Tensor, seen_from_guess: Tensor) -> Tensor:
        """(num_orbits, 3): a share of the way from the guess, and what else h says."""
        share, rest = self.out(torch.cat([h, seen_from_guess], dim=-1)).chunk(2, dim=-1)
        return share * seen_from_guess[:, :3] + rest
