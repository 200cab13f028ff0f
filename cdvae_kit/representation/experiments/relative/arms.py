"""What the parts of `relative` share: readers of spaces, and the arms that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cdvae_kit.representation.methods.encoder import embed
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, fit
from cdvae_kit.representation.methods.relative import (
    Similarity,
    compare_spaces,
    inverse_relative_projection,
    off_diagonal,
    relative_head,
    relative_projection,
)
from cdvae_kit.seeding import seeded_weights
from cdvae_kit.typing import ShareDone

Space = tuple[Tensor, Tensor]
"""Features of the training and of the test samples by one frozen encoder."""
Error = Callable[[Tensor, Tensor], Tensor]
"""Of outputs and targets, a mean over samples."""
SIMILARITIES: dict[str, tuple[Similarity, bool]] = {
    "centred cosine": ("cosine", True),
    "distance": ("euclidean", False),
    "whitened cosine": ("whitened", False),
}
"""Beside the published one: how similarity is measured, and whether the anchors' mean is taken away."""


def fit_heads(
    features: Sequence[Tensor],
    targets: Tensor,
    error: Error,
    *,
    outputs: Sequence[int],
    num_epochs: int,
    seed: int,
) -> list[nn.Module]:
    """A `relative_head` for each of several frozen spaces.

    Args:
        features: (n, m) of each, absolute or relative.
        targets: (n, ...), the same for all.
        error: what is made small.
        outputs: hidden widths of the head and the width of its output.
        num_epochs: passes over the samples.
        seed: of the experiment; each head has its own start and order.
    """
    heads: list[nn.Module] = []
    *hidden, num_outputs = outputs
    for i, own in enumerate(features):
        own_seed = len(features) * seed + i
        with seeded_weights(own_seed):
            head = relative_head(own.shape[1], num_outputs, hidden=hidden)
        fit(Supervision(nn.Identity(), head=head, error=error), (own, targets), FitSettings(num_epochs), seed=own_seed)
        heads.append(head.eval())
    return heads


def cross_scores(features: Sequence[Tensor], heads: Sequence[nn.Module], score: Callable[[Tensor], float]) -> Tensor:
    """(k, k): the stitching matrix of features that are there already, space i (row) with head j (column)."""
    return torch.tensor([[score(embed(head, own)) for head in heads] for own in features], dtype=torch.float64)


def project(
    spaces: Sequence[Space], chosen: Tensor, similarity: Similarity = "cosine", center: bool = False
) -> list[Space]:
    """Each space relative to the training samples `chosen`."""
    return [
        (
            relative_projection(train, train[chosen], similarity=similarity, center=center),
            relative_projection(test, train[chosen], similarity=similarity, center=center),
        )
        for train, test in spaces
    ]


def carried_back(
    spaces: Sequence[Space],
    heads: Sequence[nn.Module],
    chosen: Tensor,
    score: Callable[[Tensor], float],
    *,
    center: bool = False,
) -> Tensor:
    """(k, k): space i carried into the absolute space j by the anchors alone, for the head that was trained there."""
    rows = []
    for _, relative in project(spaces, chosen, "cosine", center):
        carried = [inverse_relative_projection(relative, train[chosen], center=center) for train, _ in spaces]
        rows.append([score(embed(head, points)) for head, points in zip(heads, carried, strict=True)])
    return torch.tensor(rows, dtype=torch.float64)


def within(progress: ShareDone | None, low: float, high: float) -> ShareDone | None:
    """The progress of a stage that runs from `low` to `high` of the whole."""
    return None if progress is None else lambda share: progress(low + (high - low) * share)


def own_and_stitched(name: str, matrix: Tensor, *, low_is_good: bool = False) -> dict[str, float]:
    """Three arms of a stitching matrix: with the own head, with the others' in the mean, with the worst other's."""
    others = off_diagonal(matrix)
    return {
        f"{name}, own": float(matrix.diagonal().mean()),
        f"{name}, stitched": float(others.mean()),
        f"{name}, worst stitched": float(others.max() if low_is_good else others.min()),
    }


def compare_all(name: str, spaces: Sequence[Tensor]) -> dict[str, float]:
    """Arms of `compare_spaces`, each the mean over ordered pairs of different spaces."""
    found = [compare_spaces(a, b) for i, a in enumerate(spaces) for j, b in enumerate(spaces) if i != j]
    measures = {
        "effective rank": [comparison.effective_ranks[0] for comparison in found],
        "CKA": [comparison.cka for comparison in found],
        "neighbour overlap": [comparison.neighbour_overlap for comparison in found],
        "retrieval overlap": [comparison.retrieval_overlap for comparison in found],
        "reciprocal rank": [comparison.reciprocal_rank for comparison in found],
        "cosine of the same sample": [comparison.cosine for comparison in found],
    }
    return {f"{name}: {measure}": sum(values) / len(values) for measure, values in measures.items()}
