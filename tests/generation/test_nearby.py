"""Crystals near given ones: how far their codes lie, what holds, and what a distance of nothing and of much gives."""

from pathlib import Path

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets import load_dataset
from cdvae_kit.generation import check_crystals, sample_near, sample_to_file, seeds_of
from cdvae_kit.generation.nearby import Seeds, codes_near, whitened_length
from cdvae_kit.io import read_crystals
from cdvae_kit.models import CDVAE, decoding
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.outside import OutsideModelError
from cdvae_kit.seeding import make_generator
from tests.models.tiny import seed_weights, some_crystals, tiny_config, tiny_model


@pytest.fixture(scope="module")
def known() -> CrystalBatch:
    return load_dataset("ionic_prototypes", split="val").crystals


@pytest.fixture(scope="module")
def model(known: CrystalBatch) -> CDVAE:
    """Random weights; the codes' axes have spreads from 0.5 to 3, so that whitening is seen."""
    made = CDVAE(tiny_config(max_atoms=14, properties=("ewald_energy",)))
    seed_weights(made, 1)
    made.fit_statistics(made.prepare(known))
    assert made.prior is not None
    spread = torch.linspace(0.5, 3.0, made.config.latent_dim)
    made.prior.set_statistics(spread * torch.randn(400, made.config.latent_dim, generator=make_generator(3)))
    made.prior.farthest.fill_(torch.inf)
    return made.eval()


def test_codes_lie_at_the_distance_that_is_asked_for(model: CDVAE, known: CrystalBatch) -> None:
    ids = torch.arange(30)
    seeds = seeds_of(model, known.select([0, 1, 2]), distance=0.2)
    codes = codes_near(model, seeds, ids, seed=0)
    length = whitened_length(model, codes - seeds.codes[ids % 3])
    torch.testing.assert_close(length, torch.full((30,), 0.2), rtol=1e-4, atol=0.0)
    # one standard deviation along every axis is the distance 1
    assert model.prior is not None
    step = torch.ones(1, model.config.latent_dim) @ model.prior.colour
    torch.testing.assert_close(whitened_length(model, step), torch.ones(1))


def test_two_unrelated_training_crystals_lie_some_1_4_apart(model: CDVAE) -> None:
    assert model.prior is not None
    noise = torch.randn(2, 4000, model.config.latent_dim, generator=make_generator(5))
    apart = whitened_length(model, (noise[0] - noise[1]) @ model.prior.colour)
    assert float(apart.square().mean().sqrt()) == pytest.approx(2**0.5, abs=0.02)


def test_no_distance_gives_the_code_itself_and_a_large_one_the_prior(model: CDVAE, known: CrystalBatch) -> None:
    ids = torch.arange(8)
    seeds = seeds_of(model, known.select([4]), distance=0.0)
    torch.testing.assert_close(codes_near(model, seeds, ids, seed=2), seeds.codes.expand(8, -1))
    far = codes_near(model, Seeds(seeds.codes, 1e6), ids, seed=2)
    torch.testing.assert_close(far, decoding.sample_codes(model, ids, seed=2))


def test_nothing_changes_at_no_distance_and_something_further_off(model: CDVAE, known: CrystalBatch) -> None:
    seeds = seeds_of(model, known.select([4]), distance=0.0)
    same = sample_near(model, 6, seeds, num_steps=2, max_tries=1)
    assert len(set(same.num_atoms.tolist())) == 1 and len(set(same.space_group.tolist())) == 1
    far = sample_near(model, 6, Seeds(seeds.codes, 1.0), num_steps=2, max_tries=1)
    assert len({tuple(s.composition.items()) for s in far.plain().structures()}) > 1


def test_what_is_asked_for_holds_near_a_crystal_of_another_kind(model: CDVAE, known: CrystalBatch) -> None:
    wish = Conditions(contains=(8,), num_atoms=5, space_group=221)
    for distance in (0.0, 0.5):
        seeds = seeds_of(model, known.select([0, 1]), distance=distance)
        crystals = sample_near(model, 6, seeds, conditions=wish, num_steps=2)
        assert all(all(check.values()) for check in check_crystals(wish, crystals))


def test_a_property_steers_the_direction(model: CDVAE, known: CrystalBatch) -> None:
    ids = torch.arange(8)
    seeds = seeds_of(model, known.select([0]), distance=0.5)
    plain = codes_near(model, seeds, ids, seed=0)
    told = codes_near(model, seeds, ids, seed=0, conditions=Conditions(properties={"ewald_energy": -30.0}))
    assert float((plain - told).norm(dim=-1).min()) > 1e-4


def test_a_crystal_depends_on_seed_and_number_alone(model: CDVAE, known: CrystalBatch) -> None:
    seeds = seeds_of(model, known.select([0, 1, 2]), distance=0.3)
    whole = sample_near(model, 7, seeds, num_steps=2)
    rest = sample_near(model, 3, seeds, first_id=4, num_steps=2)
    torch.testing.assert_close(whole.select([4, 5, 6]).lattice, rest.lattice)
    other = sample_near(model, 3, seeds, first_id=4, seed=1, num_steps=2)
    assert not torch.allclose(other.lattice[0], rest.lattice[0])


def test_a_model_without_a_prior_goes_towards_normal_codes(known: CrystalBatch) -> None:
    plain = tiny_model(prior=None)
    seeds = seeds_of(plain, some_crystals(2), distance=0.3, allow_outside=True)
    codes = codes_near(plain, seeds, torch.arange(4), seed=0)
    length = (codes - seeds.codes[torch.tensor([0, 1, 0, 1])]).square().mean(-1).sqrt()
    torch.testing.assert_close(length, torch.full((4,), 0.3))


def test_a_file_of_neighbours_goes_on_where_it_was_stopped(model: CDVAE, known: CrystalBatch, tmp_path: Path) -> None:
    seeds = seeds_of(model, known.select([0]), distance=0.3)
    options = {"seeds": seeds, "steps": 2, "batch_size": 2}
    whole = sample_to_file(model, tmp_path / "whole.parquet", num_crystals=5, **options)  # type: ignore[arg-type]
    sample_to_file(model, tmp_path / "two.parquet", num_crystals=2, **options)  # type: ignore[arg-type]
    sample_to_file(model, tmp_path / "two.parquet", num_crystals=5, resume=True, **options)  # type: ignore[arg-type]
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    read = read_crystals(tmp_path / "whole.parquet", min_distance=None).crystals
    assert read.material_ids == whole.material_ids


def test_wrong_use_is_refused(model: CDVAE) -> None:
    with pytest.raises(ValueError, match="0 or more, got -1"):
        Seeds(torch.zeros(1, 5), -1.0)
    with pytest.raises(ValueError, match="codes"):
        Seeds(torch.zeros(0, 5), 0.1)
    xenon = some_crystals(1).replace(atomic_numbers=torch.tensor([54]))
    with pytest.raises(OutsideModelError, match="Xe"):
        seeds_of(model, xenon)
