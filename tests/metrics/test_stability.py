from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from cdvae_kit.metrics.stability import METASTABLE, STABLE, stability
from cdvae_kit.metrics.sun import sun, sun_of
from cdvae_kit.relaxation import Relaxation, relax
from cdvae_kit.relaxation.hull import Phase, ReferenceHull

HULL = ReferenceHull(
    [Phase({29: 1}, 0.0, "Cu"), Phase({79: 1}, 0.0, "Au"), Phase({29: 1, 79: 1}, -0.1)], name="by hand"
)


def relaxed(energy_per_atom: float | None, numbers: list[int], **changes: Any) -> Relaxation:
    """A crystal with an energy that no calculator gave."""
    lattice = np.eye(3) * 3.0 * len(numbers) ** (1 / 3)
    sites = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])[: len(numbers)]
    fields: dict[str, Any] = {
        "atomic_numbers": np.array(numbers),
        "initial_lattice": lattice,
        "initial_frac_coords": sites,
        "lattice": lattice,
        "frac_coords": sites,
        "energy": None if energy_per_atom is None else energy_per_atom * len(numbers),
        "initial_energy": 1.0,
        "max_force": 0.0,
        "max_stress": 0.0,
        "steps": 3,
        "converged": energy_per_atom is not None,
        "reason": None if energy_per_atom is not None else "the calculator failed: KeyError: 'Cu'",
    }
    return Relaxation(**{**fields, **changes})


CRYSTALS = [
    relaxed(0.0, [29]),
    relaxed(0.05, [29]),
    relaxed(0.1, [79]),
    relaxed(0.2, [29, 79]),
    relaxed(-0.3, [29, 79]),
    relaxed(None, [29]),
    relaxed(0.0, [47]),
    relaxed(-50.0, [29]),
]


def test_rates_count_every_crystal() -> None:
    result = stability(CRYSTALS, HULL, calculator="a table")
    assert result.stable == [True, False, False, False, True, False, False, False]
    assert result.metastable == [True, True, True, False, True, False, False, False]
    assert result.stable_rate.value == 2 / 8 and result.metastable_rate.value == 4 / 8
    assert result.num_crystals == result.stable_rate.num_crystals == 8
    assert (result.num_judged, result.num_converged) == (5, 7)
    np.testing.assert_allclose(result.energies_above_hull[:5], [0.0, 0.05, 0.1, 0.3, -0.2], atol=1e-9)
    assert np.isnan(result.energies_above_hull[5:]).all()


def test_a_crystal_without_a_verdict_says_why() -> None:
    result = stability(CRYSTALS, HULL)
    assert [crystal.reason is None for crystal in result.crystals] == [True] * 5 + [False] * 3
    assert result.reasons == {
        "the calculator failed: KeyError": 1,
        "the reference hull has no phase of pure Ag": 1,
        "implausible": 1,
    }


def test_the_threshold_moves_metastable_alone() -> None:
    result = stability(CRYSTALS, HULL, threshold=0.3)
    assert result.stable == stability(CRYSTALS, HULL).stable
    assert result.metastable == [True, True, True, True, True, False, False, False]
    assert stability(CRYSTALS, HULL, threshold=0.0).metastable == result.stable
    with pytest.raises(ValueError, match="threshold"):
        stability(CRYSTALS, HULL, threshold=-0.1)


def test_the_convention_says_what_the_numbers_rest_on() -> None:
    text = stability(CRYSTALS, HULL, threshold=0.08, calculator="EMT, FIRE").convention
    for part in ("EMT, FIRE", "by hand (3 compositions, 2 elements)", "0.08 eV/atom", "ltol 0.3", "all 8 crystals"):
        assert part in text


def test_an_unconverged_crystal_counts_with_the_energy_it_reached() -> None:
    crystal = relaxed(0.05, [29], converged=False, reason="not converged after 3 steps")
    result = stability([crystal], HULL)
    assert result.metastable == [True] and result.num_converged == 0
    assert result.crystals[0].reason is None


def test_displacements_are_zero_of_what_did_not_move_and_missing_of_what_became_another() -> None:
    sites = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    still, moved = (
        relaxed(0.0, [29, 79]),
        relaxed(0.0, [29, 79], frac_coords=sites + np.array([[0.0, 0, 0], [0.1, 0, 0]])),
    )
    other = relaxed(0.0, [29, 79], lattice=np.diag([3.0, 3.0, 30.0]))
    result = stability([still, moved, other, CRYSTALS[5]], HULL)
    assert result.crystals[0].rms == pytest.approx(0.0, abs=1e-9)
    assert 0.01 < (result.crystals[1].rms or 0.0) < 0.2
    spacing = (np.linalg.det(moved.lattice) / 2) ** (1 / 3)
    assert result.crystals[1].rms_angstrom == pytest.approx((result.crystals[1].rms or 0.0) * spacing)
    assert result.crystals[2].rms is None and result.crystals[3].rms is None
    assert result.num_matching == 2 and result.mean_rms == pytest.approx((result.crystals[1].rms or 0.0) / 2)


def test_no_crystals_give_no_rate() -> None:
    result = stability([], HULL)
    assert (result.stable_rate.value, result.mean_rms, result.num_crystals) == (None, None, 0)
    assert sun([], [], [], threshold=0.1).sun.value is None


def test_from_cells_to_rates() -> None:
    crystals = relax([bulk("Cu", a=3.5), bulk("Cu", "bcc", a=2.9), bulk("Pu", "fcc", a=4.6), None], "emt", fmax=0.01)
    energy = crystals[0].energy_per_atom
    assert energy is not None
    result = stability(crystals, ReferenceHull([Phase({29: 1}, energy)], name="copper by EMT"))
    assert result.stable == [True, False, False, False]
    assert result.num_judged == 2
    assert 0 < (result.crystals[1].energy_above_hull or 0.0) < METASTABLE


# S.U.N.

S = [True, True, False, True, None]
U = [True, False, True, True, True]
N = [True, True, True, False, None]


def test_each_rate_is_the_share_that_is_all_of_its_letters() -> None:
    result = sun(S, U, N, threshold=STABLE)
    values = {name: interval.value for name, interval in result.rates.items()}
    assert values == pytest.approx({"S": 0.6, "U": 0.8, "N": 0.6, "SU": 0.4, "SN": 0.4, "UN": 0.4, "SUN": 0.2})
    assert all(interval.num_crystals == 5 for interval in result.rates.values())
    assert result.num_not_judged == {"S": 1, "U": 0, "N": 1}
    low, high = result.sun.low, result.sun.high
    assert low is not None and high is not None and 0 < low < 0.2 < high < 1


def test_a_joint_rate_is_never_more_than_its_parts() -> None:
    rng = np.random.default_rng(0)
    flags = [[bool(flag) for flag in row] for row in rng.random((3, 200)) > 0.4]
    rates = sun(*flags, threshold=0.1).rates
    for name, interval in rates.items():
        for letter in name:
            assert interval.value <= rates[letter].value  # type: ignore[operator]


def test_with_groups_the_stable_twin_of_an_unstable_first_one_counts() -> None:
    stable, unique, novel = [False, True, True], [True, False, True], [True, True, True]
    assert sun(stable, unique, novel, threshold=0.1).sun.value == pytest.approx(1 / 3)
    grouped = sun(stable, unique, novel, threshold=0.1, groups=["a", "a", "b"])
    assert grouped.sun.value == pytest.approx(2 / 3)
    assert grouped.rates["U"].value == pytest.approx(2 / 3)
    # and two stable twins count once
    twins = sun([True] * 3, [True, False, True], novel, threshold=0.1, groups=["a", "a", "b"])
    assert twins.sun.value == pytest.approx(2 / 3)


def test_both_thresholds_are_reported() -> None:
    result = stability(CRYSTALS, HULL, calculator="EMT")
    yes = [True] * len(CRYSTALS)
    at_hull, near_hull = sun_of(result, yes, yes, matcher="mattergen", reference="MP")
    assert (at_hull.sun.value, near_hull.sun.value) == (2 / 8, 4 / 8)
    assert at_hull.num_not_judged["S"] == 3
    assert "at most 0 eV/atom" in at_hull.convention and "at most 0.1 eV/atom" in near_hull.convention
    for part in ("EMT", "by hand", "mattergen", "not in MP", "all 8 crystals"):
        assert part in str(near_hull)


def test_verdicts_of_another_number_of_crystals_are_refused() -> None:
    with pytest.raises(ValueError, match="5 stable, 4 unique, 5 novel"):
        sun(S, U[:4], N, threshold=0.1)
    with pytest.raises(ValueError, match="2 groups"):
        sun(S, U, N, threshold=0.1, groups=[1, 2])
