"""What a reader of the report is warned of: which numbers saturate, which mislead, what an interval leaves out.

Sentences that rest on this evaluation's own numbers are written only where those numbers are there.
"""

from __future__ import annotations

from collections.abc import Mapping

from cdvae_kit.metrics.evaluation_result import Evaluation, MetricValue

_CEILING = 0.99


Advice = tuple[str, str]
"""A bold sentence, and what follows it."""


def advice(evaluation: Evaluation, dataset: str | None) -> list[Advice]:
    """What holds for every evaluation and what this one's numbers add, in the order of the page."""
    metrics = evaluation.metrics
    parts: list[Advice | None] = [
        _saturated(metrics),
        (
            "Structure validity is a low bar.",
            "It asks for 0.5 Å between atoms. CDVAE's paper prints 100 % on all three of its data sets; a value near "
            "that tells no two models apart, a value below it tells of a fault.",
        ),
        (
            "Composition validity has no target of 100 %.",
            "The rule rejects real crystals too (some 6 % of MP-20), and it moves with the release of SMACT: compare "
            "only numbers of one rule.",
        ),
        _coverage(metrics),
        (
            "Diversity grows with disorder.",
            "Spoiled crystals lie far from each other, so a higher diversity or Vendi score is not better; the "
            "reference's own value is what to aim at.",
        ),
        (
            "Uniqueness and novelty reward noise.",
            "Random crystals are nearly all unique and novel. Read both only together with stability, and only "
            "against rates of the same matcher.",
        ),
        (
            "Stability is a convention.",
            "Threshold, hull, relaxation and matcher move S.U.N. by several times: CDVAE's is printed as 4.26 % "
            "(relaxed by CHGNet, under the hull) and as 13.99 % (DFT, within 0.1 eV/atom).",
        ),
        (
            "Distances between sets depend on how many crystals there are.",
            "Jensen–Shannon, Fréchet and Vendi move with the number; a divergence is small where it is near that of "
            "as many crystals drawn from the reference.",
        ),
        _symmetry(metrics),
        _pairs(metrics, dataset),
        (
            "An interval covers the draw of crystals alone.",
            "It holds neither the spread over training and sampling seeds nor the choice of the reference. Two models "
            "differ only if their intervals, and their seeds, say so.",
        ),
    ]
    return [part for part in parts if part is not None]


def _saturated(metrics: Mapping[str, MetricValue]) -> Advice | None:
    names = [
        metric.label
        for metric in metrics.values()
        if metric.better == "higher" and metric.is_rate and (metric.value or 0.0) >= _CEILING
    ]
    if not names:
        return None
    return (
        f"At the ceiling here: {', '.join(names)}.",
        f"At {100 * _CEILING:.0f} % or more such a rate cannot show that one model is better than another.",
    )


def _coverage(metrics: Mapping[str, MetricValue]) -> Advice:
    text = (
        "It takes the nearest structure and the nearest composition from any two "
        "crystals, under wide cutoffs, and is above 99 % for most models on Perov-5 and MP-20. The joint rates ask for "
        "one crystal that is near in both."
    )
    apart, joint = (_rate(metrics, name) for name in ("cov_recall", "cov_recall_joint"))
    if apart is not None and joint is not None:
        text += f" Here recall is {100 * apart:.1f} % as published and {100 * joint:.1f} % jointly."
    return "Published COV counts halves.", text


def _symmetry(metrics: Mapping[str, MetricValue]) -> Advice:
    text = (
        "Models of CDVAE's kind place atoms near, not on, special "
        "positions, and nearly all their crystals have low symmetry."
    )
    ours, theirs = (_rate(metrics, name) for name in ("share_p1", "share_p1_reference"))
    if ours is not None and theirs is not None:
        text += f" Here {100 * ours:.1f} % are P1, of the reference {100 * theirs:.1f} %."
    return "No published validity looks at symmetry.", text


def _pairs(metrics: Mapping[str, MetricValue], dataset: str | None) -> Advice | None:
    if not {"match_rate", "match_rate_unfiltered", "metre"} & set(metrics):
        return None
    text = (
        "A reference that fails the composition rule can never match, "
        "which costs some 6 points on MP-20; the unfiltered rate stands beside it. RMSE is over matches alone: a model "
        "that matches only the easy ones has a low one."
    )
    if dataset == "carbon_24":
        text += " Some 60 % of Carbon-24 are duplicates, so a match there need not be of the pair's own crystal."
    return "The published match rate is filtered.", text


def _rate(metrics: Mapping[str, MetricValue], name: str) -> float | None:
    return metrics[name].value if name in metrics else None
