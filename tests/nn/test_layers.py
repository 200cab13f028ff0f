"""The other layers: perceptrons, embeddings, messages on fractional differences, e3nn convolutions."""

import math

import pytest
import torch
from e3nn import o3
from torch import nn

from cdvae_kit.nn.embeddings import BesselBasis, NoiseLevelEmbedding, PeriodicFourier, polynomial_envelope
from cdvae_kit.nn.equivariant import EquivariantConvolution
from cdvae_kit.nn.fractional import FractionalLayer, PairwiseReadout
from cdvae_kit.nn.mlp import ResidualMLP, mlp
from cdvae_kit.seeding import make_generator
from tests.nn.frames import orthogonal


def test_mlp_of_one_width_is_refused() -> None:
    with pytest.raises(ValueError, match="widths of its input and its output"):
        mlp([4])


def test_residual_mlp_starts_as_its_linear_map() -> None:
    layer = ResidualMLP(4, 8, 3)
    x = torch.randn(5, 4, generator=make_generator(1))
    assert torch.equal(layer(x), layer.linear(x))


def test_odd_width_of_a_noise_level_embedding_is_refused() -> None:
    with pytest.raises(ValueError, match="must be even, got 7"):
        NoiseLevelEmbedding(7)


def test_noise_levels_are_told_apart() -> None:
    features = NoiseLevelEmbedding(32)(torch.linspace(0.0, 1.0, 200))
    distances = torch.cdist(features, features) + 10.0 * torch.eye(200)
    assert float(distances.min()) > 0.1


def test_fourier_features_have_period_one_and_not_a_half() -> None:
    fourier = PeriodicFourier(4)
    x = torch.rand(20, 3, generator=make_generator(2))
    torch.testing.assert_close(fourier(x + 1.0), fourier(x), rtol=0.0, atol=1e-4)
    assert float((fourier(x + 0.5) - fourier(x)).abs().max()) > 0.5


def test_bessel_basis_equals_its_formula_within_the_envelope() -> None:
    distance = torch.tensor([0.7, 2.0, 3.9])
    expected = torch.stack(
        [math.sqrt(2.0 / 4.0) * torch.sin(n * math.pi * distance / 4.0) / distance for n in (1, 2, 3)], dim=-1
    ) * polynomial_envelope(distance / 4.0).unsqueeze(-1)
    torch.testing.assert_close(BesselBasis(3, 4.0)(distance), expected)


def test_bessel_basis_vanishes_at_the_cutoff_and_is_finite_at_zero() -> None:
    basis = BesselBasis(5, 4.0)(torch.tensor([0.0, 3.999, 4.0, 4.5]))
    assert bool(basis.isfinite().all())
    assert float(basis[1:].abs().max()) < 1e-6


def test_envelope_has_two_vanishing_derivatives_at_the_cutoff() -> None:
    x = torch.tensor([1.0 - 1e-6], dtype=torch.float64, requires_grad=True)
    first = torch.autograd.grad(polynomial_envelope(x), x, create_graph=True)[0]
    second = torch.autograd.grad(first, x)[0]
    assert abs(float(first.detach())) < 1e-8
    assert abs(float(second)) < 1e-2


PAIRS = torch.tensor([[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]])


@pytest.mark.parametrize("shuffled", [True, False])
def test_fractional_messages_do_not_know_the_order_of_atoms(shuffled: bool) -> None:
    layer, fourier = FractionalLayer(6, 12).double(), PeriodicFourier(2).double()
    frac_coords = torch.rand(3, 3, generator=make_generator(3), dtype=torch.float64)
    h = torch.randn(3, 6, generator=make_generator(4), dtype=torch.float64)
    condition = torch.randn(1, 6, generator=make_generator(5), dtype=torch.float64)
    batch = torch.zeros(3, dtype=torch.long)
    order = torch.tensor([2, 0, 1])
    coords_again = frac_coords[order] if shuffled else frac_coords

    before = layer(h, PAIRS, fourier(frac_coords[PAIRS[0]] - frac_coords[PAIRS[1]]), condition, batch)
    after = layer(h[order], PAIRS, fourier(coords_again[PAIRS[0]] - coords_again[PAIRS[1]]), condition, batch)
    # the control leaves the coordinates where they were
    assert torch.allclose(after, before[order], atol=1e-12) == shuffled


def test_pairwise_readout_of_an_atom_alone_is_zero() -> None:
    readout = PairwiseReadout(6, 2)
    none = torch.zeros(2, 0, dtype=torch.long)
    assert torch.equal(readout(torch.ones(1, 6), none, torch.zeros(0, 12)), torch.zeros(1, 3))


@pytest.fixture(scope="module")
def convolution() -> EquivariantConvolution:
    return EquivariantConvolution(
        o3.Irreps("3x0e+3x1o+3x2e"), (3, 3, 3), lmax=2, num_basis=4, num_neighbors=3.0
    ).double()


@pytest.mark.parametrize("determinant", [1.0, -1.0])
def test_features_of_a_convolution_turn_as_their_irreps_say(
    convolution: EquivariantConvolution, determinant: float
) -> None:
    irreps_in, harmonics = o3.Irreps("3x0e+3x1o+3x2e"), o3.Irreps.spherical_harmonics(2)
    turn = orthogonal(determinant, seed=6)
    generator = make_generator(7)
    h = torch.randn(3, irreps_in.dim, generator=generator, dtype=torch.float64)
    vectors = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    basis = torch.rand(6, 4, generator=generator, dtype=torch.float64)

    def convolve(features: torch.Tensor, frame: torch.Tensor) -> torch.Tensor:
        on_edges = o3.spherical_harmonics(harmonics, vectors @ frame.T, normalize=True, normalization="component")
        return convolution(features, PAIRS, on_edges, basis)

    expected = convolve(h, torch.eye(3, dtype=torch.float64)) @ convolution.irreps_out.D_from_matrix(turn).T
    got = convolve(h @ irreps_in.D_from_matrix(turn).T, turn)
    torch.testing.assert_close(got, expected, rtol=0.0, atol=1e-5)
    # the control turns the edges and not the atoms' features
    assert float((convolve(h, turn) - expected).abs().max()) > 1e-2


def test_convolution_hears_nothing_where_the_basis_vanishes(convolution: EquivariantConvolution) -> None:
    h = torch.randn(3, 27, generator=make_generator(8), dtype=torch.float64)
    on_edges = torch.ones(6, 9, dtype=torch.float64)
    silent = convolution(h, PAIRS, on_edges, torch.zeros(6, 4, dtype=torch.float64))
    alone = convolution(h, torch.zeros(2, 0, dtype=torch.long), on_edges[:0], torch.zeros(0, 4, dtype=torch.float64))
    torch.testing.assert_close(silent, alone)


def test_modulation_of_a_fractional_layer_starts_without_effect() -> None:
    layer = FractionalLayer(6, 12)
    assert isinstance(layer.modulate, nn.Linear)
    h, features = torch.randn(3, 6, generator=make_generator(1)), torch.zeros(6, 12)
    batch = torch.zeros(3, dtype=torch.long)
    assert torch.equal(
        layer(h, PAIRS, features, torch.zeros(1, 6), batch), layer(h, PAIRS, features, torch.ones(1, 6), batch)
    )
