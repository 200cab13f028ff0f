"""Templates: what they tell apart, what they do not, and what is counted of them."""

import pytest
from pymatgen.core import Lattice, Structure

from cdvae_kit.metrics import EvaluationSettings, evaluate
from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.metrics.symmetry import chi_square
from cdvae_kit.metrics.templates import template, templates_of

EXTENDED = EvaluationSettings(fingerprints=False, extended=True)
PEROVSKITE_SITES = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def perovskite(*species: str, length: float = 3.9) -> Structure:
    a, b, x = species
    return Structure(Lattice.cubic(length), [a, b, x, x, x], PEROVSKITE_SITES)


def rock_salt(*species: str) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), list(species), sites)


def of(structure: Structure) -> str | None:
    return template(as_arrays([structure])[0])


def test_neither_elements_nor_lengths_nor_cells_matter() -> None:
    expected = of(perovskite("Sr", "Ti", "O"))
    assert expected == "221: 1 m-3m | 1 m-3m | 3 4/mm.m"
    assert of(perovskite("Cs", "Pb", "I", length=6.2)) == expected
    assert of(perovskite("Sr", "Ti", "O") * (2, 1, 1)) == expected
    assert of(rock_salt("Na", "Cl")) == of(rock_salt("Na", "Cl").get_primitive_structure())


def test_the_choice_of_the_origin_does_not_matter() -> None:
    shifted = perovskite("Sr", "Ti", "O")
    shifted.translate_sites(range(5), [0.5, 0.5, 0.5])
    assert of(shifted) == of(perovskite("Sr", "Ti", "O"))


def test_group_sites_and_their_share_among_elements_matter() -> None:
    stretched = Structure(Lattice.tetragonal(3.9, 4.4), perovskite("Sr", "Ti", "O").species, PEROVSKITE_SITES)
    mixed = perovskite("Sr", "Ti", "O")
    mixed.replace(0, "O")
    kinds = {of(perovskite("Sr", "Ti", "O")), of(stretched), of(mixed), of(rock_salt("Na", "Cl"))}
    assert len(kinds) == 4 and None not in kinds


def test_what_cannot_be_used_has_none() -> None:
    assert templates_of(as_arrays([None]), 0.1) == [None]


def test_new_templates_are_counted_once() -> None:
    generated = [perovskite("Cs", "Pb", "I"), perovskite("Sr", "Ti", "O"), rock_salt("Na", "Cl"), None]
    found = evaluate(generated, train=[perovskite("Ba", "Ti", "O")], settings=EXTENDED)
    assert (found.metrics["unique_templates"].value, found.metrics["novel_unique_templates"].value) == (2, 1)
    assert [row.verdicts["novel_template"] for row in found.crystals] == [False, False, True, None]
    assert "novel_unique_templates" not in evaluate(generated, settings=EXTENDED).metrics


# Space groups as sets


def test_the_chi_square_distance_is_that_by_hand_and_of_scipy() -> None:
    from scipy.stats import chisquare

    generated, reference = [1] * 5 + [2] * 3 + [225] * 2 + [99] * 7, [1] * 2 + [2] * 2 + [225] * 4 + [62] * 2
    # 99 does not occur in the reference: shares of ten
    by_hand = (0.5 - 0.2) ** 2 / 0.2 + (0.3 - 0.2) ** 2 / 0.2 + (0.2 - 0.4) ** 2 / 0.4 + 0.2**2 / 0.2
    assert chi_square(generated, reference) == pytest.approx(by_hand)
    assert chisquare([0.5, 0.3, 0.2, 0.0], [0.2, 0.2, 0.4, 0.2]).statistic == pytest.approx(by_hand)
    assert chi_square(reference, reference) == 0.0 and chi_square([5], [1]) is None


def test_atoms_only_near_their_places_are_p1_at_the_exact_tolerance() -> None:
    shaken = rock_salt("Na", "Cl")
    shaken.translate_sites([0], [0.004, 0.002, 0.003])
    shaken.translate_sites([1], [-0.003, 0.003, 0.001])
    found = evaluate([shaken], settings=EvaluationSettings(fingerprints=False, symprec=0.1)).metrics
    assert (found["share_p1"].value, found["share_p1_exact"].value) == (0.0, 1.0)
    ideal = evaluate([rock_salt("Na", "Cl")], settings=EvaluationSettings(fingerprints=False)).metrics
    assert ideal["share_p1_exact"].value == 0.0


def test_cells_that_are_not_primitive_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate([rock_salt("Na", "Cl") * (3, 1, 1)], settings=EvaluationSettings(fingerprints=False))
    assert "Omitted" not in capfd.readouterr().err
