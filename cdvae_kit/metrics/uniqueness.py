"""How many of a set of crystals are left once each is kept only once.

Being the same within tolerances is not transitive, so the answer depends on a convention. Here it is `RULE`: crystals
are linked where they match, and a group is what links hold together (a connected component). The order of the set does
not matter. pymatgen's convention (`StructureMatcher.group_structures`: each crystal joins the first group whose first
crystal it matches) depends on the order, and never makes fewer groups.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cdvae_kit.metrics.computing.parallel import Memory, crystal_key, map_crystals
from cdvae_kit.metrics.crystals import Crystals, as_arrays
from cdvae_kit.metrics.matching.comparisons import Family as SameComposition
from cdvae_kit.metrics.matching.comparisons import families_within
from cdvae_kit.metrics.matching.matcher import Matcher, MatcherName, compare, matcher_of
from cdvae_kit.metrics.matching.reduced_cells import prepare_all
from cdvae_kit.metrics.metric import SHARE, Columns, Family, Measured, Metric, rate
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore
    from cdvae_kit.metrics.evidence import Evidence


RULE = "connected components"
"""How the groups come about; the name stands in every result."""

_KIND = "uniqueness by connected components 1"
"""Raised with every change of the code that changes a group."""


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
        rule: the convention by which matches make groups.
    """

    groups: np.ndarray = field(repr=False)
    unique: np.ndarray = field(repr=False)
    reasons: tuple[str | None, ...] = field(repr=False)
    failures: tuple[tuple[int, int, str], ...] = field(repr=False)
    num_pairs: int
    num_comparisons: int
    matcher: Matcher
    rule: str = RULE

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
    store: ResultStore | None = None,
) -> UniquenessResult:
    """Which crystals of a set are the same, and the share that is left once each is kept only once.

    Args:
        crystals: those to be judged; one that cannot be used counts as a crystal that is not unique.
        matcher: one of `MATCHERS`, or tolerances.
        num_workers: processes; -1 takes every core. They share groups of one composition and one number of sites.
        progress: told how far it is; every crystal counts twice, reduced and compared.
        store: where reduced cells and verdicts are kept, so that a rerun goes on.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> result = uniqueness([salt, salt * (2, 1, 1), None])
    >>> result.num_unique, result.num_crystals, result.reasons[1]
    (1, 3, 'the same as crystal 0')
    """
    matcher = matcher_of(matcher)
    arrays = as_arrays(crystals)
    total = len(arrays)
    compositions = [None if crystal.fault else crystal.reduced_composition for crystal in arrays]
    sizes = Counter(composition for composition in compositions if composition is not None)
    # a crystal that is alone with its composition is compared with none, so it need not be reduced
    company = [i for i, composition in enumerate(compositions) if composition is not None and sizes[composition] > 1]
    told = None if progress is None else lambda done, all_: progress(total * done // max(1, all_), 2 * total)
    prepared = prepare_all(
        [arrays[i] for i in company],
        primitive=matcher.primitive,
        num_workers=num_workers,
        progress=told,
        store=store,
    )
    faults = [crystal.fault for crystal in arrays]
    for i, crystal in zip(company, prepared, strict=True):
        faults[i] = crystal.fault

    groups = [_in_order(family) for family in families_within(prepared, matcher)]
    told = None if progress is None else lambda done, all_: progress(total + total * done // max(1, all_), 2 * total)
    memory = Memory(store, _KIND, _key, _encode, _decode)
    found = map_crystals(_components, groups, num_workers=num_workers, progress=told, memory=memory)
    first_of = {i: i for i, fault in enumerate(faults) if fault is None}
    failures: list[tuple[int, int, str]] = []
    for group, verdicts in zip(groups, found, strict=True):
        members = [company[i] for i in group.indices]
        for component in verdicts.components:
            first = min(members[i] for i in component)
            first_of.update({members[i]: first for i in component})
        failures.extend(
            (min(members[i], members[j]), max(members[i], members[j]), reason) for i, j, reason in verdicts.failures
        )
    return _result(
        first_of,
        faults,
        failures,
        sum(size * (size - 1) // 2 for size in sizes.values()),
        sum(verdicts.num_asked for verdicts in found),
        matcher,
    )


class _Verdicts(NamedTuple):
    """Indices in the family: those of each component, pairs on which the matcher stopped; and pairs it judged."""

    components: list[list[int]]
    failures: list[tuple[int, int, str]]
    num_asked: int


def _in_order(family: SameComposition) -> SameComposition:
    """The family in the order of its crystals' digests: a match may depend on which of the two comes first."""
    keys = [crystal_key(prepared.crystal) for prepared in family.ours]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return replace(family, indices=[family.indices[i] for i in order], ours=[family.ours[i] for i in order])


def _components(family: SameComposition) -> _Verdicts:
    components: list[list[int]] = []
    failures: list[tuple[int, int, str]] = []
    num_asked = 0
    left = list(range(len(family.ours)))
    while left:
        component = [left.pop(0)]
        # grows while it is walked through: who joins brings those that match them
        for member in component:
            results = list(compare(family.ours[member], [family.ours[i] for i in left], family.matcher))
            num_asked += sum(result.asked for result in results)
            failures += [
                (member, i, str(result.reason)) for i, result in zip(left, results, strict=True) if result.failed
            ]
            linked = {i for i, result in zip(left, results, strict=True) if result.matches}
            component += sorted(linked)
            left = [i for i in left if i not in linked]
        components.append(component)
    return _Verdicts(components, failures, num_asked)


def _key(family: SameComposition) -> bytes:
    digest = hashlib.sha256(f"{family.matcher} {len(family.ours)}".encode())
    for prepared in family.ours:
        digest.update(crystal_key(prepared.crystal))
    return digest.digest()


def _encode(verdicts: _Verdicts) -> bytes:
    return json.dumps(verdicts).encode()


def _decode(content: bytes) -> _Verdicts:
    components, failures, num_asked = json.loads(content)
    return _Verdicts(
        [[int(i) for i in component] for component in components],
        [(int(i), int(j), str(reason)) for i, j, reason in failures],
        int(num_asked),
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


# The numbers of an evaluation


def convention(evidence: Evidence) -> str:
    """When crystals are the same, and what they are compared with, in words."""
    index = evidence.training_index
    words = evidence.settings.structure_matcher.describe()
    return words if index is None else f"{words}; {len(index)} training crystals"


def _unique(evidence: Evidence) -> Measured:
    return rate(evidence.uniqueness.unique, seed=evidence.seed, note=convention(evidence))


def _columns(evidence: Evidence) -> Columns:
    return Columns({"unique": evidence.uniqueness.unique.tolist()})


FAMILY = Family(
    "uniqueness",
    (
        Metric(
            "unique",
            "unique",
            "uniqueness",
            "higher",
            SHARE,
            "Zeni et al., Nature 639, 624 (2025), arXiv:2312.03687",
            (),
            _unique,
        ),
    ),
    columns=_columns,
)
