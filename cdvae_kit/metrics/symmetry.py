"""How symmetric the generated crystals are, against the reference: space groups, crystal systems, the share of P1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.metrics.distributions import divergence
from cdvae_kit.metrics.metric import SHARE, Columns, Family, Measured, Metric, labels_of, missing, number, rate

if TYPE_CHECKING:
    from cdvae_kit.metrics.evaluation_result import Distribution
    from cdvae_kit.metrics.evidence import Evidence

EXACT_SYMPREC = 0.01
"""Angstrom; at the usual 0.1 crystals count as symmetric whose atoms are only near their symmetric positions."""

_OURS = "this package"
_JENSEN_SHANNON = "Lin, IEEE Trans. Inf. Theory 37, 145 (1991), doi:10.1109/18.61115"


def space_groups(crystals: Sequence[CrystalArrays], symprec: float) -> list[int | None]:
    """Number of each crystal's space group, None where none is found.

    Args:
        crystals: those with a fault have no group.
        symprec: angstrom.
    """
    from cdvae_kit.crystal.symmetry import find_space_group

    return [
        None
        if crystal.fault is not None
        else find_space_group(
            crystal.lattice.tolist(), crystal.frac_coords.tolist(), crystal.atomic_numbers.tolist(), symprec
        ).number
        for crystal in crystals
    ]


def chi_square(generated: Sequence[int], reference: Sequence[int]) -> float | None:
    """Sum of (p - q)^2 / q over the groups of the reference, p and q the shares in both sets.

    As in the evaluation of the Wyckoff Transformer (arXiv 2503.02407): the generated shares are of those crystals whose
    group occurs in the reference. None where no crystal has such a group.

    >>> chi_square([1, 1, 2, 3], [1, 2])  # shares 2/3 and 1/3 against 1/2 and 1/2
    0.1111111111111111
    """
    there = Counter(reference)
    ours = Counter(group for group in generated if group in there)
    total, num_reference = sum(ours.values()), len(reference)
    if not total:
        return None
    return sum((ours[g] / total - count / num_reference) ** 2 / (count / num_reference) for g, count in there.items())


# The numbers of an evaluation


def _judged(evidence: Evidence) -> list[int | None]:
    return [evidence.groups[i] for i in evidence.valid]


def _at(evidence: Evidence) -> str:
    return f"at symprec {evidence.settings.symprec:g} A"


def _share_p1(evidence: Evidence) -> Measured:
    flags = [group == 1 for group in _judged(evidence)]
    return rate(flags, seed=evidence.seed, note=f"of valid crystals, {_at(evidence)}")


def _share_p1_exact(evidence: Evidence) -> Measured:
    groups = space_groups([evidence.ours[i] for i in evidence.valid], EXACT_SYMPREC)
    note = f"of valid crystals, at symprec {EXACT_SYMPREC:g} A"
    return rate([group == 1 for group in groups], seed=evidence.seed, note=note)


def _chi_square(evidence: Evidence) -> Measured:
    theirs = [group for group in evidence.reference_groups if group is not None]
    value = chi_square([group for group in _judged(evidence) if group is not None], theirs)
    if value is None:
        return missing("no valid crystal has a space group of the reference")
    return number(value, len(evidence.valid), note="0 of the same shares; groups that the reference lacks are left out")


def _share_triclinic(evidence: Evidence) -> Measured:
    return rate([group in (1, 2) for group in _judged(evidence)], seed=evidence.seed, note="P1 or P-1")


def _share_p1_reference(evidence: Evidence) -> Measured:
    return rate([group == 1 for group in evidence.reference_groups], seed=evidence.seed, note=_at(evidence))


def _distributions(evidence: Evidence) -> list[Distribution]:
    from cdvae_kit.crystal.symmetry import crystal_system

    def systems(groups: Sequence[int | None]) -> list[str | None]:
        return [None if group is None else crystal_system(group) for group in groups]

    ours = _judged(evidence)
    theirs = None if evidence.reference is None else evidence.reference_groups
    return [
        labels_of("space_group", ours, theirs),
        labels_of("crystal_system", systems(ours), None if theirs is None else systems(theirs)),
    ]


def _jsd_space_group(evidence: Evidence) -> Measured:
    return _divergence(evidence, 0)


def _jsd_crystal_system(evidence: Evidence) -> Measured:
    return _divergence(evidence, 1)


def _divergence(evidence: Evidence, which: int) -> Measured:
    entry = evidence.once(_distributions)[which]
    assert entry.reference is not None
    return divergence(entry.generated.tolist(), entry.reference.tolist(), len(entry.generated))


def _columns(evidence: Evidence) -> Columns:
    return Columns(distributions=evidence.once(_distributions))


FAMILY = Family(
    "symmetry",
    (
        Metric("share_p1", "share of P1", "symmetry", None, SHARE, _OURS, (), _share_p1),
        Metric(
            "share_p1_exact",
            f"share of P1 at {EXACT_SYMPREC:g} Å",
            "symmetry",
            None,
            SHARE,
            _OURS,
            (),
            _share_p1_exact,
        ),
        Metric("share_triclinic", "share of triclinic", "symmetry", None, SHARE, _OURS, (), _share_triclinic),
        Metric(
            "share_p1_reference",
            "share of P1, reference",
            "symmetry",
            None,
            SHARE,
            _OURS,
            ("reference",),
            _share_p1_reference,
        ),
        Metric(
            "jsd_space_group",
            "Jensen–Shannon divergence, space group",
            "distribution",
            "lower",
            "bits",
            _JENSEN_SHANNON,
            ("reference",),
            _jsd_space_group,
        ),
        Metric(
            "jsd_crystal_system",
            "Jensen–Shannon divergence, crystal system",
            "distribution",
            "lower",
            "bits",
            _JENSEN_SHANNON,
            ("reference",),
            _jsd_crystal_system,
        ),
        Metric(
            "chi2_space_group",
            "chi-square distance, space group",
            "symmetry",
            "lower",
            "",
            "Kazeev et al., ICML 2025, arXiv:2503.02407",
            ("reference",),
            _chi_square,
        ),
    ),
    columns=_columns,
)
