"""SevenNet in batches: the values of its own calculator, one crystal at a time."""

import sys
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from cdvae_kit.crystal.conversion import atoms_to_batch
from cdvae_kit.relaxation import SevenNetPotential, make_calculator, relax

needs_sevenn = pytest.mark.skipif(find_spec("sevenn") is None, reason="the extra 'sevenn' is not installed")
PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def crystals() -> list[Atoms]:
    rng = np.random.default_rng(5)
    atoms = [
        bulk("NaCl", "rocksalt", a=5.5),
        bulk("Cu", "fcc", a=3.6) * (2, 1, 1),
        Atoms("SrTiO3", cell=np.eye(3) * 3.95, pbc=True, scaled_positions=PEROVSKITE),
    ]
    for one in atoms:
        one.rattle(0.1, rng=rng)
        one.set_cell(one.cell.array + rng.normal(size=(3, 3)) * 0.05, scale_atoms=True)
    return atoms


@needs_sevenn
def test_a_batch_has_the_values_of_its_own_calculator() -> None:
    from sevenn.calculator import SevenNetCalculator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = SevenNetCalculator("7net-l3i5", device="cpu")
    atoms = crystals()
    batch = atoms_to_batch(atoms, dtype=torch.float64)
    for size in (1, 2, 8):
        values = SevenNetPotential(batch_size=size).evaluate(batch)
        assert list(values.reasons) == [None] * 3
        for i, one in enumerate(atoms):
            one.calc = own
            inside = batch.batch == i
            assert float(values.energies[i]) == pytest.approx(one.get_potential_energy(), abs=2e-4)
            np.testing.assert_allclose(values.forces[inside], one.get_forces(), atol=2e-4)
            np.testing.assert_allclose(values.stresses[i], one.get_stress(voigt=False), atol=2e-5)


@needs_sevenn
def test_what_it_cannot_take_has_the_reason_and_stops_no_other() -> None:
    lonely = Atoms("Ar", cell=np.eye(3) * 30, pbc=True)
    unknown = bulk("Es", "fcc", a=5.0)
    results = relax([lonely, crystals()[0], unknown], "sevenn", max_steps=2, device="cpu")
    assert "no neighbour" in (results[0].reason or "") and "does not know Es" in (results[2].reason or "")
    assert results[1].energy is not None and results[1].energy < results[1].initial_energy


@needs_sevenn
def test_by_name_it_is_a_calculator_too() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.calc = make_calculator("sevenn", device="cpu")
    assert atoms.get_potential_energy() / 2 == pytest.approx(-3.4, abs=0.1)
    assert "SevenNet 7net-l3i5" in atoms.calc.name


def test_without_the_package_the_install_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sevenn", "sevenn.calculator"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"cdvae-kit\[sevenn\]"):
        relax([bulk("Cu")], "sevenn", device="cpu")
