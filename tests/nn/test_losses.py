"""Contrastive losses against loops, limits, and what must not matter."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.nn.losses import cross_view_info_nce, kl_to_soft_target, nt_xent
from cdvae_kit.seeding import make_generator


def views(num: int = 5, width: int = 3) -> tuple[Tensor, Tensor]:
    generator = make_generator(0)
    first, second = (torch.randn(num, width, generator=generator, dtype=torch.float64) for _ in range(2))
    return first, second


def slow_nt_xent(first: Tensor, second: Tensor, temperature: float) -> float:
    z = torch.cat([first, second])
    z = z / z.norm(dim=1, keepdim=True)
    n, total = len(z), 0.0
    for i in range(n):
        scores = [math.exp(float(z[i] @ z[j]) / temperature) for j in range(n)]
        total -= math.log(scores[(i + n // 2) % n] / (sum(scores) - scores[i]))
    return total / n


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_the_loop_over_pairs(temperature: float) -> None:
    first, second = views()
    loss = nt_xent(first, second, temperature=temperature)
    assert loss.item() == pytest.approx(slow_nt_xent(first, second, temperature), rel=1e-10)


def test_views_that_all_coincide_cost_the_logarithm_of_the_choices() -> None:
    same = torch.ones(4, 3)
    assert nt_xent(same, same).item() == pytest.approx(math.log(7), rel=1e-5)
    assert cross_view_info_nce(same, same).item() == pytest.approx(math.log(4), rel=1e-5)


def test_views_that_agree_and_repel_cost_nothing_in_the_cold() -> None:
    z = torch.eye(6)
    assert nt_xent(z, z, temperature=0.01).item() == pytest.approx(0.0, abs=1e-6)
    assert cross_view_info_nce(z, z, temperature=0.01).item() == pytest.approx(0.0, abs=1e-6)
    # the control
    assert nt_xent(z, z.roll(1, 0), temperature=0.01).item() > 10.0


@pytest.mark.parametrize("loss", [nt_xent, cross_view_info_nce])
def test_length_order_and_exchange_of_the_views_do_not_matter(loss: Any) -> None:
    first, second = views()
    value = loss(first, second)
    assert torch.allclose(loss(3.0 * first, second), value)
    assert torch.allclose(loss(second, first), value)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(loss(first[order], second[order]), value)
    # the control: an order of one view alone does
    assert not torch.allclose(loss(first[order], second), value)


def test_only_nt_xent_pushes_samples_of_one_view_apart() -> None:
    first = torch.tensor([[1.0, 0.0], [1.0, 0.1]])
    second = torch.tensor([[1.0, 0.05], [0.0, 1.0]])
    assert not torch.allclose(nt_xent(first, second), cross_view_info_nce(first, second, temperature=0.5))


def test_the_divergence_is_zero_where_the_prediction_is_the_target() -> None:
    target = torch.softmax(torch.randn(4, 6, generator=make_generator(0), dtype=torch.float64), dim=1)
    assert kl_to_soft_target(target.log(), target).item() == pytest.approx(0.0, abs=1e-12)
    assert kl_to_soft_target(target.log().roll(1, 1), target).item() > 0.1


def test_a_target_with_zeros_is_the_cross_entropy_of_a_label() -> None:
    logits = torch.randn(5, 3, generator=make_generator(0), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1])
    loss = kl_to_soft_target(logits, torch.nn.functional.one_hot(labels, 3).float())
    assert torch.allclose(loss, torch.nn.functional.cross_entropy(logits, labels))
    loss.backward()
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize("loss", [nt_xent, cross_view_info_nce])
def test_views_that_do_not_fit_are_refused(loss: Any) -> None:
    first, second = views()
    for a, b in ((first, second[:3]), (first[:1], second[:1]), (first[0], second[0])):
        with pytest.raises(ValueError, match="two views"):
            loss(a, b)
    with pytest.raises(ValueError, match="temperature"):
        loss(first, second, temperature=0.0)
    with pytest.raises(ValueError, match="one shape"):
        kl_to_soft_target(first, second[:3])
