"""The one call of the matcher: verdicts of pymatgen alone, with the pairs that cannot match turned away first."""

import time

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cdvae_kit.io import read_crystals
from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.metrics.matching.matcher import MATCHERS, Matcher, alloy_groups, compare, match, matcher_of
from cdvae_kit.metrics.matching.prefilter import may_match
from cdvae_kit.metrics.matching.reduced_cells import Prepared, prepare_all
from tests.metrics.conftest import ParitySet
from tests.metrics.same_crystals import (
    DESCRIPTIONS,
    caesium_chloride,
    permuted,
    perovskite,
    plain,
    rock_salt,
    shifted,
    stop_matching,
    supercell,
    swapped,
    turned,
)


def prepared(structures: list[Structure], matcher: Matcher) -> list[Prepared]:
    return prepare_all(as_arrays(structures), primitive=matcher.primitive)


def assert_verdicts_are_pymatgens(structures: list[Structure], matcher: Matcher) -> int:
    """Compares every pair of one composition both ways round; how many pairs matched."""
    crystals, judge = prepared(structures, matcher), plain(matcher)
    num_matches = 0
    for i, first in enumerate(crystals):
        others = [
            j
            for j, other in enumerate(crystals)
            if j != i and other.crystal.reduced_composition == first.crystal.reduced_composition
        ]
        same = list(compare(first, [crystals[j] for j in others], matcher))
        near = list(compare(first, [crystals[j] for j in others], matcher, distances=True))
        for j, verdict, distance in zip(others, same, near, strict=True):
            assert verdict.matches == judge.fit(structures[i], structures[j]), (i, j)
            theirs = judge.get_rms_dist(structures[i], structures[j])
            assert distance.rms == (None if theirs is None else float(theirs[0])), (i, j)
            num_matches += verdict.matches
    return num_matches


def distorted(seed: int) -> list[Structure]:
    """Polymorphs, other descriptions of them and versions that are strained and shaken more and more."""
    generator = np.random.default_rng(seed)
    start = [
        rock_salt().get_primitive_structure(),
        caesium_chloride(),
        supercell(turned(shifted(permuted(rock_salt().get_primitive_structure())))),
    ]
    strained = []
    for amount in (0.05, 0.15):
        for structure in start[:2]:
            strain = np.eye(3) + amount * generator.normal(size=(3, 3))
            moved = structure.frac_coords + amount * generator.normal(size=structure.frac_coords.shape) / 3
            strained.append(Structure(Lattice(structure.lattice.matrix @ strain), structure.species, moved))
    return start + strained


@pytest.mark.parametrize("name", ["cdvae", "mattergen"])
def test_every_verdict_on_distorted_polymorphs_is_pymatgens(name: str) -> None:
    seed = 4
    assert assert_verdicts_are_pymatgens(distorted(seed), MATCHERS[name]) > 0, f"seed {seed}"


@pytest.mark.parametrize("change", [{"scale": False}, {"primitive": False}])
def test_unscaled_and_unreduced_comparisons_are_pymatgens_too(change: dict[str, bool]) -> None:
    larger = caesium_chloride(a=6.0)
    structures = [caesium_chloride(), caesium_chloride() * (2, 1, 1), larger, *distorted(5)[-2:]]
    assert_verdicts_are_pymatgens(structures, Matcher(0.2, 0.3, 5.0, **change))


def disguised(structures: list[Structure]) -> list[Structure]:
    """All of one composition per pattern of counts, so that polymorphs are many: elements by rising count."""
    kinds = ["O", "Ti", "Ba", "La", "Zr", "Nd", "S", "Fe", "Cu", "Ag"]
    worn = []
    for structure in structures:
        counts = structure.composition.get_el_amt_dict()
        names = dict(zip(sorted(counts, key=lambda name: (counts[name], name)), kinds, strict=False))
        worn.append(Structure(structure.lattice, [names[s.symbol] for s in structure.species], structure.frac_coords))
    return worn


@pytest.mark.parametrize("name", ["cdvae", "mattergen"])
def test_every_verdict_on_crystals_in_disguise_is_pymatgens(parity_set: ParitySet, name: str) -> None:
    num_each = {"perov_a": 4, "inorg_a": 12}[parity_set.name]
    structures = disguised([*parity_set.reference[:num_each], *parity_set.generated[:num_each]])
    assert assert_verdicts_are_pymatgens(structures, MATCHERS[name]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cdvae", "mattergen"])
def test_every_verdict_on_whole_parity_sets_is_pymatgens(parity_set: ParitySet, name: str) -> None:
    assert_verdicts_are_pymatgens([*parity_set.reference, *parity_set.generated], MATCHERS[name])
    assert assert_verdicts_are_pymatgens(disguised(parity_set.reference[:60]), MATCHERS[name]) > 0


def test_carbon_is_told_apart_as_pymatgen_does(shared_dir) -> None:
    crystals = as_arrays(read_crystals(shared_dir / "data" / "carbon_24" / "val.csv.gz").crystals)
    structures = [crystal.structure() for crystal in crystals if len(crystal.atomic_numbers) <= 6][:9]
    matcher = MATCHERS["mattergen"]
    assert assert_verdicts_are_pymatgens(structures, matcher) > 0
    cells = prepared(structures, matcher)
    left = [may_match(cell, cells, ltol=0.2, angle_tol=5.0, scale=True).sum() for cell in cells]
    # itself among them
    assert sum(left) < 0.5 * len(cells) ** 2


@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_another_description_passes_and_matches(description) -> None:
    first, second = as_arrays([perovskite(), description(perovskite())])
    found = match(first, second, MATCHERS["mattergen"])
    assert found.matches and found.asked and found.rms == pytest.approx(0.0, abs=1e-6)


def test_elements_that_trade_places_do_not_match() -> None:
    first, second = as_arrays([perovskite(), swapped(perovskite())])
    assert match(first, second, MATCHERS["mattergen"]).reason == "another structure"


def test_a_needle_and_a_plate_are_turned_away_without_the_matcher() -> None:
    cell = caesium_chloride()
    needle = Structure(Lattice.orthorhombic(2.5, 2.5, 60), cell.species, cell.frac_coords)
    plate = Structure(Lattice.orthorhombic(20, 20, 2), cell.species, cell.frac_coords)
    structures = [cell, needle, plate]
    crystals = prepared(structures, MATCHERS["cdvae"])
    results = list(compare(crystals[0], crystals, MATCHERS["cdvae"]))
    assert [result.matches for result in results] == [True, False, False]
    assert [result.asked for result in results] == [True, False, False]
    assert_verdicts_are_pymatgens(structures, MATCHERS["cdvae"])


def test_an_error_of_the_matcher_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_matching(monkeypatch, ValueError("no lattice"))
    crystals = prepared([perovskite(), perovskite()], MATCHERS["cdvae"])
    (result,) = compare(crystals[0], crystals[1:], MATCHERS["cdvae"])
    assert (result.matches, result.failed) == (False, True)
    assert result.reason == "the matcher failed: ValueError: no lattice"


def test_ctrl_c_is_not_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_matching(monkeypatch, KeyboardInterrupt())
    crystals = prepared([perovskite(), perovskite()], MATCHERS["cdvae"])
    with pytest.raises(KeyboardInterrupt):
        list(compare(crystals[0], crystals[1:], MATCHERS["cdvae"]))


def random_cell(num_atoms: int, seed: int) -> Structure:
    generator = np.random.default_rng(seed)
    lattice = Lattice(np.eye(3) * 2.2 * num_atoms ** (1 / 3) + generator.normal(size=(3, 3)) / 2)
    return Structure(lattice, ["Si"] * num_atoms, generator.random((num_atoms, 3)))


def test_a_thousand_atoms_do_not_hang() -> None:
    """pymatgen's search for a smaller cell alone takes minutes and gigabytes here."""
    cell = random_cell(1_000, 6)
    shifted = Structure(cell.lattice, cell.species, cell.frac_coords + 0.3)
    start = time.process_time()
    first, second, other = prepared([cell, shifted, random_cell(1_000, 7)], MATCHERS["mattergen"])
    assert len(first.reduced.atomic_numbers) == 1_000
    assert [result.matches for result in compare(first, [second, other], MATCHERS["mattergen"])] == [True, False]
    assert time.process_time() - start < 20


def test_a_large_cell_that_repeats_itself_is_still_reduced() -> None:
    large = rock_salt() * (3, 3, 3)
    (crystal,) = prepared([large], MATCHERS["mattergen"])
    assert len(large) == 216 and len(crystal.reduced.atomic_numbers) == 2


def test_tolerances_have_names() -> None:
    assert matcher_of("cdvae") == Matcher(0.3, 0.5, 10.0)
    assert matcher_of("mattergen") == Matcher(0.2, 0.3, 5.0)
    assert matcher_of(Matcher(stol=0.1)).stol == 0.1
    with pytest.raises(ValueError, match=r"there is no matcher 'pymatgen': choose cdvae, mattergen"):
        matcher_of("pymatgen")  # type: ignore[arg-type]


def test_lemat_asks_for_nearer_lengths_than_mattergen() -> None:
    stretched = Structure(Lattice.tetragonal(4.1, 4.1 * 1.3), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    first, second = as_arrays([caesium_chloride(), stretched])
    verdicts = {name: match(first, second, MATCHERS[name]).matches for name in ("mattergen", "lemat")}
    assert verdicts == {"mattergen": True, "lemat": False}


FACE_CENTRED = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def layers_along_c() -> Structure:
    """Copper-gold L1_0: planes (001) of one element each."""
    return Structure(Lattice.cubic(3.9), ["Cu", "Cu", "Au", "Au"], FACE_CENTRED)


def pairs_along_c() -> Structure:
    """The same alloy with two planes of each element after one another."""
    coords = np.concatenate([FACE_CENTRED, np.add(FACE_CENTRED, [0, 0, 1])]) / [1, 1, 2]
    species = ["Cu" if z < 0.4 else "Au" for z in coords[:, 2]]
    return Structure(Lattice.tetragonal(3.9, 7.8), species, coords)


@pytest.mark.parametrize("turn_round", [False, True])
def test_orders_of_one_alloy_are_the_same_only_when_disordered(turn_round: bool) -> None:
    structures = [layers_along_c(), pairs_along_c()]
    first, second = as_arrays(structures[::-1] if turn_round else structures)
    assert not match(first, second, MATCHERS["mattergen"]).matches
    assert match(first, second, MATCHERS["mattergen-disordered"]).matches


def test_disorder_does_not_join_other_frameworks_nor_other_compositions() -> None:
    disordered = MATCHERS["mattergen-disordered"]
    rock, caesium, other = as_arrays([rock_salt("Na"), caesium_chloride("Na"), rock_salt("K")])
    assert not match(rock, caesium, disordered).matches
    assert match(rock, other, disordered).reason == "another composition: NaCl instead of KCl"


def test_ions_that_replace_each_other_may_trade_places() -> None:
    """MatterGen's own case: strontium and barium on two sites of an oxide."""
    coords = [[0, 0, 0], [0.5, 0.5, 0.5], [0.4, 0.6, 0.2], [0, 0, 0.75]]
    oxide, traded = (Structure(Lattice.cubic(6), ["O", "O", *pair], coords) for pair in (("Sr", "Ba"), ("Ba", "Sr")))
    moved = Structure(Lattice.cubic(6), oxide.species, [[0, 0, 0], [0.75, 0.2, 0.1], [0.25, 0.3, 0.5], [0, 0, 0.75]])
    first, same, other = as_arrays([oxide, traded, moved])
    assert match(first, same, MATCHERS["mattergen-disordered"]).matches
    assert not match(first, other, MATCHERS["mattergen-disordered"]).matches


@pytest.mark.parametrize(
    ("formula", "groups"),
    [
        ("O2BePo", ()),
        ("O2SrBa", ((38, 56),)),
        ("ZnCl", ()),
        ("Fe2NiMn", ((25, 26, 28),)),
        ("NaCl", ()),
        ("CuAu", ((29, 79),)),
        # no radius, no electronegativity
        ("HeNe", ()),
        ("C", ()),
    ],
)
def test_elements_replace_each_other_by_size_and_electronegativity(formula: str, groups: tuple) -> None:
    from pymatgen.core import Composition

    amounts = Composition(formula)
    composition = tuple(sorted((element.Z, int(count)) for element, count in amounts.items()))
    assert alloy_groups(composition) == groups
