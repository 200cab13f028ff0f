"""Whether generated crystals are spread as the reference is: Wasserstein distances, and diversity within a set.

The published protocol (Xie et al., ICLR 2022, arXiv 2110.06197) takes at most 1,000 valid generated crystals
(`sample_valid`) against the whole reference. Nearness of single crystals is in `coverage`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.computing.divergences import (
    binned,
    expected_divergence,
    jensen_shannon,
    quantile_edges,
    vendi_score,
)
from cdvae_kit.metrics.crystals import CrystalArrays, Crystals, as_arrays, symbol
from cdvae_kit.metrics.evaluation_result import Distribution
from cdvae_kit.metrics.fingerprints.vectors import Fingerprint, stack
from cdvae_kit.metrics.metric import Columns, Family, Measured, Metric, Need, labels_of, missing, number

if TYPE_CHECKING:
    from cdvae_kit.metrics.evidence import Evidence

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


def volumes_per_atom(crystals: Crystals) -> np.ndarray:
    """(num_crystals,) cubic angstrom; NaN for a crystal that cannot be used."""
    return np.array(
        [np.nan if crystal.fault else crystal.volume / len(crystal.atomic_numbers) for crystal in as_arrays(crystals)],
        dtype=np.float64,
    )


def numbers_of_atoms(crystals: Crystals) -> np.ndarray:
    """(num_crystals,) in the cell; NaN for a crystal that cannot be used."""
    return np.array(
        [np.nan if crystal.fault else len(crystal.atomic_numbers) for crystal in as_arrays(crystals)],
        dtype=np.float64,
    )


# The numbers of an evaluation

_CDVAE = "Xie et al., ICLR 2022, arXiv:2110.06197"
_JENSEN_SHANNON = "Lin, IEEE Trans. Inf. Theory 37, 145 (1991), doi:10.1109/18.61115"
_VENDI = "Friedman and Dieng, Trans. Mach. Learn. Res. (2023), arXiv:2210.02410"
_VENDI_CRYSTALS = 2000

QUANTITIES: dict[str, tuple[str, str, Callable[[Crystals], np.ndarray]]] = {
    "density": ("density", "g/cm³", densities),
    "num_elems": ("number of elements", "", numbers_of_elements),
    "num_atoms": ("atoms in the cell", "", numbers_of_atoms),
    "volume_per_atom": ("volume per atom", "Å³", volumes_per_atom),
}
"""Label, unit and measure of what is computed from the crystals themselves; a property cannot have such a name."""


def distance(ours: np.ndarray, theirs: np.ndarray, unit: str) -> Measured:
    """`wasserstein` of two sets, in words what it rests on."""
    found = wasserstein(ours, theirs)
    note = found.reason or f"{unit + ', ' if unit else ''}of {found.num_generated} valid crystals"
    return number(found.value, found.num_generated, note=note)


def divergence(
    ours: Sequence[Hashable],
    theirs: Sequence[Hashable],
    num_crystals: int,
    *,
    crystals: Sequence[int] | None = None,
) -> Measured:
    """Jensen-Shannon divergence, with what drawing so many crystals from the reference would show beside it.

    Args:
        ours: labels of the generated crystals.
        theirs: of the reference.
        num_crystals: that `ours` are of.
        crystals: which crystal each of `theirs` belongs to, where a crystal has several.
    """
    value = jensen_shannon(ours, theirs)
    expected = expected_divergence(theirs, num_generated=num_crystals, crystals=crystals)
    if value is None or expected is None:
        return missing("a set has no crystal that can be counted")
    note = f"bits; {expected:.4f} of as many crystals drawn from the reference itself"
    return number(value, num_crystals, note=note)


def _measured(evidence: Evidence) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Each quantity of all generated and all reference crystals."""
    there = evidence.reference is not None
    return {
        name: (measure(evidence.ours), measure(evidence.theirs) if there else None)
        for name, (_, _, measure) in QUANTITIES.items()
    }


def _wasserstein_metric(name: str) -> Metric:
    label, unit, _ = QUANTITIES[name]

    def compute(evidence: Evidence) -> Measured:
        ours, theirs = evidence.once(_measured)[name]
        assert theirs is not None
        return distance(ours[evidence.sampled], theirs, unit)

    return Metric(
        f"wdist_{name}",
        f"Wasserstein distance, {label}",
        "distribution",
        "lower",
        unit,
        _CDVAE,
        ("reference",),
        compute,
    )


def _diversity_sample(evidence: Evidence) -> list[Fingerprint]:
    vectors = evidence.vectors or []
    return [vectors[i] for i in evidence.sampled]


def _composition_diversity(evidence: Evidence) -> Measured:
    vectors = evidence.once(_diversity_sample)
    return number(composition_diversity(vectors), len(vectors), note="mean distance of a pair")


def _structure_diversity(evidence: Evidence) -> Measured:
    vectors = evidence.once(_diversity_sample)
    return number(structure_diversity(vectors), len(vectors), note="mean distance of a pair")


def _vendi_metric(part: str, *, of_reference: bool) -> Metric:
    """At the scale of the cutoffs of coverage; `part` is "structure" or "composition"."""

    def compute(evidence: Evidence) -> Measured | None:
        ours = [vector for vector in evidence.once(_diversity_sample) if vector.complete]
        theirs = [vector for vector in evidence.reference_vectors or [] if vector.complete]
        scale = getattr(evidence.settings.coverage_cutoffs, part)
        # of one size, since the score grows with it
        size = min(len(ours), _VENDI_CRYSTALS, *([len(theirs)] if theirs else []))
        if not (scale > 0 and size):
            reason = "no valid crystal has a fingerprint" if scale > 0 else "the cutoff, its length scale, is 0"
            return None if of_reference else missing(reason)
        rows = stack(theirs if of_reference else ours)[("structure", "composition").index(part)]
        if not len(rows):
            return None
        note = f"effective number of kinds among {size}, at a length scale of {scale:g}"
        score = vendi_score(rows, length_scale=scale, max_vectors=size, seed=evidence.seed)
        return number(score, size, note=note)

    name, label = f"vendi_{part}", f"Vendi score, {part}"
    if of_reference:
        name, label = f"{name}_reference", f"{label}, of the reference"
    return Metric(name, label, "distribution", None, "", _VENDI, ("fingerprints",), compute)


def _coordination(vectors: Sequence[Fingerprint]) -> tuple[list[int], list[int]]:
    """The coordination number of every site, and the crystal that it is of."""
    sites = [
        (number, crystal)
        for crystal, found in enumerate(vectors)
        if found.coordination is not None
        for number in found.coordination
    ]
    return [int(number) for number, _ in sites], [crystal for _, crystal in sites]


def _site_coordination(evidence: Evidence) -> tuple[list[int], list[int] | None, list[int] | None]:
    """Of the valid generated crystals; of the reference, with the crystal of each site."""
    vectors = evidence.vectors or []
    ours, _ = _coordination([vectors[i] for i in evidence.valid])
    if evidence.reference_vectors is None:
        return ours, None, None
    return ours, *_coordination(evidence.reference_vectors)


def _jsd_coordination(evidence: Evidence) -> Measured:
    ours, theirs, crystals = evidence.once(_site_coordination)
    return divergence(ours, theirs or [], len(evidence.valid), crystals=crystals)


def _elements(
    crystals: Sequence[CrystalArrays], index: Sequence[int] | np.ndarray | None = None
) -> tuple[list[str], list[int]]:
    """The element of every atom of the crystals at `index`, and the crystal that the atom belongs to."""
    atoms = [
        (symbol(z), int(i))
        for i in (range(len(crystals)) if index is None else index)
        if crystals[i].fault is None
        for z in crystals[i].atomic_numbers.tolist()
    ]
    return [element for element, _ in atoms], [crystal for _, crystal in atoms]


def _both_elements(evidence: Evidence) -> tuple[list[str], list[str] | None, list[int] | None]:
    ours, _ = _elements(evidence.ours, evidence.valid)
    if evidence.reference is None:
        return ours, None, None
    return ours, *_elements(evidence.theirs)


def _jsd_elements(evidence: Evidence) -> Measured:
    ours, theirs, crystals = evidence.once(_both_elements)
    return divergence(ours, theirs or [], len(evidence.valid), crystals=crystals)


def _jsd_volume(evidence: Evidence) -> Measured:
    ours, theirs = evidence.once(_measured)["volume_per_atom"]
    assert theirs is not None
    edges = quantile_edges(theirs)
    return divergence(binned(ours[evidence.valid], edges), binned(theirs, edges), len(evidence.valid))


def _divergence_metric(name: str, label: str, compute: Callable[[Evidence], Measured]) -> Metric:
    needs: tuple[Need, ...] = ("fingerprints", "reference") if name == "coordination" else ("reference",)
    label = f"Jensen–Shannon divergence, {label}"
    return Metric(f"jsd_{name}", label, "distribution", "lower", "bits", _JENSEN_SHANNON, needs, compute)


def _columns(evidence: Evidence) -> Columns:
    found = []
    if evidence.vectors is not None:
        found.append(labels_of("coordination", *evidence.once(_site_coordination)[:2]))
    for name, (ours, theirs) in evidence.once(_measured).items():
        found.append(Distribution(name, QUANTITIES[name][1], ours[evidence.valid], theirs, "continuous"))
    found.append(labels_of("element", *evidence.once(_both_elements)[:2]))
    return Columns(distributions=found)


FAMILY = Family(
    "distributions",
    (
        Metric(
            "comp_div",
            "composition diversity",
            "distribution",
            None,
            "",
            _CDVAE,
            ("fingerprints",),
            _composition_diversity,
        ),
        Metric(
            "struct_div",
            "structure diversity",
            "distribution",
            None,
            "",
            _CDVAE,
            ("fingerprints",),
            _structure_diversity,
        ),
        _vendi_metric("structure", of_reference=False),
        _vendi_metric("structure", of_reference=True),
        _vendi_metric("composition", of_reference=False),
        _vendi_metric("composition", of_reference=True),
        _divergence_metric("coordination", "coordination number", _jsd_coordination),
        *(_wasserstein_metric(name) for name in QUANTITIES),
        _divergence_metric("elements", "elements", _jsd_elements),
        _divergence_metric("volume_per_atom", "volume per atom", _jsd_volume),
    ),
    columns=_columns,
)
