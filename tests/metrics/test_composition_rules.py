"""The composition rules against a slow oracle that tries every choice of oxidation states."""

import itertools
import random
import warnings

import pytest
from pymatgen.core import Element

from cdvae_kit.metrics.composition_rules import MIXED_VALENCE, check_composition, element_table
from cdvae_kit.metrics.crystals import Composition, formula, reduce_composition


def composition(text: str) -> Composition:
    from pymatgen.core import Composition as PymatgenComposition

    return reduce_composition({e.Z: int(n) for e, n in PymatgenComposition(text).items()})


def pauling_passes(states: tuple[int, ...], values: list[float | None]) -> bool:
    """SMACT 2.2.1's test, pair after pair in the order of atomic numbers; a missing value that is compared passes."""
    for (first, low), (second, high) in itertools.combinations(zip(states, values, strict=True), 2):
        if first * second < 0:
            if low is None or high is None:
                return True
            if (low >= high) if first > 0 else (low <= high):
                return False
        elif low is None or high is None:
            return False
    return True


def slow_verdict(crystal: Composition, *, pauling: bool) -> bool:
    tables = [element_table(number, "smact-2014") for number, _ in crystal]
    if len(crystal) == 1 or all(table.metal for table in tables):
        return True
    return any(
        sum(state * count for state, (_, count) in zip(states, crystal, strict=True)) == 0
        and (not pauling or pauling_passes(states, [table.electronegativity for table in tables]))
        for states in itertools.product(*(table.oxidation_states for table in tables))
    )


def random_compositions(number: int, seed: int, max_elements: int = 4) -> list[Composition]:
    draw = random.Random(seed)
    compositions = []
    for _ in range(number):
        elements = draw.sample(range(1, 104), draw.randint(1, max_elements))
        # anions and elements without an electronegativity are rare under a uniform draw
        if draw.random() < 0.5:
            elements[0] = draw.choice([8, 9, 16])
        if draw.random() < 0.3:
            elements[-1] = draw.choice([2, 18, 61, 86, 103])
        compositions.append(reduce_composition({element: draw.randint(1, 6) for element in elements}))
    return compositions


@pytest.mark.parametrize("rule", ["smact-2014", "charge"])
def test_verdicts_are_those_of_trying_every_choice(rule):
    seed = 3
    for crystal in random_compositions(2_000, seed):
        fast = check_composition(crystal, rule) is None
        assert fast == slow_verdict(crystal, pauling=rule == "smact-2014"), f"{crystal}, seed {seed}"


def test_the_smact_rule_is_the_verdict_of_the_installed_package():
    screening = pytest.importorskip("smact.screening")
    seed = 5
    for crystal in random_compositions(300, seed, max_elements=3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = screening.smact_validity("".join(f"{Element.from_Z(z).symbol}{n}" for z, n in crystal))
        assert (check_composition(crystal, "smact") is None) == theirs, f"{formula(crystal)}, seed {seed}"


def test_the_random_compositions_hold_both_verdicts():
    verdicts = [check_composition(crystal) is None for crystal in random_compositions(2_000, 3)]
    assert 0.1 < sum(verdicts) / len(verdicts) < 0.9


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("NaCl", True),
        ("Na2O2", True),  # reduced to NaO, oxygen 1-
        ("NaF3", False),
        ("Fe3O4", False),  # one oxidation state an element: mixed valence fails, as published
        ("FeO", True),
        ("TiAl3", True),  # metals
        ("He", True),  # one element
        ("HeO", False),
        ("CsF", True),
        ("F2O", True),
        ("CsAu", True),
    ],
)
def test_known_compositions(text, valid):
    assert (check_composition(composition(text)) is None) == valid


def test_charge_alone_lets_pass_what_electronegativity_forbids():
    only_pauling = [
        crystal
        for crystal in random_compositions(500, 7)
        if check_composition(crystal, "charge") is None and check_composition(crystal, "smact-2014") is not None
    ]
    assert only_pauling
    assert all("electronegativity" in check_composition(crystal) for crystal in only_pauling)


def test_a_rule_with_stricter_tables_rejects_more():
    crystals = random_compositions(500, 9)
    old = sum(check_composition(crystal, "smact-2014") is None for crystal in crystals)
    new = sum(check_composition(crystal, "smact") is None for crystal in crystals)
    assert new < old


def test_multiples_of_one_formula_share_a_verdict():
    assert composition("Ba2Ti2O6") == composition("BaTiO3")


def test_twelve_elements_take_no_longer_than_a_few_shifts():
    # 8^12 choices: trying them all would take months
    numbers = [24, 25, 26, 42, 44, 74, 75, 76, 77, 78, 16, 6]
    crystal = reduce_composition({number: 7 + i for i, number in enumerate(numbers)})
    assert check_composition(crystal) is None or "electronegativity" in check_composition(crystal)


def test_an_element_outside_the_tables_is_named():
    assert check_composition(((8, 1), (112, 1))) == "the tables of the rule smact-2014 know nothing of Cn"
    assert "Cn" in check_composition(((8, 1), (112, 1)), "smact")


def test_the_tables_are_those_of_2_2_1_where_later_releases_differ():
    # iridium's lowest state and zirconium's electronegativity were changed in later releases
    assert min(element_table(77, "smact-2014").oxidation_states) == -2
    assert element_table(40, "smact-2014").electronegativity == 0.33


def test_an_unknown_rule_names_the_ones_there_are():
    with pytest.raises(ValueError, match="smact-2014, smact, smact-mixed, charge, got 'pauling'"):
        check_composition(((8, 1),), "pauling")


def test_the_mixed_rule_is_the_verdict_of_the_installed_package() -> None:
    screening = pytest.importorskip("smact.screening")
    elements = {Element.from_Z(number).symbol for number in MIXED_VALENCE}
    assert elements == set(screening.MIXED_VALENCE_ELEMENTS)
    draw, differing = random.Random(7), 0
    for _ in range(150):
        metal, other, anion = draw.choice(sorted(MIXED_VALENCE)), draw.randint(3, 90), draw.choice([8, 9, 16, 17])
        if len({metal, other, anion}) < 3:
            continue
        crystal = reduce_composition({metal: draw.randint(1, 3), other: draw.randint(1, 2), anion: draw.randint(1, 5)})
        text = "".join(f"{Element.from_Z(z).symbol}{n}" for z, n in crystal)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = screening.smact_validity(text, mixed_valence=True)
        assert (check_composition(crystal, "smact-mixed") is None) == theirs, f"{formula(crystal)}, seed 7"
        differing += (check_composition(crystal, "smact") is None) != theirs
    assert differing > 5


@pytest.mark.parametrize(("text", "valid"), [("Fe3O4", True), ("Mn3O4", True), ("NaF3", False), ("Na3O2", False)])
def test_iron_takes_two_charges_in_magnetite_by_the_mixed_rule_alone(text: str, valid: bool) -> None:
    assert (check_composition(composition(text), "smact-mixed") is None) == valid
    assert check_composition(composition(text), "smact") is not None
