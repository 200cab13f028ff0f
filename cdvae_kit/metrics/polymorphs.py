"""How many known crystals a set of generated ones finds, where one composition has several structures.

The match rate pairs one prediction with one reference, so a model that gives a true polymorph in another's place is
charged for it, and a set that repeats itself pays for it twice. METRe and cRMSE (Martirossyan et al., arXiv 2509.12178)
ask for each reference whether **any** generated crystal of its reduced composition matches it, and count the matcher's
tolerance as the distance of each that none does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.crystals import Crystals, as_arrays, formula
from cdvae_kit.metrics.matching.comparisons import families, judge, num_same_composition
from cdvae_kit.metrics.matching.matcher import ANOTHER_STRUCTURE, Matcher, MatcherName, matcher_of
from cdvae_kit.metrics.matching.reduced_cells import Prepared, prepare_all
from cdvae_kit.metrics.metric import SHARE, Family, Measured, Metric, mean, rate
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore
    from cdvae_kit.metrics.evidence import Evidence


@dataclass(frozen=True)
class PolymorphResult:
    """The best generated crystal for each reference.

    Attributes:
        rms: (num_references,) smallest root mean square displacement, as a fraction of (volume / atom)^(1/3); NaN where
            the reference is not found.
        best: (num_references,) index of the generated crystal that it is of; -1 where there is none.
        reasons: one a reference: why it is not found, or None where it is.
        failures: pairs (generated, reference) on which the matcher stopped, and what it said; they count as different.
        num_generated: crystals that were generated, failures included.
        num_pairs: pairs with the same composition.
        num_comparisons: pairs that the matcher itself had to judge.
        matcher: whose tolerances hold.
    """

    rms: np.ndarray = field(repr=False)
    best: np.ndarray = field(repr=False)
    reasons: tuple[str | None, ...] = field(repr=False)
    failures: tuple[tuple[int, int, str], ...] = field(repr=False)
    num_generated: int
    num_pairs: int
    num_comparisons: int
    matcher: Matcher

    @property
    def num_references(self) -> int:
        """The denominator of `metre` and `crmse`: every reference, those that cannot be used included."""
        return len(self.rms)

    @property
    def found(self) -> np.ndarray:
        """(num_references,) booleans."""
        return self.best >= 0

    @property
    def num_found(self) -> int:
        return int(self.found.sum())

    @property
    def metre(self) -> float:
        """Share of the references that are found; 0 of none."""
        return self.num_found / max(1, self.num_references)

    @property
    def rmse(self) -> float | None:
        """Mean `rms` of the references that are found; None without one."""
        return float(self.rms[self.found].mean()) if self.num_found else None

    @property
    def crmse(self) -> float | None:
        """Mean `rms` with the matcher's `stol` for each reference that is not found; None without a reference."""
        if not self.num_references:
            return None
        return float(np.where(self.found, self.rms, self.matcher.stol).mean())


def polymorphs(
    generated: Crystals,
    reference: Crystals,
    *,
    matcher: MatcherName | Matcher = "cdvae",
    num_workers: int = 1,
    progress: Progress | None = None,
    store: ResultStore | None = None,
) -> PolymorphResult:
    """METRe and cRMSE: which references any generated crystal matches, and how closely the best one does.

    Args:
        generated: in any order, any number; one that cannot be used finds nothing.
        reference: what is to be found; one that cannot be used counts as not found.
        matcher: one of `MATCHERS`, or tolerances; the paper's are `cdvae`.
        num_workers: processes; -1 takes every core.
        progress: told how far it is; reducing the crystals counts as one half.
        store: where reduced cells and verdicts are kept, so that a rerun goes on.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> rock = Structure.from_spacegroup("Fm-3m", Lattice.cubic(6.9), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> result = polymorphs([rock, rock], [salt, rock])
    >>> result.metre, round(result.crmse, 3), result.best
    (0.5, 0.25, array([-1,  0]))
    """
    matcher = matcher_of(matcher)
    ours, theirs = as_arrays(generated), as_arrays(reference)
    told = None if progress is None else lambda done, all_: progress(done, 2 * all_)
    prepared = prepare_all(
        [*ours, *theirs], primitive=matcher.primitive, num_workers=num_workers, progress=told, store=store
    )
    made, wanted = prepared[: len(ours)], prepared[len(ours) :]
    total = len(prepared)
    told = None if progress is None else lambda done, all_: progress(total + total * done // max(1, all_), 2 * total)
    rms, best = np.full(len(theirs), np.inf), np.full(len(theirs), -1, dtype=np.int64)
    failures: list[tuple[int, int, str]] = []
    num_comparisons = 0
    parts = families(made, wanted, matcher, "distances")
    for part, verdicts in zip(parts, judge(parts, num_workers=num_workers, progress=told, store=store), strict=True):
        for i, j, distance in verdicts.matches:
            index, at = part.indices[i], part.their_indices[j]
            # the first of those that are equally near
            if distance is not None and (distance, index) < (rms[at], best[at]):
                rms[at], best[at] = distance, index
        failures.extend((part.indices[i], part.their_indices[j], said) for i, j, said in verdicts.failures)
        num_comparisons += verdicts.num_asked
    rms[best < 0] = np.nan
    return PolymorphResult(
        rms,
        best,
        tuple(_reasons(best, made, wanted)),
        tuple(sorted(failures)),
        len(ours),
        num_same_composition(made, wanted),
        num_comparisons,
        matcher,
    )


def _reasons(best: np.ndarray, generated: Sequence[Prepared], reference: Sequence[Prepared]) -> list[str | None]:
    made = {crystal.crystal.reduced_composition for crystal in generated if crystal.fault is None}
    reasons: list[str | None] = []
    for index, crystal in zip(best, reference, strict=True):
        if index >= 0:
            reasons.append(None)
        elif crystal.fault is not None:
            reasons.append(f"the reference cannot be used: {crystal.fault}")
        elif (composition := crystal.crystal.reduced_composition) in made:
            reasons.append(ANOTHER_STRUCTURE)
        else:
            reasons.append(f"no generated crystal is {formula(composition)}")
    return reasons


# The numbers of an evaluation

_METRE = "Martirossyan et al., arXiv:2509.12178"


def _found(evidence: Evidence) -> PolymorphResult:
    with evidence.report("Polymorphs", "crystals") as tell:
        return polymorphs(
            evidence.ours,
            evidence.theirs,
            num_workers=evidence.num_workers,
            progress=tell,
            store=evidence.store,
        )


def _metre(evidence: Evidence) -> Measured:
    found = evidence.once(_found)
    note = f"{found.matcher.describe()}; of {found.num_references} references"
    return rate(found.found, seed=evidence.seed, note=note)


def _crmse(evidence: Evidence) -> Measured:
    found = evidence.once(_found)
    errors = np.where(found.found, found.rms, found.matcher.stol)
    return mean(errors, seed=evidence.seed, note=f"{found.matcher.stol:g} for each not found")


FAMILY = Family(
    "polymorphs",
    (
        Metric("metre", "METRe", "reconstruction", "higher", SHARE, _METRE, ("predicted",), _metre),
        Metric("crmse", "cRMSE", "reconstruction", "lower", "", _METRE, ("predicted",), _crmse),
    ),
)
