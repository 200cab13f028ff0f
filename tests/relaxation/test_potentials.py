import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.data import covalent_radii

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.conversion import atoms_to_batch
from cdvae_kit.relaxation import LennardJones
from tests.relaxation.zoo import random_crystals

POTENTIAL = LennardJones()


def batch_of(atoms: list[Atoms]) -> CrystalBatch:
    return atoms_to_batch(atoms, dtype=torch.float64)


def energies(crystals: CrystalBatch) -> torch.Tensor:
    return POTENTIAL.evaluate(crystals).energies


@pytest.mark.parametrize("symbol", ["Cu", "O", "Cs"])
def test_of_one_element_it_is_ases_potential(symbol: str) -> None:
    rng = np.random.default_rng(7)
    atoms = bulk(symbol, "fcc", a=2.9 * covalent_radii[Atoms(symbol).numbers[0]]) * (2, 1, 1)
    atoms.rattle(0.1, rng=rng)
    atoms.set_cell(atoms.cell.array + rng.normal(size=(3, 3)) * 0.1, scale_atoms=True)
    sigma = 2 * covalent_radii[atoms.numbers[0]] / 2 ** (1 / 6)
    atoms.calc = AseLennardJones(sigma=sigma, epsilon=0.2, rc=2.5 * sigma, ro=1.8 * sigma, smooth=True)
    values = POTENTIAL.evaluate(batch_of([atoms]))
    assert values.energies[0].item() == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(values.forces, atoms.get_forces(), atol=1e-10)
    np.testing.assert_allclose(values.stresses[0], atoms.get_stress(voigt=False), atol=1e-10)


def test_the_fcc_crystal_has_the_spacing_and_the_energy_of_the_lattice_sums() -> None:
    # Kittel, Introduction to Solid State Physics, chapter 3: R0/sigma = 1.09, U = -8.6 epsilon, of the full sums
    potential = LennardJones(epsilon=1.0, cutoff=9.0, onset=8.0)
    sigma = 2 * covalent_radii[29] / 2 ** (1 / 6)
    spacings = np.linspace(1.08, 1.10, 41)
    values = potential.evaluate(batch_of([bulk("Cu", "fcc", a=2**0.5 * sigma * spacing) for spacing in spacings]))
    assert spacings[int(values.energies.argmin())] == pytest.approx(1.0902, abs=1e-3)
    assert values.energies.min().item() == pytest.approx(-8.61, abs=0.02)


def test_forces_are_minus_the_slope_of_the_energy() -> None:
    crystals = batch_of(random_crystals(5, seed=3))
    forces = POTENTIAL.evaluate(crystals).forces
    step = 1e-5
    for atom in range(0, len(forces), 2):
        for axis in range(3):
            shift = torch.zeros_like(crystals.cart_coords)
            shift[atom, axis] = step
            frac_shift = torch.einsum("ni,nij->nj", shift, torch.linalg.inv(crystals.lattice)[crystals.batch])
            ahead, behind = (
                energies(crystals.replace(frac_coords=crystals.frac_coords + sign * frac_shift)).sum()
                for sign in (1, -1)
            )
            slope = float(ahead - behind) / (2 * step)
            assert float(forces[atom, axis]) == pytest.approx(-slope, rel=1e-5, abs=1e-5)


def test_stress_is_the_slope_of_the_energy_by_strain() -> None:
    crystals = batch_of(random_crystals(5, seed=4))
    stresses = POTENTIAL.evaluate(crystals).stresses
    volumes = torch.linalg.det(crystals.lattice).abs()
    step = 1e-6
    for i, j in ((0, 0), (1, 1), (0, 1), (2, 0)):
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[i, j] += step / 2
        strain[j, i] += step / 2
        ahead, behind = (
            energies(crystals.replace(lattice=crystals.lattice @ (torch.eye(3) + sign * strain))) for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * step) / volumes
        torch.testing.assert_close(stresses[:, i, j], slope, rtol=1e-4, atol=1e-5)


def test_energy_does_not_change_as_the_crystal_is_turned_shifted_or_its_atoms_renamed() -> None:
    crystals = batch_of(random_crystals(5, seed=5))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    before = energies(crystals)
    torch.testing.assert_close(energies(crystals.replace(lattice=crystals.lattice @ turn)), before)
    torch.testing.assert_close(energies(crystals.replace(frac_coords=crystals.frac_coords + 0.37)), before)
    last = crystals.select([4])
    order = torch.tensor([3, 0, 4, 2, 1])
    renamed = last.replace(frac_coords=last.frac_coords[order], atomic_numbers=last.atomic_numbers[order])
    torch.testing.assert_close(energies(renamed), before[4:])
    # the control: elements that change places without their positions, and a cell that is sheared
    assert abs(float(energies(last.replace(atomic_numbers=last.atomic_numbers[order])) - before[4])) > 1e-3
    shear = torch.eye(3, dtype=torch.float64)
    shear[0, 1] = 0.1
    assert (energies(crystals.replace(lattice=crystals.lattice @ shear)) - before).abs().max() > 1e-3


def test_a_batch_gives_what_its_crystals_give_alone() -> None:
    crystals = batch_of(random_crystals(7, seed=6))
    together = POTENTIAL.evaluate(crystals)
    alone = [POTENTIAL.evaluate(crystals.select([b])) for b in range(7)]
    torch.testing.assert_close(together.energies, torch.cat([values.energies for values in alone]))
    torch.testing.assert_close(together.forces, torch.cat([values.forces for values in alone]))
    torch.testing.assert_close(together.stresses, torch.cat([values.stresses for values in alone]))


def test_the_zoo_has_finite_values(zoo: CrystalBatch) -> None:
    values = POTENTIAL.evaluate(zoo)
    assert values.energies.isfinite().all() and values.forces.isfinite().all() and values.stresses.isfinite().all()


def test_an_element_without_a_radius_loses_its_crystal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = LennardJones()
    monkeypatch.setitem(
        potential.__dict__, "_sizes", potential._sizes.clone().index_fill(0, torch.tensor([97]), torch.nan)
    )
    copper, berkelium = batch_of([bulk("Cu")]), batch_of([bulk("Bk", "fcc", a=5.0)])
    values = potential.evaluate(concatenate([copper, berkelium, copper]))
    assert values.reasons == [None, "Lennard-Jones has no covalent radius of Bk", None]
    assert values.energies[0] == values.energies[2] == energies(copper)[0]
    assert values.energies.isnan().tolist() == [False, True, False] == values.forces.isnan().all(1).tolist()


def test_a_cutoff_before_the_onset_is_refused() -> None:
    with pytest.raises(ValueError, match="0 < onset < cutoff"):
        LennardJones(cutoff=1.0, onset=1.5)
