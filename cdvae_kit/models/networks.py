"""Which network a configuration names: encoders, score networks, noise processes, heads."""

from torch import nn

from cdvae_kit.diffusion.coordinates import CoordinateProcess, StraightPath, WrappedNormal
from cdvae_kit.diffusion.lattice import FixedLattice, LatticePath, LatticeProcess
from cdvae_kit.diffusion.types import AbsorbingTypes, ExchangedTypes, FixedTypes, PublishedTypes, TypeProcess
from cdvae_kit.models.config import CDVAEConfig, NoiseConfig
from cdvae_kit.models.encoder import EquivariantEncoder
from cdvae_kit.models.fractional import FractionalScoreNetwork
from cdvae_kit.models.heads import CompositionHead, FractionHead
from cdvae_kit.models.lattice_coding import LatticeCoding


def build_encoder(config: CDVAEConfig) -> nn.Module:
    """The encoder that `config.encoder.kind` names."""
    if config.encoder.kind == "equivariant":
        return EquivariantEncoder(
            config.encoder,
            latent_dim=config.latent_dim,
            max_atoms=config.max_atoms,
            is_numbered=config.has_numbers,
        )
    from cdvae_kit.models.dimenet import DimeNetEncoder

    return DimeNetEncoder(config.encoder, latent_dim=config.latent_dim, max_atoms=config.max_atoms)


def build_score_network(config: CDVAEConfig) -> nn.Module:
    """The score network that `config.score_network.kind` names."""
    settings = config.score_network
    if settings.kind == "fractional":
        return FractionalScoreNetwork(
            settings,
            latent_dim=config.latent_dim,
            max_atoms=config.max_atoms,
            is_numbered=config.has_numbers,
        )
    if settings.kind == "painn":
        from cdvae_kit.models.painn import PaiNNScoreNetwork

        return PaiNNScoreNetwork(settings, latent_dim=config.latent_dim, max_atoms=config.max_atoms)
    from cdvae_kit.models.gemnet import GemNetScoreNetwork

    return GemNetScoreNetwork(settings, latent_dim=config.latent_dim, max_atoms=config.max_atoms)


def build_composition_head(config: CDVAEConfig) -> CompositionHead | FractionHead:
    """The head that `config.composition` names."""
    head = CompositionHead if config.composition == "counts" else FractionHead
    return head(config.latent_dim, config.hidden_dim)


def build_coordinate_process(config: CDVAEConfig) -> CoordinateProcess:
    """The process that `noise.coordinates` names."""
    noise = config.noise
    if noise.coordinates == "straight_path":
        # numbered orbits are no longer equal
        return StraightPath(match_atoms=noise.match_atoms and not config.has_numbers)
    return WrappedNormal(
        sigma_min=noise.sigma_min, sigma_max=noise.sigma_max, exact_score=noise.coordinates == "wrapped_normal"
    )


def build_type_process(noise: NoiseConfig) -> TypeProcess:
    """The process that `noise.types` names."""
    processes: dict[str, type[TypeProcess]] = {
        "fixed": FixedTypes,
        "exchanged": ExchangedTypes,
        "absorbing": AbsorbingTypes,
        "published": PublishedTypes,
    }
    return processes[noise.types]()


def build_lattice_process(noise: NoiseConfig, coding: LatticeCoding) -> LatticeProcess:
    """The process that `noise.lattice` names."""
    return LatticePath(coding) if noise.lattice == "path" else FixedLattice(coding)
