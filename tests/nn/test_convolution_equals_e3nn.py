"""The short way through an equivariant convolution gives what e3nn gives."""

import pytest
import torch
from e3nn import o3
from torch import Tensor

from cdvae_kit.nn.equivariant import EquivariantConvolution
from cdvae_kit.seeding import make_generator
from tests.nn.frames import orthogonal

# five atoms; the second hears nobody, the third hears itself twice, and all hear the last
EDGES = torch.tensor([[4, 1, 2, 2, 4, 0, 4, 3, 4, 4], [0, 0, 2, 2, 2, 3, 3, 4, 4, 4]])


def inputs(irreps: o3.Irreps, lmax: int, edges: Tensor = EDGES, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = make_generator(11)
    h = torch.randn(5, irreps.dim, generator=generator, dtype=dtype)
    vectors = torch.randn(edges.shape[1], 3, generator=generator, dtype=dtype)
    harmonics = o3.spherical_harmonics(
        o3.Irreps.spherical_harmonics(lmax), vectors, normalize=True, normalization="component"
    )
    return [h, harmonics, torch.rand(edges.shape[1], 4, generator=generator, dtype=dtype)]


def convolution(irreps: str, channels: tuple[int, ...], lmax: int) -> EquivariantConvolution:
    return EquivariantConvolution(o3.Irreps(irreps), channels, lmax=lmax, num_basis=4, num_neighbors=3.0).double()


def gradients(output: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    weight = torch.randn(output.shape, generator=make_generator(12), dtype=output.dtype)
    return list(torch.autograd.grad((output * weight).sum(), wanted))


@pytest.mark.parametrize(
    ("irreps", "channels", "lmax"),
    [
        ("4x0e", (4, 4, 4), 2),
        ("4x0e", (4, 4), 2),
        ("3x0e", (4, 4, 4, 4), 3),
        ("4x0e", (4,), 2),
        ("4x0e+4x1o+4x2e", (4,), 2),
        ("4x0e+4x1o+4x2e", (3,), 2),
        ("4x0e", (4,), 0),
    ],
)
def test_short_way_and_its_gradients_equal_those_of_e3nn(irreps: str, channels: tuple[int, ...], lmax: int) -> None:
    layer = convolution(irreps, channels, lmax)
    assert layer.is_plain
    h, harmonics, basis = (x.requires_grad_() for x in inputs(o3.Irreps(irreps), lmax))
    got, expected = layer(h, EDGES, harmonics, basis), layer.by_e3nn(h, EDGES, harmonics, basis)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    wanted = [h, harmonics, basis, *(p for p in layer.parameters() if p.numel())]
    for ours, theirs in zip(gradients(got, wanted), gradients(expected, wanted), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("irreps", "channels"), [("4x0e+4x1o+4x2e", (4, 4, 4)), ("4x0e", (4, 3, 2)), ("4x0e+3x1o", (4,))]
)
def test_other_irreps_go_the_way_of_e3nn(irreps: str, channels: tuple[int, ...]) -> None:
    layer = convolution(irreps, channels, 2)
    assert not layer.is_plain
    h, harmonics, basis = inputs(o3.Irreps(irreps), 2)
    assert torch.equal(layer(h, EDGES, harmonics, basis), layer.by_e3nn(h, EDGES, harmonics, basis))


@pytest.mark.parametrize("irreps", ["4x0e", "4x0e+4x1o+4x2e"])
def test_order_of_edges_does_not_matter(irreps: str) -> None:
    layer = convolution(irreps, (4,), 2)
    h, harmonics, basis = inputs(o3.Irreps(irreps), 2)
    order = torch.randperm(EDGES.shape[1], generator=make_generator(13))
    torch.testing.assert_close(
        layer(h, EDGES[:, order], harmonics[order], basis[order]), layer(h, EDGES, harmonics, basis)
    )


@pytest.mark.parametrize("irreps", ["4x0e", "4x0e+4x1o+4x2e"])
def test_atom_without_edges_is_not_reached_by_the_others(irreps: str) -> None:
    layer = convolution(irreps, (4,), 2)
    h, harmonics, basis = inputs(o3.Irreps(irreps), 2)
    spoilt = h.clone()
    spoilt[4] = torch.nan
    got = layer(spoilt, EDGES, harmonics, basis)
    assert torch.equal(got[1], layer(h, EDGES, harmonics, basis)[1])
    assert bool(got[0].isnan().any())


@pytest.mark.parametrize("channels", [(4, 4, 4), (4,)])
def test_batch_without_edges_equals_that_of_e3nn(channels: tuple[int, ...]) -> None:
    layer = convolution("4x0e", channels, 2)
    nothing = torch.zeros(2, 0, dtype=torch.long)
    h, harmonics, basis = inputs(o3.Irreps("4x0e"), 2, nothing)
    torch.testing.assert_close(layer(h, nothing, harmonics, basis), layer.by_e3nn(h, nothing, harmonics, basis))


@pytest.mark.parametrize("determinant", [1.0, -1.0])
def test_short_way_from_scalars_turns_with_the_edges(determinant: float) -> None:
    layer = convolution("4x0e", (4, 4, 4), 2)
    h, _, basis = inputs(o3.Irreps("4x0e"), 2)
    vectors = torch.randn(EDGES.shape[1], 3, generator=make_generator(14), dtype=torch.float64)
    turn = orthogonal(determinant, seed=15)

    def convolve(frame: Tensor) -> Tensor:
        on_edges = o3.spherical_harmonics(
            o3.Irreps.spherical_harmonics(2), vectors @ frame.T, normalize=True, normalization="component"
        )
        return layer(h, EDGES, on_edges, basis)

    upright, turned = convolve(torch.eye(3, dtype=torch.float64)).detach(), convolve(turn).detach()
    torch.testing.assert_close(turned, upright @ layer.irreps_out.D_from_matrix(turn).T, rtol=0.0, atol=1e-5)
    assert float((turned - upright).abs().max()) > 1e-2


def test_short_way_adds_nothing_to_a_checkpoint() -> None:
    names = set(convolution("4x0e", (4, 4, 4), 2).state_dict())
    assert not {"coupling", "weight_of_row", "norms"} & names


@pytest.mark.parametrize(("irreps", "channels"), [("4x0e", (4, 4, 4)), ("4x0e+4x1o+4x2e", (4,))])
def test_short_way_runs_in_half_precision(irreps: str, channels: tuple[int, ...]) -> None:
    layer = convolution(irreps, channels, 2).float()
    h, harmonics, basis = inputs(o3.Irreps(irreps), 2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = layer(h, EDGES, harmonics, basis)
    torch.testing.assert_close(rough.float(), layer(h, EDGES, harmonics, basis), rtol=0.05, atol=0.05)
