"""Rates by the number of atoms."""

import pytest
from pymatgen.core import Lattice, Structure

from cdvae_kit.metrics import EvaluationSettings, evaluate
from cdvae_kit.metrics.by_size import rates_by_size

SALT = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CRUSHED = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0, 0, 0.02]])
PLAIN = EvaluationSettings(fingerprints=False)


def test_each_class_has_its_own_rate_and_all_of_them_together_the_whole() -> None:
    crystals = [SALT, CRUSHED, SALT * (4, 1, 1), SALT * (3, 2, 2), None]
    found = [entry for entry in rates_by_size(evaluate(crystals, settings=PLAIN)) if entry.name == "valid"]
    assert [(entry.sizes, entry.rate.value, entry.rate.num_crystals) for entry in found] == [
        ("1-5", 0.5, 2),
        ("6-10", 1.0, 1),
        ("21 and more", 1.0, 1),
    ]
    assert sum(entry.rate.value * entry.rate.num_crystals for entry in found) / 5 == 0.6  # type: ignore[operator]
    assert all(entry.rate.low is not None and entry.rate.low <= entry.rate.value for entry in found)  # type: ignore[operator]


def test_the_edges_belong_to_the_class_below() -> None:
    found = rates_by_size(evaluate([SALT, SALT * (2, 1, 1)], settings=PLAIN), edges=(2, 3))
    assert {entry.sizes for entry in found} == {"1-2", "4 and more"}


@pytest.mark.parametrize("edges", [(), (5, 5), (9, 3), (0, 4)])
def test_edges_that_make_no_sense_are_refused(edges: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rising"):
        rates_by_size(evaluate([SALT], settings=PLAIN), edges=edges)
