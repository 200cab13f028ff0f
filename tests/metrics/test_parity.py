"""The published numbers on the parity sets, all of them: slow where the sites of 300 crystals are looked at."""

import numpy as np
import pytest

from cdvae_kit.metrics import (
    COVERAGE_CUTOFFS,
    Fingerprint,
    composition_diversity,
    coverage,
    densities,
    fingerprints,
    numbers_of_elements,
    sample_valid,
    structure_diversity,
    validity,
    wasserstein,
)
from cdvae_kit.metrics.crystals import Crystals, as_arrays
from cdvae_kit.metrics.fingerprints.vectors import composition_fingerprint
from tests.metrics.conftest import ParitySet

TOLERANCE = 1e-6
CUTOFFS = {"perov_a": COVERAGE_CUTOFFS["perov_5"], "inorg_a": COVERAGE_CUTOFFS["mp_20"]}


def without_structure(crystals: Crystals) -> list[Fingerprint]:
    """Composition vectors alone, which take no CrystalNN."""
    return [
        Fingerprint(np.zeros(61), composition_fingerprint(crystal.reduced_composition))
        for crystal in as_arrays(crystals)
    ]


def valid_ones(parity_set: ParitySet) -> np.ndarray:
    return sample_valid([verdict.valid for verdict in validity(parity_set.generated)])


def test_rates_of_validity_are_the_published_ones(parity_set):
    verdicts = validity(parity_set.generated)
    rates = {
        "struct_valid": np.mean([verdict.structure for verdict in verdicts]),
        "comp_valid": np.mean([verdict.composition for verdict in verdicts]),
        "valid": np.mean([verdict.valid for verdict in verdicts]),
    }
    assert rates == {name: pytest.approx(parity_set.expected[name], abs=TOLERANCE) for name in rates}


def test_composition_numbers_are_the_published_ones(parity_set):
    generated, reference = without_structure(parity_set.generated), without_structure(parity_set.reference)
    found = coverage(generated, reference, cutoffs=CUTOFFS[parity_set.name])
    assert found.amcd_recall == pytest.approx(parity_set.expected["amcd_recall"], abs=TOLERANCE)
    assert found.amcd_precision == pytest.approx(parity_set.expected["amcd_precision"], abs=TOLERANCE)
    diversity = composition_diversity([generated[i] for i in valid_ones(parity_set)])
    assert diversity == pytest.approx(parity_set.expected["comp_div"], abs=TOLERANCE)


def test_wasserstein_distances_are_the_published_ones(parity_set):
    valid = [parity_set.generated[i] for i in valid_ones(parity_set)]
    for name, measure in (("wdist_density", densities), ("wdist_num_elems", numbers_of_elements)):
        distance = wasserstein(measure(valid), measure(parity_set.reference))
        assert distance.value == pytest.approx(parity_set.expected[name], abs=TOLERANCE), name


def test_taking_invalid_crystals_too_would_not_be_parity(parity_set):
    distance = wasserstein(densities(parity_set.generated), densities(parity_set.reference))
    assert distance.value != pytest.approx(parity_set.expected["wdist_density"], abs=TOLERANCE)


@pytest.mark.slow
def test_structure_numbers_are_the_published_ones(parity_set):
    generated = fingerprints(parity_set.generated, num_workers=-1)
    reference = fingerprints(parity_set.reference, num_workers=-1)
    found = coverage(generated, reference, cutoffs=CUTOFFS[parity_set.name])
    numbers = {name: value for name, value in found.numbers().items() if not name.endswith("_joint")}
    numbers["struct_div"] = structure_diversity([generated[i] for i in valid_ones(parity_set)])
    numbers["n_ref_with_fp"] = sum(fingerprint.complete for fingerprint in reference)
    assert numbers == {name: pytest.approx(parity_set.expected[name], abs=TOLERANCE) for name in numbers}
    # one crystal near in both asks for more
    assert found.cov_recall_joint <= found.cov_recall and found.cov_precision_joint <= found.cov_precision
    published = [row["valid"] for row in parity_set.expected["per_structure"]]
    judged = zip(validity(parity_set.generated), generated, strict=True)
    assert [verdict.valid and fingerprint.complete for verdict, fingerprint in judged] == published
