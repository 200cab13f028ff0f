"""Losses that compare features with features or with a distribution; they know tensors alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(first: Tensor, second: Tensor, *, temperature: float = 0.5) -> Tensor:
    """The normalised, temperature-scaled cross-entropy between two views (b, d), row by row.

    Each of the 2b rows has its other view as the positive and the 2b − 2 rest as negatives. Chen et al., "A simple
    framework for contrastive learning" (ICML 2020, arXiv 2002.05709), equation 1.

    >>> z = torch.eye(3)
    >>> bool(nt_xent(z, z) < nt_xent(z, z.roll(1, 0)))
    True
    """
    count = _check_views(first, second, temperature)
    z = functional.normalize(torch.cat([first, second]), dim=-1)
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=z.device), -torch.inf)
    positive = torch.arange(2 * count, device=z.device).roll(count)
    return functional.cross_entropy(logits, positive)


def cross_view_info_nce(first: Tensor, second: Tensor, *, temperature: float = 0.1) -> Tensor:
    """The symmetric InfoNCE between views (b, d): each row picks its partner among the other view's rows alone.

    Radford et al., "Learning transferable visual models from natural language supervision" (ICML 2021, arXiv
    2103.00020), figure 3.
    """
    count = _check_views(first, second, temperature)
    logits = functional.normalize(first, dim=-1) @ functional.normalize(second, dim=-1).T / temperature
    partner = torch.arange(count, device=first.device)
    return 0.5 * (functional.cross_entropy(logits, partner) + functional.cross_entropy(logits.T, partner))


def kl_to_soft_target(logits: Tensor, target: Tensor) -> Tensor:
    """KL(target ‖ softmax(logits)), mean over the batch; the target (b, k) sums to 1 a row and may hold zeros."""
    if logits.shape != target.shape:
        raise ValueError(f"expected logits and target of one shape, got {tuple(logits.shape)}, {tuple(target.shape)}")
    log_q = functional.log_softmax(logits, dim=-1)
    return (torch.xlogy(target, target) - target * log_q).sum(-1).mean()


def _check_views(first: Tensor, second: Tensor, temperature: float) -> int:
    if first.shape != second.shape or first.ndim != 2 or len(first) < 2:
        raise ValueError(
            f"expected two views (b, d) of one shape with b of at least 2, got {tuple(first.shape)}, "
            f"{tuple(second.shape)}"
        )
    if not temperature > 0.0:
        raise ValueError(f"the temperature must be positive, got {temperature}")
    return len(first)
