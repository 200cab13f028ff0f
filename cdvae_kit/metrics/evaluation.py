"""Every metric of the field on one set of crystals: what `generate-crystals evaluate` computes.

Which metrics there are is in `registry`, what they read in `evidence`, what they add up to in `evaluation_result`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from cdvae_kit.metrics.crystal_set import CrystalSet, CrystalSource, crystal_set
from cdvae_kit.metrics.crystals import formula
from cdvae_kit.metrics.distributions import densities, volumes_per_atom
from cdvae_kit.metrics.evaluation_result import CrystalRow, Evaluation, MetricValue
from cdvae_kit.metrics.evaluation_settings import EvaluationSettings
from cdvae_kit.metrics.evidence import Encode, Evidence, ProgressFactory, PropertyFunction, silent
from cdvae_kit.metrics.matching.training_index import TrainingIndex
from cdvae_kit.metrics.metric import Columns, Metric
from cdvae_kit.metrics.properties import property_names
from cdvae_kit.metrics.protocols import protocol_of
from cdvae_kit.metrics.registry import FAMILIES
from cdvae_kit.metrics.relaxing import StabilityRequest
from cdvae_kit.missing import nan_as_none

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore

logger = logging.getLogger(__name__)

__all__ = ["Encode", "Evaluation", "EvaluationSettings", "ProgressFactory", "PropertyFunction", "evaluate"]


def evaluate(
    generated: CrystalSource,
    *,
    reference: CrystalSource | None = None,
    train: CrystalSource | TrainingIndex | None = None,
    paired: bool = False,
    metre: bool = False,
    settings: EvaluationSettings | None = None,
    properties: Sequence[str] | None = None,
    predictors: Mapping[str, PropertyFunction] | None = None,
    units: Mapping[str, str] | None = None,
    encode: Encode | None = None,
    embed: Encode | None = None,
    stability: StabilityRequest | None = None,
    num_workers: int = 1,
    store: ResultStore | None = None,
    progress: ProgressFactory | None = None,
    metrics: Sequence[Metric] = (),
) -> Evaluation:
    """Every number that the given sets allow; a crystal that cannot be judged counts, with its reason.

    Args:
        generated: a batch, a list of structures (None where one could not be made), or what was read of a file.
        reference: crystals that the generated ones should resemble, usually the test split.
        train: crystals that are not novel, or an index of them that was built before.
        paired: generated crystal i should be reference i: match rate and RMSE of the pairs, and METRe.
        metre: METRe and cRMSE without pairs: how many references any generated crystal finds. Meant for structures that
            were predicted from the compositions of the reference.
        settings: rule, cutoffs, matcher, seed; the defaults where None.
        properties: whose distributions are compared; those that both sets have and those of `predictors` if None.
        predictors: name to a function of crystals, which gives the property of both sets in place of a column.
        units: of properties, for labels.
        encode: crystals to latent codes, for the Fréchet distance and the latent map.
        embed: crystals to features of a potential, for the Fréchet distance between them; see
            `cdvae_kit.relaxation.embeddings`.
        stability: relax crystals by a calculator and hold them against a hull; with `train`, the S.U.N. rates too.
        num_workers: processes; -1 takes every core.
        store: keeps fingerprints, verdicts and relaxed crystals: a second evaluation, or one that goes on after Ctrl-C,
            does not ask again.
        progress: opens a report on each long part.
        metrics: of the caller's own, beside those of the package.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> found = evaluate([salt, None], reference=[salt], settings=EvaluationSettings(fingerprints=False))
    >>> found.metrics["valid"].value, found.crystals[1].reason
    (0.5, 'there is no crystal: it could not be built')
    """
    predictors = dict(predictors or {})
    ours = crystal_set(generated)
    theirs = None if reference is None else crystal_set(reference)
    _check_pairs(ours, theirs, paired or metre, one_to_one=paired)
    for name, given in (("encode", encode), ("embed", embed)):
        if given is not None and theirs is None:
            raise ValueError(f"codes are compared with those of a reference: give one, or leave {name} out")
    evidence = Evidence(
        ours,
        theirs,
        train,
        settings or EvaluationSettings(),
        paired=paired,
        predicted=metre,
        property_names=property_names(ours, theirs, properties, predictors),
        predictors=predictors,
        units=units or {},
        encode=encode,
        embed=embed,
        stability=stability,
        num_workers=num_workers,
        store=store,
        report=progress or silent,
    )
    values, columns = _measure(evidence, metrics)
    return Evaluation(
        values,
        _rows(evidence, columns),
        {entry.name: entry for part in columns for entry in part.distributions},
        evidence.ours,
        evidence.theirs,
        _about(evidence),
        evidence.codes,
    )


def _measure(evidence: Evidence, own: Sequence[Metric]) -> tuple[dict[str, MetricValue], list[Columns]]:
    """Every registered metric that can be computed of this evidence, and those of the caller's own."""
    values: dict[str, MetricValue] = {}
    columns = []
    protocol = evidence.settings.protocol
    left_out = protocol_of(protocol).leaves_out if protocol else ()
    for family in FAMILIES:
        if family.name in left_out:
            continue
        _add(family.metrics_of(evidence), evidence, values)
        if family.columns is not None:
            columns.append(family.columns(evidence))
    asked = []
    for metric in own:
        if metric.name in values or metric.name in asked:
            raise ValueError(f"there is a metric {metric.name!r} already; give yours another name")
        asked.append(metric.name)
    columns.append(Columns(values=_add([metric for metric in own if evidence.has(metric.needs)], evidence, values)))
    return values, columns


def _add(metrics: Sequence[Metric], evidence: Evidence, values: dict[str, MetricValue]) -> dict[str, np.ndarray]:
    """Computes the metrics, puts their numbers into `values`, and returns what they say of each crystal."""
    each = {}
    for metric in metrics:
        found = metric.compute(evidence)
        if found is not None:
            values[metric.name] = metric.value_of(found)
            if found.per_crystal is not None:
                each[metric.name] = found.per_crystal
    return each


def _check_pairs(ours: CrystalSet, theirs: CrystalSet | None, asked: bool, *, one_to_one: bool) -> None:
    if not asked:
        return
    if theirs is None:
        raise ValueError("pairs and METRe need a reference: the crystals that the generated ones should be")
    if not one_to_one:
        return
    if len(ours) != len(theirs):
        raise ValueError(
            f"pairs are taken one to one, got {len(ours)} generated and {len(theirs)} reference crystals; "
            "both sets need one record for each, in the same order"
        )
    differing = [
        (mine, yours) for mine, yours in zip(ours.names, theirs.names, strict=True) if mine and yours and mine != yours
    ]
    if differing:
        logger.warning(
            "%d of %d pairs have two names, the first %r and %r; pairs are taken by their order",
            len(differing),
            len(ours),
            *differing[0],
        )


def _rows(evidence: Evidence, columns: Sequence[Columns]) -> list[CrystalRow]:
    verdicts = {name: flags for part in columns for name, flags in part.verdicts.items()}
    values = {name: numbers for part in columns for name, numbers in part.values.items()}
    density, volume = densities(evidence.ours), volumes_per_atom(evidence.ours)
    return [
        CrystalRow(
            i,
            evidence.generated.names[i],
            formula(crystal.reduced_composition) if len(crystal.atomic_numbers) else "",
            len(crystal.atomic_numbers),
            evidence.groups[i],
            nan_as_none(density[i]),
            nan_as_none(volume[i]),
            {name: flags[i] for name, flags in verdicts.items()},
            {name: nan_as_none(numbers[i]) for name, numbers in values.items()},
            "; ".join(dict.fromkeys(text for part in columns if part.reasons and (text := part.reasons[i]))) or None,
        )
        for i, crystal in enumerate(evidence.ours)
    ]


def _about(evidence: Evidence) -> dict[str, Any]:
    from cdvae_kit import __version__

    settings, stability = evidence.settings, evidence.stability
    cutoffs = settings.coverage_cutoffs
    return {
        "composition_rule": settings.rule,
        "coverage_cutoffs": [cutoffs.structure, cutoffs.composition],
        "matcher": settings.structure_matcher.describe(),
        "fingerprints": settings.fingerprints,
        "num_samples": settings.num_samples,
        "symprec": settings.symprec,
        "seed": settings.seed,
        **({"extended": True} if settings.extended else {}),
        **({} if not settings.protocol else _about_protocol(settings.protocol, len(evidence.ours))),
        **({} if stability is None else {"stability_threshold": stability.threshold, "fmax": stability.fmax}),
        "versions": {
            "cdvae-kit": __version__,
            **{name: version(name) for name in ("numpy", "scipy", "pymatgen", "smact", "moyopy")},
        },
    }


def _about_protocol(name: str, num_generated: int) -> dict[str, Any]:
    protocol = protocol_of(name)
    return {
        "protocol": name,
        "protocol_source": protocol.source,
        "protocol_sets": protocol.describe(),
        "protocol_differs": protocol.differences(num_generated),
    }
