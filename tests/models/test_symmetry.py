"""Symmetries of score networks, encoders and the whole model, each with a network or a change that breaks it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.lattice import log_parameters
from cdvae_kit.crystal.symmetric import without_symmetry
from cdvae_kit.diffusion.state import NoisyCrystals, ScoreOutput
from cdvae_kit.graph import neighbor_list
from cdvae_kit.models.cdvae import CDVAE
from cdvae_kit.models.config import EncoderConfig
from cdvae_kit.seeding import make_generator
from tests.models.crystals import (
    ENCODERS,
    SCORE_NETWORKS,
    at_a_generic_point,
    cast,
    codes,
    noisy,
    ordinary_crystals,
    small_config,
    small_encoder,
    small_score_network,
)

TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3}
BROKEN = 1e-2
"""A broken symmetry shows at least this: far from any rounding."""
DTYPES = (torch.float64, torch.float32)


def tolerance(kind: str, dtype: torch.dtype) -> float:
    """Rounding; Fourier features are of period 1 to float32's rounding alone, however the network is cast."""
    return max(TOLERANCE[dtype], 1e-5 if kind in ("fractional", "equivariant") else 0.0)


# New frac_coords, new lattice, and the order in which the atoms come then.
Symmetry = Callable[[CrystalBatch, torch.Generator], tuple[Tensor, Tensor, Tensor]]


def orthogonal(generator: torch.Generator, determinant: float) -> Tensor:
    """A random orthogonal matrix, float64."""
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    q = q * torch.sign(torch.diagonal(r))
    return q * torch.sign(torch.linalg.det(q)) * determinant


def in_order(batch: CrystalBatch) -> Tensor:
    return torch.arange(len(batch.frac_coords))


def rotation(batch: CrystalBatch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    turn = orthogonal(generator, 1.0).to(batch.lattice.dtype)
    return batch.frac_coords, batch.lattice @ turn, in_order(batch)


def reflection(batch: CrystalBatch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    turn = orthogonal(generator, -1.0).to(batch.lattice.dtype)
    return batch.frac_coords, batch.lattice @ turn, in_order(batch)


def translation(batch: CrystalBatch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    shift = torch.rand(len(batch), 3, generator=generator).to(batch.lattice.dtype)
    return batch.frac_coords + shift[batch.batch], batch.lattice, in_order(batch)


def periodic_images(batch: CrystalBatch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    cells = torch.randint(-2, 3, batch.frac_coords.shape, generator=generator)
    return batch.frac_coords + cells, batch.lattice, in_order(batch)


def permutation(batch: CrystalBatch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    order = torch.argsort(batch.batch + torch.rand(len(batch.batch), generator=generator))
    return batch.frac_coords[order], batch.lattice, order


SYMMETRIES = (rotation, reflection, translation, periodic_images, permutation)
symmetry_of = pytest.mark.parametrize("symmetry", SYMMETRIES, ids=lambda symmetry: symmetry.__name__)


def difference(got: Tensor, expected: Tensor) -> float:
    """Largest deviation, in units of the expected values' root mean square, which must not vanish."""
    scale = expected.square().mean().sqrt()
    assert float(scale) > 1e-4, "the output is zero: nothing is tested"
    return float((got - expected).abs().max() / scale)


def score_difference(network: Callable[..., ScoreOutput], batch: CrystalBatch, symmetry: Symmetry, seed: int) -> float:
    """How much the outputs of a score network change, when they should not: the worst of the three."""
    before = noisy(batch)
    frac_coords, lattice, order = symmetry(batch, make_generator(seed))
    after = replace(
        before,
        free=frac_coords,
        lattice=lattice,
        lattice_parameters=log_parameters(lattice),
        elements=before.elements[order],
    )
    z, level = codes(len(batch), batch.lattice.dtype)
    with torch.no_grad():
        expected, got = network(before, z, level), network(after, z, level)
    return max(
        difference(got.free, expected.free[order]),
        difference(got.type_logits, expected.type_logits[order]),
        difference(got.lattice, expected.lattice),
    )


def code_difference(
    encoder: Callable[..., tuple[Tensor, Tensor]], batch: CrystalBatch, symmetry: Symmetry, seed: int
) -> float:
    """How much mu and log_var change, when they should not."""
    frac_coords, lattice, order = symmetry(batch, make_generator(seed))
    after = batch.replace(frac_coords=frac_coords, lattice=lattice, atomic_numbers=batch.atomic_numbers[order])
    moments = []
    for crystals in (batch, after):
        graph = neighbor_list(crystals, 5.0, max_neighbors=12, tie_tolerance=1e-2)
        with torch.no_grad():
            moments.append(encoder(without_symmetry(crystals), graph, log_parameters(crystals.lattice)))
    (mu, log_var), (new_mu, new_log_var) = moments
    return max(difference(new_mu, mu), difference(new_log_var, log_var))


class SeesPositions(nn.Module):
    """A score network that adds absolute Cartesian coordinates and row numbers to its output: no symmetry is left."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crystals: NoisyCrystals, z: Tensor, level: Tensor) -> ScoreOutput:
        output = self.network(crystals, z, level)
        # atoms are orbits here, and their parameters are not wrapped yet
        cart_coords = torch.einsum("ni,nij->nj", crystals.free, crystals.lattice[crystals.batch])
        rows = torch.arange(len(cart_coords), dtype=cart_coords.dtype).unsqueeze(-1)
        return replace(output, free=output.free + 0.1 * cart_coords + 0.1 * rows)


class EncodesPositions(nn.Module):
    """An encoder that multiplies mu by a function of positions, types and row numbers: no symmetry is left."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, crystals: CrystalBatch, *inputs: object) -> tuple[Tensor, Tensor]:
        mu, log_var = self.encoder(crystals, *inputs)
        cart_coords = crystals.cart_coords
        rows = torch.arange(len(cart_coords), dtype=cart_coords.dtype).unsqueeze(-1)
        total = ((cart_coords + rows) * crystals.atomic_numbers.unsqueeze(-1)).sum()
        return mu * (1.0 + 0.5 * torch.sin(total)), log_var


@pytest.fixture(params=["zoo", "ordinary"])
def crystals(request: pytest.FixtureRequest, zoo: CrystalBatch) -> CrystalBatch:
    return zoo if request.param == "zoo" else ordinary_crystals()


@symmetry_of
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_score_network_keeps_the_symmetry(
    kind: str, dtype: torch.dtype, symmetry: Symmetry, crystals: CrystalBatch
) -> None:
    network = small_score_network(kind, dtype)
    assert score_difference(network, cast(crystals, dtype), symmetry, seed=11) < tolerance(kind, dtype), "seed 11"


@symmetry_of
@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_score_network_that_sees_positions_fails_the_same_measure(
    kind: str, symmetry: Symmetry, zoo: CrystalBatch
) -> None:
    network = SeesPositions(small_score_network(kind))
    assert score_difference(network, zoo, symmetry, seed=11) > BROKEN


@symmetry_of
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_keeps_the_symmetry(kind: str, dtype: torch.dtype, symmetry: Symmetry, crystals: CrystalBatch) -> None:
    encoder = small_encoder(kind, dtype)
    assert code_difference(encoder, cast(crystals, dtype), symmetry, seed=12) < tolerance(kind, dtype), "seed 12"


# row numbers in a whole batch: an image does not move what is wrapped
@pytest.mark.parametrize(
    "symmetry", [rotation, reflection, translation, permutation], ids=lambda symmetry: symmetry.__name__
)
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_that_sees_positions_fails_the_same_measure(kind: str, symmetry: Symmetry, zoo: CrystalBatch) -> None:
    assert code_difference(EncodesPositions(small_encoder(kind)), zoo, symmetry, seed=12) > BROKEN


def stretched(batch: CrystalBatch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """No symmetry: one Cartesian axis is 5 % longer."""
    return batch.frac_coords, batch.lattice * torch.tensor([1.05, 1.0, 1.0]), in_order(batch)


def one_atom_moved(batch: CrystalBatch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """No symmetry: the last atom of each crystal moves by a part of the cell."""
    frac_coords = batch.frac_coords.clone()
    frac_coords[batch.ptr[1:] - 1] += torch.tensor([0.03, 0.05, -0.04], dtype=frac_coords.dtype)
    return frac_coords, batch.lattice, in_order(batch)


@pytest.mark.parametrize("change", [stretched, one_atom_moved], ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_score_network_sees_what_is_no_symmetry(kind: str, change: Symmetry, crystals: CrystalBatch) -> None:
    assert score_difference(small_score_network(kind), crystals, change, seed=11) > BROKEN


@pytest.mark.parametrize("change", [stretched, one_atom_moved], ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_sees_what_is_no_symmetry(kind: str, change: Symmetry, crystals: CrystalBatch) -> None:
    assert code_difference(small_encoder(kind), crystals, change, seed=12) > 1e-4


def cell_change_difference(kind: str, batch: CrystalBatch) -> float:
    """How far the vectors are from those of the same crystal in another cell, its lattice parameters held."""
    change = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 1.0]], dtype=torch.float64)
    back = torch.linalg.inv(change)
    before = noisy(batch)
    after = replace(before, lattice=change @ batch.lattice, free=(batch.frac_coords @ back) % 1.0)
    network = small_score_network(kind)
    z, level = codes(len(batch), torch.float64)
    with torch.no_grad():
        expected, got = network(before, z, level), network(after, z, level)
    return difference(got.free, expected.free @ back)


@pytest.mark.parametrize("kind", ["painn", "gemnet"])
def test_vectors_on_the_graph_do_not_know_the_choice_of_the_cell(kind: str, crystals: CrystalBatch) -> None:
    assert cell_change_difference(kind, crystals) < 1e-8


def test_fractional_network_knows_the_choice_of_the_cell(zoo: CrystalBatch) -> None:
    assert cell_change_difference("fractional", zoo) > BROKEN


@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_score_of_a_crystal_does_not_depend_on_its_batch(kind: str, zoo: CrystalBatch) -> None:
    network = small_score_network(kind)
    z, level = codes(len(zoo), torch.float64)
    with torch.no_grad():
        together = network(noisy(zoo, mask_every=None), z, level).free[1:]
        alone = [network(noisy(zoo.select([i]), mask_every=None), z[[i]], level[[i]]).free for i in range(1, len(zoo))]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0.0, atol=1e-9)


# -- the whole model -----------------------------------------------------------------------------------------------


def whole_model(kind: str, crystals: CrystalBatch) -> CDVAE:
    settings = EncoderConfig.model_validate({"kind": kind, "channels": 4, "width": 16, "cutoff": 5.0})
    model = CDVAE(small_config(encoder=settings))
    model.fit_statistics(model.prepare(crystals))
    at_a_generic_point(model.encoder, seed=5)
    return model.eval()


def structures() -> list[Structure]:
    """Ordinary crystals and one without any symmetry."""
    odd = Structure(
        Lattice.from_parameters(4.1, 5.3, 6.2, 82.0, 71.0, 77.0),
        ["Li", "Mn", "O", "O"],
        [[0.1, 0.2, 0.05], [0.6, 0.55, 0.4], [0.3, 0.9, 0.7], [0.85, 0.4, 0.85]],
    )
    return [*ordinary_crystals().structures(), odd]


def turned(structure: Structure, generator: np.random.Generator) -> Structure:
    q, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    q = q * np.linalg.det(q)
    return Structure(Lattice(structure.lattice.matrix @ q), structure.species, structure.frac_coords)


def shifted(structure: Structure, generator: np.random.Generator) -> Structure:
    return Structure(structure.lattice, structure.species, structure.frac_coords + generator.uniform(size=3))


def shuffled(structure: Structure, generator: np.random.Generator) -> Structure:
    order = generator.permutation(len(structure))
    return Structure(structure.lattice, [structure.species[i] for i in order], structure.frac_coords[order])


def strained(structure: Structure, generator: np.random.Generator) -> Structure:
    return Structure(Lattice(structure.lattice.matrix * 1.05), structure.species, structure.frac_coords)


def encoding_difference(kind: str, change: Callable[[Structure, np.random.Generator], Structure]) -> float:
    before = structures()
    model = whole_model(kind, cast(concatenate([ordinary_crystals()]), torch.float32))
    after = [change(structure, np.random.default_rng(6)) for structure in before]
    return difference(model.encode(after, allow_outside=True), model.encode(before, allow_outside=True))


@pytest.mark.parametrize("change", [turned, shifted, shuffled])
@pytest.mark.parametrize("kind", ENCODERS)
def test_code_of_a_structure_does_not_know_how_it_is_written(kind: str, change: Callable[..., Structure]) -> None:
    assert encoding_difference(kind, change) < 5e-3


@pytest.mark.parametrize("kind", ENCODERS)
def test_code_of_a_structure_knows_its_density(kind: str) -> None:
    assert encoding_difference(kind, strained) > BROKEN
