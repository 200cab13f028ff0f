"""The whole model: its loss, its codes, every choice of its configuration."""

import itertools
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.symmetric import without_symmetry
from cdvae_kit.diffusion.samplers import SAMPLERS, make_sampler
from cdvae_kit.models import CDVAE, CDVAEConfig
from cdvae_kit.models.config import EncoderConfig, NoiseConfig, PriorConfig, ScoreNetworkConfig
from cdvae_kit.seeding import make_generator
from tests.models.crystals import cast, ordinary_crystals
from tests.models.tiny import LATENT_DIM, MAX_ATOMS, some_crystals, tiny_model

EVERY_TERM: dict[str, Any] = {"properties": ("energy",), "noise": NoiseConfig(types="absorbing")}


def codes(model: CDVAE, crystals: Any, **options: Any) -> torch.Tensor:
    """Codes of crystals that a model of random weights has never seen the like of."""
    return model.encode(crystals, allow_outside=True, **options)


def with_energy(num_crystals: int = 8) -> CrystalBatch:
    return some_crystals(num_crystals, properties={"energy": torch.arange(float(num_crystals))})


def symmetric_with_energy() -> CrystalBatch:
    """Crystals of several groups, and one of none: without choice a head has nothing to learn."""
    crystals = concatenate([cast(ordinary_crystals(), torch.float32), some_crystals(3)])
    return crystals.replace(properties={"energy": torch.arange(float(len(crystals)))}, material_ids=None)


def losses(model: CDVAE, crystals: CrystalBatch, seed: int = 0) -> dict[str, torch.Tensor]:
    prepared = model.prepare(crystals)
    return model.loss(prepared, model.graph(prepared), generator=make_generator(seed))


def has_gradient(module: nn.Module) -> bool:
    return any(p.grad is not None and bool((p.grad != 0.0).any()) for p in module.parameters())


# -- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "heads"),
    [
        ("num_atoms", ["num_atoms_head", "encoder"]),
        ("lattice_head", ["lattice_head", "encoder"]),
        ("composition", ["composition_head", "encoder"]),
        ("property", ["property_head", "encoder"]),
        ("group", ["symmetry_head", "encoder"]),
        ("positions", ["symmetry_head", "encoder"]),
        ("kl", ["encoder"]),
        ("coordinates", ["score_network", "encoder"]),
        ("types", ["score_network", "encoder"]),
        ("lattice", ["score_network", "encoder"]),
    ],
)
def test_each_term_reaches_its_head_and_the_encoder_and_no_other_head(term: str, heads: list[str]) -> None:
    model, crystals = tiny_model(**EVERY_TERM), symmetric_with_energy()
    model.fit_statistics(model.prepare(crystals))
    losses(model, crystals)[term].backward()
    heads_of_all = ("num_atoms_head", "lattice_head", "composition_head", "property_head", "symmetry_head")
    parts = ("encoder", "score_network", *heads_of_all)
    assert {name for name in parts if has_gradient(getattr(model, name))} == set(heads)


def test_the_total_holds_every_term_with_its_weight() -> None:
    model, crystals = tiny_model(**EVERY_TERM), symmetric_with_energy()
    model.fit_statistics(model.prepare(crystals))
    terms = {name: value.detach() for name, value in losses(model, crystals).items()}
    expected = {"kl", "num_atoms", "lattice_head", "composition", "property", "coordinates", "types", "lattice"}
    expected |= {"group", "positions"}
    assert expected <= set(terms)
    assert all(value.ndim == 0 and bool(value.isfinite()) and float(value) > 0.0 for value in terms.values())
    weights = model.config.loss_weights
    by_hand = sum(getattr(weights, name) * float(value) for name, value in terms.items())
    assert float(model.total_loss(terms)) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("composition", ["counts", "fractions"])
@pytest.mark.parametrize("types", ["fixed", "absorbing", "published"])
def test_only_what_is_learned_has_a_term(types: str, composition: str) -> None:
    model = tiny_model(noise=NoiseConfig(types=types, lattice="fixed"), composition=composition)
    terms = losses(model, some_crystals())
    assert ("types" in terms) == (types != "fixed")
    assert "lattice" not in terms
    assert "property" not in terms
    assert bool(model.total_loss(terms).isfinite())


def test_one_seed_gives_one_loss_and_touches_no_global_generator() -> None:
    model, crystals, before = tiny_model(), some_crystals(), torch.random.get_rng_state()
    first, again, other = (float(losses(model, crystals, seed)["coordinates"].detach()) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_kl_term_is_that_of_two_normal_distributions() -> None:
    model = tiny_model()
    crystals = model.prepare(some_crystals())
    with torch.no_grad():
        mu, log_var = model.posterior(crystals, model.graph(crystals))
        found = losses(model, crystals)["kl"]
    posterior = torch.distributions.Normal(mu, torch.exp(0.5 * log_var))
    prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(-1).mean()
    torch.testing.assert_close(found, expected)


def test_a_missing_property_does_not_count() -> None:
    model = tiny_model(properties=("energy",))
    crystals = with_energy(6)
    values = crystals.properties["energy"].clone()
    values[[1, 4]] = float("nan")
    holed = crystals.replace(properties={"energy": values})
    z = torch.randn(6, LATENT_DIM, generator=make_generator(1))
    known = [0, 2, 3, 5]
    expected = model._property_loss(z[known], crystals.select(known))
    torch.testing.assert_close(model._property_loss(z, holed), expected)
    # even where none is known
    losses(model, crystals.replace(properties={"energy": torch.full((6,), float("nan"))}))["property"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), name


def test_a_loss_can_be_driven_down() -> None:
    model = tiny_model(noise=NoiseConfig(types="absorbing"))
    crystals = model.prepare(some_crystals())
    graph, optimizer = model.graph(crystals), torch.optim.Adam(model.parameters(), lr=5e-3)
    history = []
    for step in range(60):
        optimizer.zero_grad()
        loss = model.total_loss(model.loss(crystals, graph, generator=make_generator(step)))
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert sum(history[-10:]) < 0.8 * sum(history[:10])


# -- statistics ------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_training_crystals() -> None:
    model = tiny_model(properties=("energy",))
    crystals = with_energy(10)
    values = crystals.properties["energy"].clone()
    values[3] = float("nan")
    model.fit_statistics(model.prepare(crystals.replace(properties={"energy": values})))
    known = values[values.isfinite()]
    assert float(model.property_mean[0]) == pytest.approx(float(known.mean()))
    assert float(model.property_std[0]) == pytest.approx(float(known.std()))
    assert model.known_elements.tolist() == sorted(set(crystals.atomic_numbers.tolist()))


def test_predicted_properties_are_in_the_unit_of_the_data() -> None:
    model = tiny_model(properties=("energy", "gap"))
    z = torch.randn(3, LATENT_DIM, generator=make_generator(2))
    predicted = model.predict_properties(z)
    assert set(predicted) == {"energy", "gap"}
    with torch.no_grad():
        scaled = model.property_head(z)
    torch.testing.assert_close(predicted["gap"], scaled[:, 1] * model.property_std[1] + model.property_mean[1])


def test_properties_that_the_crystals_lack_are_told() -> None:
    with pytest.raises(ValueError, match=r"predicts \['gap'\].*they have \['energy'\]"):
        tiny_model(properties=("gap",)).fit_statistics(without_symmetry(with_energy()))
    nothing = some_crystals(4, properties={"energy": torch.tensor([1.0, float("nan"), float("nan"), float("nan")])})
    with pytest.raises(ValueError, match="'energy' has 1 values"):
        tiny_model(properties=("energy",)).fit_statistics(without_symmetry(nothing))


# -- codes -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> CDVAE:
    return tiny_model()


def test_codes_have_the_latent_width_and_crystals_come_back_from_them(model: CDVAE) -> None:
    assert model.config.latent_dim != model.config.hidden_dim
    crystals = some_crystals(7)
    z = codes(model, crystals)
    assert z.shape == (7, LATENT_DIM) and not z.requires_grad
    decoded = model.decode(z)
    assert len(decoded) == 7
    assert int(decoded.num_atoms.max()) <= MAX_ATOMS
    assert len(decoded.structures()) == len(decoded.atoms()) == 7


def test_structures_and_atoms_are_encoded_as_the_batch_is(model: CDVAE) -> None:
    crystals = some_crystals(5)
    expected = codes(model, crystals)
    torch.testing.assert_close(codes(model, crystals.structures()), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(codes(model, crystals.atoms()), expected, rtol=1e-3, atol=1e-4)


def test_the_batch_size_changes_no_code(model: CDVAE) -> None:
    crystals = some_crystals(9)
    for seed in (None, 3):
        expected = codes(model, crystals, seed=seed)
        torch.testing.assert_close(codes(model, crystals, seed=seed, batch_size=2), expected, rtol=1e-4, atol=1e-5)


def test_a_draw_from_the_posterior_is_seeded_and_has_its_mean_and_deviation(model: CDVAE) -> None:
    one = some_crystals(4).select([3])
    many = one.select([0] * 4000)
    mean, drawn = (
        codes(model, one, reduce=False),
        codes(model, many, seed=1, reduce=False),
    )
    assert torch.equal(drawn, codes(model, many, seed=1, reduce=False))
    assert not torch.equal(drawn, codes(model, many, seed=2, reduce=False))
    prepared = model.prepare(one)
    with torch.no_grad():
        std = torch.exp(0.5 * model.posterior(prepared, model.graph(prepared))[1])
    torch.testing.assert_close((drawn.mean(0) - mean[0]) / std[0], torch.zeros(LATENT_DIM), atol=0.08, rtol=0.0)
    torch.testing.assert_close(drawn.std(0) / std[0], torch.ones(LATENT_DIM), atol=0.06, rtol=0.0)


def test_another_cell_of_the_same_crystal_has_the_same_code(model: CDVAE) -> None:
    crystals = some_crystals(4)
    shear = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    skewed = crystals.replace(
        lattice=shear @ crystals.lattice, frac_coords=crystals.frac_coords @ torch.linalg.inv(shear)
    )
    expected = codes(model, crystals)
    torch.testing.assert_close(codes(model, skewed), expected, rtol=1e-2, atol=1e-3)
    # the control: a model without symmetry and without reduction sees another cell
    plain = tiny_model(symmetry="none")
    torch.testing.assert_close(codes(plain, skewed), codes(plain, crystals), rtol=1e-2, atol=1e-3)
    assert not torch.allclose(
        codes(plain, skewed, reduce=False),
        codes(plain, crystals),
        rtol=1e-2,
        atol=1e-3,
    )


def test_crystals_larger_than_the_model_takes_are_refused(model: CDVAE, zoo: CrystalBatch) -> None:
    with pytest.raises(ValueError, match=rf"24 atoms; this model takes at most {MAX_ATOMS} \(max_atoms\)"):
        codes(model, zoo)


# -- every choice ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coordinates", "types", "lattice"),
    list(
        itertools.product(
            ("straight_path", "wrapped_normal", "gaussian"), ("fixed", "absorbing", "published"), ("path", "fixed")
        )
    ),
)
def test_every_kind_of_noise_trains_and_samples_crystals(coordinates: str, types: str, lattice: str) -> None:
    noise = NoiseConfig(coordinates=coordinates, types=types, lattice=lattice)
    composition = "fractions" if types == "published" else "counts"
    coding = "lengths_angles" if lattice == "fixed" else "log_stretch"
    # published lattices go without symmetry alone
    symmetry = "none" if lattice == "fixed" else "orbits"
    model = tiny_model(noise=noise, composition=composition, lattice=coding, symmetry=symmetry)
    model.total_loss(losses(model, some_crystals())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), name
    crystals = model.sample(5, num_steps=3)
    assert bool(crystals.frac_coords.isfinite().all()) and bool(crystals.lattice.isfinite().all())
    assert 1 <= int(crystals.atomic_numbers.min()) <= int(crystals.atomic_numbers.max()) <= 100


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_samples_crystals(name: str) -> None:
    model = tiny_model(noise=NoiseConfig(coordinates="wrapped_normal", types="absorbing"))
    crystals = model.sample(4, sampler=make_sampler(name, num_steps=3))
    assert bool(crystals.frac_coords.isfinite().all()) and bool(crystals.lattice.isfinite().all())


@pytest.mark.parametrize("num_atoms", [1, 2])
def test_crystals_of_one_atom_have_a_loss_and_can_be_decoded(num_atoms: int) -> None:
    model, crystals = tiny_model(noise=NoiseConfig(types="absorbing")), some_crystals(12)
    few = crystals.select((crystals.num_atoms == num_atoms).nonzero().squeeze(-1))
    model.total_loss(losses(model, few)).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    with torch.no_grad():
        model.num_atoms_head.linear.bias[num_atoms - 1] += 100.0
    assert model.sample(3, num_atoms=num_atoms, num_steps=2).num_atoms.tolist() == [num_atoms] * 3


def test_without_a_learned_prior_codes_are_standard_normal() -> None:
    model = tiny_model(prior=None)
    assert model.prior is None
    assert len(model.sample(3)) == 3


# -- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CDVAEConfig(latent_width=3), "latent_width"),
        (lambda: CDVAEConfig(max_atoms=0), "greater than or equal to 1"),
        (lambda: CDVAEConfig(latent_dim=0), "greater than or equal to 1"),
        (lambda: CDVAEConfig(sharpening=-1.0), "greater than or equal to 0"),
        (lambda: CDVAEConfig(composition="guess"), "'counts' or 'fractions'"),
        (lambda: CDVAEConfig(symmetry="some"), "'orbits' or 'none'"),
        (lambda: CDVAEConfig(tolerance=0.0), "greater than 0"),
        (lambda: CDVAEConfig(lattice="lengths_angles"), "needs lattice='log_stretch'"),
        (lambda: CDVAEConfig(noise=NoiseConfig(sigma_min=1.0, sigma_max=0.5)), "sigma_min must be below"),
        (lambda: NoiseConfig(coordinates="cosine"), "straight_path"),
        (lambda: EncoderConfig(lmax=9), "less than or equal to 4"),
        (lambda: ScoreNetworkConfig(kind="transformer"), "fractional"),
        (lambda: PriorConfig(width=0), "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()


def test_settings_cannot_be_changed_afterwards(model: CDVAE) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        model.config.latent_dim = 3


def test_settings_survive_the_journey_through_json() -> None:
    config = tiny_model(**EVERY_TERM).config
    assert CDVAEConfig.model_validate_json(config.model_dump_json()) == config
