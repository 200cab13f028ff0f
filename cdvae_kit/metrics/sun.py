"""How many crystals are stable, unique and novel: the S.U.N. rates, with all that they depend on beside them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cdvae_kit.metrics.computing.intervals import Interval, wilson_interval
from cdvae_kit.metrics.metric import SHARE, Family, Measured, Metric, Need
from cdvae_kit.metrics.stability import MATTERGEN, STABLE, StabilityResult, in_words, judged, relaxed_groups

if TYPE_CHECKING:
    from cdvae_kit.metrics.evidence import Evidence


@dataclass(frozen=True)
class SunResult:
    """Rates of stable (S), unique (U) and novel (N) crystals and of all that is two or three of them.

    Attributes:
        rates: by name: "S", "U", "N", "SU", "SN", "UN", "SUN".
        num_crystals: the denominator of each.
        num_not_judged: crystals without a verdict, by letter; they count as not being it.
        convention: threshold and what stands behind each letter, in words.
    """

    rates: dict[str, Interval]
    num_crystals: int
    num_not_judged: dict[str, int]
    convention: str

    @property
    def sun(self) -> Interval:
        return self.rates["SUN"]

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {interval}" for name, interval in self.rates.items())
        return f"{listed} ({self.convention})"


def sun(
    stable: Sequence[bool | None],
    unique: Sequence[bool | None],
    novel: Sequence[bool | None],
    *,
    threshold: float,
    groups: Sequence[Hashable | None] | None = None,
    calculator: str = "not named",
    hull: str = "not named",
    matcher: str = "not named",
    reference: str = "not named",
) -> SunResult:
    """The S.U.N. rates of a set, over all of its crystals.

    With flags alone a crystal is unique if it is the first of its kind: should that one be unstable and its twin
    stable, neither counts. With `groups`, one crystal of each kind counts that is whatever else is asked for.

    Args:
        stable: one flag a crystal; None where it was not judged, which counts as not stable.
        unique: likewise.
        novel: likewise.
        threshold: eV/atom above the hull, that `stable` was judged by.
        groups: which crystals are the same: equal labels; None where a crystal was not judged.
        calculator: what gave the energies, for the convention.
        hull: what they are compared with.
        matcher: what said which crystals are the same.
        reference: what novelty is judged by.

    >>> result = sun([True, True, False, None], [True, True, True, False], [True, False, True, True], threshold=0.1)
    >>> result.sun.value, result.rates["S"].value, result.num_not_judged
    (0.25, 0.5, {'S': 1, 'U': 0, 'N': 0})
    """
    count = len(stable)
    if not len(unique) == len(novel) == count or (groups is not None and len(groups) != count):
        raise ValueError(
            f"expected one verdict a crystal, got {count} stable, {len(unique)} unique, {len(novel)} novel"
            + ("" if groups is None else f", {len(groups)} groups")
        )
    flags = {
        letter: np.array([bool(flag) for flag in verdicts], dtype=bool)
        for letter, verdicts in (("S", stable), ("U", unique), ("N", novel))
    }
    rates = {}
    for name in ("S", "U", "N", "SU", "SN", "UN", "SUN"):
        if groups is not None and "U" in name:
            others = np.ones(count, dtype=bool)
            for letter in name.replace("U", ""):
                others &= flags[letter]
            hits = len({group for group, hit in zip(groups, others, strict=True) if hit and group is not None})
        else:
            hits = int(np.logical_and.reduce([flags[letter] for letter in name]).sum()) if count else 0
        rates[name] = wilson_interval(hits, count)
    unknown = {
        letter: sum(verdict is None for verdict in verdicts)
        for letter, verdicts in (("S", stable), ("U", unique if groups is None else groups), ("N", novel))
    }
    how = "the first of its kind" if groups is None else "one of each kind"
    convention = (
        f"S: at most {threshold:g} eV/atom above the hull ({hull}), energies by {calculator}; "
        f"U: {how} by {matcher}; N: not in {reference}; rates over all {count} crystals, without a verdict and counted "
        f"as not: S {unknown['S']}, U {unknown['U']}, N {unknown['N']}"
    )
    return SunResult(rates, count, unknown, convention)


def sun_of(
    result: StabilityResult,
    unique: Sequence[bool | None],
    novel: Sequence[bool | None],
    *,
    groups: Sequence[Hashable | None] | None = None,
    matcher: str = "not named",
    reference: str = "not named",
) -> tuple[SunResult, SunResult]:
    """S.U.N. at the hull and at the threshold of `result`: (stable, metastable). Other arguments are those of `sun`."""
    both = []
    for threshold in (STABLE, result.threshold):
        flags = [
            None if crystal.energy_above_hull is None else crystal.is_stable(threshold) for crystal in result.crystals
        ]
        both.append(
            sun(
                flags,
                unique,
                novel,
                threshold=threshold,
                groups=groups,
                calculator=result.calculator,
                hull=result.hull,
                matcher=matcher,
                reference=reference,
            )
        )
    return both[0], both[1]


# The numbers of an evaluation

_KAZEEV = "Kazeev et al., ICML 2025, arXiv:2503.02407"


def _sun(evidence: Evidence) -> tuple[SunResult, SunResult]:
    index = evidence.training_index
    return sun_of(
        judged(evidence),
        evidence.uniqueness.unique.tolist(),
        evidence.novelty.novel.tolist(),
        groups=evidence.kinds,
        matcher=evidence.settings.structure_matcher.describe(),
        reference=f"{0 if index is None else len(index)} training crystals",
    )


def _sun_metrics(prefix: Literal["", "meta"]) -> Iterator[Metric]:
    """S.U.N. at the hull, or at the threshold of metastability."""

    def metric(name: str, label: str, letters: str) -> Metric:
        def measure(evidence: Evidence) -> Measured:
            rates = evidence.once(_sun)[1 if prefix else 0]
            note = rates.convention if letters == "SUN" else f"as in {prefix}sun"
            return in_words(rates.rates[letters], note)

        return Metric(name, label, "stability", "higher", SHARE, MATTERGEN, ("stability", "train"), measure)

    whole = "metastable, unique and novel" if prefix else "stable, unique and novel (S.U.N.)"
    yield metric(f"{prefix}sun", whole, "SUN")
    yield metric(f"{prefix}stable_unique", f"{prefix}stable and unique", "SU")
    yield metric(f"{prefix}stable_novel", f"{prefix}stable and novel", "SN")


def _symmetric_sun(evidence: Evidence) -> tuple[SunResult, SunResult]:
    """S.U.N. of what is not P1 once it is relaxed."""
    result, index = judged(evidence), evidence.training_index
    groups = evidence.once(relaxed_groups)
    both = []
    for threshold in (STABLE, result.threshold):
        flags = [
            None if crystal.energy_above_hull is None or group is None else crystal.is_stable(threshold) and group != 1
            for crystal, group in zip(result.crystals, groups, strict=True)
        ]
        both.append(
            sun(
                flags,
                evidence.uniqueness.unique.tolist(),
                evidence.novelty.novel.tolist(),
                threshold=threshold,
                groups=evidence.kinds,
                calculator=result.calculator,
                hull=result.hull,
                matcher=evidence.settings.structure_matcher.describe(),
                reference=f"{0 if index is None else len(index)} training crystals",
            )
        )
    return both[0], both[1]


def _symmetric_metric(prefix: Literal["", "meta"]) -> Metric:
    def measure(evidence: Evidence) -> Measured:
        rates = evidence.once(_symmetric_sun)[1 if prefix else 0]
        note = f"as in {prefix}sun, and not P1 at symprec {evidence.settings.symprec:g} A once relaxed"
        return in_words(rates.sun, note)

    label = "metastable, symmetric, unique and novel" if prefix else "stable, symmetric, unique and novel (S.S.U.N.)"
    needs: tuple[Need, ...] = ("stability", "train")
    return Metric(f"{prefix}ssun", label, "stability", "higher", SHARE, _KAZEEV, needs, measure)


FAMILY = Family("sun", (*_sun_metrics(""), *_sun_metrics("meta"), _symmetric_metric(""), _symmetric_metric("meta")))
