"""Many crystals against many: which pairs are worth a comparison, in shares for the processes, and kept by content.

What one pair is judged by is in `matching`; what is made of the verdicts in `uniqueness`, `novelty` and `polymorphs`.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from cdvae_kit.metrics.computing.parallel import Memory, crystal_key, map_crystals
from cdvae_kit.metrics.crystals import Composition
from cdvae_kit.metrics.matching.matcher import Matcher, alloy_groups, compare
from cdvae_kit.metrics.matching.reduced_cells import Prepared
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore

Mode: TypeAlias = Literal["first", "distances"]
"""What is asked of a family.

* `first`: the first of `theirs` that each of `ours` matches.
* `distances`: every match of `ours` and `theirs`, with its distance.
"""

# crystals that one process compares with the same others
_SHARE = 32

_KIND = "comparison 1"
"""Raised with every change of the code that changes a verdict."""


@dataclass(frozen=True)
class Family:
    """Crystals of one composition and cell size.

    Attributes:
        indices: of `ours` in their set.
        ours: crystals without a fault.
        their_indices: of `theirs` in the other set.
        theirs: likewise; none where the crystals of one set are compared with each other.
        matcher: whose tolerances hold.
        mode: what `judge` is asked.
    """

    indices: Sequence[int]
    ours: Sequence[Prepared]
    their_indices: Sequence[int]
    theirs: Sequence[Prepared]
    matcher: Matcher
    mode: Mode = "first"


class Verdicts(NamedTuple):
    """What was found of a family; the numbers are indices in the family, of `ours` first."""

    matches: list[tuple[int, int, float | None]]
    failures: list[tuple[int, int, str]]
    num_asked: int


def families(ours: Sequence[Prepared], theirs: Sequence[Prepared], matcher: Matcher, mode: Mode) -> list[Family]:
    """Who has to be compared with whom; crystals with a fault are left out."""
    there = _by_composition(theirs, matcher)
    return [
        Family(part, [ours[i] for i in part], at, [theirs[i] for i in at], matcher, mode)
        for key, indices in _by_composition(ours, matcher).items()
        if (at := there.get(key))
        for part in _shares(indices)
    ]


def families_within(crystals: Sequence[Prepared], matcher: Matcher) -> list[Family]:
    """Which crystals of one set have to be compared with each other; those with a fault are left out."""
    return [
        Family(indices, [crystals[i] for i in indices], (), (), matcher)
        for indices in _by_composition(crystals, matcher).values()
    ]


def _by_composition(crystals: Sequence[Prepared], matcher: Matcher) -> dict[tuple[Composition, int], list[int]]:
    members: dict[tuple[Composition, int], list[int]] = defaultdict(list)
    for index, crystal in enumerate(crystals):
        if crystal.fault is None:
            members[_comparable(crystal, matcher)].append(index)
    return members


def judge(
    families: Sequence[Family],
    *,
    num_workers: int = 1,
    progress: Progress | None = None,
    store: ResultStore | None = None,
) -> list[Verdicts]:
    """One entry a family, in order; what `store` knows is not asked again."""
    memory = Memory(store, _KIND, _key, _encode, _decode)
    return map_crystals(_judge, families, num_workers=num_workers, progress=progress, memory=memory)


def num_same_composition(ours: Sequence[Prepared], theirs: Sequence[Prepared]) -> int:
    """Pairs of a crystal here and one there that have their reduced composition in common."""
    counts: dict[Composition, list[int]] = defaultdict(lambda: [0, 0])
    for which, prepared in enumerate((ours, theirs)):
        for crystal in prepared:
            if crystal.fault is None:
                counts[crystal.crystal.reduced_composition][which] += 1
    return sum(here * there for here, there in counts.values())


def _comparable(prepared: Prepared, matcher: Matcher) -> tuple[Composition, int]:
    """What two crystals must have in common.

    That is the reduced composition, of the disordered matcher too (MatterGen asks it of ordered crystals), and, where
    no alloy is in it, the number of sites in the reduced cell.
    """
    composition = prepared.crystal.reduced_composition
    any_number = matcher.disordered and len(alloy_groups(composition)) > 0
    return composition, 0 if any_number else len(prepared.reduced.atomic_numbers)


def _shares(indices: list[int]) -> list[list[int]]:
    return [indices[start : start + _SHARE] for start in range(0, len(indices), _SHARE)]


def _judge(family: Family) -> Verdicts:
    found = Verdicts([], [], 0)
    for index, ours in enumerate(family.ours):
        results = compare(ours, family.theirs, family.matcher, distances=family.mode == "distances")
        for at, result in enumerate(results):
            found = found._replace(num_asked=found.num_asked + result.asked)
            if result.failed:
                found.failures.append((index, at, str(result.reason)))
            if result.matches:
                found.matches.append((index, at, result.rms))
                if family.mode == "first":
                    break
    return found


def _key(family: Family) -> bytes:
    digest = hashlib.sha256(f"{family.mode} {family.matcher} {len(family.ours)} {len(family.theirs)}".encode())
    for prepared in (*family.ours, *family.theirs):
        digest.update(crystal_key(prepared.crystal))
    return digest.digest()


def _encode(verdicts: Verdicts) -> bytes:
    return json.dumps(verdicts).encode()


def _decode(content: bytes) -> Verdicts:
    matches, failures, num_asked = json.loads(content)
    return Verdicts(
        [(int(i), int(j), None if rms is None else float(rms)) for i, j, rms in matches],
        [(int(i), int(j), str(reason)) for i, j, reason in failures],
        int(num_asked),
    )
