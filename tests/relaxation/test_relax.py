from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure

from cdvae_kit.crystal.conversion import atoms_to_batch
from cdvae_kit.relaxation import (
    LennardJones,
    PotentialCalculator,
    PotentialValues,
    Relaxation,
    RelaxationSettings,
    decode,
    encode,
    iter_relax,
    relax,
)
from cdvae_kit.relaxation.batched import iter_relax_batched
from cdvae_kit.relaxation.starts import starts_of
from tests.relaxation.zoo import random_crystals, squeezed_copper

POTENTIAL = LennardJones()
EMT_COPPER = 3.59
"""Angstrom: the fcc lattice constant of ASE's EMT, as in ASE's own tutorials."""


def same(a: Relaxation, b: Relaxation) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("lattice", "frac_coords", "energy", "steps", "reason", "max_force")
    )


class Broken(Calculator):
    """Gives what it is told to."""

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, *, energy: float = 0.0, force: float = 0.0, stress: float = 0.0, error: Exception | None = None):
        super().__init__()
        self.energy, self.force, self.stress, self.error = energy, force, stress, error

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if self.error is not None:
            raise self.error
        forces = np.full((len(self.atoms), 3), self.force)
        pressure = np.array([self.stress] * 3 + [0.0] * 3)
        self.results = {"energy": self.energy, "forces": forces, "stress": pressure}


@pytest.mark.parametrize("optimizer", ["FIRE", "FIRE2", "LBFGS", "BFGS"])
@pytest.mark.parametrize("start", [3.4, 3.75])
def test_copper_finds_the_lattice_constant_of_its_potential(optimizer: Any, start: float) -> None:
    (crystal,) = relax([squeezed_copper(start)], "emt", fmax=1e-3, optimizer=optimizer)
    assert crystal.converged and crystal.reason is None
    assert np.linalg.norm(crystal.lattice[0]) * 2**0.5 == pytest.approx(EMT_COPPER, abs=0.01)
    assert crystal.energy is not None and crystal.initial_energy is not None
    assert crystal.energy < crystal.initial_energy
    assert crystal.energy_per_atom == crystal.energy
    assert crystal.max_stress is not None and crystal.max_stress < 1e-3


def test_a_fixed_cell_stays_and_its_atoms_move() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, rng=np.random.default_rng(0))
    (crystal,) = relax([atoms], "emt", relax_cell=False)
    np.testing.assert_array_equal(crystal.lattice, crystal.initial_lattice)
    assert crystal.converged and crystal.max_stress is None
    assert crystal.energy is not None and crystal.initial_energy is not None
    assert crystal.energy < crystal.initial_energy


def test_no_steps_gives_energies_alone() -> None:
    (crystal,) = relax([squeezed_copper()], "emt", max_steps=0)
    assert crystal.energy == crystal.initial_energy and crystal.steps == 0
    assert crystal.reason is not None and crystal.reason.startswith("not converged after 0 steps: force 0.000")


def test_a_crystal_that_fails_stops_no_other_and_says_why() -> None:
    good = squeezed_copper()
    on_top = Atoms("Cu2", cell=np.eye(3) * 4, scaled_positions=[[0, 0, 0], [0, 0, 0]], pbc=True)
    unknown = bulk("Pu", "fcc", a=4.6)
    molecule = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2]])
    crystals = [good, on_top, None, unknown, molecule, good]
    results = relax(crystals, "emt")
    assert [crystal.failed for crystal in results] == [False, True, True, True, True, False]
    words = ["", "shortest distance", "could not be made", "No EMT-potential for Pu", "repeats along three axes", ""]
    for crystal, word in zip(results, words, strict=True):
        assert word in (crystal.reason or "")
    assert same(results[0], results[5])


@pytest.mark.parametrize("where", ["lattice", "frac_coords"])
@pytest.mark.parametrize("calculator", ["emt", "lj"])
def test_nan_is_a_reason(where: str, calculator: str) -> None:
    class Arrays:
        lattice = np.eye(3) * 3.6
        frac_coords = np.zeros((1, 3))
        atomic_numbers = np.array([29])

    broken = Arrays()
    setattr(broken, where, getattr(Arrays, where) * np.nan)
    bad, good = relax([broken, Arrays()], calculator)
    assert bad.failed and "NaN" in (bad.reason or "")
    assert not good.failed


@pytest.mark.parametrize(
    ("calculator", "words"),
    [
        (Broken(energy=float("nan")), "NaN or infinite"),
        (Broken(force=float("inf")), "NaN or infinite"),
        (Broken(stress=-1.0), "exploded"),
        (Broken(stress=1.0), "collapsed"),
        (Broken(error=KeyError("Cu")), "KeyError: 'Cu'"),
        (Broken(error=RuntimeError("out of memory")), "out of memory"),
    ],
)
def test_what_goes_wrong_on_the_way_is_named(calculator: Calculator, words: str) -> None:
    (crystal,) = relax([squeezed_copper()], calculator)
    assert crystal.failed and words in (crystal.reason or "")
    np.testing.assert_array_equal(crystal.lattice, crystal.initial_lattice)


def test_an_interrupt_gets_out_and_leaves_what_was_done() -> None:
    class Stops(EMT):
        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            if len(atoms) == 2:
                raise KeyboardInterrupt
            super().calculate(atoms, properties, system_changes)

    results = iter_relax([squeezed_copper(), squeezed_copper() * (2, 1, 1)], Stops())
    place, done = next(results)
    assert place == 0 and done.converged
    with pytest.raises(KeyboardInterrupt):
        next(results)


def test_results_do_not_depend_on_order_or_company() -> None:
    crystals = [squeezed_copper(3.4), bulk("Al", cubic=True), squeezed_copper(3.7)]
    calculator = EMT()
    forwards, backwards = relax(crystals, calculator), relax(crystals[::-1], calculator)
    assert all(same(a, b) for a, b in zip(forwards, backwards[::-1], strict=True))


@pytest.mark.slow
def test_two_workers_give_what_one_gives() -> None:
    crystals = [squeezed_copper(a) for a in np.linspace(3.4, 3.8, 6)] + [bulk("Pu", "fcc", a=4.6)]
    told: list[tuple[int, int]] = []
    alone = relax(crystals, "emt")
    both = relax(crystals, "emt", num_workers=2, progress=lambda done, total: told.append((done, total)))
    assert all(same(a, b) for a, b in zip(alone, both, strict=True))
    assert told[0] == (0, 7) and told[-1] == (7, 7)


def test_every_kind_of_crystal_is_taken() -> None:
    atoms = squeezed_copper()
    structure = Structure(Lattice(atoms.cell.array), ["Cu"], [[0, 0, 0]])
    results = relax([atoms, structure], "emt") + relax(atoms_to_batch([atoms], dtype=torch.float64), "emt")
    assert all(same(results[0], other) for other in results)
    assert relax([], "emt") == []
    with pytest.raises(TypeError, match="got str"):
        relax(["Cu"], "emt")  # type: ignore[list-item]


def test_a_calculator_without_stress_is_refused_before_anything_is_done() -> None:
    class NoStress(Broken):
        implemented_properties = ["energy", "forces"]

    with pytest.raises(ValueError, match="gives no stress"):
        relax([squeezed_copper()], NoStress())
    assert relax([squeezed_copper()], NoStress(), relax_cell=False)[0].converged


@pytest.mark.parametrize(
    "wrong",
    [
        {"fmax": 0.0},
        {"fmax": float("nan")},
        {"max_steps": -1},
        {"optimizer": "SGD"},
        {"min_distance": -1.0},
        {"max_volume_change": 1.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"got|known"):
        RelaxationSettings(**wrong)


def test_a_relaxation_survives_being_written_down() -> None:
    results = relax([squeezed_copper(), None, bulk("Pu", "fcc", a=4.6)], "emt", keep_trajectory=True)
    for crystal in results:
        back = decode(*encode(crystal))
        assert same(back, crystal) and back.initial_energy == crystal.initial_energy
        assert back.reason == crystal.reason and back.converged == crystal.converged
        assert len(back.trajectory) == len(crystal.trajectory)
    trajectory = decode(*encode(results[0])).trajectory
    assert len(trajectory) == results[0].steps + 1
    assert trajectory[0].energy == results[0].initial_energy and trajectory[-1].energy == results[0].energy
    np.testing.assert_array_equal(trajectory[-1].lattice, results[0].lattice)


# Batches


def test_a_batch_takes_the_steps_that_ase_takes_crystal_by_crystal() -> None:
    crystals = [*random_crystals(3, seed=11), squeezed_copper()]
    together = relax(crystals, POTENTIAL, max_steps=25)
    alone = relax(crystals, PotentialCalculator(POTENTIAL), max_steps=25)
    assert [crystal.steps for crystal in together] == [crystal.steps for crystal in alone]
    assert [crystal.reason for crystal in together] == [crystal.reason for crystal in alone]
    assert {crystal.converged for crystal in together} == {True, False}
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.energy_per_atom == pytest.approx(theirs.energy_per_atom, abs=1e-6)
        np.testing.assert_allclose(ours.lattice, theirs.lattice, atol=1e-5)
        np.testing.assert_allclose(ours.frac_coords, theirs.frac_coords, atol=1e-5)
        assert ours.max_stress == pytest.approx(theirs.max_stress, abs=1e-5)


def test_a_batch_in_fixed_cells_takes_the_steps_that_ase_takes() -> None:
    crystals = random_crystals(5, seed=12)
    together = relax(crystals, POTENTIAL, relax_cell=False, max_steps=25)
    alone = relax(crystals, PotentialCalculator(POTENTIAL), relax_cell=False, max_steps=25)
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.steps == theirs.steps
        assert ours.energy_per_atom == pytest.approx(theirs.energy_per_atom, abs=1e-8)


@pytest.mark.parametrize("atoms_at_once", [1, 7])
def test_the_size_of_the_batch_changes_nothing(atoms_at_once: int) -> None:
    starts = starts_of(random_crystals(8, seed=13))
    settings = RelaxationSettings(max_steps=15)
    expected = dict(iter_relax_batched(starts, POTENTIAL, settings))
    found = dict(iter_relax_batched(starts, POTENTIAL, settings, atoms_at_once=atoms_at_once))
    assert sorted(found) == list(range(8))
    for place, crystal in found.items():
        assert crystal.energy == pytest.approx(expected[place].energy, abs=1e-8)
        assert crystal.steps == expected[place].steps


def test_the_same_batch_twice_gives_the_same_bits() -> None:
    crystals = random_crystals(5, seed=14)
    first, second = (relax(crystals, POTENTIAL, max_steps=30) for _ in range(2))
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


class Moody:
    """Lennard-Jones that raises over gold, gives NaN for silver and blows platinum up."""

    name = "moody"

    def evaluate(self, crystals: Any) -> PotentialValues:
        numbers = crystals.atomic_numbers
        if (numbers == 79).any():
            raise KeyError("Au")
        values = POTENTIAL.evaluate(crystals)
        energies, stresses = values.energies.clone(), values.stresses.clone()
        energies[crystals.batch[numbers == 47]] = float("nan")
        stresses[crystals.batch[numbers == 78]] = -5.0 * torch.eye(3, dtype=torch.float64)
        return replace(values, energies=energies, stresses=stresses)


def test_a_batch_loses_only_the_crystals_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    metals = [bulk(symbol, "fcc", a=4.0) for symbol in ("Cu", "Au", "Ag", "Pt", "Ni")]
    results = relax(metals, Moody())
    words: Sequence[str] = ("", "KeyError: 'Au'", "NaN", "exploded", "")
    for crystal, word in zip(results, words, strict=True):
        assert crystal.failed == bool(word) and word in (crystal.reason or "")
    assert "one by one" in caplog.text
    alone = relax([metals[0]], POTENTIAL)[0]
    assert results[0].energy == pytest.approx(alone.energy, abs=1e-10) and results[0].steps == alone.steps


def test_a_batch_can_be_left_in_the_middle() -> None:
    crystals = random_crystals(8, seed=15)
    some = dict(islice(iter_relax(crystals, POTENTIAL), 3))
    everything = relax(crystals, POTENTIAL)
    assert len(some) == 3 and all(same(crystal, everything[place]) for place, crystal in some.items())


def test_a_trajectory_of_a_batch_goes_down_to_the_result() -> None:
    crystals = relax(random_crystals(3, seed=16), POTENTIAL, keep_trajectory=True)
    assert {crystal.failed for crystal in crystals} == {True, False}
    for crystal in crystals:
        # the step that was a fault is not in it
        assert len(crystal.trajectory) == crystal.steps + (not crystal.failed)
        assert crystal.trajectory[0].energy == crystal.initial_energy
        assert crystal.failed or crystal.trajectory[-1].energy == crystal.energy
        np.testing.assert_allclose(crystal.trajectory[0].lattice, crystal.initial_lattice, atol=1e-12)


def test_a_thousand_atoms_go_through_one_step() -> None:
    atoms = bulk("Cu", cubic=True) * (6, 6, 7)
    assert len(atoms) == 1008
    (crystal,) = relax([atoms], POTENTIAL, max_steps=1)
    assert crystal.steps == 1 and not crystal.failed


def test_batches_know_fire_alone() -> None:
    with pytest.raises(ValueError, match="FIRE alone, got BFGS"):
        relax([squeezed_copper()], POTENTIAL, optimizer="BFGS")


@pytest.mark.parametrize("calculator", [POTENTIAL, PotentialCalculator(POTENTIAL)])
def test_a_left_handed_cell_goes_the_way_of_its_mirror_image(calculator: Any) -> None:
    atoms = random_crystals(2, seed=17)[1]
    mirrored = atoms.copy()
    mirrored.set_cell(atoms.cell.array @ np.diag([1, 1, -1]), scale_atoms=True)
    assert np.linalg.det(mirrored.cell.array) * np.linalg.det(atoms.cell.array) < 0
    right, left = relax([atoms, mirrored], calculator, max_steps=15)
    assert right.energy == pytest.approx(left.energy, abs=1e-9)
    np.testing.assert_allclose(right.lattice @ np.diag([1, 1, -1]), left.lattice, atol=1e-8)


# CHGNet: an extra, with its weights inside


@pytest.mark.slow
def test_chgnet_in_batches_is_chgnet_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("chgnet", reason="the extra 'chgnet' is not installed")
    from cdvae_kit.relaxation import make_calculator

    crystals = [
        Structure(Lattice.cubic(a), ["Sr", "Ti", "O", "O", "O"], sites)
        for a in (3.8, 4.1)
        for sites in [[[0, 0, 0], [0.5, 0.5, 0.52], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]]
    ]
    lonely = Structure(Lattice.cubic(12.0), ["Xe"], [[0, 0, 0]])
    heavy = Structure(Lattice.cubic(3.0), ["Cf"], [[0, 0, 0]])
    alone = relax([*crystals, lonely, heavy], make_calculator("chgnet", device="cpu"), max_steps=5)
    together = relax([*crystals, lonely, heavy], "chgnet", max_steps=5, device="cpu")
    for ours, theirs in zip(together[:2], alone[:2], strict=True):
        assert ours.energy_per_atom == pytest.approx(theirs.energy_per_atom, abs=1e-4)
        assert ours.steps == theirs.steps
    assert [crystal.failed for crystal in together] == [False, False, True, True] == [c.failed for c in alone]
    assert "isolated atom" in (together[2].reason or "") and "does not know Cf" in (together[3].reason or "")
    assert capsys.readouterr().out == ""
