import numpy as np
import pytest
import torch
from pymatgen.core import Lattice
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import (
    lattice_from_parameters,
    lattice_parameters,
    metric_tensor,
    plane_spacings,
    volume,
    wrap_displacement,
    wrap_frac_coords,
)
from cdvae_kit.seeding import make_generator


@pytest.fixture(scope="module")
def cells() -> tuple[Tensor, Tensor]:
    """Lengths and angles of a thousand cells that can be built."""
    generator = make_generator(0)
    lengths = 2.0 + 18.0 * torch.rand(1000, 3, generator=generator, dtype=torch.float64)
    angles = 50.0 + 70.0 * torch.rand(1000, 3, generator=generator, dtype=torch.float64)
    possible = (angles.sum(1) < 355) & (2 * angles.amax(1) < angles.sum(1) - 5)
    return lengths[possible], angles[possible]


def test_lattices_are_those_of_pymatgen(cells: tuple[Tensor, Tensor]) -> None:
    lattice = lattice_from_parameters(*cells)
    expected = np.stack(
        [Lattice.from_parameters(*a, *b).matrix for a, b in zip(cells[0].tolist(), cells[1].tolist(), strict=True)]
    )
    assert len(expected) > 500
    np.testing.assert_allclose(lattice.numpy(), expected, atol=2e-6)


def test_parameters_come_back_from_the_lattice(cells: tuple[Tensor, Tensor]) -> None:
    lengths, angles = lattice_parameters(lattice_from_parameters(*cells))
    torch.testing.assert_close(lengths, cells[0], atol=1e-5, rtol=0.0)
    torch.testing.assert_close(angles, cells[1], atol=1e-4, rtol=0.0)


def test_right_angles_leave_exact_zeros() -> None:
    lattice = lattice_from_parameters(torch.tensor([[2.0, 3.0, 4.0]]), torch.full((1, 3), 90.0))
    assert torch.count_nonzero(lattice) == 3


def test_volumes_and_spacings_are_those_of_the_reciprocal_lattice(zoo: CrystalBatch) -> None:
    for left_handed in (1.0, -1.0):
        lattice = zoo.lattice * torch.tensor([1.0, 1.0, left_handed], dtype=torch.float64)
        torch.testing.assert_close(volume(lattice), torch.linalg.det(lattice).abs())
        torch.testing.assert_close(plane_spacings(lattice), 1.0 / torch.linalg.inv(lattice).norm(dim=-2))


def test_a_turn_changes_the_lattice_but_not_the_metric_tensor(zoo: CrystalBatch) -> None:
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=make_generator(1), dtype=torch.float64))
    turned = zoo.lattice @ turn
    assert not torch.allclose(turned, zoo.lattice)
    torch.testing.assert_close(metric_tensor(turned), metric_tensor(zoo.lattice))


@pytest.mark.parametrize("function", [volume, plane_spacings, metric_tensor])
def test_gradients_are_those_of_finite_differences(zoo: CrystalBatch, function: object) -> None:
    assert torch.autograd.gradcheck(function, (zoo.lattice.clone().requires_grad_(),))


def test_gradients_reach_lengths_and_angles(cells: tuple[Tensor, Tensor]) -> None:
    parameters = tuple(values[:3].clone().requires_grad_() for values in cells)
    assert torch.autograd.gradcheck(lattice_from_parameters, parameters)


def test_gradients_of_cells_that_cannot_be_built_are_finite() -> None:
    angles = torch.tensor([[30.0, 30.0, 100.0], [60.0, 60.0, 120.0]], requires_grad=True)
    lattice_from_parameters(torch.ones(2, 3), angles).sum().backward()
    assert bool(angles.grad.isfinite().all())


def test_gradients_of_right_angles_reach_the_angles() -> None:
    angles = torch.full((1, 3), 90.0, dtype=torch.float64, requires_grad=True)
    lengths, again = lattice_parameters(lattice_from_parameters(torch.ones(1, 3, dtype=torch.float64), angles))
    (gradient,) = torch.autograd.grad(again.sum(), angles)
    torch.testing.assert_close(gradient, torch.ones_like(gradient))
    assert bool((lengths == 1.0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wrapping_ends_below_one_and_moves_by_whole_cells(dtype: torch.dtype) -> None:
    points = torch.tensor([-1e-20, -1e-9, 1.0, -3.0, 0.3, -0.3, 5.75], dtype=dtype)
    wrapped = wrap_frac_coords(points)
    assert bool(((wrapped >= 0) & (wrapped < 1)).all())
    moved = points - wrapped
    torch.testing.assert_close(moved, moved.round(), atol=1e-6, rtol=0.0)


def test_wrapped_displacements_are_the_shortest_along_each_axis() -> None:
    wrapped = wrap_displacement(torch.tensor([0.6, -0.6, 0.4, 3.2, -2.9]))
    torch.testing.assert_close(wrapped, torch.tensor([-0.4, 0.4, 0.4, 0.2, 0.1]))
