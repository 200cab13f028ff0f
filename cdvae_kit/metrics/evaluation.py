"""Every metric of the field on one set of crystals: what `generate-crystals evaluate` computes.

Which parts there are is decided here; each is in `evaluation_sections`, what they add up to in `evaluation_result`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from cdvae_kit.metrics import evaluation_sections as sections
from cdvae_kit.metrics import sameness_sections as sameness
from cdvae_kit.metrics.composition_rules import COMPOSITION_RULES, CompositionRule
from cdvae_kit.metrics.coverage import COVERAGE_CUTOFFS, Cutoffs
from cdvae_kit.metrics.crystal_set import CrystalSet, CrystalSource, crystal_set
from cdvae_kit.metrics.crystals import CrystalArrays, formula
from cdvae_kit.metrics.distributions import densities, sample_valid
from cdvae_kit.metrics.evaluation_result import CrystalRow, Evaluation
from cdvae_kit.metrics.evaluation_section import Section, number
from cdvae_kit.metrics.evaluation_sections import PropertyFunction
from cdvae_kit.metrics.fingerprints import Fingerprint, fingerprints_of
from cdvae_kit.metrics.matching import Matcher, MatcherName, matcher_of
from cdvae_kit.metrics.parallel import Progress
from cdvae_kit.metrics.polymorphs import polymorphs
from cdvae_kit.metrics.reconstruction import reconstruction
from cdvae_kit.metrics.stability_section import StabilityRequest, judge_stability, stability_section
from cdvae_kit.metrics.training_index import TrainingIndex
from cdvae_kit.metrics.validity import validity_of

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore

logger = logging.getLogger(__name__)

ProgressFactory: TypeAlias = Callable[[str, str], AbstractContextManager[Progress | None]]
"""Opens a report on one part of the work, from its title and what is counted, as `cdvae_kit.cli.console` does."""

Encode: TypeAlias = Callable[[Sequence[CrystalArrays]], np.ndarray]
"""(num_crystals, latent_dim) codes; NaN rows for crystals that have none."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What a number depends on beside the crystals; all of it is kept in the result.

    Attributes:
        rule: of the composition; "smact-2014" is what published numbers rest on.
        cutoffs: of coverage: "perov_5", "carbon_24", "mp_20" or a `Cutoffs`.
        matcher: a preset of `matching.MATCHERS` or tolerances, for uniqueness and novelty; reconstruction and METRe
            have their published one, CDVAE's.
        fingerprints: compute CrystalNN fingerprints; without them there is neither coverage nor diversity, and `valid`
            does not ask for them.
        num_samples: valid crystals that the published distances and diversities are taken of.
        symprec: angstrom, of the space groups.
        seed: of that draw and of every interval.
    """

    rule: CompositionRule = "smact-2014"
    cutoffs: str | Cutoffs = "mp_20"
    matcher: MatcherName | Matcher = "mattergen"
    fingerprints: bool = True
    num_samples: int = 1000
    symprec: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rule not in COMPOSITION_RULES:
            raise ValueError(f"composition rule must be one of {', '.join(COMPOSITION_RULES)}, got {self.rule!r}")
        if isinstance(self.cutoffs, str) and self.cutoffs not in COVERAGE_CUTOFFS:
            raise ValueError(
                f"coverage cutoffs must be one of {', '.join(COVERAGE_CUTOFFS)} or two distances, got {self.cutoffs!r}"
            )
        matcher_of(self.matcher)
        if self.num_samples < 1 or not self.symprec > 0:
            raise ValueError(
                f"num_samples must be at least 1 and symprec a positive length, got {self.num_samples} and "
                f"{self.symprec}"
            )

    @property
    def coverage_cutoffs(self) -> Cutoffs:
        return COVERAGE_CUTOFFS[self.cutoffs] if isinstance(self.cutoffs, str) else self.cutoffs

    @property
    def structure_matcher(self) -> Matcher:
        return matcher_of(self.matcher)


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
    stability: StabilityRequest | None = None,
    num_workers: int = 1,
    store: ResultStore | None = None,
    progress: ProgressFactory | None = None,
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
        stability: relax crystals by a calculator and hold them against a hull; with `train`, the S.U.N. rates too.
        num_workers: processes; -1 takes every core.
        store: keeps fingerprints, verdicts and relaxed crystals: a second evaluation, or one that goes on after Ctrl-C,
            does not ask again.
        progress: opens a report on each long part.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> found = evaluate([salt, None], reference=[salt], settings=EvaluationSettings(fingerprints=False))
    >>> found.metrics["valid"].value, found.crystals[1].reason
    (0.5, 'there is no crystal: it could not be built')
    """
    settings = settings or EvaluationSettings()
    predictors = dict(predictors or {})
    work = _Work(num_workers, store, progress or (lambda title, unit: nullcontext()))
    ours = crystal_set(generated)
    theirs = None if reference is None else crystal_set(reference)
    _check_pairs(ours, theirs, paired or metre, one_to_one=paired)
    if encode is not None and theirs is None:
        raise ValueError("codes are compared with those of a reference: give one, or leave encode out")
    names = _property_names(ours, theirs, properties, predictors)
    sets = _look_at(ours, theirs, settings, work)
    judged = {"valid": sets.valid, "sampled": sets.sampled}
    symmetry, groups = sections.symmetry_section(
        ours.arrays,
        None if theirs is None else theirs.arrays,
        valid=sets.valid,
        symprec=settings.symprec,
        seed=settings.seed,
    )
    codes = None
    if encode is not None and theirs is not None:
        codes = _codes(encode, ours.arrays), _codes(encode, theirs.arrays)
    found = [
        Section([number("n_gen", len(ours), len(ours), "validity", note=f"{ours.num_unread} could not be read")]),
        sections.validity_section(ours.arrays, sets.vectors, rule=settings.rule, seed=settings.seed),
        *_of_vectors(sets, settings),
        sections.distribution_section(ours, theirs, **judged),
        sections.property_section(
            ours, theirs, names=names, functions=predictors, units=units or {}, sampled=sets.sampled
        ),
        *([] if codes is None else [sections.latent_section(*(rows[np.isfinite(rows).all(1)] for rows in codes))]),
        symmetry,
        *_sameness(sets, train, stability, settings, work),
        *_structure_prediction(sets, paired, metre, settings, work),
    ]
    return Evaluation(
        {metric.name: metric for section in found for metric in section.metrics},
        _rows(ours, groups, found),
        {entry.name: entry for section in found for entry in section.distributions},
        ours.arrays,
        () if theirs is None else theirs.arrays,
        _about(settings, stability),
        codes,
    )


class _Work(NamedTuple):
    """How the work is done, which no number depends on."""

    num_workers: int
    store: ResultStore | None
    report: ProgressFactory


class _Sets(NamedTuple):
    """Both sets, their fingerprints where these are asked for, and which generated crystals are valid."""

    ours: CrystalSet
    theirs: CrystalSet | None
    vectors: list[Fingerprint] | None
    reference_vectors: list[Fingerprint] | None
    valid: np.ndarray
    sampled: np.ndarray


def _look_at(ours: CrystalSet, theirs: CrystalSet | None, settings: EvaluationSettings, work: _Work) -> _Sets:
    vectors: list[list[Fingerprint] | None] = [None, None]
    for i, (crystals, whose) in enumerate(((ours, "generated"), (theirs, "reference"))):
        if settings.fingerprints and crystals is not None:
            with work.report(f"Fingerprints, {whose}", "crystals") as tell:
                vectors[i] = fingerprints_of(
                    crystals.arrays, num_workers=work.num_workers, progress=tell, store=work.store
                )
    flags = sections.is_valid(validity_of(ours.arrays, rule=settings.rule), vectors[0])
    sampled = sample_valid(flags, num_samples=settings.num_samples, seed=settings.seed)
    return _Sets(ours, theirs, vectors[0], vectors[1], np.flatnonzero(flags), sampled)


def _of_vectors(sets: _Sets, settings: EvaluationSettings) -> list[Section]:
    """Coverage and diversity."""
    if sets.vectors is None:
        return []
    cutoffs, seed = settings.coverage_cutoffs, settings.seed
    found = []
    if sets.reference_vectors is not None:
        found.append(sections.coverage_section(sets.vectors, sets.reference_vectors, cutoffs=cutoffs, seed=seed))
    others = sets.reference_vectors or []
    found.append(sections.diversity_section(sets.vectors, others, sampled=sets.sampled, cutoffs=cutoffs, seed=seed))
    found.append(sections.coordination_section(sets.vectors, sets.reference_vectors, valid=sets.valid))
    return found


def _sameness(
    sets: _Sets,
    train: CrystalSource | TrainingIndex | None,
    stability: StabilityRequest | None,
    settings: EvaluationSettings,
    work: _Work,
) -> list[Section]:
    """Uniqueness, novelty, and stability with what rests on all three."""
    index = None
    if train is not None:
        index = train if isinstance(train, TrainingIndex) else TrainingIndex.from_crystals(crystal_set(train).arrays)
    ours = sets.ours.arrays
    distinct, groups = sameness.uniqueness_section(
        ours,
        index,
        valid=sets.valid,
        matcher=settings.structure_matcher,
        seed=settings.seed,
        num_workers=work.num_workers,
        store=work.store,
        report=lambda title: work.report(title, "crystals"),
    )
    found = [distinct]
    if stability is not None:
        judged = judge_stability(
            ours,
            None if sets.theirs is None else sets.theirs.arrays,
            stability,
            num_workers=work.num_workers,
            store=work.store,
            report=lambda title: work.report(title, "crystals"),
        )
        found.append(
            stability_section(
                judged,
                distinct.verdicts["unique"],
                distinct.verdicts.get("novel"),
                groups=groups,
                matcher=settings.structure_matcher.describe(),
                training=f"{0 if index is None else len(index)} training crystals",
            )
        )
    return found


def _structure_prediction(
    sets: _Sets, paired: bool, metre: bool, settings: EvaluationSettings, work: _Work
) -> list[Section]:
    """What of the references is found, whichever crystal finds it, and pair by pair."""
    if sets.theirs is None or not (paired or metre):
        return []
    ours, theirs = sets.ours.arrays, sets.theirs.arrays
    with work.report("Polymorphs", "crystals") as tell:
        matched = polymorphs(ours, theirs, num_workers=work.num_workers, progress=tell, store=work.store)
    found = [sameness.polymorph_section(matched, seed=settings.seed)]
    if paired:
        vectors: bool | tuple[Sequence[Fingerprint], Sequence[Fingerprint]] = False
        if sets.vectors is not None and sets.reference_vectors is not None:
            vectors = (sets.vectors, sets.reference_vectors)
        with work.report("Matching", "pairs") as tell:
            pairs = reconstruction(
                ours,
                theirs,
                rule=settings.rule,
                fingerprints=vectors,
                num_workers=work.num_workers,
                progress=tell,
                store=work.store,
            )
        found.append(sameness.reconstruction_section(pairs, seed=settings.seed))
    return found


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


# names that the evaluation uses itself, which a column of the user's would hide
_OWN_NAMES = ("density", "num_elems", "num_atoms", "volume_per_atom")


def _property_names(
    ours: CrystalSet,
    theirs: CrystalSet | None,
    asked: Sequence[str] | None,
    predictors: Mapping[str, PropertyFunction],
) -> list[str]:
    both = set(ours.properties) & set(ours.properties if theirs is None else theirs.properties)
    names = sorted(both - set(_OWN_NAMES)) + sorted(set(predictors) - both) if asked is None else list(asked)
    taken = [name for name in names if name in _OWN_NAMES]
    if taken:
        raise ValueError(
            f"{', '.join(taken)} is computed from the crystals themselves, under this name; "
            "rename the property to compare a column of that name"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"each property is asked for once, got {', '.join(names)}")
    return names


def _codes(encode: Encode, crystals: Sequence[CrystalArrays]) -> np.ndarray:
    """One row a crystal, NaN for those that cannot be used."""
    usable = [i for i, crystal in enumerate(crystals) if crystal.fault is None]
    found = np.asarray(encode([crystals[i] for i in usable]), dtype=np.float64)
    if found.ndim != 2 or len(found) != len(usable):
        raise ValueError(f"encode must give ({len(usable)}, latent_dim) codes, one row a crystal, got {found.shape}")
    codes = np.full((len(crystals), found.shape[1]), np.nan)
    codes[usable] = found
    return codes


def _rows(crystals: CrystalSet, groups: Sequence[int | None], found: Sequence[Section]) -> list[CrystalRow]:
    verdicts = {name: flags for section in found for name, flags in section.verdicts.items()}
    values = {name: numbers for section in found for name, numbers in section.values.items()}
    density, volume = densities(crystals.arrays), sections.volumes_per_atom(crystals.arrays)
    return [
        CrystalRow(
            i,
            crystals.names[i],
            formula(crystal.reduced_composition) if len(crystal.atomic_numbers) else "",
            len(crystal.atomic_numbers),
            groups[i],
            _or_none(density[i]),
            _or_none(volume[i]),
            {name: flags[i] for name, flags in verdicts.items()},
            {name: _or_none(numbers[i]) for name, numbers in values.items()},
            "; ".join(dict.fromkeys(text for part in found if part.reasons and (text := part.reasons[i]))) or None,
        )
        for i, crystal in enumerate(crystals.arrays)
    ]


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _about(settings: EvaluationSettings, stability: StabilityRequest | None) -> dict[str, Any]:
    from cdvae_kit import __version__

    cutoffs = settings.coverage_cutoffs
    return {
        "composition_rule": settings.rule,
        "coverage_cutoffs": [cutoffs.structure, cutoffs.composition],
        "matcher": settings.structure_matcher.describe(),
        "fingerprints": settings.fingerprints,
        "num_samples": settings.num_samples,
        "symprec": settings.symprec,
        "seed": settings.seed,
        **({} if stability is None else {"stability_threshold": stability.threshold, "fmax": stability.fmax}),
        "versions": {
            "cdvae-kit": __version__,
            **{name: version(name) for name in ("numpy", "scipy", "pymatgen", "smact", "moyopy")},
        },
    }
