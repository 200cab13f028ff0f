"""Scalar and vector messages: how they turn, and what they sum."""

import pytest
import torch
from torch import Tensor, nn

from cdvae_kit.nn.vector_messages import VectorMessage, VectorReadout, VectorUpdate
from cdvae_kit.seeding import make_generator
from tests.nn.frames import orthogonal

WIDTH, NUM_BASIS = 5, 3
EDGE_INDEX = torch.tensor([[1, 2, 0, 2, 3, 0], [0, 0, 1, 1, 1, 3]])
BATCH = torch.tensor([0, 0, 0, 1])


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=make_generator(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def layers() -> tuple[VectorMessage, VectorUpdate, VectorReadout]:
    message = VectorMessage(WIDTH, NUM_BASIS, num_neighbors=4.0).double()
    nn.init.normal_(message.modulate.weight, generator=make_generator(1))
    return message, VectorUpdate(WIDTH).double(), VectorReadout(WIDTH).double()


def run(layers: tuple[VectorMessage, VectorUpdate, VectorReadout], turn: Tensor) -> tuple[Tensor, Tensor]:
    """Scalars and vectors after all layers, in a turned frame."""
    message, update, readout = layers
    scalars, vectors = message(
        random(4, WIDTH, seed=2),
        torch.einsum("nif,ij->njf", random(4, 3, WIDTH, seed=3), turn),
        EDGE_INDEX,
        nn.functional.normalize(random(6, 3, seed=4), dim=-1) @ turn,
        random(6, NUM_BASIS, seed=5),
        random(2, WIDTH, seed=6),
        BATCH,
    )
    scalars, vectors = update(scalars, vectors)
    return scalars, readout(scalars, vectors)


@pytest.mark.parametrize("determinant", [1.0, -1.0])
def test_scalars_stay_and_vectors_turn_with_the_frame(
    layers: tuple[VectorMessage, VectorUpdate, VectorReadout], determinant: float
) -> None:
    turn = orthogonal(determinant, seed=9)
    scalars, vectors = run(layers, torch.eye(3, dtype=torch.float64))
    turned_scalars, turned_vectors = run(layers, turn)
    torch.testing.assert_close(turned_scalars, scalars)
    torch.testing.assert_close(turned_vectors, vectors @ turn)


def test_a_stretched_frame_is_told_from_a_turned_one(
    layers: tuple[VectorMessage, VectorUpdate, VectorReadout],
) -> None:
    stretch = torch.diag(torch.tensor([1.3, 1.0, 1.0], dtype=torch.float64))
    scalars, vectors = run(layers, torch.eye(3, dtype=torch.float64))
    other_scalars, other_vectors = run(layers, stretch)
    assert not torch.allclose(other_scalars, scalars, rtol=1e-3)
    assert not torch.allclose(other_vectors, vectors @ stretch, rtol=1e-3)


def test_an_atom_without_neighbours_keeps_what_it_has(
    layers: tuple[VectorMessage, VectorUpdate, VectorReadout],
) -> None:
    scalars, vectors = random(4, WIDTH, seed=2), random(4, 3, WIDTH, seed=3)
    direction, basis = random(6, 3, seed=4), random(6, NUM_BASIS, seed=5)
    after = layers[0](scalars, vectors, EDGE_INDEX, direction, basis, random(2, WIDTH, seed=6), BATCH)
    assert torch.equal(after[0][2], scalars[2]) and torch.equal(after[1][2], vectors[2])
    assert not torch.equal(after[0][0], scalars[0])


def test_nothing_is_heard_where_the_basis_vanishes(
    layers: tuple[VectorMessage, VectorUpdate, VectorReadout],
) -> None:
    scalars, vectors = random(4, WIDTH, seed=2), random(4, 3, WIDTH, seed=3)
    basis = torch.zeros(6, NUM_BASIS, dtype=torch.float64)
    after = layers[0](scalars, vectors, EDGE_INDEX, random(6, 3, seed=4), basis, random(2, WIDTH, seed=6), BATCH)
    assert torch.equal(after[0], scalars) and torch.equal(after[1], vectors)


def test_first_message_is_along_the_direction(layers: tuple[VectorMessage, VectorUpdate, VectorReadout]) -> None:
    """An atom with one neighbour and no vectors anywhere gets vectors along the one edge."""
    direction = nn.functional.normalize(random(6, 3, seed=4), dim=-1)
    vectors = torch.zeros(4, 3, WIDTH, dtype=torch.float64)
    _, after = layers[0](
        random(4, WIDTH, seed=2),
        vectors,
        EDGE_INDEX,
        direction,
        random(6, NUM_BASIS, seed=5),
        random(2, WIDTH, seed=6),
        BATCH,
    )
    along = direction[5].unsqueeze(-1).expand(3, WIDTH)
    assert float(after[3].norm()) > 1e-3
    assert float(torch.linalg.cross(after[3], along, dim=0).abs().max()) < 1e-14


def test_gradient_is_finite_where_all_vectors_vanish(
    layers: tuple[VectorMessage, VectorUpdate, VectorReadout],
) -> None:
    vectors = torch.zeros(4, 3, WIDTH, dtype=torch.float64, requires_grad=True)
    scalars, after = layers[1](random(4, WIDTH, seed=2), vectors)
    (scalars.sum() + after.sum()).backward()
    assert vectors.grad is not None and bool(vectors.grad.isfinite().all())
