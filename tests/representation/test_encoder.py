"""Encoders: shapes, what they are blind to, and that a look at features leaves no trace."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.models import CDVAE, CDVAEConfig
from cdvae_kit.representation.methods.encoder import (
    ConvEncoder,
    CrystalVAEEncoder,
    Encoder,
    LocalEncoder,
    MLPEncoder,
    SetTransformer,
    as_encoder,
    embed,
)
from cdvae_kit.representation.methods.environments import RadialEncoder
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Transform
from cdvae_kit.transforms.crystal_motions import (
    AtomDisplacement,
    AtomPermutation,
    CrystalRotation,
    OriginShift,
    Supercell,
)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_pooled_features_are_the_mean_of_local_ones(dimensions: int) -> None:
    with seeded_weights(0):
        encoder = ConvEncoder(in_channels=2, widths=(4, 6), dimensions=dimensions).eval()
    x = torch.randn(3, 2, *[16] * dimensions, generator=make_generator(0))
    local, sample = encoder.local_features(x)
    assert torch.equal(sample.bincount(), torch.full((3,), 8**dimensions))
    means = torch.stack([local[sample == i].mean(0) for i in range(3)])
    assert torch.allclose(means, encoder(x), atol=1e-6)
    assert encoder(x).shape == (3, encoder.out_features)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_pooling_before_the_relu_changes_neither_features_nor_gradients(dimensions: int) -> None:
    with seeded_weights(0):
        encoder = ConvEncoder(in_channels=2, widths=(4, 6, 5), dimensions=dimensions)
    layers = list(encoder.blocks)
    assert [type(layer).__name__[:4] for layer in layers[:4]] == ["Conv", "Batc", "MaxP", "ReLU"]
    for i in (2, 6):
        layers[i], layers[i + 1] = layers[i + 1], layers[i]
    x = torch.randn(3, 2, *[16] * dimensions, generator=make_generator(0))
    found = []
    for network in (encoder.blocks, nn.Sequential(*layers)):
        encoder.zero_grad()
        features = network(x)
        features.square().sum().backward()
        found.append((features.detach(), [p.grad for p in encoder.parameters()]))
    (a, gradients), (b, others) = found
    assert torch.equal(a, b) and all(torch.equal(g, h) for g, h in zip(gradients, others, strict=True))


def test_the_small_encoders_follow_the_protocols() -> None:
    for encoder in (ConvEncoder(in_channels=1), SetTransformer(), RadialEncoder()):
        assert isinstance(encoder, LocalEncoder)
    assert isinstance(MLPEncoder([2, 3]), Encoder) and not isinstance(MLPEncoder([2, 3]), LocalEncoder)
    assert not isinstance(nn.Sequential(), Encoder)


def test_a_module_without_a_width_gets_one_and_others_stay() -> None:
    x = torch.zeros(2, 3, 4, 4)
    wrapped = as_encoder(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()), x)
    assert wrapped.out_features == 20 and wrapped(x).shape == (2, 20)
    own = MLPEncoder([48, 7])
    assert as_encoder(own, x) is own
    with pytest.raises(ValueError, match="one row a sample"):
        as_encoder(nn.Sequential(nn.Flatten(0, 1)), x)


def test_a_look_at_features_is_batched_and_leaves_modes_and_statistics() -> None:
    with seeded_weights(0):
        encoder = ConvEncoder(in_channels=1, widths=(3,))
    encoder.blocks[1].eval()
    before = [buffer.clone() for buffer in encoder.buffers()]
    x = torch.randn(7, 1, 5, 5, generator=make_generator(0))
    assert torch.allclose(embed(encoder, x, batch_size=2), embed(encoder, x), atol=1e-6)
    assert not embed(encoder, x).requires_grad
    assert encoder.training and not encoder.blocks[1].training
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.buffers(), strict=True))
    with pytest.raises(ValueError, match="no samples"):
        embed(encoder, x[:0])


def test_a_set_transformer_is_blind_to_order_and_to_nothing_else(zoo: CrystalBatch) -> None:
    with seeded_weights(0):
        encoder = SetTransformer(width=16, num_heads=2).double().eval()
    crystal = zoo.select([3])
    order = torch.tensor([2, 0, 3, 1])
    permuted = crystal.replace(frac_coords=crystal.frac_coords[order], atomic_numbers=crystal.atomic_numbers[order])
    features = embed(encoder, crystal)
    assert torch.allclose(embed(encoder, permuted), features)
    # the controls
    turn = torch.linalg.qr(torch.randn(3, 3, generator=make_generator(0), dtype=torch.float64)).Q
    turned = crystal.replace(lattice=crystal.lattice @ turn)
    shifted = crystal.replace(frac_coords=crystal.frac_coords + 0.25)
    for other in (turned, shifted):
        assert (embed(encoder, other) - features).abs().max() > 1e-3


def test_padding_of_a_set_transformer_does_not_leak(zoo: CrystalBatch) -> None:
    with seeded_weights(0):
        encoder = SetTransformer(width=16, num_heads=2).double().eval()
    together = embed(encoder, zoo)
    alone = torch.cat([embed(encoder, zoo.select([i])) for i in range(len(zoo))])
    assert torch.allclose(together, alone)
    local, sample = encoder.local_features(zoo)
    assert torch.equal(sample, zoo.batch) and len(local) == len(zoo.batch)


@pytest.mark.parametrize("symmetry", [CrystalRotation(), OriginShift(), AtomPermutation(), Supercell(3)])
def test_a_radial_encoder_sees_the_crystal_and_not_its_description(
    symmetry: Transform[CrystalBatch], zoo: CrystalBatch
) -> None:
    with seeded_weights(0):
        encoder = RadialEncoder(width=8, cutoff=4.0).double()
    features = embed(encoder, zoo)
    assert torch.allclose(embed(encoder, symmetry(zoo, generator=make_generator(0))), features, atol=1e-9)
    # the controls: whoever sees distances and elements sees these
    moved = AtomDisplacement(0.1)(zoo, generator=make_generator(0))
    other = zoo.replace(atomic_numbers=zoo.atomic_numbers % 100 + 1)
    for changed in (moved, other):
        # one atom has nothing to move against, and two that are far apart do not see each other
        assert ((embed(encoder, changed) - features).abs().amax(1) > 1e-6).sum() >= 4


def test_the_encoder_of_a_cdvae_gives_its_mean(zoo: CrystalBatch) -> None:
    with seeded_weights(0):
        model = CDVAE(CDVAEConfig(max_atoms=4, latent_dim=8))
    crystals = zoo.select([0, 1, 5])
    crystals = crystals.replace(frac_coords=crystals.frac_coords.float(), lattice=crystals.lattice.float())
    encoder = CrystalVAEEncoder(model)
    assert torch.allclose(embed(encoder, crystals), model.encode(crystals, reduce=False, allow_outside=True), atol=1e-5)
    assert encoder.out_features == 8
    # a cell that is not primitive is made so, and then it is the same crystal
    larger = Supercell(3)(crystals, generator=make_generator(0))
    assert torch.allclose(embed(encoder, larger), embed(encoder, crystals), atol=1e-3)
    with pytest.raises(ValueError, match=r"at most 4 atoms a cell, got 24 .*primitive cells"):
        embed(encoder, zoo.select([4]))


def test_users_of_images_series_and_tokens_never_load_pymatgen() -> None:
    code = (
        "import sys, torch\n"
        "from cdvae_kit.representation.methods import contrastive, encoder, fitting, probing, relative, similarity\n"
        "from cdvae_kit.representation.experiments import registry, running\n"
        "from cdvae_kit.representation.experiments.curriculum import curriculum\n"
        "from cdvae_kit.representation.experiments.relative import relative\n"
        "from cdvae_kit.datasets import composed_images\n"
        "from cdvae_kit.transforms import images, random_field, time_series, tokens\n"
        "encoder.embed(encoder.ConvEncoder(in_channels=3), torch.zeros(1, 3, 8, 8))\n"
        "print([name for name in ('pymatgen', 'torch_geometric', 'lightning', 'ase') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
