"""Crystals in, numbers out, failures counted: validity, reconstruction, coverage, stability, distributions.

Importing this loads neither torch nor pymatgen nor matminer: what needs them loads them when it is called.
"""

from cdvae_kit.metrics.composition_rules import COMPOSITION_RULES, CompositionRule, check_composition
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
from cdvae_kit.metrics.fingerprints import Fingerprint, fingerprints
from cdvae_kit.metrics.intervals import Interval, bootstrap_interval, wilson_interval
from cdvae_kit.metrics.reconstruction import PairResult, ReconstructionResult, Tolerances, reconstruction
from cdvae_kit.metrics.stability import StabilityResult, SunResult, stability, sun, sun_of
from cdvae_kit.metrics.validity import Validity, Verdict, composition_validity, structure_validity, validity

__all__ = [
    "COMPOSITION_RULES",
    "COVERAGE_CUTOFFS",
    "CompositionRule",
    "CoverageResult",
    "Cutoffs",
    "Fingerprint",
    "Interval",
    "PairResult",
    "ReconstructionResult",
    "SetDistance",
    "StabilityResult",
    "SunResult",
    "Tolerances",
    "Validity",
    "Verdict",
    "bootstrap_interval",
    "check_composition",
    "composition_diversity",
    "composition_validity",
    "coverage",
    "densities",
    "fingerprints",
    "numbers_of_elements",
    "reconstruction",
    "sample_valid",
    "stability",
    "structure_diversity",
    "structure_validity",
    "sun",
    "sun_of",
    "validity",
    "wasserstein",
    "wilson_interval",
]
