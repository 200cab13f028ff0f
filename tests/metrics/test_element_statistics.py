"""Element statistics: matminer as the oracle, and what can be said without it."""

import json
from importlib.resources import files

import numpy as np
import pytest

from cdvae_kit.metrics.crystals import Composition
from cdvae_kit.metrics.fingerprints.element_statistics import (
    STATISTICS,
    element_properties,
    element_statistics,
    property_names,
)


def random_compositions(number: int, seed: int = 0) -> list[Composition]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        size = rng.integers(1, 8)
        elements = np.sort(rng.choice(np.arange(1, 119), size, replace=False))
        found.append(tuple(zip(elements.tolist(), rng.integers(1, 30, size).tolist(), strict=True)))
    return found


def test_the_numbers_are_matminers() -> None:
    composition = pytest.importorskip("matminer.featurizers.composition")
    from pymatgen.core import Composition as PymatgenComposition
    from pymatgen.core import Element

    oracle = composition.ElementProperty.from_preset("magpie", impute_nan=True)
    assert property_names() == tuple(oracle.features) and tuple(oracle.stats) == STATISTICS
    cases = [((number, 1),) for number in range(1, 119)] + random_compositions(150)
    for case in cases:
        theirs = oracle.featurize(PymatgenComposition({Element.from_Z(number): count for number, count in case}))
        np.testing.assert_allclose(element_statistics(case), theirs, atol=1e-10, rtol=1e-12, err_msg=str(case))


def test_an_element_without_a_value_gets_the_mean_of_those_that_have_one() -> None:
    raw = json.loads(
        files("cdvae_kit.metrics.fingerprints").joinpath("magpie_elements.json").read_text(encoding="utf-8")
    )
    electronegativity = element_properties()[1:, property_names().index("Electronegativity")]
    known = [value for value in raw["Electronegativity"] if value is not None]
    # helium has none
    assert raw["Electronegativity"][1] is None and len(known) < 118
    assert electronegativity[1] == pytest.approx(sum(known) / len(known), rel=1e-14)
    assert electronegativity[7] == raw["Electronegativity"][7] == 3.44


def test_every_element_has_every_property() -> None:
    properties = element_properties()
    assert properties.shape == (119, 22) and np.isfinite(properties[1:]).all() and np.isnan(properties[0]).all()


def test_counts_without_their_common_divisor_give_the_same() -> None:
    np.testing.assert_allclose(element_statistics(((8, 6), (22, 3))), element_statistics(((8, 2), (22, 1))), atol=1e-12)


def test_the_mode_of_equally_frequent_elements_is_the_least_value() -> None:
    assert element_statistics(((8, 2), (22, 2)))[5] == 8
    assert element_statistics(((8, 1), (22, 2)))[5] == 22


def test_the_table_cannot_be_spoiled() -> None:
    with pytest.raises(ValueError, match="read-only"):
        element_properties()[1, 0] = 2.0
