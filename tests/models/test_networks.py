"""Score networks and encoders beyond their symmetries: what they see, gradients, and hostile crystals."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import volume
from cdvae_kit.crystal.symmetric import SymmetricCrystals, without_symmetry
from cdvae_kit.diffusion.state import NoisyCrystals, ScoreOutput
from cdvae_kit.graph import PeriodicGraph, neighbor_list
from cdvae_kit.models.cdvae import CDVAE
from cdvae_kit.models.config import EncoderConfig, NoiseConfig, ScoreNetworkConfig
from cdvae_kit.models.encoder import EquivariantEncoder
from cdvae_kit.models.noisy_graph import noisy_edges, to_fractional
from cdvae_kit.seeding import make_generator
from tests.models.crystals import (
    ENCODERS,
    SCORE_NETWORKS,
    at_a_generic_point,
    cast,
    codes,
    conventional_parameters,
    noisy,
    of_both_kinds,
    ordinary_crystals,
    small_config,
    small_encoder,
    small_score_network,
)

ON_THE_GRAPH = ("painn", "gemnet")


def two_atoms(apart: float, cell: float = 30.0, numbers: tuple[int, int] = (3, 9)) -> CrystalBatch:
    """A pair of atoms along (1, 2, 2) / 3, `apart` angstrom from each other, alone in a box."""
    direction = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64) / 3.0
    places = torch.stack([torch.zeros(3, dtype=torch.float64), apart * direction / cell])
    return CrystalBatch(
        places + 0.3, cell * torch.eye(3, dtype=torch.float64)[None], torch.tensor(numbers), torch.tensor([2])
    )


def predict(network: nn.Module, crystals: NoisyCrystals) -> ScoreOutput:
    z, level = codes(crystals.num_crystals, crystals.lattice.dtype)
    return network(crystals, z, level)


def without_gradient(network: nn.Module, total: Tensor) -> list[str]:
    """Parameters that get no gradient, or a zero one; the guess of surroundings and place has a loss of its own."""
    network.zero_grad()
    total.backward()
    return [
        name
        for name, parameter in network.named_parameters()
        if not any(guess in name for guess in ("sites.surroundings.", "sites.place."))
        and (parameter.grad is None or not bool(parameter.grad.abs().sum() > 0.0))
    ]


@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_gradient_reaches_every_parameter_of_a_score_network(kind: str, zoo: CrystalBatch) -> None:
    network = small_score_network(kind)
    output = predict(network, noisy(of_both_kinds(zoo)))
    total = output.free.square().sum() + output.type_logits.square().sum() + output.lattice.square().sum()
    assert without_gradient(network, total) == []


def test_search_for_parameters_without_gradient_finds_one(zoo: CrystalBatch) -> None:
    network = small_score_network("painn")
    output = predict(network, noisy(zoo))
    missing = without_gradient(network, output.free.square().sum() + output.lattice.square().sum())
    assert missing == ["heads.types_out.weight", "heads.types_out.bias"]


def encode(encoder: nn.Module, crystals: CrystalBatch, graph: PeriodicGraph | None = None) -> tuple[Tensor, Tensor]:
    symmetric = crystals if isinstance(crystals, SymmetricCrystals) else without_symmetry(crystals)
    if graph is None:
        graph = neighbor_list(symmetric, 5.0, max_neighbors=12)
        if isinstance(encoder, EquivariantEncoder):
            graph = graph.into(symmetric.orbits.first_atom)
    return encoder(symmetric, graph, conventional_parameters(symmetric))


@pytest.mark.parametrize("kind", ENCODERS)
def test_gradient_reaches_every_parameter_of_an_encoder(kind: str, zoo: CrystalBatch) -> None:
    encoder = small_encoder(kind)
    mu, log_var = encode(encoder, of_both_kinds(zoo))
    assert without_gradient(encoder, mu.square().sum() + log_var.sum()) == []


@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_output_depends_on_the_noise_level_that_a_network_is_told(kind: str, zoo: CrystalBatch) -> None:
    network = small_score_network(kind)
    crystals, (z, level) = noisy(zoo), codes(len(zoo), torch.float64)
    assert not torch.allclose(network(crystals, z, level).free, network(crystals, z, 1.0 - level).free)


@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_output_ignores_the_noise_level_that_a_network_is_not_told(kind: str, zoo: CrystalBatch) -> None:
    network = small_score_network(kind, knows_noise_level=False)
    crystals, (z, level) = noisy(zoo), codes(len(zoo), torch.float64)
    before, after = network(crystals, z, level), network(crystals, z, 1.0 - level)
    assert torch.equal(before.free, after.free)
    assert torch.equal(before.type_logits, after.type_logits)
    assert torch.equal(before.lattice, after.lattice)


@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_every_output_depends_on_z(kind: str, zoo: CrystalBatch) -> None:
    network = small_score_network(kind)
    crystals, (z, level) = noisy(zoo), codes(len(zoo), torch.float64)
    before, after = network(crystals, z, level), network(crystals, z + 1.0, level)
    for name in ("free", "type_logits", "lattice"):
        assert not torch.allclose(getattr(before, name), getattr(after, name)), name


@pytest.mark.parametrize("kind", ON_THE_GRAPH)
def test_atoms_at_inversion_centres_are_not_pushed(kind: str) -> None:
    """Every site of rock salt and of cubic perovskite is one, by symmetry, whatever the weights."""
    symmetric = ordinary_crystals().select([0, 1])
    coords = predict(small_score_network(kind), noisy(symmetric, mask_every=None)).free
    moved = symmetric.replace(frac_coords=symmetric.frac_coords + 0.03 * torch.eye(7, 3, dtype=torch.float64))
    assert float(coords.abs().max()) < 1e-10
    assert float(predict(small_score_network(kind), noisy(moved, mask_every=None)).free.abs().max()) > 1e-4


@pytest.mark.parametrize("kind", ON_THE_GRAPH)
def test_two_atoms_alone_are_pushed_along_their_line(kind: str) -> None:
    crystals = two_atoms(2.1)
    coords = predict(small_score_network(kind), noisy(crystals, mask_every=None)).free
    line = (crystals.frac_coords[1] - crystals.frac_coords[0])[None]
    assert float(coords.norm(dim=-1).min()) > 1e-4
    assert float(torch.linalg.cross(coords, line.expand(2, 3)).abs().max()) < 1e-10


@pytest.mark.parametrize("kind", ON_THE_GRAPH)
def test_atoms_out_of_reach_are_not_pushed(kind: str) -> None:
    coords = predict(small_score_network(kind), noisy(two_atoms(5.1))).free
    assert float(coords.abs().max()) == 0.0


@pytest.mark.parametrize("kind", ON_THE_GRAPH)
def test_push_vanishes_smoothly_at_the_cutoff(kind: str) -> None:
    """The envelope falls as the third power of the distance to the cutoff."""
    sizes = [float(predict(small_score_network(kind), noisy(two_atoms(5.0 - gap))).free.norm()) for gap in (0.2, 0.1)]
    assert sizes[0] > 0.0
    assert sizes[1] < sizes[0] / 6.0


@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_all_atoms_may_be_masked(kind: str, zoo: CrystalBatch) -> None:
    output = predict(small_score_network(kind), noisy(zoo, mask_every=1))
    assert bool(output.free.isfinite().all() & output.type_logits.isfinite().all())


@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_atoms_on_top_of_each_other_give_finite_outputs_and_gradients(kind: str) -> None:
    network = small_score_network(kind)
    crystals = noisy(two_atoms(0.0, cell=4.0))
    frac_coords = crystals.frac_coords.clone().requires_grad_()
    output = predict(network, replace(crystals, free=frac_coords))
    output.free.square().sum().backward()
    assert bool(output.free.isfinite().all())
    assert frac_coords.grad is not None and bool(frac_coords.grad.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", ON_THE_GRAPH)
def test_a_squeezed_or_flat_cell_neither_fills_the_memory_nor_spoils_the_others(kind: str) -> None:
    network = small_score_network(kind)
    good = ordinary_crystals()
    lattice = good.lattice.clone()
    lattice[0] *= 0.002
    lattice[3, 0] = lattice[3, 1] + 1e-7
    output = predict(network, noisy(good.replace(lattice=lattice), mask_every=None))
    expected = predict(network, noisy(good, mask_every=None))
    untouched = (good.batch == 1) | (good.batch == 2)
    assert bool(output.free.isfinite().all())
    torch.testing.assert_close(output.free[untouched], expected.free[untouched], rtol=0.0, atol=1e-10)


def test_edges_of_ordinary_noisy_crystals_are_those_of_the_neighbor_list(zoo: CrystalBatch) -> None:
    edges = noisy_edges(noisy(zoo), 5.0, 12)
    expected = neighbor_list(zoo, 5.0, max_neighbors=12)
    assert torch.equal(edges.graph.edge_index, expected.edge_index)
    assert torch.equal(edges.graph.cell_offsets, expected.cell_offsets)
    assert torch.equal(edges.graph.num_edges, expected.num_edges)
    torch.testing.assert_close(edges.distance, expected.distances(zoo))
    torch.testing.assert_close(edges.direction * edges.distance.unsqueeze(-1), expected.vectors(zoo))


@pytest.mark.parametrize("handed", [1.0, -1.0])
def test_cartesian_vectors_become_fractions_of_the_cell(zoo: CrystalBatch, handed: float) -> None:
    lattice = zoo.lattice * handed
    vectors = torch.randn(zoo.frac_coords.shape, generator=make_generator(2), dtype=torch.float64)
    expected = torch.einsum("nj,nji->ni", vectors, torch.linalg.inv(lattice)[zoo.batch])
    expected = expected * volume(lattice).pow(1.0 / 3.0)[zoo.batch].unsqueeze(-1)
    torch.testing.assert_close(to_fractional(vectors, lattice, zoo.batch), expected)


@pytest.mark.parametrize("kind", ON_THE_GRAPH)
def test_gradient_by_coordinates_is_that_of_finite_differences(kind: str) -> None:
    network = small_score_network(kind)
    crystals = noisy(ordinary_crystals().select([2]))
    moved = crystals.frac_coords + 0.02 * torch.randn(4, 3, generator=make_generator(9), dtype=torch.float64)
    moved.requires_grad_()

    def total(frac_coords: Tensor) -> Tensor:
        return predict(network, replace(crystals, free=frac_coords)).free.sin().sum()

    (gradient,) = torch.autograd.grad(total(moved), moved)
    step = torch.zeros_like(moved)
    step[1, 2] = 1e-6
    expected = float((total(moved + step) - total(moved - step)).detach()) / 2e-6
    assert float(gradient[1, 2]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_without_edges_is_finite(kind: str, zoo: CrystalBatch) -> None:
    none = PeriodicGraph(
        torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, 3, dtype=torch.long), torch.zeros_like(zoo.num_atoms)
    )
    mu, log_var = encode(small_encoder(kind), zoo, none)
    assert bool(mu.isfinite().all() & log_var.isfinite().all())


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_takes_the_heaviest_element_of_the_model(kind: str) -> None:
    mu, _ = encode(small_encoder(kind), two_atoms(2.0, numbers=(1, 100)))
    assert bool(mu.isfinite().all())


def test_dimenet_does_not_know_the_choice_of_the_cell(zoo: CrystalBatch) -> None:
    change = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 1.0]], dtype=torch.float64)
    other = zoo.replace(lattice=change @ zoo.lattice, frac_coords=zoo.frac_coords @ torch.linalg.inv(change))
    encoder = small_encoder("dimenet++")
    torch.testing.assert_close(encode(encoder, other)[0], encode(encoder, zoo)[0], rtol=1e-9, atol=1e-9)


# -- the whole model -----------------------------------------------------------------------------------------------


def whole_model(**changes: object) -> tuple[CDVAE, SymmetricCrystals]:
    crystals: CrystalBatch = cast(ordinary_crystals(), torch.float32)
    crystals = crystals.replace(properties={"energy": torch.tensor([1.0, -2.0, 0.5, 0.0])})
    settings: dict[str, object] = {
        "properties": ("energy",),
        "encoder": EncoderConfig(channels=4, width=16, cutoff=5.0),
        "score_network": ScoreNetworkConfig(width=16, num_layers=2, num_frequencies=3),
    }
    model = CDVAE(small_config(**(settings | changes)))
    prepared = model.prepare(crystals)
    model.fit_statistics(prepared)
    return at_a_generic_point(model, seed=6), prepared


HEADS: dict[str, tuple[str, ...]] = {
    "num_atoms": ("num_atoms_head",),
    "lattice_head": ("lattice_head",),
    "composition": ("composition_head",),
    "property": ("property_head",),
    "group": ("symmetry_head.group",),
    "positions": tuple(
        f"symmetry_head.{part}." for part in ("element", "code", "position", "of_element", "of_position", "out")
    ),
}


@pytest.mark.parametrize("term", HEADS)
def test_gradient_of_each_head_reaches_all_of_it_and_the_encoder(term: str) -> None:
    model, crystals = whole_model()
    terms = model.loss(crystals, model.graph(crystals), generator=make_generator(1))
    missing = without_gradient(model, terms[term])
    assert [name for name in missing if name.startswith((*HEADS[term], "encoder"))] == []


def test_gradient_of_the_whole_loss_reaches_all_but_the_types_and_the_prior() -> None:
    """Types are fixed by default, so that their logits are not asked for; the prior is fitted afterwards."""
    model, crystals = whole_model()
    total = model.total_loss(model.loss(crystals, model.graph(crystals), generator=make_generator(1)))
    missing = without_gradient(model, total)
    assert [name for name in missing if not name.startswith(("prior", "critic", "score_network.heads.types_out"))] == []


@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_published_choices_give_finite_losses_and_gradients(kind: str) -> None:
    model, crystals = whole_model(
        encoder=EncoderConfig(kind="dimenet++", cutoff=5.0, max_neighbors=12),
        score_network=ScoreNetworkConfig.model_validate(
            {"kind": kind, "width": 16, "num_layers": 1, "num_basis": 8, "knows_noise_level": False}
        ),
        noise=NoiseConfig(coordinates="gaussian", types="published", lattice="fixed"),
        symmetry="none",
        composition="fractions",
        lattice="lengths_angles",
        prior=None,
    )
    terms = model.loss(crystals, model.graph(crystals), generator=make_generator(1))
    assert set(terms) - {"sites"} == {
        "kl",
        "num_atoms",
        "lattice_head",
        "composition",
        "property",
        "coordinates",
        "types",
    }
    missing = without_gradient(model, model.total_loss(terms))
    # without symmetry no head reads it, and no parameter of an orbit is free of the origin
    unused = ("symmetry_head.", "score_network.place.")
    assert [name for name in missing if ".lattice_out." not in name and not name.startswith(unused)] == []
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", SCORE_NETWORKS)
def test_a_crystal_is_sampled_through_every_score_network(kind: str) -> None:
    settings = ScoreNetworkConfig.model_validate({"kind": kind, "width": 16, "num_layers": 1, "num_basis": 8})
    model, _ = whole_model(score_network=settings)
    crystals = model.sample(3, seed=1, num_steps=3)
    assert len(crystals) == 3
    assert bool(crystals.frac_coords.isfinite().all() & crystals.lattice.isfinite().all())
