"""Uniqueness and novelty by a hash of bonds, space group and formula, as LeMat-GenBench has them by default.

What the hash is, and where it differs from theirs, is in `fingerprints.bonding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.metrics.fingerprints.bonding import bond_hashes
from cdvae_kit.metrics.metric import SHARE, Columns, Family, Measured, Metric, Need, rate

if TYPE_CHECKING:
    from cdvae_kit.metrics.evidence import Evidence

_LEMAT = "LeMat-GenBench, arXiv:2512.04562; BAWL: Siron et al., AI4Mat-ICLR 2025"
_NEEDS: tuple[Need, ...] = ("extended",)
_WITH_TRAIN: tuple[Need, ...] = ("extended", "train")


def _ours(evidence: Evidence) -> list[str | None]:
    return _of(evidence, evidence.ours, "generated")


def _known(evidence: Evidence) -> set[str]:
    """Of the training crystals that have the formula of a generated one: others have another hash anyway."""
    index = evidence.training_index
    assert index is not None
    compositions = {crystal.reduced_composition for crystal in evidence.ours if crystal.fault is None}
    same = [index.crystal(int(i)) for composition in sorted(compositions) for i in index.candidates(composition)]
    return {word for word in _of(evidence, same, "training") if word is not None}


def _of(evidence: Evidence, crystals: Sequence[CrystalArrays], whose: str) -> list[str | None]:
    with evidence.report(f"Bonds, {whose}", "crystals") as tell:
        return bond_hashes(crystals, num_workers=evidence.num_workers, progress=tell, store=evidence.store)


def _unique(evidence: Evidence) -> Measured:
    words = evidence.once(_ours)
    first = {word: i for i, word in reversed(list(enumerate(words))) if word is not None}
    flags = [word is not None and first[word] == i for i, word in enumerate(words)]
    return rate(flags, seed=evidence.seed, note=f"the first of each hash; {words.count(None)} have none")


def _novel(evidence: Evidence) -> Measured:
    words, known = evidence.once(_ours), evidence.once(_known)
    return rate([word is not None and word not in known for word in words], seed=evidence.seed)


def _columns(evidence: Evidence) -> Columns:
    if not evidence.has(_WITH_TRAIN):
        return Columns()
    known = evidence.once(_known)
    return Columns({"novel_by_bonds": [None if w is None else w not in known for w in evidence.once(_ours)]})


FAMILY = Family(
    "bonding",
    (
        Metric("unique_by_bonds", "unique, by bonds", "uniqueness", "higher", SHARE, _LEMAT, _NEEDS, _unique),
        Metric("novel_by_bonds", "novel, by bonds", "uniqueness", "higher", SHARE, _LEMAT, _WITH_TRAIN, _novel),
    ),
    columns=_columns,
)
