"""The learnt augmentation: a policy, a curriculum, and a gradient through one step of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.representation.methods.curriculum import (
    AdaptiveAugmentation,
    AugmentationPolicy,
    CurriculumSettings,
    FixedPolicy,
    PolicyOutput,
    PolicyRecord,
    _score_weights,
    average_records,
    curriculum_fraction,
)
from cdvae_kit.representation.methods.encoder import ConvEncoder, MLPEncoder, SetTransformer
from cdvae_kit.representation.methods.environments import RadialEncoder
from cdvae_kit.representation.methods.fitting import FitSettings, fit
from cdvae_kit.representation.methods.hypergradient import Forward, one_step_hypergradient
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Generator, Identity, Params, Transform, per_sample
from cdvae_kit.transforms.crystal_motions import AtomDisplacement, CrystalRotation
from cdvae_kit.transforms.images import Crop, Erase, FlipVertical, Translate

SETTINGS = CurriculumSettings(timescale=10.0, validation_batch_size=8)


class Push(Transform[Tensor]):
    """Moves rows (b, d) by `by` times the magnitude, and labels by one."""

    differentiable = True

    def __init__(self, by: float, *, relabels: bool = False) -> None:
        self.by = by
        self.relabels = relabels

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        return {"by": self.by * per_sample(magnitude, len(batch), like=batch)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        return batch + params["by"][:, None]

    def act_on_target(self, target: Any, params: Params) -> Any:
        return target + 1 if self.relabels else target


class Always(Push):
    """The same at any magnitude, which breaks the rule and makes tests sharp."""

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        return {"by": torch.full((len(batch),), self.by, dtype=batch.dtype)}


def rows(num: int = 24) -> tuple[Tensor, Tensor]:
    labels = torch.arange(num) % 2
    return torch.randn(num, 3, generator=make_generator(0)) + 2.0 * labels[:, None], labels


def augmentation(
    *operations: Transform[Any], policy: nn.Module | None = None, settings: CurriculumSettings = SETTINGS
) -> AdaptiveAugmentation:
    with seeded_weights(0):
        encoder, head = MLPEncoder([3, 8, 4]), nn.Linear(4, 3)
    choices = [Identity(), *operations]
    return AdaptiveAugmentation(
        encoder, head, choices, policy or AugmentationPolicy(4, len(choices)), settings, validation=rows(16)
    )


# the curriculum


def test_the_curriculum_starts_at_its_floor_rises_and_ends_at_one() -> None:
    shares = [curriculum_fraction(step, 40.0) for step in range(0, 240, 5)]
    assert shares[0] == pytest.approx(0.01) and shares[24] == 1.0
    assert all(a <= b for a, b in pairwise(shares)) and shares[1] > shares[0]
    assert curriculum_fraction(120, 40.0, floor=0.0) == pytest.approx(0.99505, abs=1e-5)


def test_the_share_of_changed_samples_is_that_of_the_curriculum() -> None:
    objective = augmentation(Always(100.0), policy=FixedPolicy([0.0, 1.0]))
    x, labels = torch.zeros(4000, 3), torch.zeros(4000, dtype=torch.long)
    for step in (0, 4, 30):
        objective.after_step(step - 1, 100) if step else None
        changed = (objective.augment(x, labels, generator=make_generator(step))[0] > 50.0).all(1)
        assert changed.double().mean().item() == pytest.approx(curriculum_fraction(step, 10.0), abs=0.03)


# the hypergradient


class TwoWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7, -0.4], dtype=torch.float64))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1.0
        return torch.tanh(self.weight[0] * x) + self.weight[1] * x**2


def test_the_hypergradient_is_the_finite_difference_of_a_step() -> None:
    model, rate = TwoWeights(), 0.3
    x = torch.linspace(-1.0, 1.5, 7, dtype=torch.float64)
    policy = torch.tensor([0.2, -0.5], dtype=torch.float64, requires_grad=True)

    def train_loss(h: Tensor) -> Callable[[Forward], Tensor]:
        weights = h.softmax(0)
        return lambda forward: (
            weights[0] * (forward(x) - x).square().mean() + weights[1] * (forward(2.0 * x + h[0]) + 1.0).square().mean()
        )

    def validation_loss(forward: Forward) -> Tensor:
        return (forward(x.abs()) - 0.5).square().mean()

    def after_a_step(h: Tensor) -> float:
        # by hand, with the optimiser that is meant
        stepped = TwoWeights()
        optimizer = torch.optim.SGD(stepped.parameters(), lr=rate)
        train_loss(h)(stepped).backward()
        optimizer.step()
        return float(validation_loss(stepped).detach())

    (found,) = one_step_hypergradient(model, train_loss(policy), validation_loss, [policy], learning_rate=rate)
    for i in range(2):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[i] = 1e-5
        h = policy.detach()
        assert found[i].item() == pytest.approx((after_a_step(h + shift) - after_a_step(h - shift)) / 2e-5, rel=1e-4)
    # without the step the policy would not matter
    (nothing,) = one_step_hypergradient(model, train_loss(policy), validation_loss, [policy], learning_rate=0.0)
    assert nothing.abs().max() == 0.0 < found.abs().max()


def test_the_hypergradient_leaves_model_buffers_and_gradients_alone() -> None:
    with seeded_weights(0):
        model = nn.Sequential(ConvEncoder(in_channels=1, widths=(3, 4)), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, labels = torch.rand(6, 1, 8, 8, generator=make_generator(0)), torch.arange(6) % 2
    policy = torch.tensor(0.5, requires_grad=True)

    def loss(forward: Forward) -> Tensor:
        return nn.functional.cross_entropy(forward(x * policy), labels)

    (found,) = one_step_hypergradient(
        model, loss, lambda forward: nn.functional.cross_entropy(forward(x), labels), [policy], learning_rate=0.1
    )
    assert found != 0.0 and policy.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(x)  # as training would
    assert not torch.equal(model.state_dict()["0.blocks.1.running_mean"], before["0.blocks.1.running_mean"])


def test_a_model_without_weights_takes_no_step() -> None:
    with pytest.raises(ValueError, match="no parameter that requires"):
        one_step_hypergradient(
            nn.ReLU(), lambda f: f(torch.ones(1)).sum(), lambda f: f(torch.ones(1)).sum(), [], learning_rate=1.0
        )


def gradient_of_logits(objective: AdaptiveAugmentation, *, seed: int = 0) -> Tensor:
    """What a step of the policy follows, by the bias of its operations."""
    samples, labels = rows()
    policy = objective.policy
    assert isinstance(policy, AugmentationPolicy)
    plan = objective.plan(samples)
    mixed = objective._mixed_losses if objective.settings.relaxation == "loss" else objective._mixed_images
    x, y = rows(16)
    (found,) = one_step_hypergradient(
        objective.model,
        mixed(samples, labels, plan),
        lambda forward: nn.functional.cross_entropy(forward(x), y),
        [policy.layer.bias],
        learning_rate=0.1,
    )
    return found


@pytest.mark.parametrize("relaxation", ["loss", "image"])
def test_operations_that_coincide_give_the_policy_no_gradient(relaxation: Literal["loss", "image"]) -> None:
    settings = replace(SETTINGS, relaxation=relaxation)
    same = gradient_of_logits(augmentation(Push(0.0), Push(0.0), settings=settings))
    other = gradient_of_logits(augmentation(Push(0.0), Push(3.0), settings=settings))
    assert same.abs().max() < 1e-7 < 1e-4 < other.abs().max()


def test_mixed_losses_are_the_mean_of_the_loss_that_is_trained_on_and_mixed_images_are_not() -> None:
    operations = (Always(1.0), Always(-4.0, relabels=True))
    policy = FixedPolicy([0.2, 0.3, 0.5])
    samples, labels = rows()
    found = {}
    for relaxation in ("loss", "image"):
        objective = augmentation(*operations, policy=policy, settings=replace(SETTINGS, relaxation=relaxation))
        mixed = objective._mixed_losses if relaxation == "loss" else objective._mixed_images
        found[relaxation] = mixed(samples, labels, objective.plan(samples))(objective.model).item()
    objective.after_step(1000, 2000)  # now every sample is changed
    generator = make_generator(0)
    with torch.no_grad():
        losses = [objective.loss((samples, labels), generator=generator)["loss"].item() for _ in range(600)]
    assert found["loss"] == pytest.approx(sum(losses) / len(losses), rel=0.02)
    assert abs(found["image"] / found["loss"] - 1.0) > 0.05


@pytest.mark.parametrize("magnitudes", ["random", "learned", "straight_through"])
def test_magnitudes_have_a_gradient_where_they_are_learnt(magnitudes: Any) -> None:
    objective = augmentation(Push(3.0), settings=replace(SETTINGS, magnitudes=magnitudes))
    logits, strengths = gradient_of_logits(objective).chunk(2)
    assert logits.abs().min() > 0.0
    # by its true gradient the identity has no magnitude, by the paper's every pixel has one
    expected = {"random": [False, False], "learned": [False, True], "straight_through": [True, True]}[magnitudes]
    assert (strengths != 0.0).tolist() == expected


class Jump(Push):
    """A push by an integer number of steps, through which no gradient comes."""

    differentiable = False

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        return {"by": self.by * (4.0 * per_sample(magnitude, len(batch), like=batch)).round() / 4.0}


def test_the_score_function_gives_the_gradient_of_the_expected_loss() -> None:
    """Against a finite difference of the mean over very many draws of a loss with steps."""
    mean, width, num = 0.6, 0.3 / 3**0.5, 400_000

    def loss(magnitude: Tensor) -> Tensor:
        return (4.0 * magnitude.clamp(0.0, 1.0)).round().square()

    noise = width * torch.randn(num, generator=make_generator(0), dtype=torch.float64)
    above, below = (float(loss(mean + shift + noise).mean()) for shift in (0.05, -0.05))
    at = torch.full((num,), mean, dtype=torch.float64, requires_grad=True)
    drawn = at.detach() + noise
    weights = _score_weights(drawn, at)
    assert torch.equal(weights.detach(), torch.ones(num, dtype=torch.float64))
    (slopes,) = torch.autograd.grad((weights * loss(drawn)).sum(), at)
    # the centre of the batch's scores makes each slope depend on all losses; their mean is the estimate
    assert float(slopes.mean()) == pytest.approx((above - below) / 0.1, rel=0.02)


def test_magnitudes_of_operations_without_a_gradient_are_learnt_by_their_score() -> None:
    settings = replace(SETTINGS, magnitudes="learned")
    strengths = gradient_of_logits(augmentation(Jump(3.0), settings=settings)).chunk(2)[1]
    assert strengths[0] == 0.0 and strengths[1] != 0.0


def test_a_policy_learns_how_far_to_jump() -> None:
    """Samples that come lie three off: a jump of up to twelve must be weak, one of up to three and a half strong."""
    samples, labels = rows(96)
    found = []
    for by in (12.0, 3.5):
        with seeded_weights(0):
            encoder, head = MLPEncoder([3, 8, 4]), nn.Linear(4, 3)
        objective = AdaptiveAugmentation(
            encoder,
            head,
            [Identity(), Jump(by)],
            AugmentationPolicy(4, 2),
            replace(SETTINGS, magnitudes="learned", policy_learning_rate=0.05, validation_batch_size=96),
            validation=(samples + 3.0, labels),
        )
        fit(objective, (samples, labels), FitSettings(60, batch_size=48, optimizer="sgd", learning_rate=0.02), seed=0)
        found.append(float(objective.plan(samples).magnitudes[:, 1].detach().mean()))
    far, near = found
    assert far < near - 0.05, found


def test_two_temperatures_one_to_explore_and_one_to_exploit() -> None:
    class Sure(AugmentationPolicy):
        def forward(self, features: Tensor) -> PolicyOutput:
            plan = super().forward(features)
            return plan._replace(probabilities=torch.tensor([0.1, 0.9]).expand(len(features), 2))

    shares = {}
    for temperature in (1.0, 3.0):
        objective = augmentation(
            Always(100.0), policy=Sure(4, 2), settings=replace(SETTINGS, exploit_temperature=temperature)
        )
        objective.after_step(1000, 2000)
        x, labels = torch.zeros(4000, 3), torch.zeros(4000, dtype=torch.long)
        changed = objective.augment(x, labels, generator=make_generator(0))[0]
        shares[temperature] = float((changed[:, 0] > 50.0).double().mean())
    expected = 0.9 ** (1 / 3) / (0.9 ** (1 / 3) + 0.1 ** (1 / 3))
    assert shares[1.0] == pytest.approx(0.9, abs=0.02) and shares[3.0] == pytest.approx(expected, abs=0.02)
    with pytest.raises(ValueError, match="temperature must be positive"):
        replace(SETTINGS, exploit_temperature=0.0)


# the policy in training


def test_a_policy_that_starts_is_uniform_and_a_fixed_one_stays() -> None:
    features = torch.randn(5, 4, generator=make_generator(0))
    start = AugmentationPolicy(4, 5)(features)
    assert torch.allclose(start.probabilities, torch.full((5, 5), 0.2)) and (start.magnitudes == 0.5).all()
    assert torch.equal(FixedPolicy([1.0, 0.0, 3.0])(features).probabilities[4], torch.tensor([0.25, 0.0, 0.75]))


def test_operations_are_drawn_by_the_policy_and_each_once() -> None:
    objective = augmentation(
        Always(10.0), Always(200.0), policy=FixedPolicy([0.0, 0.25, 0.75]), settings=replace(SETTINGS, num_applied=2)
    )
    objective.after_step(1000, 2000)
    x, labels = torch.zeros(2000, 3), torch.zeros(2000, dtype=torch.long)
    both = objective.augment(x, labels, generator=make_generator(0))[0]
    assert both.unique().tolist() == [210.0]
    objective.settings = SETTINGS
    one = objective.augment(x, labels, generator=make_generator(0))[0][:, 0]
    assert set(one.unique().tolist()) == {10.0, 200.0}
    assert (one == 200.0).double().mean().item() == pytest.approx(0.75, abs=0.03)


def test_labels_follow_their_samples() -> None:
    objective = augmentation(Always(100.0, relabels=True), policy=FixedPolicy([0.5, 0.5]))
    objective.after_step(5, 2000)
    x, labels = torch.arange(300.0)[:, None].expand(-1, 3) / 1000.0, torch.zeros(300, dtype=torch.long)
    changed, targets = objective.augment(x, labels, generator=make_generator(0))
    assert torch.equal(targets, (changed[:, 0] > 50.0).long()) and 0 < int(targets.sum()) < 300
    assert torch.allclose(changed[:, 0] % 100.0, x[:, 0], atol=1e-4)


def weights_after(*operations: Transform[Any], by: float, seed: int = 0) -> list[float]:
    """What a policy ends with whose validation samples are moved by `by`."""
    with seeded_weights(seed):
        encoder, head = MLPEncoder([3, 16, 8]), nn.Linear(8, 2)
    policy = AugmentationPolicy(8, 1 + len(operations))
    x, labels = rows(64)
    settings = CurriculumSettings(timescale=20.0, policy_learning_rate=0.05, policy_every=2)
    objective = AdaptiveAugmentation(
        encoder, head, [Identity(), *operations], policy, settings, validation=(x + by, labels)
    )
    fit(
        objective,
        (x, labels),
        FitSettings(40, batch_size=32, learning_rate=0.1, optimizer="sgd", schedule="constant"),
        seed=seed,
    )
    assert [record.step for record in objective.history[:2]] == [2, 4] and len(objective.history) == 40
    return objective.plan(x).probabilities.mean(0).tolist()


def test_the_policy_finds_what_moves_training_to_validation_and_only_then() -> None:
    right, wrong = Always(3.0), Always(-3.0)
    shifted = weights_after(right, wrong, by=3.0)
    assert shifted[1] > 0.6 and shifted[2] < 0.1
    assert weights_after(right, wrong, by=-3.0)[2] > 0.6
    # nothing is amiss: no shift is wanted
    assert weights_after(right, wrong, by=0.0)[0] > max(weights_after(right, wrong, by=0.0)[1:])


def test_the_models_optimiser_does_not_touch_the_policy() -> None:
    objective = augmentation(Push(3.0))
    policy = {name: value.clone() for name, value in objective.policy.state_dict().items()}
    objective.settings = replace(SETTINGS, policy_every=1000)
    fit(objective, rows(), FitSettings(3, batch_size=8, weight_decay=0.5), seed=0)
    assert all(torch.equal(value, policy[name]) for name, value in objective.policy.state_dict().items())
    objective.settings = SETTINGS
    fit(objective, rows(), FitSettings(3, batch_size=8, weight_decay=0.5), seed=0)
    assert not torch.equal(objective.policy.layer.bias, policy["layer.bias"])  # type: ignore[union-attr]


def test_a_seed_decides_everything() -> None:
    def run(seed: int) -> list[Any]:
        objective = augmentation(Push(3.0))
        losses = fit(objective, rows(), FitSettings(4, batch_size=8), seed=seed)
        return [losses, objective.history]

    assert run(0) == run(0) != run(1)


def test_records_are_averaged_in_windows_without_losing_any() -> None:
    history = [PolicyRecord(step, step / 10.0, (step / 10.0, 1.0 - step / 10.0)) for step in range(1, 8)]
    found = average_records(history, 3)
    assert [record.step for record in found] == [3, 6, 7]
    assert [record.share for record in found] == pytest.approx([0.2, 0.5, 0.7])
    assert [record.probabilities[1] for record in found] == pytest.approx([0.8, 0.5, 0.3])
    assert average_records(history, 100) == history and average_records([], 3) == []


# crystals


def salts(num: int = 6) -> tuple[CrystalBatch, Tensor]:
    edge = 4.0 + torch.arange(num) / num
    coords = torch.tensor([[0.0] * 3, [0.5] * 3]).repeat(num, 1)
    crystals = CrystalBatch(
        coords, edge[:, None, None] * torch.eye(3), torch.tensor([55, 17]).repeat(num), torch.full((num,), 2)
    )
    return crystals, torch.arange(num) % 2


@pytest.mark.parametrize("kind", ["radial", "attention"])
def test_crystals_are_augmented_and_attention_is_differentiated_twice(kind: str) -> None:
    with seeded_weights(0):
        encoder = RadialEncoder(width=8) if kind == "radial" else SetTransformer(width=8, num_layers=1, num_heads=2)
        head = nn.Linear(8, 2)
    operations = [Identity(), AtomDisplacement(0.2), CrystalRotation()]
    objective = AdaptiveAugmentation(encoder, head, operations, AugmentationPolicy(8, 3), SETTINGS, validation=salts(4))
    # Adam's first step minds the sign of a gradient alone
    for _ in range(10):
        objective.policy_step(salts(), salts(4))
    identity, displacement, rotation = objective.plan(salts()[0]).probabilities.mean(0).tolist()
    assert identity != displacement
    # a network that is blind to rotations cannot tell one from no change
    assert (abs(identity - rotation) < 1e-5) == (kind == "radial")


# what is refused


def test_what_cannot_work_is_said_at_once() -> None:
    encoder, head, policy = MLPEncoder([3, 4]), nn.Linear(4, 2), AugmentationPolicy(4, 2)
    make: Any = AdaptiveAugmentation
    with pytest.raises(ValueError, match="lack Identity"):
        make(encoder, head, [Push(1.0), Push(2.0)], policy, SETTINGS, validation=rows())
    with pytest.raises(ValueError, match="chooses from 2 operations, but there are 3"):
        make(encoder, head, [Identity(), Push(1.0), Push(2.0)], policy, SETTINGS, validation=rows())
    with pytest.raises(ValueError, match="needs validation samples"):
        make(encoder, head, [Identity(), Push(1.0)], policy, SETTINGS)
    make(encoder, head, [Identity(), Push(1.0)], FixedPolicy([1.0, 1.0]), SETTINGS)
    with pytest.raises(ValueError, match="3 operations cannot be drawn from 2"):
        make(encoder, head, [Identity(), Push(1.0)], FixedPolicy([1.0, 1.0]), replace(SETTINGS, num_applied=3))
    with pytest.raises(ValueError, match="changes the shape"):
        make(encoder, head, [Identity(), Crop(size=(4, 4))], policy, SETTINGS, validation=rows())
    for wrong in ({"timescale": 0.0}, {"num_applied": 0}, {"policy_learning_rate": 0.0}, {"policy_weight_decay": -1.0}):
        with pytest.raises(ValueError, match=r"a curriculum needs|start from 1|must be positive"):
            replace(SETTINGS, **wrong)
    with pytest.raises(ValueError, match="not be negative, nor all zero"):
        FixedPolicy([0.0, 0.0])
    with pytest.raises(ValueError, match="at least two operations"):
        AugmentationPolicy(4, 1)


@pytest.mark.parametrize("change", [{"relaxation": "image"}, {"magnitudes": "straight_through"}])
def test_crystals_cannot_be_mixed_or_brightened(change: dict[str, Any]) -> None:
    with seeded_weights(0):
        encoder, head = RadialEncoder(width=8), nn.Linear(8, 2)
    objective = AdaptiveAugmentation(
        encoder,
        head,
        [Identity(), AtomDisplacement(0.2)],
        AugmentationPolicy(8, 2),
        replace(SETTINGS, **change),
        validation=salts(4),
    )
    with pytest.raises(TypeError, match="tensors and can be added, got CrystalBatch"):
        objective.policy_step(salts(), salts(4))


def test_images_go_through_every_combination_of_settings() -> None:
    x, labels = torch.rand(8, 1, 8, 8, generator=make_generator(0)), torch.arange(8) % 2
    for relaxation in ("loss", "image"):
        for magnitudes in ("random", "learned", "straight_through"):
            settings = CurriculumSettings(
                timescale=1.0, num_applied=2, relaxation=relaxation, magnitudes=magnitudes, policy_every=1
            )
            with seeded_weights(0):
                encoder, head = ConvEncoder(in_channels=1, widths=(4, 4)), nn.Linear(4, 2)
            operations = [Identity(), Translate(0.3), FlipVertical(1.0), Erase(1.0, share=1.0)]
            objective = AdaptiveAugmentation(
                encoder, head, operations, AugmentationPolicy(4, 4), settings, validation=(x, labels)
            )
            fit(objective, (x, labels), FitSettings(3, batch_size=4), seed=0)
            plan: PolicyOutput = objective.plan(x)
            assert torch.isfinite(plan.probabilities).all() and len(objective.history) == 6
            assert plan.probabilities.std() > 0.0
