"""Relaxation within the space group."""

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from moyopy import Cell, MoyoDataset
from pymatgen.core import Lattice, Structure

from cdvae_kit.crystal.arrays import CrystalArrays
from cdvae_kit.relaxation import LennardJones, PotentialValues, Relaxation, RelaxationSettings, relax
from cdvae_kit.relaxation.symmetry import idealised, operations_of, symmetrise

PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
RUTILE = Structure.from_spacegroup("P4_2/mnm", Lattice.tetragonal(4.6, 3.0), ["Ti", "O"], [[0, 0, 0], [0.31, 0.31, 0]])
COPPER_GOLD = Structure(Lattice.tetragonal(2.8, 3.9), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def group_of(result: Relaxation | CrystalArrays, symprec: float = 1e-4) -> int:
    cell = Cell(result.lattice.tolist(), result.frac_coords.tolist(), result.atomic_numbers.tolist())
    return int(MoyoDataset(cell, symprec=symprec).number)


class Crooked(LennardJones):
    """A potential that is not quite symmetric, as one with noise in it: it pulls every atom a little along x."""

    def evaluate(self, crystals: Any) -> PotentialValues:
        found = super().evaluate(crystals)
        pull = torch.linspace(0, 0.3, len(found.forces), dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.2, 0])
        skew = 0.01 * torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.float64)
        return PotentialValues(found.energies, found.forces + pull, found.stresses + skew, found.reasons)


class CrookedEMT(EMT):
    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = self.results["forces"] + np.linspace(0, 0.3, len(atoms))[:, None]
        self.results["stress"] = self.results["stress"] + np.array([0, 0, 0, 0.01, 0, 0.01])


@pytest.mark.parametrize("structure", [RUTILE, Structure(Lattice.cubic(3.9), ["Sr", "Ti", "O", "O", "O"], PEROVSKITE)])
def test_a_batch_keeps_its_space_group_where_it_is_asked_to(structure: Structure) -> None:
    start = idealised(
        CrystalArrays(structure.lattice.matrix, structure.frac_coords, np.array(structure.atomic_numbers)), 0.1
    )
    [kept] = relax([structure], Crooked(), max_steps=30, keep_symmetry=True)
    [free] = relax([structure], Crooked(), max_steps=30)
    assert kept.energy is not None and kept.steps > 3
    assert group_of(kept) == group_of(start) > 100
    # the control: the same forces break it
    assert group_of(free) < 16


def test_a_calculator_of_ase_keeps_it_too() -> None:
    [kept] = relax([COPPER_GOLD], CrookedEMT(), max_steps=30, keep_symmetry=True)
    [free] = relax([COPPER_GOLD], CrookedEMT(), max_steps=30)
    assert group_of(kept) == 123 and group_of(free) < 16


def test_what_has_the_symmetry_is_left_as_it_is() -> None:
    potential = LennardJones()
    [plain] = relax([RUTILE], potential, fmax=0.01)
    [kept] = relax([RUTILE], potential, fmax=0.01, keep_symmetry=True)
    assert plain.converged and kept.converged
    assert kept.energy_per_atom == pytest.approx(plain.energy_per_atom, abs=1e-4)


def test_atoms_off_their_places_are_put_there_first() -> None:
    shaken = RUTILE.copy()
    for i, shift in enumerate(np.random.default_rng(5).uniform(-0.02, 0.02, (len(shaken), 3))):
        shaken.translate_sites([i], shift, frac_coords=False)
    [kept] = relax([shaken], LennardJones(), max_steps=0, keep_symmetry=True, symprec=0.2)
    assert group_of(kept) == 136
    [as_it_is] = relax([shaken], LennardJones(), max_steps=0)
    assert group_of(as_it_is) == 1


def test_the_mean_over_the_group_has_its_symmetry_and_taken_twice_is_itself() -> None:
    start = idealised(CrystalArrays(RUTILE.lattice.matrix, RUTILE.frac_coords, np.array(RUTILE.atomic_numbers)), 0.01)
    operations = operations_of(start)
    rng = np.random.default_rng(3)
    forces, stress = rng.normal(size=(6, 3)), rng.normal(size=(3, 3))
    once = symmetrise(forces, stress + stress.T, start.lattice, operations)
    twice = symmetrise(*once, start.lattice, operations)
    assert len(operations.rotations) == 16
    for first, second in zip(once, twice, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-12)
    # tetragonal: two equal and one other, none off the diagonal
    assert np.abs(once[1] - np.diag(np.diag(once[1]))).max() < 1e-12
    assert len(set(np.diag(once[1]).round(9))) == 2
    # titanium sits at a centre of inversion
    assert np.abs(once[0][start.atomic_numbers == 22]).max() < 1e-12 < np.abs(forces).min()


def test_the_settings_say_it_only_where_it_is_so() -> None:
    assert "symmetry within 0.2 A kept" in str(RelaxationSettings(keep_symmetry=True, symprec=0.2))
    assert "symmetry" not in str(RelaxationSettings())
    with pytest.raises(ValueError, match="symprec"):
        RelaxationSettings(symprec=0.0)


def test_a_crystal_that_cannot_be_used_keeps_its_reason() -> None:
    crushed = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0.1]], cell=np.eye(3) * 4, pbc=True)
    found = relax([None, crushed], LennardJones(), keep_symmetry=True)
    assert [result.failed for result in found] == [True, True] and all(result.reason for result in found)
