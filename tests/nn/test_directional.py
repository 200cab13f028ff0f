"""Messages between edges, against loops over triplets."""

import math

import numpy as np
import pytest
import torch

from cdvae_kit.nn.directional import (
    AngularMessage,
    DirectionalLayer,
    DirectionalReadout,
    angular_table,
    legendre,
)
from cdvae_kit.seeding import make_generator
from tests.nn.frames import orthogonal

NUM_ANGULAR = 5


def unit_vectors(count: int) -> torch.Tensor:
    vectors = torch.randn(count, 3, generator=make_generator(3), dtype=torch.float64)
    return vectors / vectors.norm(dim=-1, keepdim=True)


# edges 0 to 4: edge 0 hears three others, edge 1 none, edge 3 two, edge 4 itself through an image
INCOMING, OUTGOING = torch.tensor([1, 2, 4, 0, 0, 3, 4]), torch.tensor([0, 0, 0, 2, 3, 3, 4])


@pytest.mark.parametrize("degree", range(8))
def test_legendre_polynomials_equal_numpys(degree: int) -> None:
    cosine = torch.linspace(-1.0, 1.0, 41, dtype=torch.float64)
    expected = np.polynomial.legendre.Legendre.basis(degree)(cosine.numpy()) * math.sqrt(2 * degree + 1)
    np.testing.assert_allclose(legendre(cosine, 8)[:, degree].numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("count", [1, 2])
def test_few_legendre_polynomials_are_as_many_as_asked_for(count: int) -> None:
    assert legendre(torch.zeros(4), count).shape == (4, count)


def test_table_holds_the_angle_of_each_triplet_and_zeros_elsewhere() -> None:
    direction = unit_vectors(5)
    table = angular_table(direction, INCOMING, OUTGOING, NUM_ANGULAR)
    expected = torch.zeros(5, 5, NUM_ANGULAR, dtype=torch.float64)
    for incoming, outgoing in zip(INCOMING.tolist(), OUTGOING.tolist(), strict=True):
        cosine = -(direction[incoming] @ direction[outgoing])
        expected[outgoing, incoming] += legendre(cosine, NUM_ANGULAR)
    got = torch.zeros_like(expected)
    for outgoing in range(5):
        for column, incoming in enumerate(table.incoming[outgoing].tolist()):
            got[outgoing, incoming] += table.weights[outgoing, :, column]
    torch.testing.assert_close(got, expected)


def test_message_is_the_sum_over_triplets() -> None:
    direction = unit_vectors(5)
    layer = AngularMessage(width=6, inner=4, num_radial=3, num_mixed=2, num_neighbors=9.0).double()
    generator = make_generator(7)
    m = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    radial = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    mixed = torch.randn(5, 2, NUM_ANGULAR, generator=generator, dtype=torch.float64)
    got = layer(m, radial, angular_table(direction, INCOMING, OUTGOING, NUM_ANGULAR), mixed)

    silu = torch.nn.functional.silu
    sent = silu(layer.down(silu(layer.before(m)) * layer.radial(radial)))
    total = torch.zeros(5, 2, 4, dtype=torch.float64)
    for incoming, outgoing in zip(INCOMING.tolist(), OUTGOING.tolist(), strict=True):
        angular = legendre(-(direction[incoming] @ direction[outgoing]), NUM_ANGULAR)
        total[outgoing] += torch.outer(mixed[outgoing] @ angular, sent[incoming]) / 3.0
    torch.testing.assert_close(got, silu(layer.up(layer.bilinear(total.flatten(1)))))


def test_layer_without_triplets_or_edges_keeps_its_shapes() -> None:
    layer = DirectionalLayer(6, 3, 2, 2, num_neighbors=4.0)
    none = torch.zeros(0, dtype=torch.long)
    for num_edges in (0, 2):
        table = angular_table(torch.zeros(num_edges, 3), none, none, NUM_ANGULAR)
        edge_index = torch.tensor([[1, 0], [0, 1]])[:, :num_edges]
        h, m = layer(
            torch.randn(2, 6, generator=make_generator(1)),
            torch.zeros(num_edges, 6),
            edge_index,
            torch.zeros(num_edges, 2),
            table,
            torch.zeros(num_edges, 2, NUM_ANGULAR),
        )
        assert h.shape == (2, 6) and m.shape == (num_edges, 6)
        assert bool(h.isfinite().all() & m.isfinite().all())


@pytest.mark.parametrize("determinant", [1.0, -1.0])
def test_vectors_of_the_readout_turn_with_the_directions(determinant: float) -> None:
    readout = DirectionalReadout(width=6, num_radial=3, num_neighbors=4.0).double()
    direction, target = unit_vectors(5), torch.tensor([0, 0, 1, 1, 1])
    m = torch.randn(5, 6, generator=make_generator(2), dtype=torch.float64)
    radial = torch.randn(5, 3, generator=make_generator(4), dtype=torch.float64)
    turn = orthogonal(determinant, seed=5)
    expected = readout(m, target, direction, radial, 2) @ turn
    torch.testing.assert_close(readout(m, target, direction @ turn, radial, 2), expected)
