"""How many crystals come back from the latent space as themselves: match rate and RMSE, pair by pair.

The published protocol (Xie et al., ICLR 2022, arXiv 2110.06197) lets a pair match only where both crystals are valid,
which charges a model for references that fail the composition rule (some 6 % of MP-20). Both rates are given here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cdvae_kit.metrics.composition_rules import CompositionRule
from cdvae_kit.metrics.computing.parallel import Memory, crystal_key, map_crystals
from cdvae_kit.metrics.crystals import CrystalArrays, Crystals, as_arrays
from cdvae_kit.metrics.fingerprints.vectors import Fingerprint, fingerprints_of
from cdvae_kit.metrics.matching.matcher import Matcher, MatchResult, match
from cdvae_kit.metrics.metric import SHARE, Columns, Family, Measured, Metric, Need, mean, rate
from cdvae_kit.metrics.validity import Validity, validity_of
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore
    from cdvae_kit.metrics.evidence import Evidence

Tolerances: TypeAlias = Matcher
"""When the matcher calls two crystals the same; the defaults are CDVAE's."""

_Pair: TypeAlias = tuple[CrystalArrays, CrystalArrays, Tolerances]

_KIND = "pair 1"
"""Raised with every change of the code that changes a verdict."""


@dataclass(frozen=True)
class PairResult:
    """One prediction beside its truth.

    Attributes:
        rms: root mean square displacement, as a fraction of (volume / atom)^(1/3); None where they do not match.
        passes_filter: both crystals are valid by the published rule.
        reason: why the pair does not count as a match in the filtered rate; None where it does.
    """

    rms: float | None
    passes_filter: bool
    reason: str | None = None

    @property
    def matches(self) -> bool:
        return self.rms is not None and self.passes_filter


@dataclass(frozen=True)
class ReconstructionResult:
    """Match rate and RMSE, filtered as published and unfiltered.

    Attributes:
        pairs: one entry a pair, in order.
        filter: in words, what makes a pair pass the filter.
        tolerances: of the matcher.
    """

    pairs: tuple[PairResult, ...] = field(repr=False)
    filter: str
    tolerances: Tolerances

    @property
    def num_pairs(self) -> int:
        """The denominator of both rates: every pair, failures included."""
        return len(self.pairs)

    @property
    def num_matches(self) -> int:
        return sum(pair.matches for pair in self.pairs)

    @property
    def num_matches_unfiltered(self) -> int:
        return sum(pair.rms is not None for pair in self.pairs)

    @property
    def match_rate(self) -> float:
        """Share of pairs that match and pass the filter; 0 of no pairs."""
        return self.num_matches / max(1, self.num_pairs)

    @property
    def match_rate_unfiltered(self) -> float:
        return self.num_matches_unfiltered / max(1, self.num_pairs)

    @property
    def rmse(self) -> float | None:
        """Mean `rms` over the matches that `match_rate` counts; None without one."""
        return _mean([pair.rms for pair in self.pairs if pair.rms is not None and pair.passes_filter])

    @property
    def rmse_unfiltered(self) -> float | None:
        return _mean([pair.rms for pair in self.pairs if pair.rms is not None])

    @property
    def reasons(self) -> dict[str, int]:
        """How many pairs are lost to each reason, the most frequent first; what follows a colon is left out."""
        lost = Counter(pair.reason.split(":")[0] for pair in self.pairs if pair.reason is not None)
        return dict(lost.most_common())


def reconstruction(
    predicted: Crystals,
    truth: Crystals,
    *,
    tolerances: Tolerances | None = None,
    rule: CompositionRule = "smact-2014",
    fingerprints: bool | tuple[Sequence[Fingerprint], Sequence[Fingerprint]] = False,
    num_workers: int = 1,
    progress: Progress | None = None,
    store: ResultStore | None = None,
) -> ReconstructionResult:
    """Match rate and RMSE of predictions beside the crystals they should be, one to one.

    A prediction that could not be made is None in its place, and counts as unmatched.

    Args:
        predicted: as many crystals as `truth`, in the same order.
        truth: the references.
        tolerances: CDVAE's where None.
        rule: of the composition, for the filter.
        fingerprints: filter also by whether every site has a CrystalNN fingerprint, as published; or the fingerprints
            of predictions and truth themselves. Some 5 ms a matched crystal; it changes the rate only where an element
            or a cell is out of the ordinary.
        num_workers: processes; -1 takes every core.
        progress: told how many pairs are matched.
        store: where verdicts and fingerprints are kept, so that a rerun goes on.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> result = reconstruction([salt, None], [salt, salt])
    >>> result.match_rate, result.rmse
    (0.5, 0.0)
    """
    tolerances = tolerances or Tolerances()
    predictions, references = as_arrays(predicted), as_arrays(truth)
    if len(predictions) != len(references):
        raise ValueError(
            f"reconstruction compares one to one, got {len(predictions)} predictions and {len(references)} references; "
            "put None where a prediction could not be made"
        )
    matches = match_pairs(
        list(zip(predictions, references, strict=True)),
        tolerances=tolerances,
        num_workers=num_workers,
        progress=progress,
        store=store,
    )
    verdicts = list(zip(validity_of(predictions, rule=rule), validity_of(references, rule=rule), strict=True))
    obstacles = [_obstacle(*pair) for pair in verdicts]
    if fingerprints:
        # only what would count otherwise: the others are lost already
        asked = [i for i, match in enumerate(matches) if match.rms is not None and obstacles[i] is None]
        for side, (crystals, whose) in enumerate(((predictions, "prediction"), (references, "reference"))):
            if isinstance(fingerprints, tuple):
                found = [fingerprints[side][i] for i in asked]
            else:
                found = fingerprints_of([crystals[i] for i in asked], num_workers=num_workers, store=store)
            for i, fingerprint in zip(asked, found, strict=True):
                if fingerprint.reason is not None:
                    obstacles[i] = obstacles[i] or f"the {whose} is not valid: {fingerprint.reason}"
    return ReconstructionResult(
        tuple(
            PairResult(match.rms, obstacle is None, match.reason or obstacle)
            for match, obstacle in zip(matches, obstacles, strict=True)
        ),
        f"structure and composition ({rule}) valid, CrystalNN fingerprints {'asked' if fingerprints else 'not asked'}",
        tolerances,
    )


def match_pairs(
    pairs: Sequence[tuple[CrystalArrays, CrystalArrays]],
    *,
    tolerances: Tolerances,
    num_workers: int = 1,
    progress: Progress | None = None,
    store: ResultStore | None = None,
) -> list[MatchResult]:
    """What the matcher says of each pair, valid or not.

    Crystals of different reduced composition never match; they are not sent to the matcher.
    """
    return map_crystals(
        _match_pair,
        [(first, second, tolerances) for first, second in pairs],
        num_workers=num_workers,
        progress=progress,
        memory=Memory(store, _KIND, _key, _encode, _decode),
    )


def _key(pair: _Pair) -> bytes:
    return b"".join([crystal_key(pair[0]), crystal_key(pair[1]), str(pair[2]).encode()])


def _encode(result: MatchResult) -> bytes:
    return json.dumps([result.rms, result.reason, result.asked]).encode()


def _decode(content: bytes) -> MatchResult:
    rms, reason, asked = json.loads(content)
    return MatchResult(rms is not None, None if rms is None else float(rms), reason, bool(asked))


def _match_pair(pair: _Pair) -> MatchResult:
    predicted, truth, tolerances = pair
    if predicted.fault is not None:
        return MatchResult(False, reason=f"the prediction cannot be used: {predicted.fault}")
    if truth.fault is not None:
        return MatchResult(False, reason=f"the reference cannot be used: {truth.fault}")
    return match(predicted, truth, tolerances)


def _obstacle(predicted: Validity, truth: Validity) -> str | None:
    if not predicted.valid:
        return f"the prediction is not valid: {predicted.reason}"
    if not truth.valid:
        return f"the reference is not valid: {truth.reason}"
    return None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


# The numbers of an evaluation

_CDVAE = "Xie et al., ICLR 2022, arXiv:2110.06197"
_NEEDS: tuple[Need, ...] = ("pairs",)


def _found(evidence: Evidence) -> ReconstructionResult:
    vectors: bool | tuple[Sequence[Fingerprint], Sequence[Fingerprint]] = False
    if evidence.vectors is not None and evidence.reference_vectors is not None:
        vectors = (evidence.vectors, evidence.reference_vectors)
    with evidence.report("Matching", "pairs") as tell:
        return reconstruction(
            evidence.ours,
            evidence.theirs,
            rule=evidence.settings.rule,
            fingerprints=vectors,
            num_workers=evidence.num_workers,
            progress=tell,
            store=evidence.store,
        )


def _distances(evidence: Evidence) -> np.ndarray:
    """(num_pairs,) displacements, NaN where a pair does not match."""
    pairs = evidence.once(_found).pairs
    return np.array([np.nan if pair.rms is None else pair.rms for pair in pairs], dtype=np.float64)


def _passes(evidence: Evidence) -> np.ndarray:
    return np.array([pair.passes_filter for pair in evidence.once(_found).pairs], dtype=bool)


def _match_rate(evidence: Evidence) -> Measured:
    flags = ~np.isnan(evidence.once(_distances)) & _passes(evidence)
    return rate(flags, seed=evidence.seed, note=f"as published: both {evidence.once(_found).filter}")


def _match_rate_unfiltered(evidence: Evidence) -> Measured:
    note = evidence.once(_found).tolerances.describe()
    return rate(~np.isnan(evidence.once(_distances)), seed=evidence.seed, note=note)


def _rmse(evidence: Evidence) -> Measured:
    distances = evidence.once(_distances)[_passes(evidence)]
    return mean(distances, seed=evidence.seed, note="over the matches, filtered")


def _rmse_unfiltered(evidence: Evidence) -> Measured:
    return mean(evidence.once(_distances), seed=evidence.seed, note="over the matches")


def _columns(evidence: Evidence) -> Columns:
    if not evidence.has(_NEEDS):
        return Columns()
    distances = evidence.once(_distances)
    reasons = [None if pair.matches else pair.reason for pair in evidence.once(_found).pairs]
    return Columns({"matches": (~np.isnan(distances)).tolist()}, {"rms": distances}, reasons)


FAMILY = Family(
    "reconstruction",
    (
        Metric("match_rate", "match rate", "reconstruction", "higher", SHARE, _CDVAE, _NEEDS, _match_rate),
        Metric(
            "match_rate_unfiltered",
            "match rate, unfiltered",
            "reconstruction",
            "higher",
            SHARE,
            "this package",
            _NEEDS,
            _match_rate_unfiltered,
        ),
        Metric("rmse", "RMSE of the matches", "reconstruction", "lower", "", _CDVAE, _NEEDS, _rmse),
        Metric(
            "rmse_unfiltered",
            "RMSE, unfiltered",
            "reconstruction",
            "lower",
            "",
            "this package",
            _NEEDS,
            _rmse_unfiltered,
        ),
    ),
    columns=_columns,
)
