"""Whether generated crystals are spread as the reference is: Wasserstein distances, and diversity within a set.

The published protocol (Xie et al., ICLR 2022, arXiv 2110.06197) takes at most 1,000 valid generated crystals
(`sample_valid`) against the whole reference. Nearness of single crystals is in `coverage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdvae_kit.metrics.crystals import Crystals, as_arrays
from cdvae_kit.metrics.fingerprints import Fingerprint, stack

_ROWS_AT_ONCE = 512
_GRAM_PER_CUBIC_CM = 1.66053906660
"""One dalton in one cubic angstrom."""


@dataclass(frozen=True)
class SetDistance:
    """A distance between two sets of values, and how many of each it rests on.

    Attributes:
        value: None where a set is empty.
        num_generated: values that are not NaN.
        num_reference: likewise.
        reason: why there is no value; None where there is one.
    """

    value: float | None
    num_generated: int
    num_reference: int
    reason: str | None = None


def densities(crystals: Crystals) -> np.ndarray:
    """(num_crystals,) in g/cm^3; NaN for a crystal that cannot be used or has no volume.

    >>> from pymatgen.core import Lattice, Structure
    >>> copper = Structure(Lattice.cubic(3.615), ["Cu"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    >>> densities([copper]).round(2)
    array([8.93])
    """
    from pymatgen.core import Element

    masses = np.array([np.nan, *(float(Element.from_Z(number).atomic_mass) for number in range(1, 119))])
    return np.array(
        [
            masses[crystal.atomic_numbers].sum() / crystal.volume * _GRAM_PER_CUBIC_CM
            if crystal.fault is None and crystal.volume > 0
            else np.nan
            for crystal in as_arrays(crystals)
        ],
        dtype=np.float64,
    )


def numbers_of_elements(crystals: Crystals) -> np.ndarray:
    """(num_crystals,) how many different elements; NaN for a crystal that cannot be used."""
    return np.array(
        [
            len(np.unique(crystal.atomic_numbers)) if crystal.fault is None else np.nan
            for crystal in as_arrays(crystals)
        ],
        dtype=np.float64,
    )


def wasserstein(generated: Sequence[float] | np.ndarray, reference: Sequence[float] | np.ndarray) -> SetDistance:
    """Earth mover's distance between the values of any property, in its unit; NaN stands for no value.

    >>> wasserstein([1.0, 2.0, float("nan")], [2.0, 3.0])
    SetDistance(value=1.0, num_generated=2, num_reference=2, reason=None)
    """
    from scipy.stats import wasserstein_distance

    ours, theirs = (np.asarray(values, dtype=np.float64) for values in (generated, reference))
    for name, values in (("generated", ours), ("reference", theirs)):
        if values.ndim != 1:
            raise ValueError(f"one {name} value a crystal is expected, got an array {values.shape}")
        if np.isinf(values).any():
            raise ValueError(f"{int(np.isinf(values).sum())} {name} values are infinite; give NaN for no value")
    ours, theirs = ours[~np.isnan(ours)], theirs[~np.isnan(theirs)]
    for name, values in (("generated", ours), ("reference", theirs)):
        if not len(values):
            return SetDistance(None, len(ours), len(theirs), f"no {name} crystal has a value")
    return SetDistance(float(wasserstein_distance(ours, theirs)), len(ours), len(theirs))


def structure_diversity(vectors: Sequence[Fingerprint]) -> float:
    """Mean distance between the structure vectors of two crystals; 0 of fewer than two that have vectors."""
    return _mean_pair_distance(stack(vectors)[0])


def composition_diversity(vectors: Sequence[Fingerprint]) -> float:
    """Mean distance between the standardised composition vectors; 0 of fewer than two that have vectors."""
    return _mean_pair_distance(stack(vectors)[1])


def sample_valid(valid: Sequence[bool] | np.ndarray, *, num_samples: int = 1000, seed: int = 0) -> np.ndarray:
    """Indices of `num_samples` valid crystals drawn without repeats; all of them, in order, where there are fewer.

    The published code raises where there are fewer.
    """
    indices = np.flatnonzero(np.asarray(valid, dtype=bool))
    if len(indices) <= num_samples:
        return indices
    return np.sort(np.random.default_rng(seed).choice(indices, num_samples, replace=False))


def _mean_pair_distance(vectors: np.ndarray) -> float:
    from scipy.spatial.distance import cdist

    num_crystals = len(vectors)
    if num_crystals < 2:
        return 0.0
    # in blocks: all pairs of 10,000 crystals would take 800 MB
    total = sum(
        float(cdist(vectors[start : start + _ROWS_AT_ONCE], vectors).sum())
        for start in range(0, num_crystals, _ROWS_AT_ONCE)
    )
    return total / (num_crystals * (num_crystals - 1))
