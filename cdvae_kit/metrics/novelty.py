"""How many generated crystals are not in a training set.

A generated crystal is known if it matches any training crystal of its reduced composition. Which ones these are is a
look-up in a `TrainingIndex`, so the time grows with the matches to be judged and hardly with the training set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.crystals import Composition, CrystalArrays, Crystals, as_arrays
from cdvae_kit.metrics.matching.comparisons import families, judge
from cdvae_kit.metrics.matching.matcher import Matcher, MatcherName, matcher_of
from cdvae_kit.metrics.matching.reduced_cells import prepare_all
from cdvae_kit.metrics.matching.training_index import TrainingIndex
from cdvae_kit.metrics.metric import SHARE, Columns, Family, Measured, Metric, Need, rate
from cdvae_kit.metrics.uniqueness import convention
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore
    from cdvae_kit.metrics.evidence import Evidence

# crystals whose reduced cells are in memory at once
_BLOCK = 20_000


@dataclass(frozen=True)
class NoveltyResult:
    """Which generated crystals are not in the training set.

    Attributes:
        novel: (num_crystals,) booleans, False also where the crystal cannot be used.
        match: (num_crystals,) index in the training set of the first crystal that it matches; -1 where there is none.
        reasons: one a crystal: why it is not novel, or None where it is.
        failures: pairs (generated, training) on which the matcher stopped, and what it said; they count as different.
        num_training: crystals in the training set.
        num_training_unusable: those of them that nothing can be compared with.
        num_pairs: pairs of a generated and a training crystal with the same composition.
        num_comparisons: pairs that the matcher itself had to judge.
        matcher: whose tolerances hold.
    """

    novel: np.ndarray = field(repr=False)
    match: np.ndarray = field(repr=False)
    reasons: tuple[str | None, ...] = field(repr=False)
    failures: tuple[tuple[int, int, str], ...] = field(repr=False)
    num_training: int
    num_training_unusable: int
    num_pairs: int
    num_comparisons: int
    matcher: Matcher

    @property
    def num_crystals(self) -> int:
        """The denominator of `rate`: every generated crystal, failures included."""
        return len(self.novel)

    @property
    def num_usable(self) -> int:
        """The denominator of `rate_usable`."""
        return int((self.novel | (self.match >= 0)).sum())

    @property
    def num_novel(self) -> int:
        return int(self.novel.sum())

    @property
    def rate(self) -> float:
        """Novel ones among all; 0 of none."""
        return self.num_novel / max(1, self.num_crystals)

    @property
    def rate_usable(self) -> float:
        """Novel ones among those that can be used; 0 of none."""
        return self.num_novel / max(1, self.num_usable)


def novelty(
    generated: Crystals,
    training: TrainingIndex | Crystals,
    *,
    matcher: MatcherName | Matcher = "mattergen",
    num_workers: int = 1,
    progress: Progress | None = None,
    store: ResultStore | None = None,
) -> NoveltyResult:
    """Which generated crystals match none of the training set, and their share.

    Args:
        generated: those to be judged; one that cannot be used counts as a crystal that is not novel.
        training: an index that is built once, or the crystals themselves.
        matcher: one of `MATCHERS`, or tolerances.
        num_workers: processes; -1 takes every core.
        progress: told how many generated crystals are judged.
        store: where reduced cells and verdicts are kept, so that a rerun goes on.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> rock = Structure.from_spacegroup("Fm-3m", Lattice.cubic(6.9), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> result = novelty([rock, salt * (2, 1, 1)], [rock * (2, 1, 1)])
    >>> result.rate, result.match
    (0.5, array([ 0, -1]))
    """
    matcher = matcher_of(matcher)
    index = training if isinstance(training, TrainingIndex) else TrainingIndex.from_crystals(training)
    crystals = as_arrays(generated)
    reasons: list[str | None] = [crystal.fault for crystal in crystals]
    match = np.full(len(crystals), -1, dtype=np.int64)
    failures: list[tuple[int, int, str]] = []
    num_pairs = num_comparisons = num_done = 0
    for block in _blocks(crystals, index):
        own = [i for members, _ in block for i in members]
        at = [candidate for _, candidates in block for candidate in candidates]
        prepared = prepare_all(
            [crystals[i] for i in own] + [index.crystal(candidate) for candidate in at],
            primitive=matcher.primitive,
            num_workers=num_workers,
            store=store,
        )
        for i, crystal in zip(own, prepared, strict=False):
            reasons[i] = crystal.fault
        parts = families(prepared[: len(own)], prepared[len(own) :], matcher, "first")
        for part, verdicts in zip(parts, judge(parts, num_workers=num_workers, store=store), strict=True):
            for i, j, _ in verdicts.matches:
                k, known = own[part.indices[i]], at[part.their_indices[j]]
                match[k], reasons[k] = known, f"the same as training crystal {known}"
            failures.extend((own[part.indices[i]], at[part.their_indices[j]], said) for i, j, said in verdicts.failures)
            num_comparisons += verdicts.num_asked
        num_pairs += sum(len(members) * len(candidates) for members, candidates in block)
        num_done += len(own)
        if progress is not None:
            progress(num_done, len(crystals))
    if progress is not None:
        progress(len(crystals), len(crystals))
    return NoveltyResult(
        np.array([reason is None for reason in reasons], dtype=bool),
        match,
        tuple(reasons),
        tuple(sorted(failures)),
        len(index),
        index.num_unusable,
        num_pairs,
        num_comparisons,
        matcher,
    )


_Kin = tuple[list[int], list[int]]
"""Indices of the generated and of the training crystals of one composition."""


def _blocks(crystals: list[CrystalArrays], index: TrainingIndex) -> Iterator[list[_Kin]]:
    """Compositions that both sets have, as many at a time as leave the memory flat."""
    members: dict[Composition, list[int]] = defaultdict(list)
    for i, crystal in enumerate(crystals):
        if crystal.fault is None:
            members[crystal.reduced_composition].append(i)
    block: list[_Kin] = []
    size = 0
    for composition, own in members.items():
        candidates = index.candidates(composition).tolist()
        if not candidates:
            continue
        if block and size + len(own) + len(candidates) > _BLOCK:
            yield block
            block, size = [], 0
        block.append((own, candidates))
        size += len(own) + len(candidates)
    if block:
        yield block


# The numbers of an evaluation

_MATTERGEN = "Zeni et al., Nature 639, 624 (2025), arXiv:2312.03687"
_NEEDS: tuple[Need, ...] = ("train",)


def _novel(evidence: Evidence) -> Measured:
    return rate(evidence.novelty.novel, seed=evidence.seed, note=convention(evidence))


def _unique_novel(evidence: Evidence) -> Measured:
    flags = evidence.uniqueness.unique & evidence.novelty.novel
    return rate(flags, seed=evidence.seed, note=convention(evidence))


def _valid_unique_novel(evidence: Evidence) -> Measured:
    flags = np.array(evidence.valid_flags, dtype=bool) & evidence.uniqueness.unique & evidence.novelty.novel
    return rate(flags, seed=evidence.seed, note=convention(evidence))


def _columns(evidence: Evidence) -> Columns:
    return Columns({"novel": evidence.novelty.novel.tolist()} if evidence.has(_NEEDS) else {})


FAMILY = Family(
    "novelty",
    (
        Metric("novel", "novel", "uniqueness", "higher", SHARE, _MATTERGEN, _NEEDS, _novel),
        Metric("unique_novel", "unique and novel", "uniqueness", "higher", SHARE, _MATTERGEN, _NEEDS, _unique_novel),
        Metric(
            "valid_unique_novel",
            "valid, unique and novel",
            "uniqueness",
            "higher",
            SHARE,
            "this package",
            _NEEDS,
            _valid_unique_novel,
        ),
    ),
    columns=_columns,
)
