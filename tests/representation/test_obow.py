"""Bags, vocabulary, predictor and teacher of OBoW against their equations; and what must break if one is broken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cdvae_kit.nn.losses import kl_to_soft_target
from cdvae_kit.representation.methods.encoder import ConvEncoder
from cdvae_kit.representation.methods.fitting import FitSettings, fit
from cdvae_kit.representation.methods.local_features import LocalFeatures, OneLevel, StagedEncoder, as_levelled
from cdvae_kit.representation.methods.obow import (
    BagPredictor,
    OnlineBagOfWords,
    StudentView,
    Vocabulary,
    kmeans_words,
    perplexity,
)
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms import Identity
from cdvae_kit.transforms.images import Crop

SAMPLE = torch.tensor([0, 0, 0, 1, 1, 2])


def points(num: int = 6, width: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(num, width, generator=make_generator(seed))


def vocabulary(**options: Any) -> Vocabulary:
    return Vocabulary(5, 4, **options).eval()


def method(images: Tensor, **options: Any) -> OnlineBagOfWords:
    with seeded_weights(0):
        encoder = options.pop("encoder", None) or two_levels()
        views = [StudentView(Crop(0.3, 0.8, size=(8, 8)), count=2), Crop(0.1, 0.3, size=(6, 6))]
        return OnlineBagOfWords(encoder, Identity(), views, **{"num_words": 2 * len(images), **options})


def two_levels() -> StagedEncoder:
    stages = [
        nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
    ]
    return StagedEncoder(stages, widths=(6, 8), levels=(0, 1))


def images(num: int = 6) -> Tensor:
    return torch.rand(num, 3, 10, 10, generator=make_generator(1))


def bag_written_out(features: Tensor, words: Tensor, sharpness: float, pooling: str) -> Tensor:
    """Equations 2 to 5 of the specification, with loops."""
    rows = []
    for b in range(3):
        mine = features[b == SAMPLE]
        q = torch.stack(
            [torch.softmax(torch.stack([-sharpness * ((f - v) ** 2).sum() for v in words]), 0) for f in mine]
        )
        w = q.max(0).values if pooling == "max" else q.mean(0)
        rows.append(w / w.sum())
    return torch.stack(rows)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_bag_is_the_one_written_out(pooling: Any) -> None:
    found = vocabulary(inverse_delta=3.0, start=1.5, pooling=pooling)
    expected = bag_written_out(points(), found.words, 3.0 / 1.5, pooling)
    assert torch.allclose(found.bag(points(), SAMPLE, 3), expected, atol=1e-5)
    assert torch.allclose(expected.sum(1), torch.ones(3))


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_bag_forgets_the_order_of_points_and_how_often_all_are_repeated(pooling: Any) -> None:
    found = vocabulary(inverse_delta=0.5, pooling=pooling)
    bag = found.bag(points(), SAMPLE, 3)
    order = torch.tensor([2, 0, 1, 4, 3, 5])
    assert torch.allclose(found.bag(points()[order], SAMPLE, 3), bag)
    assert torch.allclose(found.bag(points().repeat(3, 1), SAMPLE.repeat(3), 3), bag, atol=1e-6)
    # the control: one point more often than the others does show in a mean
    more = found.bag(torch.cat([points()[:1], points()]), torch.cat([SAMPLE[:1], SAMPLE]), 3)
    assert torch.allclose(more, bag, atol=1e-6) == (pooling == "max")


def test_samples_do_not_see_each_other() -> None:
    found = vocabulary()
    changed = points().clone()
    changed[SAMPLE == 1] += 1.0
    before, after = found.bag(points(), SAMPLE, 3), found.bag(changed, SAMPLE, 3)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1])


def test_the_sharpest_assignment_is_the_nearest_word() -> None:
    hard = vocabulary(inverse_delta=None)
    features = points(200)
    sample = torch.arange(200)

    def away(inverse_delta: float) -> float:
        soft = vocabulary(inverse_delta=inverse_delta)
        return float((soft.bag(features, sample, 200) - hard.bag(features, sample, 200)).abs().mean())

    assert away(1e6) < 1e-3 < 0.03 < away(1.0)


def test_the_temperature_follows_the_length_of_the_features() -> None:
    features, large = points(50), 7.0 * points(50)
    sample = torch.arange(50) // 10

    def settled(values: Tensor, rate: float) -> Tensor:
        found = Vocabulary(5, 4, rate=rate).train()
        found.replace(found.words * (values.norm() / features.norm()))
        for _ in range(800):
            found.bag(values, sample, 5)
        return found.bag(values, sample, 5)

    assert torch.allclose(settled(features, 0.01), settled(large, 0.01), atol=1e-4)
    # the control: a fixed temperature takes longer features for sharper ones
    assert not torch.allclose(settled(features, 0.0), settled(large, 0.0), atol=1e-2)


def test_the_running_mean_follows_its_recursion_in_training_mode_alone() -> None:
    found = Vocabulary(5, 4, rate=0.1, start=2.0)
    nearest = torch.cdist(points(), found.words).square().min(1).values.mean()
    found.eval().bag(points(), SAMPLE, 3)
    assert float(found.mean_min_distance) == 2.0
    found.train().bag(points(), SAMPLE, 3)
    assert torch.isclose(found.mean_min_distance, 0.9 * 2.0 + 0.1 * nearest)


@pytest.mark.parametrize("size", [2, 3])
def test_the_queue_forgets_the_oldest_words_first(size: int) -> None:
    found = Vocabulary(6, 1)
    numbers = torch.arange(100.0)[:, None]
    for step in range(6 // size + 1):
        found.push(numbers[step * size : (step + 1) * size])
    pushed = (6 // size + 1) * size
    assert sorted(found.words.flatten().tolist()) == list(range(pushed - 6, pushed))


def test_a_queue_whose_length_the_batch_does_not_divide_still_forgets_the_oldest() -> None:
    found = Vocabulary(5, 1)
    for step in range(4):
        found.push(torch.arange(step * 3.0, step * 3.0 + 3.0)[:, None])
    assert sorted(found.words.flatten().tolist()) == [7.0, 8.0, 9.0, 10.0, 11.0]


def test_words_are_drawn_evenly_one_of_each_sample() -> None:
    local = LocalFeatures(torch.arange(6.0)[:, None], SAMPLE)
    drawn = torch.stack([local.one_of_each(3, generator=make_generator(i))[:, 0] for i in range(600)])
    assert drawn[:, 0].unique().tolist() == [0.0, 1.0, 2.0]
    assert (drawn[:, 0].long().bincount(minlength=3) - 200).abs().max() < 50
    assert torch.isclose((drawn[:, 1] == 3.0).float().mean(), torch.tensor(0.5), atol=0.08)
    assert drawn[:, 2].unique().tolist() == [5.0]


def test_the_loss_is_zero_for_the_logarithm_of_the_bag() -> None:
    bag = vocabulary(inverse_delta=0.5).bag(points(), SAMPLE, 3)
    assert abs(float(kl_to_soft_target(bag.log(), bag))) < 1e-6
    assert float(kl_to_soft_target(bag.log().roll(1, 0), bag)) > 0.01


def test_the_predictor_gives_each_word_its_own_row_whatever_its_place() -> None:
    with seeded_weights(0):
        head = BagPredictor(4, 3, kappa=5.0)
    words, features, order = points(5), points(2, 3, seed=3), torch.tensor([3, 1, 4, 0, 2])
    logits = head(features, words)
    assert logits.shape == (2, 5)
    # a queue that only turns round changes nothing; a fixed layer would not follow
    assert torch.allclose(head(features, words[order]), logits[:, order], atol=1e-5)
    assert torch.allclose(head.rows(words).norm(dim=1), torch.ones(5))
    assert torch.allclose(head(2.0 * features, 3.0 * words), 2.0 * logits, atol=1e-5)


def test_no_gradient_reaches_teacher_or_words_and_the_student_gets_one() -> None:
    data = images()
    model = method(data)
    model.loss(data, generator=make_generator(0))["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    assert not any(vocabulary.words.requires_grad for vocabulary in model.vocabularies)
    trained = [p for part in (model.encoder, model.predictors) for p in part.parameters()]
    assert all(p.grad is not None for p in trained)
    assert all(bool(p.grad.abs().max() > 0.0) for p in model.predictors.parameters())


def test_the_target_counts_the_words_of_before_the_push() -> None:
    data = images()
    model = method(data, update_words=True)
    frozen = method(data, update_words=False)
    first, second = (m.loss(data, generator=make_generator(0))["loss"] for m in (model, frozen))
    assert torch.equal(first, second)
    assert [int(v.pointer) for v in model.vocabularies] == [6, 6]
    assert [int(v.pointer) for v in frozen.vocabularies] == [0, 0]
    assert not torch.equal(model.vocabularies[1].words, frozen.vocabularies[1].words)


def test_a_frozen_teacher_stays_and_another_follows() -> None:
    data = images()
    for decay in (1.0, 0.5):
        model = method(data, decay=decay)
        start = [p.detach().clone() for p in model.teacher.parameters()]
        fit(model, data, FitSettings(2, batch_size=6), seed=0)
        same = all(torch.equal(a, b) for a, b in zip(start, model.teacher.parameters(), strict=True))
        assert same == (decay == 1.0)
    # by the last step the decay is nearly one: the teacher is between its start and the student
    gaps = [(a - b).norm() for a, b in zip(model.encoder.parameters(), model.teacher.parameters(), strict=True)]
    assert max(gaps) > 0.0


def test_the_loss_sums_over_kinds_of_views_and_means_within_one() -> None:
    data = images()
    whole = Identity()

    def loss(views: list[Any]) -> float:
        with seeded_weights(0):
            model = OnlineBagOfWords(two_levels(), whole, views, num_words=12)
        return float(model.loss(data, generator=make_generator(0))["loss"].detach())

    once = loss([Identity()])
    assert loss([StudentView(Identity(), count=3)]) == pytest.approx(once, rel=1e-4)
    assert loss([Identity(), Identity()]) == pytest.approx(2.0 * once, rel=1e-4)


def test_a_level_more_is_another_bag_and_the_mean_of_losses() -> None:
    data = images()
    model = method(data)
    assert [tuple(bag.shape) for bag in model.bags(data)] == [(6, 12), (6, 12)]
    assert not torch.allclose(*model.bags(data))
    assert [v.words.shape[1] for v in model.vocabularies] == [6, 8]


def test_bags_for_looking_at_change_nothing() -> None:
    data = images()
    model = method(data).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.bags(data)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_maps_lose_their_border_and_words_are_means_of_nine_positions() -> None:
    encoder = StagedEncoder([nn.Identity()], widths=(3,))
    grid = images(2)
    (local,) = encoder.levels(grid)
    assert torch.equal(local.features.reshape(2, 8, 8, 3), grid[:, :, 1:-1, 1:-1].permute(0, 2, 3, 1))
    assert torch.allclose(local.smoothed.reshape(2, 6, 6, 3)[1, 0, 0], grid[1, :, 1:4, 1:4].mean((1, 2)))
    # a map of two positions has no inside
    assert len(encoder.levels(grid[..., :2, :2])[0].features) == 8


def test_an_encoder_with_local_features_is_one_level() -> None:
    encoder = ConvEncoder(in_channels=3, widths=(4, 8))
    wrapped = as_levelled(encoder)
    assert isinstance(wrapped, OneLevel) and wrapped.level_features == (8,)
    data = images()
    assert method(data, encoder=encoder).bags(data)[0].shape == (6, 12)
    assert as_levelled(two_levels()).out_features == 8
    with pytest.raises(TypeError, match="local_features"):
        as_levelled(nn.Linear(3, 2))


class Widening(nn.Module):
    """Atoms of 24 features, samples of 32."""

    out_features = 32

    def __init__(self) -> None:
        super().__init__()
        self.of_points, self.of_samples = nn.Linear(3, 24), nn.Linear(24, 32)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.of_samples(self.of_points(batch).mean(1))
        return features

    def local_features(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sample = torch.arange(len(batch)).repeat_interleave(batch.shape[1])
        return self.of_points(batch).flatten(0, 1), sample


def test_local_features_may_be_narrower_than_the_pooled_ones() -> None:
    samples = torch.rand(6, 5, 3, generator=make_generator(0))

    class Said(Widening):
        local_width = 24

    for encoder in (Said(), OneLevel(Widening(), local_width=24)):
        method = OnlineBagOfWords(encoder, Identity(), [Identity()], num_words=12)
        assert torch.isfinite(method.loss(samples, generator=make_generator(0))["loss"])
        assert method.bags(samples)[0].shape == (6, 12) and method.vocabularies[0].words.shape == (12, 24)
    untold = OnlineBagOfWords(Widening(), Identity(), [Identity()], num_words=12)
    with pytest.raises(ValueError, match=r"expected 32 columns.*local_width"):
        untold.loss(samples, generator=make_generator(0))


def test_perplexity_counts_words_in_use() -> None:
    assert torch.allclose(perplexity(torch.tensor([[0.25] * 4, [1.0, 0.0, 0.0, 0.0]])), torch.tensor([4.0, 1.0]))
    data = images()
    model = method(data)
    terms = model.loss(data, generator=make_generator(0))
    assert 1.0 <= terms["perplexity_of_samples"] <= terms["perplexity_of_the_batch"] <= 12.0
    # the control: a vocabulary whose words are all far but one has collapsed
    for words in (vocabulary.words for vocabulary in model.vocabularies):
        words[1:] += 1e4
    assert model.loss(data, generator=make_generator(0))["perplexity_of_the_batch"] < 1.01


def test_training_lowers_the_loss_and_depends_on_the_seed_alone() -> None:
    data = images(12)

    def losses(seed: int) -> list[float]:
        model = method(data[:6], update_words=False, decay=1.0)
        return fit(model, data, FitSettings(12, batch_size=6, learning_rate=0.01), seed=seed)

    first, again, other = losses(0), losses(0), losses(1)
    assert first == again != other
    assert first[-1] < 0.8 * first[0]


def test_words_of_k_means_are_the_centres_of_clusters() -> None:
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    cloud = centres.repeat_interleave(50, 0) + 0.1 * torch.randn(150, 2, generator=make_generator(0))
    found = kmeans_words(cloud, 3, seed=0)
    assert float(torch.cdist(centres, found).min(1).values.max()) < 0.1


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Vocabulary(1, 4), "at least 2 words"),
        (lambda: Vocabulary(5, 4, inverse_delta=0.0), "inverse_delta"),
        (lambda: Vocabulary(5, 4, pooling="sum"), "pooling"),
        (lambda: Vocabulary(5, 4).push(torch.zeros(6, 4)), "at most 5"),
        (lambda: Vocabulary(5, 4).bag(points(), SAMPLE, 4), "points of each"),
        (lambda: Vocabulary(5, 4).bag(points(6, 3), SAMPLE, 3), "features"),
        (lambda: Vocabulary(5, 4).replace(torch.zeros(4, 4)), "words"),
        (lambda: BagPredictor(4, 3, kappa=-1.0), "kappa"),
        (lambda: method(images(), decay=1.5), "decay"),
        (lambda: OnlineBagOfWords(two_levels(), Identity(), [], num_words=9), "student view"),
        (lambda: StagedEncoder([nn.Identity()], widths=(3,), levels=(1,)), "levels"),
        (lambda: StagedEncoder([nn.Identity()], widths=()), "width"),
        (lambda: kmeans_words(points(), 7, seed=0), "7 centres"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
