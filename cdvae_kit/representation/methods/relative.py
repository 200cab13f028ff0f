"""Relative representations: a sample by its similarity to anchors, so that encoders can be exchanged.

Moschella et al., "Relative representations enable zero-shot latent space communication" (ICLR 2023, arXiv 2209.15430):
r(x) = (cos(E(x), E(a_1)), ..., cos(E(x), E(a_m))), the anchors a_i being the same samples for every encoder E. Two
trainings give spaces that differ by little more than a rotation, which r does not see; a head trained on r reads
other encoders without being fitted to them.

Ours differs: anchors are encoded in evaluation mode; the head is a layer norm and an MLP, where one of theirs
normalises over the batch of test samples; beside the cosine stand centred, whitened and distance-based similarities,
which do not see a shift. How anchors are chosen: `anchors`. The experiment: `experiments.relative`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cdvae_kit.nn.mlp import mlp
from cdvae_kit.representation.methods.anchors import AnchorMethod as AnchorMethod
from cdvae_kit.representation.methods.anchors import select_anchors as select_anchors
from cdvae_kit.representation.methods.encoder import embed, unit_rows
from cdvae_kit.representation.methods.similarity import (
    effective_rank,
    linear_cka,
    mean_reciprocal_rank,
    neighbour_overlap,
    retrieval_overlap,
)
from cdvae_kit.transforms.base import num_samples

Similarity = Literal["cosine", "euclidean", "whitened"]


def relative_projection(
    x: Tensor, anchors: Tensor, *, similarity: Similarity = "cosine", center: bool = False
) -> Tensor:
    """(n, m): the similarity of each sample to each anchor, greatest for the anchor itself.

    Differentiable in `x`: an objective on relative coordinates can be followed back to the codes.

    Args:
        x: (n, d) features.
        anchors: (m, d) features of the anchors by the same encoder.
        similarity: `cosine`, as published: no rotation, reflection or common scale of the space changes it; a shift
            does. `euclidean`: minus the distance over the mean distance of two anchors; a shift changes nothing either.
            `whitened`: cosine after a linear map that makes the anchors' covariance the identity; no invertible affine
            map changes it. Directions in which the anchors do not vary are dropped; noisy ones are blown up.
        center: take the anchors' mean away first, so that a shift changes nothing. Only the cosine needs it.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    >>> relative_projection(x, torch.eye(2)).round(decimals=2)
    tensor([[1.0000, 0.0000],
            [0.7100, 0.7100]])
    """
    _check_spaces(x, anchors)
    if similarity == "euclidean":
        return -_distances(x, anchors) / _mean_distance(anchors)
    if similarity == "whitened":
        mean, whiten = _whitening(anchors)
        x, anchors = (x - mean) @ whiten, (anchors - mean) @ whiten
    elif similarity != "cosine":
        raise ValueError(f"similarity must be 'cosine', 'euclidean' or 'whitened', got {similarity!r}")
    elif center:
        mean = anchors.mean(0)
        x, anchors = x - mean, anchors - mean
    return unit_rows(x) @ unit_rows(anchors).T


def _distances(x: Tensor, anchors: Tensor) -> Tensor:
    # by way of products, near points would lose their digits
    return torch.cdist(x, anchors, compute_mode="donot_use_mm_for_euclid_dist")


def _mean_distance(anchors: Tensor) -> Tensor:
    num = len(anchors)
    total = _distances(anchors, anchors).sum()
    if num < 2 or not float(total) > 0.0:
        raise ValueError(f"distances are measured by the mean one between anchors; these {num} are all one point")
    return total / (num * (num - 1))


def _whitening(anchors: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d,) and the map (d, rank)."""
    mean = anchors.mean(0)
    _, singular, directions = torch.linalg.svd(anchors - mean, full_matrices=False)
    kept = singular > torch.finfo(anchors.dtype).eps * max(anchors.shape) * singular.max()
    if not bool(kept.any()):
        raise ValueError(f"whitening needs anchors that differ; these {len(anchors)} are all one point")
    return mean, directions[kept].T * (math.sqrt(len(anchors)) / singular[kept])


def inverse_relative_projection(
    relative: Tensor, anchors: Tensor, *, center: bool = False, cutoff: float = 0.05
) -> Tensor:
    """(n, d): the points of the anchors' space whose cosines to the anchors come nearest to `relative`.

    With cosines from encoder A and anchors by encoder B it carries A's samples into B's own space, for heads and
    decoders that were never trained on relative coordinates (Maiorca et al. 2024, arXiv 2406.15057). Cosines do not
    know lengths: each point gets the anchors' mean one.

    Args:
        relative: (n, m) cosines.
        anchors: (m, d).
        center: as the cosines were taken.
        cutoff: directions in which the anchors' unit vectors have a singular value below this share of the largest
            are left out, since they carry more noise than position.
    """
    if relative.ndim != 2 or anchors.ndim != 2 or relative.shape[1] != len(anchors):
        raise ValueError(
            f"expected cosines (n, m) and the m anchors (m, d), got {tuple(relative.shape)}, {tuple(anchors.shape)}"
        )
    mean = anchors.mean(0) if center else torch.zeros_like(anchors[0])
    anchors = anchors - mean
    directions = unit_rows(relative @ torch.linalg.pinv(unit_rows(anchors), rtol=cutoff).T)
    return mean + anchors.norm(dim=1).mean() * directions


class RelativeEncoder(nn.Module):
    """An encoder whose features are the similarities of its samples to anchors.

    The anchors are encoded anew at each call, without gradient, so that they follow the training of the encoder and
    are no second way to train it; in evaluation mode, so that neither dropout nor the batch moves them. For a frozen
    encoder and many calls, embed samples and anchors once and use `relative_projection`.

    Args:
        encoder: any module from a batch to (b, d); trained along unless it is frozen.
        anchors: a batch of the encoder's inputs: tensor, tuple or crystals. A tensor is saved with the weights.
        similarity: see `relative_projection`.
        center: see `relative_projection`.

    >>> from cdvae_kit.representation.methods.encoder import MLPEncoder
    >>> RelativeEncoder(MLPEncoder([4, 8]), torch.eye(4))(torch.zeros(2, 4)).shape
    torch.Size([2, 4])
    """

    def __init__(self, encoder: Any, anchors: Any, *, similarity: Similarity = "cosine", center: bool = False) -> None:
        super().__init__()
        if num_samples(anchors) < 1:
            raise ValueError("relative coordinates need at least one anchor")
        self.encoder = encoder
        self.similarity: Similarity = similarity
        self.center = center
        self.out_features = num_samples(anchors)
        if isinstance(anchors, Tensor):
            self.register_buffer("anchors", anchors)
        else:
            self.anchors = anchors

    def forward(self, batch: Any) -> Tensor:
        features = self.encoder(batch)
        anchors = embed(self.encoder, _moved(self.anchors, features.device))
        return relative_projection(features, anchors, similarity=self.similarity, center=self.center)


def _moved(batch: Any, device: torch.device) -> Any:
    return tuple(_moved(part, device) for part in batch) if isinstance(batch, tuple) else batch.to(device)


def relative_head(num_anchors: int, out_features: int, *, hidden: Sequence[int] = ()) -> nn.Sequential:
    """A layer norm over the anchors, then an MLP: of one sample alone, so that no prediction depends on the others.

    >>> relative_head(10, 2)(torch.zeros(3, 10)).shape
    torch.Size([3, 2])
    """
    return nn.Sequential(nn.LayerNorm(num_anchors), mlp([num_anchors, *hidden, out_features]))


def stitching_matrix(
    encoders: Sequence[Any],
    heads: Sequence[Callable[[Tensor], Tensor]],
    batch: Any,
    score: Callable[[Tensor], float],
    *,
    batch_size: int = 512,
) -> Tensor:
    """(k, k) double: the score of encoder i (row) with head j (column); the diagonal is each with its own.

    Args:
        encoders: of k trainings.
        heads: of the same trainings, in the same order.
        batch: samples.
        score: of the heads' output (n, ...), for instance its accuracy.
        batch_size: samples at a time.
    """
    if len(encoders) != len(heads) or not encoders:
        raise ValueError(f"expected as many heads as encoders, at least one, got {len(heads)} and {len(encoders)}")
    matrix = torch.empty(len(encoders), len(heads), dtype=torch.float64)
    for i, encoder in enumerate(encoders):
        features = embed(encoder, batch, batch_size=batch_size)
        for j, head in enumerate(heads):
            matrix[i, j] = score(embed(head, features, batch_size=batch_size))
    return matrix


def off_diagonal(matrix: Tensor) -> Tensor:
    """The entries off the diagonal, (k² − k,): the encoder of one training with the head of another.

    >>> off_diagonal(torch.tensor([[1, 2], [3, 4]]))
    tensor([2, 3])
    """
    return matrix[~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)]


@dataclass(frozen=True)
class SpaceComparison:
    """How alike two spaces are on the same samples.

    Attributes:
        effective_ranks: directions in use, of each; in a collapsed space angles mean little.
        cka: by linear kernels; blind to rotation, scale and shift.
        neighbour_overlap: Jaccard index of the neighbours within each space; blind to rotation and scale.
        retrieval_overlap: Jaccard index of the neighbours of a_i and of b_i, both among the b. This and what follows
            need the same coordinates, and are no numbers for spaces of different widths.
        reciprocal_rank: mean of 1/rank of b_i among the b by their cosine with a_i.
        cosine: mean between a_i and b_i.
    """

    effective_ranks: tuple[float, float]
    cka: float
    neighbour_overlap: float
    retrieval_overlap: float
    reciprocal_rank: float
    cosine: float


def compare_spaces(features_a: Tensor, features_b: Tensor, *, k: int = 10) -> SpaceComparison:
    """Two spaces, absolute or relative, on the same samples.

    Args:
        features_a: (n, d).
        features_b: (n, e).
        k: number of neighbours.
    """
    same_width = features_a.shape[-1] == features_b.shape[-1]
    return SpaceComparison(
        (effective_rank(features_a), effective_rank(features_b)),
        linear_cka(features_a, features_b),
        neighbour_overlap(features_a, features_b, k=k),
        retrieval_overlap(features_a, features_b, k=k) if same_width else math.nan,
        mean_reciprocal_rank(features_a, features_b) if same_width else math.nan,
        float((unit_rows(features_a) * unit_rows(features_b)).sum(1).mean()) if same_width else math.nan,
    )


def _check_spaces(x: Tensor, anchors: Tensor) -> None:
    if x.ndim != 2 or anchors.ndim != 2 or x.shape[1] != anchors.shape[1] or not len(anchors):
        raise ValueError(
            "expected features (n, d) and at least one anchor (m, d) of the same space, got "
            f"{tuple(x.shape)} and {tuple(anchors.shape)}"
        )
