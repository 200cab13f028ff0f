"""Six standardised numbers for a lattice."""

from typing import Literal

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import lattice_parameters, metric_tensor, volume
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import describe
from cdvae_kit.models.lattice_coding import LatticeCoding
from cdvae_kit.seeding import make_generator
from tests.models.crystals import cast, ordinary_crystals
from tests.models.tiny import some_crystals

Kind = Literal["log_stretch", "lengths_angles"]
KINDS: tuple[Kind, ...] = ("log_stretch", "lengths_angles")


def fitted(kind: Kind, crystals: CrystalBatch) -> LatticeCoding:
    coding = LatticeCoding(kind)
    coding.fit(crystals.lattice, atoms(crystals.num_atoms))
    return coding


def atoms(num_atoms: torch.Tensor) -> Orbits:
    return Orbits.without_symmetry(num_atoms)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 3e-4)])
def test_awkward_lattices_come_back(kind: Kind, dtype: torch.dtype, tolerance: float, zoo: CrystalBatch) -> None:
    lattice = zoo.lattice.to(dtype)
    coding = fitted(kind, zoo)
    again = coding.primitive(coding.encode(lattice, atoms(zoo.num_atoms)), atoms(zoo.num_atoms))
    # up to a rotation of the crystal
    torch.testing.assert_close(metric_tensor(again), metric_tensor(lattice), rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_a_turned_crystal_has_the_same_six_numbers(kind: Kind, zoo: CrystalBatch) -> None:
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=make_generator(1), dtype=torch.float64))
    coding = fitted(kind, zoo)
    expected = coding.encode(zoo.lattice, atoms(zoo.num_atoms))
    torch.testing.assert_close(coding.encode(zoo.lattice @ turn, atoms(zoo.num_atoms)), expected, rtol=1e-6, atol=1e-6)
    # the control: a sheared one has not
    shear = torch.eye(3, dtype=torch.float64)
    shear[0, 1] = 0.2
    assert not torch.allclose(coding.encode(zoo.lattice @ shear, atoms(zoo.num_atoms)), expected, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_the_cell_is_taken_out(kind: Kind) -> None:
    """Eight times the atoms in a cell of twice the edges give the same numbers."""
    crystals = some_crystals(6)
    coding = fitted(kind, crystals)
    first = coding.encode(crystals.lattice, atoms(crystals.num_atoms))
    again = coding.encode(2.0 * crystals.lattice, atoms(8 * crystals.num_atoms))
    torch.testing.assert_close(again, first, rtol=1e-4, atol=1e-4)


def test_lengths_and_angles_of_training_crystals_are_centred_and_of_deviation_at_most_one() -> None:
    crystals = some_crystals(60)
    encoded = fitted("lengths_angles", crystals).encode(crystals.lattice, atoms(crystals.num_atoms))
    torch.testing.assert_close(encoded.mean(0), torch.zeros(6), atol=1e-3, rtol=0.0)
    std = encoded.std(0)
    assert 0.5 < float(std.min()) and float(std.max()) <= 1.0


def test_diagonal_and_other_stretches_of_training_crystals_are_centred_and_of_deviation_at_most_one() -> None:
    """Three numbers share a scale each, so that no family is tilted."""
    crystals = some_crystals(60)
    coding = fitted("log_stretch", crystals)
    encoded = coding.encode(crystals.lattice, atoms(crystals.num_atoms))
    assert float(encoded[:, :3].mean()) == pytest.approx(0.0, abs=1e-3)
    for part in (encoded[:, :3].std(), encoded[:, 3:].square().mean().sqrt()):
        assert 0.5 < float(part) <= 1.0
    assert torch.equal(coding.mean[3:], torch.zeros(3))
    assert len(coding.std[:3].unique()) == len(coding.std[3:].unique()) == len(coding.mean[:3].unique()) == 1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 3e-4)])
def test_primitive_cells_of_every_family_come_back_and_lie_in_its_plane(dtype: torch.dtype, tolerance: float) -> None:
    crystals = describe(cast(ordinary_crystals(), dtype))
    coding = LatticeCoding("log_stretch")
    coding.fit(crystals.lattice, crystals.orbits)
    encoded = coding.encode(crystals.lattice, crystals.orbits)
    again = coding.primitive(encoded, crystals.orbits)
    torch.testing.assert_close(metric_tensor(again), metric_tensor(crystals.lattice), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(coding.project(encoded, crystals.orbits), encoded, rtol=tolerance, atol=tolerance)
    # the control: other numbers lie in no plane but that of P1
    wild = torch.randn(4, 6, generator=make_generator(5)).to(dtype)
    projected = coding.project(wild, crystals.orbits)
    assert float((projected - wild).abs().amax(-1).min()) > 0.1
    torch.testing.assert_close(coding.project(projected, crystals.orbits), projected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_the_volume_of_an_atom_is_that_of_the_cell_over_its_atoms(kind: Kind) -> None:
    crystals = some_crystals(6)
    coding = fitted(kind, crystals)
    encoded = coding.encode(crystals.lattice, atoms(crystals.num_atoms))
    expected = volume(crystals.lattice) / crystals.num_atoms
    torch.testing.assert_close(coding.volume_per_atom(encoded), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_without_spread_and_a_set_of_one_give_finite_numbers(kind: Kind) -> None:
    cubes = 4.0 * torch.eye(3).expand(5, 3, 3)
    for count in (5, 1):
        coding = LatticeCoding(kind)
        coding.fit(cubes[:count], atoms(torch.full((count,), 5)))
        encoded = coding.encode(cubes[:count], atoms(torch.full((count,), 5)))
        torch.testing.assert_close(encoded, torch.zeros(count, 6), atol=1e-4, rtol=0.0)
        # noise on numbers without spread still leaves cells that are nearly cubic
        noisy = coding.primitive(torch.randn(count, 6, generator=make_generator(2)), atoms(torch.full((count,), 5)))
        lengths, angles = lattice_parameters(noisy)
        assert float((lengths - 4.0).abs().max()) < 0.6
        assert float((angles - 90.0).abs().max()) < 8.0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow_from_the_lattice_to_the_prediction(kind: Kind) -> None:
    """The published scaler cut them."""
    crystals = some_crystals(6)
    coding = fitted(kind, crystals).double()
    parameters = 0.5 * torch.randn(6, 6, generator=make_generator(3), dtype=torch.float64)
    parameters.requires_grad_()
    volume(coding.primitive(parameters, atoms(crystals.num_atoms))).log().sum().backward()
    assert parameters.grad is not None
    assert bool(parameters.grad.isfinite().all())
    assert bool((parameters.grad[:, :3].abs() > 1e-3).all())

    def metric(x: torch.Tensor) -> torch.Tensor:
        return metric_tensor(coding.primitive(x, atoms(crystals.num_atoms[:1])))

    assert torch.autograd.gradcheck(metric, (parameters[:1].detach().requires_grad_(),), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1.0, 10.0, 1e4])
def test_any_six_numbers_have_a_finite_lattice(kind: Kind, size: float) -> None:
    crystals = some_crystals(12)
    coding = fitted(kind, crystals)
    wild = size * torch.randn(500, 6, generator=make_generator(4))
    lattice = coding.primitive(wild, atoms(torch.full((500,), 20)))
    assert bool(lattice.isfinite().all())
    assert float(lattice.norm(dim=-1).min()) > 0.0


def test_predictions_out_of_range_are_brought_back_to_what_a_cell_can_have() -> None:
    coding = LatticeCoding("lengths_angles")
    lengths, angles = lattice_parameters(
        coding.primitive(torch.tensor([[-3.0, 4.0, 5.0, 90.0, 10.0, 90.0]]), atoms(torch.tensor([1])))
    )
    torch.testing.assert_close(lengths, torch.tensor([[0.5, 4.0, 5.0]]))
    torch.testing.assert_close(angles, torch.tensor([[90.0, 30.0, 90.0]]), atol=1e-3, rtol=0.0)
