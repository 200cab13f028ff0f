"""Crystals in, numbers out, failures counted: `evaluate` for all of them, and each metric by itself.

Importing this loads neither torch nor pymatgen: what needs them loads them when it is called.
"""

from cdvae_kit.metrics.composition_rules import COMPOSITION_RULES, CompositionRule, check_composition
from cdvae_kit.metrics.computing.divergences import frechet_distance, jensen_shannon, vendi_score
from cdvae_kit.metrics.computing.intervals import Interval, bootstrap_interval, wilson_interval
from cdvae_kit.metrics.coverage import COVERAGE_CUTOFFS, CoverageResult, Cutoffs, coverage
from cdvae_kit.metrics.distributions import (
    SetDistance,
    composition_diversity,
    densities,
    numbers_of_elements,
    sample_valid,
    structure_diversity,
    wasserstein,
)
from cdvae_kit.metrics.evaluation import EvaluationSettings, evaluate
from cdvae_kit.metrics.evaluation_files import save_evaluation
from cdvae_kit.metrics.evaluation_result import CrystalRow, Distribution, Evaluation, MetricValue
from cdvae_kit.metrics.fingerprints.vectors import Fingerprint, fingerprints
from cdvae_kit.metrics.matching.matcher import MATCHERS, Matcher, MatcherName
from cdvae_kit.metrics.matching.training_index import TrainingIndex
from cdvae_kit.metrics.metric import Measured, Metric
from cdvae_kit.metrics.novelty import NoveltyResult, novelty
from cdvae_kit.metrics.polymorphs import PolymorphResult, polymorphs
from cdvae_kit.metrics.protocols import PROTOCOLS, Protocol, protocol_settings
from cdvae_kit.metrics.reconstruction import PairResult, ReconstructionResult, Tolerances, reconstruction
from cdvae_kit.metrics.relaxing import StabilityRequest
from cdvae_kit.metrics.stability import StabilityResult, stability
from cdvae_kit.metrics.sun import SunResult, sun, sun_of
from cdvae_kit.metrics.uniqueness import UniquenessResult, uniqueness
from cdvae_kit.metrics.validity import Validity, Verdict, composition_validity, structure_validity, validity

__all__ = [
    "COMPOSITION_RULES",
    "COVERAGE_CUTOFFS",
    "MATCHERS",
    "PROTOCOLS",
    "CompositionRule",
    "CoverageResult",
    "CrystalRow",
    "Cutoffs",
    "Distribution",
    "Evaluation",
    "EvaluationSettings",
    "Fingerprint",
    "Interval",
    "Matcher",
    "MatcherName",
    "Measured",
    "Metric",
    "MetricValue",
    "NoveltyResult",
    "PairResult",
    "PolymorphResult",
    "Protocol",
    "ReconstructionResult",
    "SetDistance",
    "StabilityRequest",
    "StabilityResult",
    "SunResult",
    "Tolerances",
    "TrainingIndex",
    "UniquenessResult",
    "Validity",
    "Verdict",
    "bootstrap_interval",
    "check_composition",
    "composition_diversity",
    "composition_validity",
    "coverage",
    "densities",
    "evaluate",
    "fingerprints",
    "frechet_distance",
    "jensen_shannon",
    "novelty",
    "numbers_of_elements",
    "polymorphs",
    "protocol_settings",
    "reconstruction",
    "sample_valid",
    "save_evaluation",
    "stability",
    "structure_diversity",
    "structure_validity",
    "sun",
    "sun_of",
    "uniqueness",
    "validity",
    "vendi_score",
    "wasserstein",
    "wilson_interval",
]
