import numpy as np
import pytest
from ase.build import bulk
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element
from pymatgen.entries.computed_entries import ComputedEntry

from cdvae_kit.relaxation import relax
from cdvae_kit.relaxation.hull import Phase, ReferenceHull, formation_hull, phases_of, phases_of_relaxations

LI, OX, F, NA, CL = 3, 8, 9, 11, 17
BINARY = [Phase({LI: 1}, -2.0, "Li"), Phase({F: 1}, -1.0, "F"), Phase({LI: 1, F: 1}, -4.5, "LiF")]


def hull_of(phases: list[Phase], **options: str) -> ReferenceHull:
    return ReferenceHull(phases, name="test", **options)  # type: ignore[arg-type]


def random_phases(elements: list[int], count: int, *, seed: int) -> list[Phase]:
    """The elements, and compounds of one to all of them."""
    rng = np.random.default_rng(seed)
    phases = [Phase({number: 1}, float(rng.uniform(-6, -1))) for number in elements]
    for _ in range(count):
        chosen = rng.choice(elements, rng.integers(1, len(elements) + 1), replace=False).tolist()
        counts = {number: int(rng.integers(1, 5)) for number in chosen}
        phases.append(Phase(counts, float(rng.uniform(-6, -3))))
    return phases


def test_a_binary_hull_is_the_one_drawn_by_hand() -> None:
    hull = hull_of(BINARY)
    # halfway between Li (-2.0) and LiF (-4.5), Li3F lies at 3/4 Li: -2.0 + 0.5 * (-2.5)
    assert hull.distance({LI: 3, F: 1}, -3.0).energy_above_hull == pytest.approx(0.25)
    assert hull.distance({LI: 3, F: 1}, -3.0).decomposition == pytest.approx({"Li": 0.5, "LiF": 0.5})
    assert hull.distance({LI: 2, F: 2}, -4.5).energy_above_hull == pytest.approx(0.0, abs=1e-9)
    assert hull.distance({LI: 1, F: 1}, -5.0).energy_above_hull == pytest.approx(-0.5)
    assert hull.distance({LI: 7}, -1.9).energy_above_hull == pytest.approx(0.1)


def test_the_lowest_polymorph_counts_whatever_its_formula_units_or_place() -> None:
    phases = [Phase({LI: 2, F: 2}, -4.0, "high"), *BINARY, Phase({LI: 4, F: 4}, -4.2, "higher")]
    for order in (phases, phases[::-1]):
        hull = hull_of(order)
        assert hull.num_phases == 3
        assert hull.distance({LI: 1, F: 1}, -4.5).energy_above_hull == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("num_elements", "seed"), [(2, 0), (3, 1), (4, 2), (5, 3)])
def test_distances_are_those_of_pymatgen(num_elements: int, seed: int) -> None:
    elements = [LI, OX, F, NA, CL][:num_elements]
    phases = random_phases(elements, 40, seed=seed)
    hull = hull_of(phases)
    entries = [
        PDEntry(
            Composition({Element.from_Z(z): count for z, count in phase.composition.items()}),
            phase.energy_per_atom * sum(phase.composition.values()),
        )
        for phase in phases
    ]
    diagram = PhaseDiagram(entries)
    for phase in [*phases, *random_phases(elements, 20, seed=seed + 100)]:
        composition = Composition({Element.from_Z(z): count for z, count in phase.composition.items()})
        expected = phase.energy_per_atom - diagram.get_hull_energy_per_atom(composition)
        found = hull.distance(phase.composition, phase.energy_per_atom)
        assert found.energy_above_hull == pytest.approx(expected, abs=1e-7), phase
        assert sum(found.decomposition.values()) == pytest.approx(1.0, abs=1e-4)


def test_no_phase_lies_under_its_own_hull() -> None:
    phases = random_phases([LI, OX, F, NA, CL], 60, seed=9)
    hull = hull_of(phases)
    distances = [hull.distance(phase.composition, phase.energy_per_atom).energy_above_hull for phase in phases]
    assert min(distances) > -1e-7  # type: ignore[type-var]
    assert sum(distance < 1e-7 for distance in distances) >= 5  # type: ignore[operator]


def test_ten_elements_take_no_longer_than_the_answer() -> None:
    elements = list(range(11, 21))
    hull = hull_of(random_phases(elements, 300, seed=4))
    assert hull.distance(dict.fromkeys(elements, 1), -3.0).energy_above_hull is not None


def test_an_element_without_a_phase_is_a_reason_and_never_a_zero() -> None:
    hull = hull_of(BINARY)
    for composition, words in (({LI: 1, CL: 1}, "pure Cl"), ({NA: 1, CL: 1}, "pure Na, Cl"), ({CL: 1}, "pure Cl")):
        distance = hull.distance(composition, -4.0)
        assert distance.energy_above_hull is None and words in (distance.reason or "")
    # a compound does not stand for its elements
    partial = hull_of([Phase({LI: 1}, -2.0), Phase({LI: 1, F: 1}, -4.5)])
    assert partial.distance({LI: 1, F: 1}, -4.5).reason == "the reference hull has no phase of pure F"
    assert partial.elements == (LI,)


@pytest.mark.parametrize("energy", [None, float("nan"), float("inf")])
def test_without_an_energy_there_is_no_distance(energy: float | None) -> None:
    assert hull_of(BINARY).distance({LI: 1}, energy).reason == "there is no energy"
    assert hull_of(BINARY).distance({}, -1.0).reason == "there is no atom"


def test_formation_energies_have_the_elements_at_zero() -> None:
    hull = hull_of([Phase({LI: 1, F: 1}, -3.0), Phase({NA: 1}, 0.2)], energies="formation")
    assert hull.distance({LI: 3, F: 1}, -1.0).energy_above_hull == pytest.approx(0.5)
    assert hull.distance({NA: 1}, 0.2).energy_above_hull == pytest.approx(0.2)
    assert hull.distance({CL: 1}, 0.0).reason is not None
    assert "formation energies" in str(hull)


def test_phases_are_made_of_what_people_have() -> None:
    expected = {OX: 3, 26: 2}
    given = [
        {"composition": "Fe2O3", "energy_per_atom": -6.7},
        {"composition": {"Fe": 2, "O": 3}, "energy_per_atom": "-6.7", "name": "haematite"},
        {"composition": {26: 2, 8: 3}, "energy_per_atom": -6.7},
        PDEntry("Fe2O3", -33.5),
        ComputedEntry("Fe2O3", -33.5, entry_id="mp-19770"),
        Phase(expected, -6.7, "given"),
    ]
    phases = phases_of(given)
    assert all(phase.composition == expected for phase in phases)
    assert all(phase.energy_per_atom == pytest.approx(-6.7) for phase in phases)
    assert [phase.name for phase in phases][1::3] == ["haematite", "mp-19770"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"composition": "Fe2O3"},
        {"energy_per_atom": -1.0},
        {"composition": "Quux9", "energy_per_atom": -1.0},
        {"composition": "Fe", "energy_per_atom": "low"},
        {"composition": "Fe", "energy_per_atom": float("nan")},
        {"composition": "", "energy_per_atom": -1.0},
        {"composition": {"Fe": -1}, "energy_per_atom": -1.0},
        3,
    ],
)
def test_an_entry_that_is_no_phase_is_named(wrong: object) -> None:
    with pytest.raises(ValueError, match="entry 1"):
        phases_of([BINARY[0], wrong])


def test_a_hull_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one phase"):
        hull_of([])


def test_a_reference_relaxed_by_the_same_calculator_is_on_its_own_hull() -> None:
    relaxed = relax([bulk("Cu"), bulk("Al"), bulk("Pu", "fcc", a=4.6)], "emt", fmax=0.01)
    phases = phases_of_relaxations(relaxed)
    assert [phase.composition for phase in phases] == [{29: 1}, {13: 1}]
    distances = ReferenceHull(phases, name="EMT").distances(relaxed)
    assert [distance.energy_above_hull for distance in distances] == [0.0, 0.0, None]
    assert "No EMT-potential" in (distances[2].reason or "")


def test_a_table_of_formation_energies_is_a_hull() -> None:
    table = [
        {"composition": "LiF", "energy_per_atom": -3.0, "energy_above_hull": 0.0, "name": "salt"},
        {"composition": "LiF2", "energy_per_atom": -1.0, "energy_above_hull": None, "name": "odd"},
    ]
    hull = formation_hull(table, name="table")
    assert hull.energies == "formation"
    assert hull.distance({3: 1, 9: 1}, -2.9).energy_above_hull == pytest.approx(0.1)
    # two thirds of the atoms in LiF, one in F
    assert hull.distance({3: 1, 9: 2}, -1.0).energy_above_hull == pytest.approx(1.0)


def test_an_energy_above_the_whole_hull_tells_of_phases_that_the_table_lacks() -> None:
    table = [{"composition": "LiF", "energy_per_atom": -2.8, "energy_above_hull": 0.2, "name": "layered"}]
    with_heights = formation_hull(table, name="whole").distance({3: 1, 9: 1}, -2.8)
    without = formation_hull(table, name="table", known_hull=False).distance({3: 1, 9: 1}, -2.8)
    assert with_heights.energy_above_hull == pytest.approx(0.2) and without.energy_above_hull == pytest.approx(0.0)
    assert list(with_heights.decomposition) == ["the hull at layered"]
