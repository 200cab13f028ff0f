"""How alike features are: of a sample and its transform, of two encoders, of the directions within one space.

All functions take features (n, d) as plain tensors and compute in double precision.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from cdvae_kit.representation.methods.encoder import unit_rows

Metric = Literal["l2", "cosine"]


def derangement(num: int, *, generator: torch.Generator) -> Tensor:
    """(num,) long: a permutation that leaves nothing in its place, uniform among those.

    A plain permutation keeps one sample in its place on average, and would compare it with itself.
    """
    if num < 2:
        raise ValueError(f"a derangement needs at least 2 samples, got {num}")
    indices = torch.arange(num)
    while True:  # one permutation in e = 2.7 is one
        order = torch.randperm(num, generator=generator)
        if not bool((order == indices).any()):
            return order


def sensitivity(features_a: Tensor, features_b: Tensor, *, metric: Metric = "l2", generator: torch.Generator) -> float:
    """mean d(a_i, b_i) / mean d(a_i, b_π(i)): 0 is invariant, 1 as different as two samples are.

    Speicher, Nanda and Gummadi, "Understanding the role of invariance in transfer learning" (TMLR 2024, arXiv
    2407.04325). Theirs averages ratios of parts over batches and lets π keep a sample in its place; here is one ratio
    over all, and a derangement. Compare trained networks only: an untrained one sees little but what all samples
    share, and seems invariant. Not a number where all features coincide.

    Args:
        features_a: (n, d), of the samples under one draw of the transform.
        features_b: (n, d), of the same samples under another draw.
        metric: distance, or one minus the cosine.
        generator: of the pairs that are compared with.

    >>> from cdvae_kit.seeding import make_generator
    >>> a = torch.eye(4)
    >>> sensitivity(a, a, generator=make_generator(0)), sensitivity(a, -a, generator=make_generator(0)) > 1.0
    (0.0, True)
    """
    a, b = _pair(features_a, features_b, least=2)
    other = b[derangement(len(b), generator=generator).to(b.device)]
    same, different = (_distance(a, x, metric).mean() for x in (b, other))
    return float(same / different) if float(different) > 0.0 else math.nan


def _distance(a: Tensor, b: Tensor, metric: Metric) -> Tensor:
    return (a - b).norm(dim=-1) if metric == "l2" else 1.0 - (unit_rows(a) * unit_rows(b)).sum(-1)


def linear_cka(features_a: Tensor, features_b: Tensor) -> float:
    """Centred kernel alignment of linear kernels by the unbiased estimator; 1 for spaces alike, 0 for unrelated ones.

    Blind to rotation, reflection, common scale and shift of either space; not to a general linear map. Slightly
    negative values are noise about 0. Kornblith et al. (ICML 2019, arXiv 1905.00414); the estimator is that of Song et
    al. (JMLR 2012), equation 5, which leaves the diagonal out. Not a number where one space is a point.
    """
    a, b = _pair(features_a, features_b, least=4, same_width=False)
    # what a shift changes cancels; taken away first, it cannot spoil the digits
    kernels = [x @ x.T for x in (a - a.mean(0), b - b.mean(0))]
    for kernel in kernels:
        kernel.fill_diagonal_(0.0)
    k, m = kernels
    scale = float(_hsic(k, k) * _hsic(m, m))
    return float(_hsic(k, m)) / math.sqrt(scale) if scale > 0.0 else math.nan


def _hsic(k: Tensor, m: Tensor) -> Tensor:
    n = len(k)
    cross = k.sum(0) @ m.sum(0)
    return ((k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2.0 * cross / (n - 2)) / (n * (n - 3))


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the singular values, as shares, of centred features: how many directions are in use.

    Between 0 (a point), 1 (a line) and d. Roy and Vetterli, "The effective rank" (EUSIPCO 2007). Look at it before
    angles are compared: in a collapsed space they mean nothing.
    """
    x = _checked(features, least=2)
    values = torch.linalg.svdvals(x - x.mean(0))
    # what rounding leaves of a point is no direction
    floor = torch.finfo(torch.float64).eps * max(x.shape) * float(x.abs().max())
    values = values[values > floor]
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(-torch.xlogy(shares, shares).sum()))


def neighbour_overlap(features_a: Tensor, features_b: Tensor, *, k: int = 10, metric: Metric = "cosine") -> float:
    """The mean Jaccard index of the k nearest neighbours of each sample in both spaces: 1 the same, 0 none shared."""
    a, b = _pair(features_a, features_b, least=2, same_width=False)
    if not 1 <= k < len(a):
        raise ValueError(f"k must lie in 1..{len(a) - 1}, the number of other samples, got {k}")
    members = [_is_neighbour(x, k, metric) for x in (a, b)]
    shared = (members[0] & members[1]).sum(1).double()
    return float((shared / (2 * k - shared)).mean())


def _is_neighbour(x: Tensor, k: int, metric: Metric) -> Tensor:
    closeness = -torch.cdist(x, x) if metric == "l2" else unit_rows(x) @ unit_rows(x).T
    closeness.fill_diagonal_(-torch.inf)
    member = torch.zeros_like(closeness, dtype=torch.bool)
    return member.scatter_(1, closeness.topk(k, dim=1).indices, True)


def retrieval_overlap(features_a: Tensor, features_b: Tensor, *, k: int = 10) -> float:
    """The mean Jaccard index of the k nearest b to a_i and the k nearest to b_i, by cosine, b_i itself among both.

    Both spaces need the same coordinates: it tells whether one space can be searched with points of the other. Not
    symmetric.
    """
    a, b = _pair(features_a, features_b, least=1)
    if not 1 <= k <= len(a):
        raise ValueError(f"k must lie in 1..{len(a)}, the number of samples, got {k}")
    found = []
    for query in (a, b):
        member = torch.zeros(len(a), len(b), dtype=torch.bool)
        found.append(member.scatter_(1, (unit_rows(query) @ unit_rows(b).T).topk(k, dim=1).indices.cpu(), True))
    shared = (found[0] & found[1]).sum(1).double()
    return float((shared / (2 * k - shared)).mean())


def mean_reciprocal_rank(features_a: Tensor, features_b: Tensor) -> float:
    """Mean of 1/rank of b_i among all b by their cosine with a_i; both spaces need the same coordinates.

    Ties share their mean rank, so that a collapsed space does not win.
    """
    a, b = _pair(features_a, features_b, least=1)
    cosines = unit_rows(a) @ unit_rows(b).T
    own = cosines.diagonal()[:, None]
    # the same cosine summed in another order differs in the last digits
    tolerance = 1e-12
    higher = (cosines > own + tolerance).sum(1)
    ties = ((cosines - own).abs() <= tolerance).sum(1) - 1
    return float((1.0 / (1.0 + higher + 0.5 * ties)).mean())


def _pair(a: Tensor, b: Tensor, *, least: int, same_width: bool = True) -> tuple[Tensor, Tensor]:
    a, b = _checked(a, least=least), _checked(b, least=least)
    if len(a) != len(b) or (same_width and a.shape != b.shape):
        raise ValueError(
            f"expected features of the same {'shape' if same_width else 'samples'}, got {tuple(a.shape)}, "
            f"{tuple(b.shape)}"
        )
    return a, b


def _checked(features: Tensor, *, least: int) -> Tensor:
    if features.ndim != 2 or len(features) < least:
        raise ValueError(f"expected features (n, d) of at least {least} samples, got {tuple(features.shape)}")
    if not bool(torch.isfinite(features).all()):
        bad = int((~torch.isfinite(features)).any(1).sum())
        raise ValueError(f"{bad} of {len(features)} samples have features that are not finite")
    return features.detach().double()
