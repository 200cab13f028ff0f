"""How far apart two sets lie as wholes, and how many kinds there are in one: Jensen-Shannon, Fréchet, Vendi.

All three move with the number of crystals, so each says what it rests on, and `expected_divergence` what two honest
draws of that size would give. Distances of single numbers (density and the like) are in `distributions`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np


def shares(labels: Sequence[Hashable]) -> dict[Hashable, float]:
    """Share of each label; None stands for no label and is left out.

    >>> shares(["cubic", "cubic", "triclinic", None, "cubic"])
    {'cubic': 0.75, 'triclinic': 0.25}
    """
    counts = Counter(label for label in labels if label is not None)
    total = sum(counts.values())
    return {label: count / total for label, count in counts.most_common()}


def jensen_shannon(generated: Sequence[Hashable], reference: Sequence[Hashable]) -> float | None:
    """Jensen-Shannon divergence of two sets of labels, in bits: 0 the same shares, 1 no label in common.

    Lin, IEEE Trans. Inf. Theory 37, 145 (1991), doi 10.1109/18.61115. None where a set has no label.

    >>> jensen_shannon(["a", "b"], ["c", "c"]), jensen_shannon(["a", "b"], ["b", "a"])
    (1.0, 0.0)
    """
    ours, theirs = _aligned_counts(generated, reference)
    if not ours.sum() or not theirs.sum():
        return None
    return float(_divergence(ours, theirs))


def expected_divergence(
    reference: Sequence[Hashable],
    *,
    num_generated: int,
    crystals: Sequence[int] | None = None,
    num_draws: int = 200,
    seed: int = 0,
) -> float | None:
    """`jensen_shannon` that a perfect generator would show, one that draws whole crystals from the reference itself.

    The divergence of finite samples is above 0 even where both come from one distribution; this is by how much.

    Args:
        reference: labels; None stands for no label.
        num_generated: crystals in the generated set.
        crystals: the crystal that each label belongs to, where a crystal has several; atoms of one crystal come
            together. One label a crystal if None.
        num_draws: the result is the mean over so many.
        seed: of the draws.
    """
    members = range(len(reference)) if crystals is None else crystals
    there = [(crystal, label) for crystal, label in zip(members, reference, strict=True) if label is not None]
    if not there or num_generated < 1:
        return None
    _, rows = np.unique([crystal for crystal, _ in there], return_inverse=True)
    columns: dict[Hashable, int] = {}
    for _, label in there:
        columns.setdefault(label, len(columns))
    counts = np.zeros((int(rows.max()) + 1, len(columns)), dtype=np.int64)
    np.add.at(counts, (rows, np.array([columns[label] for _, label in there])), 1)
    generator = np.random.default_rng(seed)
    even = np.full(len(counts), 1 / len(counts))
    ours, theirs = (generator.multinomial(size, even, size=num_draws) @ counts for size in (num_generated, len(counts)))
    return float(np.mean(_divergence(ours, theirs)))


def _aligned_counts(generated: Sequence[Hashable], reference: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """How often each label stands in both sets, in one order."""
    counts = [Counter(label for label in labels if label is not None) for labels in (generated, reference)]
    labels = list(counts[0] | counts[1])
    ours, theirs = (np.array([some[label] for label in labels], dtype=np.int64) for some in counts)
    return ours, theirs


def _divergence(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Of counts (..., num_labels), in bits."""
    p, q = (counts / counts.sum(-1, keepdims=True) for counts in (ours, theirs))
    middle = (p + q) / 2
    # rounding can leave -1e-17 of two equal distributions
    return np.maximum(_entropy(middle) - (_entropy(p) + _entropy(q)) / 2, 0.0)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """In bits, over the last axis."""
    logarithm = np.log2(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return -(probabilities * logarithm).sum(-1)


def binned(values: Sequence[float] | np.ndarray, edges: np.ndarray) -> list[int | None]:
    """The number of the bin that each value falls into, None of NaN; both ends are open."""
    data = np.asarray(values, dtype=np.float64)
    bins = np.searchsorted(edges, data, side="right")
    return [None if np.isnan(value) else int(number) for value, number in zip(data, bins, strict=True)]


def quantile_edges(reference: Sequence[float] | np.ndarray, num_bins: int = 20) -> np.ndarray:
    """Inner edges of bins that each hold the same share of the reference; fewer where values repeat."""
    data = np.asarray(reference, dtype=np.float64)
    data = data[np.isfinite(data)]
    return np.unique(np.quantile(data, np.linspace(0, 1, num_bins + 1)[1:-1])) if len(data) else np.zeros(0)


def vendi_score(vectors: np.ndarray, *, length_scale: float, max_vectors: int = 2000, seed: int = 0) -> float:
    """The effective number of different crystals: 1 if all are alike, the number of vectors if none is near another.

    Friedman and Dieng, Trans. Mach. Learn. Res. (2023), arXiv 2210.02410: exp of the entropy of the eigenvalues of
    K / n. Similarity here is exp(-d^2 / (2 length_scale^2)) of the Euclidean distance. It grows with the number of
    vectors, so compare sets of one size.

    Args:
        vectors: (num_crystals, num_features).
        length_scale: distance at which crystals are still alike.
        max_vectors: more than this are thinned by a seeded draw; the eigenvalues take the third power of it.
        seed: of the draw.

    >>> float(round(vendi_score(np.array([[0.0], [0.0], [9.0]]), length_scale=0.1), 3))  # two kinds, one of them twice
    1.89
    """
    if not length_scale > 0:
        raise ValueError(f"length_scale must be a positive distance, got {length_scale}")
    if not len(vectors):
        return 0.0
    from scipy.spatial.distance import pdist, squareform

    if len(vectors) > max_vectors:
        kept = np.random.default_rng(seed).choice(len(vectors), max_vectors, replace=False)
        vectors = vectors[np.sort(kept)]
    kernel = np.exp(-0.5 * squareform(pdist(vectors, "sqeuclidean")) / length_scale**2)
    weights = np.clip(np.linalg.eigvalsh(kernel / len(vectors)), 0.0, None)
    weights = weights[weights > 0]
    return float(np.exp(-(weights * np.log(weights)).sum()))


def frechet_distance(generated: np.ndarray, reference: np.ndarray) -> float | None:
    """Squared Fréchet distance of two sets of codes (num_crystals, latent_dim), each taken as a Gaussian.

    Dowson and Landau, J. Multivar. Anal. 12, 450 (1982), as used on images by Heusel et al. (NeurIPS 2017, arXiv
    1706.08500). None of fewer than two codes; under latent_dim codes the covariance has no full rank and the distance
    is too large. Codes of one encoder compare, those of two do not.
    """
    for name, codes in (("generated", generated), ("reference", reference)):
        if codes.ndim != 2 or codes.shape[1] != reference.shape[-1]:
            raise ValueError(
                f"{name} codes must be (num_crystals, {reference.shape[-1]}), one width for both, got {codes.shape}"
            )
        if not np.isfinite(codes).all():
            raise ValueError(f"{name} codes hold NaN or infinity; leave these crystals out")
    if min(len(generated), len(reference)) < 2:
        return None
    shift = generated.mean(0) - reference.mean(0)
    ours, theirs = (np.atleast_2d(np.cov(codes, rowvar=False)) for codes in (generated, reference))
    root = _square_root(ours)
    # the eigenvalues of ours @ theirs, of a matrix that is symmetric
    crossed = np.linalg.eigvalsh(root @ theirs @ root)
    trace = np.trace(ours) + np.trace(theirs) - 2 * np.sqrt(np.clip(crossed, 0.0, None)).sum()
    return float(max(shift @ shift + trace, 0.0))


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
