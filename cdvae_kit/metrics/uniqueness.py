"""How many of a set of crystals are left once each is kept only once.

Being the same within tolerances is not transitive, so the answer depends on a convention. Here it is pymatgen's
(`StructureMatcher.group_structures`): the crystals are taken in order, and each joins the first group whose first
crystal it matches, or opens a group of its own. The order of the set therefore matters a little; chance does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import numpy as np

from cdvae_kit.metrics.crystals import Crystals, as_arrays
from cdvae_kit.metrics.matching import (
    Matcher,
    MatcherName,
    Prepared,
    comparable,
    compare,
    matcher_of,
    prepare_all,
)
from cdvae_kit.metrics.parallel import Progress, map_crystals


@dataclass(frozen=True)
class UniquenessResult:
    """Which crystals of a set are the same.

    Attributes:
        groups: (num_crystals,) integers, by rising first member; -1 where the crystal cannot be used.
        unique: (num_crystals,) booleans, True for the first of each group.
        reasons: one a crystal: why it is not unique, or None where it is.
        failures: pairs on which the matcher stopped, and what it said; they count as different.
        num_pairs: pairs with the same composition.
        num_comparisons: pairs that the matcher itself had to judge.
        matcher: whose tolerances hold.
    """

    groups: np.ndarray = field(repr=False)
    unique: np.ndarray = field(repr=False)
    reasons: tuple[str | None, ...] = field(repr=False)
    failures: tuple[tuple[int, int, str], ...] = field(repr=False)
    num_pairs: int
    num_comparisons: int
    matcher: Matcher

    @property
    def num_crystals(self) -> int:
        """The denominator of `rate`: every crystal, failures included."""
        return len(self.groups)

    @property
    def num_usable(self) -> int:
        """The denominator of `rate_usable`."""
        return int((self.groups >= 0).sum())

    @property
    def num_unique(self) -> int:
        """How many groups there are."""
        return int(self.unique.sum())

    @property
    def rate(self) -> float:
        """Unique ones among all; 0 of none."""
        return self.num_unique / max(1, self.num_crystals)

    @property
    def rate_usable(self) -> float:
        """Unique ones among those that can be used; 0 of none."""
        return self.num_unique / max(1, self.num_usable)


def uniqueness(
    crystals: Crystals,
    *,
    matcher: MatcherName | Matcher = "mattergen",
    num_workers: int = 1,
    progress: Progress | None = None,
) -> UniquenessResult:
    """Which crystals of a set are the same, and the share that is left once each is kept only once.

    Args:
        crystals: those to be judged; one that cannot be used counts as a crystal that is not unique.
        matcher: one of `MATCHERS`, or tolerances.
        num_workers: processes; -1 takes every core. They share groups of one composition and one number of sites.
        progress: told how far it is; every crystal counts twice, reduced and compared.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> result = uniqueness([salt, salt * (2, 1, 1), None])
    >>> result.num_unique, result.num_crystals, result.reasons[1]
    (1, 3, 'the same as crystal 0')
    """
    matcher = matcher_of(matcher)
    arrays = as_arrays(crystals)
    total = len(arrays)
    by_composition = _collect((crystal.reduced_composition, i) for i, crystal in enumerate(arrays) if not crystal.fault)
    # a crystal that is alone with its composition is compared with none, so it need not be reduced
    company = sorted(i for members in by_composition.values() if len(members) > 1 for i in members)
    told = None if progress is None else lambda done, all_: progress(total * done // max(1, all_), 2 * total)
    reduced = prepare_all([arrays[i] for i in company], matcher, num_workers=num_workers, progress=told)
    prepared = dict(zip(company, reduced, strict=True))
    faults = {i: crystal.fault for i, crystal in enumerate(arrays)} | {i: p.fault for i, p in prepared.items()}
    sets = list(_collect((comparable(p, matcher), i) for i, p in prepared.items() if p.fault is None).values())

    told = None if progress is None else lambda done, all_: progress(total + total * done // max(1, all_), 2 * total)
    found = map_crystals(
        _group,
        [([prepared[i] for i in members], matcher) for members in sets],
        num_workers=num_workers,
        progress=told,
    )
    first_of = {i: i for i, fault in faults.items() if fault is None}
    failures: list[tuple[int, int, str]] = []
    for members, (firsts, failed, _) in zip(sets, found, strict=True):
        first_of.update({members[place]: members[first] for place, first in enumerate(firsts)})
        failures.extend((members[i], members[j], reason) for i, j, reason in failed)
    return _result(
        first_of,
        [faults[i] for i in range(total)],
        failures,
        sum(len(members) * (len(members) - 1) // 2 for members in by_composition.values()),
        sum(num_asked for *_, num_asked in found),
        matcher,
    )


def _result(
    first_of: dict[int, int],
    faults: list[str | None],
    failures: list[tuple[int, int, str]],
    num_pairs: int,
    num_comparisons: int,
    matcher: Matcher,
) -> UniquenessResult:
    groups = np.full(len(faults), -1, dtype=np.int64)
    names: dict[int, int] = {}
    reasons = list(faults)
    for i in sorted(first_of):
        groups[i] = names.setdefault(first_of[i], len(names))
        if first_of[i] != i:
            reasons[i] = f"the same as crystal {first_of[i]}"
    unique = np.array([first_of.get(i) == i for i in range(len(faults))], dtype=bool)
    return UniquenessResult(
        groups, unique, tuple(reasons), tuple(sorted(failures)), num_pairs, num_comparisons, matcher
    )


def _collect(pairs: Iterable[tuple[Hashable, int]]) -> dict[Hashable, list[int]]:
    collected: dict[Hashable, list[int]] = defaultdict(list)
    for key, index in pairs:
        collected[key].append(index)
    return collected


def _group(task: tuple[list[Prepared], Matcher]) -> tuple[list[int], list[tuple[int, int, str]], int]:
    """The first of its group for each crystal, the pairs that failed, and how often the matcher was asked."""
    crystals, matcher = task
    firsts = list(range(len(crystals)))
    failures: list[tuple[int, int, str]] = []
    num_asked = 0
    left = list(range(len(crystals)))
    while left:
        first, *others = left
        left = []
        for other, result in zip(others, compare(crystals[first], [crystals[i] for i in others], matcher), strict=True):
            num_asked += result.asked
            if result.failed:
                failures.append((first, other, str(result.reason)))
            if result.matches:
                firsts[other] = first
            else:
                left.append(other)
    return firsts, failures, num_asked
