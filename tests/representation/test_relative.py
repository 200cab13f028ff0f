"""Relative coordinates: what they are blind to and what they see, where gradients go, what can be exchanged."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.models import CDVAE
from cdvae_kit.representation.methods.encoder import CrystalVAEEncoder, MLPEncoder, embed
from cdvae_kit.representation.methods.relative import (
    RelativeEncoder,
    compare_spaces,
    inverse_relative_projection,
    off_diagonal,
    relative_head,
    relative_projection,
    stitching_matrix,
)
from cdvae_kit.seeding import make_generator, seeded_weights
from tests.models.tiny import tiny_config

WIDTH = 5
KINDS: dict[str, dict[str, Any]] = {
    "cosine": {},
    "centred": {"center": True},
    "euclidean": {"similarity": "euclidean"},
    "whitened": {"similarity": "whitened"},
}
MAPS = ("turn", "scale", "shift", "stretch")
BLIND = {
    "cosine": {"turn", "scale"},
    "centred": {"turn", "scale", "shift"},
    "euclidean": {"turn", "scale", "shift"},
    "whitened": {"turn", "scale", "shift", "stretch"},
}


def gaussian(num: int, width: int = WIDTH, seed: int = 0) -> Tensor:
    return torch.randn(num, width, generator=make_generator(seed), dtype=torch.float64)


def rotation(width: int = WIDTH) -> Tensor:
    return torch.linalg.qr(gaussian(width, width, 99)).Q


def mapped(x: Tensor, by: str) -> Tensor:
    stretch = torch.diag(torch.linspace(0.3, 3.0, WIDTH, dtype=torch.float64)) @ rotation()
    return {"turn": x @ rotation(), "scale": 7.0 * x, "shift": x + 2.0, "stretch": x @ stretch}[by]


def test_the_published_projection_is_the_cosine_of_a_loop() -> None:
    x, anchors = gaussian(4), gaussian(3, seed=1)
    expected = [[float(a @ b / math.sqrt(float(a @ a) * float(b @ b))) for b in anchors] for a in x]
    assert torch.allclose(relative_projection(x, anchors), torch.tensor(expected, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("by", MAPS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_projection_is_blind_to_its_maps_and_to_no_other(kind: str, by: str) -> None:
    x, anchors = gaussian(20) + 0.5, gaussian(12, seed=1) + 0.5
    before = relative_projection(x, anchors, **KINDS[kind])
    after = relative_projection(mapped(x, by), mapped(anchors, by), **KINDS[kind])
    difference = float((after - before).abs().max())
    assert difference < 1e-6 if by in BLIND[kind] else difference > 0.05, difference


@pytest.mark.parametrize("kind", KINDS)
def test_an_anchor_is_most_like_itself(kind: str) -> None:
    anchors = gaussian(9)
    own = relative_projection(anchors, anchors, **KINDS[kind])
    assert torch.allclose(own.diagonal(), torch.full((9,), 0.0 if kind == "euclidean" else 1.0).double(), atol=1e-9)
    assert torch.equal(own.argmax(1), torch.arange(9))


def test_near_points_far_from_the_origin_keep_their_distances() -> None:
    anchors = gaussian(40).float()
    near = relative_projection(anchors, anchors, similarity="euclidean")
    far = relative_projection(anchors + 1000.0, anchors + 1000.0, similarity="euclidean")
    assert torch.allclose(near, far, atol=1e-3) and bool((far.diagonal() == 0.0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_differences_and_finite_at_an_anchor(kind: str) -> None:
    anchors = gaussian(8)
    x = torch.cat([anchors[:1], gaussian(2, seed=1)]).requires_grad_()
    project = KINDS[kind]
    (at_anchor,) = torch.autograd.grad(relative_projection(x, anchors, **project).sum(), x)
    assert bool(at_anchor.isfinite().all())
    assert torch.autograd.gradcheck(
        lambda y: relative_projection(y, anchors, **project), (x[1:].detach().requires_grad_(),)
    )


def test_a_sample_without_a_direction_and_an_empty_batch_have_coordinates() -> None:
    anchors = gaussian(6)
    assert torch.equal(relative_projection(torch.zeros(1, WIDTH).double(), anchors), torch.zeros(1, 6).double())
    for kind in KINDS.values():
        assert relative_projection(anchors[:0], anchors, **kind).shape == (0, 6)


def test_whitening_drops_directions_in_which_anchors_do_not_vary() -> None:
    flat = torch.cat([gaussian(12, 3), torch.ones(12, 2).double()], dim=1)
    found = relative_projection(flat + 0.0, flat, similarity="whitened")
    assert torch.allclose(found, relative_projection(flat[:, :3], flat[:, :3], similarity="whitened"), atol=1e-9)


def test_projections_that_cannot_be_are_refused() -> None:
    x = gaussian(4)
    for anchors in (gaussian(3, 4), x[:0], x[0]):
        with pytest.raises(ValueError, match="of the same space"):
            relative_projection(x, anchors)
    for similarity in ("euclidean", "whitened"):
        with pytest.raises(ValueError, match="all one point"):
            relative_projection(x, torch.ones(3, WIDTH).double(), similarity=similarity)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="similarity must be"):
        relative_projection(x, x, similarity="nonsense")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the m anchors"):
        inverse_relative_projection(gaussian(4, 3), x)


@pytest.mark.parametrize("center", [False, True])
def test_cosines_carry_samples_into_another_space(center: bool) -> None:
    x, anchors = gaussian(20), gaussian(15, seed=1)
    there = 3.0 * anchors @ rotation()
    carried = inverse_relative_projection(relative_projection(x, anchors, center=center), there, center=center)
    middle = there.mean(0) if center else torch.zeros(WIDTH).double()
    expected = 3.0 * x @ rotation() - middle
    assert torch.allclose(functional.normalize(carried - middle), functional.normalize(expected), atol=1e-9)
    assert torch.allclose((carried - middle).norm(dim=1), (there - middle).norm(dim=1).mean().expand(20))


def small_encoder(*, seed: int = 0) -> nn.Sequential:
    with seeded_weights(seed):
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, WIDTH))


def test_no_gradient_reaches_the_anchors() -> None:
    with seeded_weights(0):
        encoder = MLPEncoder([3, WIDTH]).double()
    x, anchors = gaussian(6, 3), gaussian(4, 3, 1).requires_grad_()
    weight = encoder.layers[0].weight

    def gradient(output: Tensor) -> Tensor:
        return torch.autograd.grad(output.square().sum(), weight, retain_graph=True)[0]

    output = RelativeEncoder(encoder, anchors)(x)
    constant = relative_projection(encoder(x), embed(encoder, anchors))
    flowing = relative_projection(encoder(x), encoder(anchors))
    assert torch.equal(output, constant) and torch.allclose(gradient(output), gradient(constant))
    output.sum().backward()
    assert anchors.grad is None
    # the control: it would matter
    assert not torch.allclose(gradient(flowing), gradient(constant), atol=1e-3)


def test_anchors_follow_the_encoder() -> None:
    with seeded_weights(0):
        encoder = MLPEncoder([3, WIDTH])
    wrapped, x = RelativeEncoder(encoder, torch.eye(3)), torch.eye(3)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3)
    # whatever the encoder has become, an anchor is like itself
    assert torch.allclose(wrapped(x).diagonal(), torch.ones(3))


def test_anchors_are_seen_in_evaluation_mode_and_leave_statistics_alone() -> None:
    encoder, x = small_encoder(), gaussian(16, 3).float()
    wrapped = RelativeEncoder(encoder, gaussian(4, 3, 1).float()).train()
    # the draws of dropout come from the global generator
    with seeded_weights(1):
        wrapped(x)
    once = small_encoder().train()
    with seeded_weights(1):
        once(x)
    assert torch.equal(encoder[1].running_mean, once[1].running_mean)
    assert int(encoder[1].num_batches_tracked) == 1
    assert encoder.training and encoder[2].training


def test_an_encoder_of_one_sample_depends_on_no_other() -> None:
    with seeded_weights(0):
        model = nn.Sequential(RelativeEncoder(MLPEncoder([3, WIDTH]), torch.eye(3)), relative_head(3, 2, hidden=(4,)))
    x = gaussian(6, 3).float()
    assert torch.allclose(model(x)[:2], model(x[:2]), atol=1e-6)


def test_anchors_are_saved_with_the_weights_and_counted_as_features() -> None:
    wrapped = RelativeEncoder(MLPEncoder([3, WIDTH]), gaussian(7, 3).float())
    assert wrapped.out_features == 7
    other = RelativeEncoder(MLPEncoder([3, WIDTH]), torch.zeros(7, 3))
    other.load_state_dict(wrapped.state_dict())
    assert torch.equal(other(torch.eye(3)), wrapped(torch.eye(3)))
    with pytest.raises(ValueError, match="at least one anchor"):
        RelativeEncoder(MLPEncoder([3, WIDTH]), torch.zeros(0, 3))


def test_crystals_serve_as_anchors(zoo: CrystalBatch) -> None:
    with seeded_weights(0):
        model = CDVAE(tiny_config())
    crystals = zoo.select([0, 1, 2, 5])
    crystals = crystals.replace(frac_coords=crystals.frac_coords.float(), lattice=crystals.lattice.float())
    encoder = RelativeEncoder(CrystalVAEEncoder(model), crystals.select([2, 0]))
    found = embed(encoder, crystals)
    assert found.shape == (4, 2) and encoder.out_features == 2
    assert torch.allclose(found[[2, 0], [0, 1]], torch.ones(2), atol=1e-5)


class Turned(nn.Module):
    """An encoder whose space is that of another, turned and scaled."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: Tensor) -> Tensor:
        return 2.0 * self.encoder(batch) @ rotation().float()


def test_a_head_reads_a_turned_space_relatively_and_not_absolutely() -> None:
    with seeded_weights(0):
        # without an offset, so that no class is that of all samples
        encoder = nn.Linear(3, WIDTH, bias=False)
        head, relative = nn.Linear(WIDTH, 4), relative_head(12, 4)
    x, anchors = gaussian(50, 3).float(), gaussian(12, 3, 1).float()
    turned = Turned(encoder)

    def agreement(encoders: list[Any], reader: nn.Module) -> Tensor:
        truth = embed(reader, embed(encoders[0], x)).argmax(1)
        return stitching_matrix(
            encoders, [reader] * 2, x, lambda output: float((output.argmax(1) == truth).double().mean()), batch_size=16
        )

    wrapped = [RelativeEncoder(each, anchors) for each in (encoder, turned)]
    assert bool((agreement(wrapped, relative) == 1.0).all())
    assert float(agreement([encoder, turned], head)[1, 0]) < 0.8


def test_rows_of_a_stitching_matrix_are_encoders_and_columns_heads() -> None:
    encoders = [lambda x, s=s: x * s for s in (1.0, 10.0)]
    heads = [lambda x, s=s: x + s for s in (0.1, 0.2, 0.3)]
    matrix = stitching_matrix([*encoders, encoders[0]], heads, torch.ones(4, 1), lambda output: float(output.mean()))
    assert torch.allclose(
        matrix, torch.tensor([[1.1, 1.2, 1.3], [10.1, 10.2, 10.3], [1.1, 1.2, 1.3]], dtype=torch.float64)
    )
    assert torch.allclose(off_diagonal(matrix), torch.tensor([1.2, 1.3, 10.1, 10.3, 1.1, 1.2], dtype=torch.float64))
    for others in ([], heads[:1]):
        with pytest.raises(ValueError, match="as many heads as encoders"):
            stitching_matrix(encoders, others, torch.ones(4, 1), float)


def test_spaces_that_are_turned_are_the_same_in_relative_coordinates_alone() -> None:
    x, anchors = gaussian(60), gaussian(12, seed=1)
    absolute = compare_spaces(x, 2.0 * x @ rotation())
    relative = compare_spaces(
        relative_projection(x, anchors), relative_projection(2.0 * x @ rotation(), anchors @ rotation())
    )
    for found in (absolute, relative):
        assert found.cka == pytest.approx(1.0) and found.neighbour_overlap == pytest.approx(1.0)
    assert (relative.retrieval_overlap, relative.reciprocal_rank, relative.cosine) == pytest.approx((1.0, 1.0, 1.0))
    assert absolute.retrieval_overlap < 0.7 and absolute.reciprocal_rank < 0.7 and absolute.cosine < 0.7
    assert absolute.effective_ranks == pytest.approx((4.9, 4.9), abs=0.1)


def test_spaces_of_different_widths_are_compared_where_that_has_a_meaning() -> None:
    found = compare_spaces(gaussian(30, 3), gaussian(30, 4))
    assert math.isfinite(found.cka) and math.isfinite(found.neighbour_overlap)
    assert all(math.isnan(value) for value in (found.retrieval_overlap, found.reciprocal_rank, found.cosine))
