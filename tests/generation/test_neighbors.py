"""Latent neighbours against a search by hand."""

import numpy as np
import pytest
import torch

from cdvae_kit.generation.latent_region import LatentRegion, path_noise
from cdvae_kit.generation.neighbors import latent_neighbors, nearest_codes
from cdvae_kit.generation.optimization.remoteness import remoteness
from cdvae_kit.seeding import make_generator
from tests.models.tiny import some_crystals, tiny_model


def test_the_neighbours_are_those_of_a_search_by_hand() -> None:
    codes, known = (torch.randn(n, 3, generator=make_generator(n)).double() for n in (7, 20))
    region = LatentRegion.of_codes(known)
    found = nearest_codes(region, codes, known, num_neighbors=4)
    covariance = torch.cov(known.T, correction=1)
    for i in range(len(codes)):
        # whitened distance is Mahalanobis's
        shift = known - codes[i]
        distances = (shift @ torch.linalg.inv(covariance) * shift).sum(-1).sqrt().numpy()
        order = np.argsort(distances)[:4]
        assert found.indices[i].tolist() == order.tolist()
        assert np.allclose(found.distances[i], distances[order], rtol=1e-6)


def test_a_crystal_of_the_reference_finds_itself() -> None:
    model, crystals = tiny_model(), some_crystals(8)
    found = latent_neighbors(model, crystals.select([5, 2]), crystals, num_neighbors=2, allow_outside=True)
    assert found.indices[:, 0].tolist() == [5, 2]
    assert np.allclose(found.distances[:, 0], 0.0, atol=1e-3) and (found.distances[:, 1] > 1e-2).all()


def test_more_neighbours_than_there_are_gives_all_and_none_is_refused() -> None:
    codes = torch.randn(3, 2, generator=make_generator(0))
    region = LatentRegion.of_codes(codes)
    assert nearest_codes(region, codes, codes, num_neighbors=9).indices.shape == (3, 3)
    others = nearest_codes(region, codes, codes, num_neighbors=9, skip_self=True).indices
    assert others.shape == (3, 2) and all(i not in others[i] for i in range(3))
    with pytest.raises(ValueError, match="a neighbour and a reference"):
        nearest_codes(region, codes, codes[:0])


def test_known_crystals_are_near_and_not_new() -> None:
    model, reference = tiny_model(), some_crystals(10)
    told = remoteness(model, reference.select([1, 4]), reference)
    assert np.allclose(told.latent, 0.0, atol=1e-3) and told.nearest.tolist() == [1, 4]
    assert told.new.tolist() == [0.0, 0.0] and told.new_composition.tolist() == [0.0, 0.0]
    assert np.allclose(told.composition, 0.0) and np.allclose(told.structure, 0.0, atol=1e-4)
    other = remoteness(model, some_crystals(6).select([3, 5]), reference)
    assert (other.latent > 0.01).all() and other.new.tolist() == [1.0, 1.0] and (other.composition > 0.0).all()


def test_the_region_holds_the_share_of_codes_that_it_says() -> None:
    codes = torch.randn(500, 4, generator=make_generator(1)) @ torch.diag(torch.tensor([1.0, 5.0, 0.1, 2.0]))
    region = LatentRegion.of_codes(codes, quantile=0.8)
    assert float((region.distance(codes) <= region.radius).float().mean()) == pytest.approx(0.8, abs=0.01)
    torch.testing.assert_close(region.codes(region.whitened(codes)), codes, rtol=1e-4, atol=1e-4)
    assert float(region.project(3.0 * region.whitened(codes)).norm(dim=-1).max()) <= region.radius * 1.0001


def test_the_region_of_a_model_is_that_of_its_prior() -> None:
    for changes in ({}, {"prior": None}):
        model = tiny_model(**changes)
        region = LatentRegion.of_model(model)
        drawn = torch.stack([model.prior.transport(n.unsqueeze(0))[0] for n in torch.eye(5)]) if model.prior else None
        assert region.radius > 0.0 and (region.prior is None) == (model.prior is None)
        assert drawn is None or bool(region.distance(drawn).isfinite().all())


def test_refreshing_at_level_zero_changes_nothing_and_more_noise_more() -> None:
    region = LatentRegion.of_model(tiny_model())
    w = torch.randn(6, 5, generator=make_generator(3))
    noise = path_noise(0, torch.arange(6), 5, 1)
    moved = [float((region.refreshed(w, level, noise) - w).norm()) for level in (0.0, 0.1, 0.4, 0.8)]
    assert moved[0] == 0.0 and moved == sorted(moved) and moved[1] > 0.0


def test_refreshing_without_a_prior_keeps_a_normal_cloud_normal() -> None:
    region = LatentRegion(torch.zeros(3), torch.eye(3), torch.eye(3), radius=4.0)
    w, noise = (torch.randn(20_000, 3, generator=make_generator(seed)) for seed in (1, 2))
    again = region.refreshed(w, 0.5, noise)
    torch.testing.assert_close(torch.cov(again.T), torch.eye(3), atol=0.05, rtol=0)
