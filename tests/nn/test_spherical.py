"""Spherical Bessel functions and the basis of distances and angles, against scipy and torch_geometric."""

import math

import numpy as np
import pytest
import torch
from scipy.special import spherical_jn
from torch_geometric.nn.models.dimenet import SphericalBasisLayer

from cdvae_kit.nn.spherical import SphericalBasis, spherical_bessel, spherical_bessel_roots


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 5e-7)])
@pytest.mark.parametrize("degree", range(8))
def test_spherical_bessel_equals_scipys_from_zero_to_forty(degree: int, dtype: torch.dtype, tolerance: float) -> None:
    x = torch.cat([torch.zeros(1), torch.logspace(-4, 1.6, 400)]).to(dtype)
    got = spherical_bessel(x, degree).double().numpy()
    assert np.abs(got - spherical_jn(degree, x.double().numpy())).max() < tolerance


@pytest.mark.parametrize("degree", range(8))
def test_small_values_of_spherical_bessel_keep_their_digits(degree: int) -> None:
    x = torch.logspace(-2, 0, 30)
    expected = torch.from_numpy(spherical_jn(degree, x.double().numpy())).float()
    torch.testing.assert_close(spherical_bessel(x, degree), expected, rtol=2e-6, atol=0.0)


@pytest.mark.parametrize("degree", range(8))
def test_slope_of_spherical_bessel_is_finite_and_right(degree: int) -> None:
    x = torch.linspace(0.05, 20.0, 60, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(spherical_bessel(x, degree).sum(), x)
    expected = torch.from_numpy(spherical_jn(degree, x.detach().numpy(), derivative=True))
    torch.testing.assert_close(slope, expected, rtol=0.0, atol=1e-11)


def test_roots_are_roots_and_none_is_left_out() -> None:
    roots = spherical_bessel_roots(7, 6)
    for degree, row in enumerate(roots):
        assert np.abs(spherical_jn(degree, row)).max() < 1e-12
        grid = np.linspace(0.5, row[-1] + 1e-3, 20_000)
        assert np.count_nonzero(np.diff(np.sign(spherical_jn(degree, grid)))) == 6


def test_radial_functions_are_orthonormal_in_a_ball() -> None:
    basis = SphericalBasis(4, 3, cutoff=1.0)
    x = torch.linspace(0.0, 1.0, 4001, dtype=torch.float64)
    for roots, scales in zip(basis.roots.double(), basis.scales.double(), strict=True):
        degree = int((basis.roots.double() == roots).all(1).nonzero()[0])
        radial = spherical_bessel(x.unsqueeze(-1) * roots, degree) * scales * math.sqrt(4.0 * math.pi)
        overlap = torch.trapezoid(radial.unsqueeze(-1) * radial.unsqueeze(-2) * x.square().view(-1, 1, 1), x, dim=0)
        torch.testing.assert_close(overlap, torch.eye(3, dtype=torch.float64), rtol=0.0, atol=1e-5)


@pytest.mark.slow
def test_basis_equals_torch_geometrics() -> None:
    generator = torch.Generator().manual_seed(1)
    distance = 0.5 + 7.0 * torch.rand(300, generator=generator, dtype=torch.float64)
    angle = math.pi * torch.rand(500, generator=generator, dtype=torch.float64)
    incoming = torch.randint(0, 300, (500,), generator=generator)
    expected = SphericalBasisLayer(7, 6, cutoff=7.0)(distance, angle, incoming)
    got = SphericalBasis(7, 6, cutoff=7.0).double()(distance, angle.cos(), incoming)
    torch.testing.assert_close(got, expected, rtol=0.0, atol=1e-6 * float(expected.abs().max()))


def test_basis_equals_torch_geometrics_of_two_degrees() -> None:
    distance = torch.linspace(0.5, 5.5, 40, dtype=torch.float64)
    angle = torch.linspace(0.0, math.pi, 40, dtype=torch.float64)
    expected = SphericalBasisLayer(2, 2, cutoff=5.0)(distance, angle, torch.arange(40))
    got = SphericalBasis(2, 2, cutoff=5.0).double()(distance, angle.cos(), torch.arange(40))
    torch.testing.assert_close(got, expected, rtol=0.0, atol=1e-6 * float(expected.abs().max()))
