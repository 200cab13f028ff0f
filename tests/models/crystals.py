"""Crystals and networks that the tests of models share."""

from typing import TypeVar, get_args

import torch
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.lattice import lattice_from_parameters, log_parameters
from cdvae_kit.crystal.symmetric import SymmetricCrystals, describe, join, without_symmetry
from cdvae_kit.diffusion.state import NoisyCrystals
from cdvae_kit.models.config import CDVAEConfig, EncoderConfig, ScoreNetworkConfig
from cdvae_kit.models.networks import build_encoder, build_score_network
from cdvae_kit.seeding import make_generator

LATENT_DIM = 6
SCORE_NETWORKS = get_args(ScoreNetworkConfig.model_fields["kind"].annotation)
"""Each one that settings can name."""
ENCODERS = ("equivariant", "dimenet++")
_Network = TypeVar("_Network", bound=nn.Module)


def _crystal(cell: list[float], sites: list[tuple[int, list[float]]]) -> CrystalBatch:
    parameters = torch.tensor([cell], dtype=torch.float64)
    return CrystalBatch(
        torch.tensor([place for _, place in sites], dtype=torch.float64),
        lattice_from_parameters(parameters[:, :3], parameters[:, 3:]),
        torch.tensor([number for number, _ in sites]),
        torch.tensor([len(sites)]),
    )


def ordinary_crystals() -> CrystalBatch:
    """Rock salt (primitive), cubic perovskite, wurtzite, rutile: neighbours in shells of equal distance. float64."""
    return concatenate(
        [
            _crystal([3.99, 3.99, 3.99, 60.0, 60.0, 60.0], [(11, [0.0, 0.0, 0.0]), (17, [0.5, 0.5, 0.5])]),
            _crystal(
                [3.905, 3.905, 3.905, 90.0, 90.0, 90.0],
                [
                    (38, [0.0, 0.0, 0.0]),
                    (22, [0.5, 0.5, 0.5]),
                    (8, [0.5, 0.5, 0.0]),
                    (8, [0.5, 0.0, 0.5]),
                    (8, [0.0, 0.5, 0.5]),
                ],
            ),
            _crystal(
                [3.25, 3.25, 5.2, 90.0, 90.0, 120.0],
                [
                    (30, [1 / 3, 2 / 3, 0.0]),
                    (30, [2 / 3, 1 / 3, 0.5]),
                    (8, [1 / 3, 2 / 3, 0.382]),
                    (8, [2 / 3, 1 / 3, 0.882]),
                ],
            ),
            _crystal(
                [4.59, 4.59, 2.96, 90.0, 90.0, 90.0],
                [
                    (22, [0.0, 0.0, 0.0]),
                    (22, [0.5, 0.5, 0.5]),
                    (8, [0.305, 0.305, 0.0]),
                    (8, [0.695, 0.695, 0.0]),
                    (8, [0.195, 0.805, 0.5]),
                    (8, [0.805, 0.195, 0.5]),
                ],
            ),
        ]
    )


def cast(batch: CrystalBatch, dtype: torch.dtype) -> CrystalBatch:
    return batch.replace(frac_coords=batch.frac_coords.to(dtype), lattice=batch.lattice.to(dtype))


def noisy(batch: CrystalBatch, *, mask_every: int | None = 5) -> NoisyCrystals:
    """The crystals as a score network sees them, some orbits masked; atoms are orbits where nothing else is said."""
    crystals = batch if isinstance(batch, SymmetricCrystals) else without_symmetry(batch)
    orbits, elements = crystals.orbits, crystals.elements.clone()
    if mask_every is not None:
        elements[::mask_every] = 0
    return NoisyCrystals(
        orbits=orbits,
        free=crystals.free,
        elements=elements,
        lattice_parameters=conventional_parameters(crystals),
        lattice=crystals.lattice,
        pairs=orbits.pairs(),
    )


def conventional_parameters(crystals: SymmetricCrystals) -> Tensor:
    return log_parameters(crystals.orbits.primitive_to_conventional(crystals.lattice))


def of_both_kinds(batch: CrystalBatch) -> SymmetricCrystals:
    """The crystals without symmetry, then ordinary ones with it: every part of a network has work to do."""
    return join([without_symmetry(batch), describe(ordinary_crystals())])


def at_a_generic_point(network: _Network, seed: int) -> _Network:
    """The network with weights from the seed, none of them zero or equal any more: nothing is hidden by them."""
    generator = make_generator(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            constant = parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all())
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            elif name.endswith("freq") or constant:
                parameter.add_(0.05 * noise)
            else:
                parameter.copy_(0.05 * noise if name.endswith("bias") else noise)
    return network


def small_config(**changes: object) -> CDVAEConfig:
    settings: dict[str, object] = {"max_atoms": 24, "latent_dim": LATENT_DIM, "hidden_dim": 8}
    return CDVAEConfig.model_validate(settings | changes)


def small_score_network(kind: str, dtype: torch.dtype = torch.float64, *, knows_noise_level: bool = True) -> nn.Module:
    settings = ScoreNetworkConfig.model_validate(
        {
            "kind": kind,
            "width": 16,
            "num_layers": 2,
            "num_frequencies": 3,
            "cutoff": 5.0,
            "max_neighbors": 12,
            "num_basis": 6,
            "knows_noise_level": knows_noise_level,
        }
    )
    return at_a_generic_point(build_score_network(small_config(score_network=settings)), seed=3).to(dtype)


def small_encoder(kind: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    settings = EncoderConfig.model_validate(
        {"kind": kind, "channels": 4, "width": 16, "num_basis": 4, "num_frequencies": 3, "cutoff": 5.0}
    )
    return at_a_generic_point(build_encoder(small_config(encoder=settings)), seed=4).to(dtype)


def codes(num_crystals: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """z and noise levels."""
    generator = make_generator(8)
    z = torch.randn(num_crystals, LATENT_DIM, generator=generator)
    return z.to(dtype), torch.rand(num_crystals, generator=generator).to(dtype)
