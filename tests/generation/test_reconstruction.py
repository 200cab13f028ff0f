"""Crystals through the latent space and back."""

import pytest
import torch

from cdvae_kit.crystal.lattice import wrap_displacement
from cdvae_kit.generation import interpolate, reconstruct
from cdvae_kit.models import CDVAE, decoding
from tests.models.tiny import some_crystals, tiny_model


@pytest.fixture(scope="module")
def model() -> CDVAE:
    return tiny_model()


def test_a_reconstruction_is_one_decode_of_one_draw_of_the_posterior(model: CDVAE) -> None:
    crystals = some_crystals(6)
    z = model.encode(crystals, seed=4, allow_outside=True)
    expected = model.decode(z, seed=4, num_steps=3)
    found = reconstruct(model, crystals, seed=4, steps=3, allow_outside=True)
    assert torch.equal(found.frac_coords, expected.frac_coords)
    assert torch.equal(found.lattice, expected.lattice)


def test_names_and_order_are_kept_and_properties_are_not(model: CDVAE) -> None:
    crystals = some_crystals(6, properties={"energy": torch.arange(6.0)})
    order = [5, 0, 3, 1, 4, 2]
    shuffled = crystals.select(order)
    found = reconstruct(model, shuffled, allow_outside=True)
    assert found.material_ids == [f"crystal-{i}" for i in order]
    assert not found.properties
    # each stands where its crystal does: sizes are read from the codes
    z = model.encode(shuffled, seed=0, allow_outside=True)
    assert torch.equal(found.num_atoms, decoding.read_num_atoms(model, z))


@pytest.mark.parametrize("batch_size", [1, 4, "auto"])
def test_the_batch_size_changes_no_crystal(model: CDVAE, batch_size) -> None:
    crystals = some_crystals(6)
    first, other = (
        reconstruct(model, crystals, allow_outside=True),
        reconstruct(model, crystals, batch_size=batch_size, allow_outside=True),
    )
    assert torch.equal(first.atomic_numbers, other.atomic_numbers)
    assert float(wrap_displacement(first.frac_coords - other.frac_coords).abs().max()) < 1e-3


def test_structures_are_taken_and_progress_is_told(model: CDVAE) -> None:
    told: list[tuple[int, int]] = []
    found = reconstruct(
        model,
        some_crystals(3).structures(),
        batch_size=2,
        allow_outside=True,
        progress=lambda done, total: told.append((done, total)),
    )
    assert len(found) == 3
    assert told == [(2, 3), (3, 3)]


def test_no_crystals_are_refused(model: CDVAE) -> None:
    with pytest.raises(ValueError, match="at least one crystal"):
        reconstruct(model, [], allow_outside=True)


def test_the_ends_of_a_path_are_the_decoded_ends(model: CDVAE) -> None:
    first, second = (some_crystals(6).select([i]) for i in (2, 5))
    path = interpolate(model, first, second, num_points=5, seed=2, allow_outside=True)
    for place, crystal in ((0, first), (4, second)):
        expected, end = model.decode(model.encode(crystal, allow_outside=True), seed=2), path.select([place])
        assert torch.equal(end.atomic_numbers, expected.atomic_numbers)
        assert float(wrap_displacement(end.frac_coords - expected.frac_coords).abs().max()) < 1e-3
        torch.testing.assert_close(end.lattice, expected.lattice, rtol=1e-3, atol=1e-3)


def test_the_share_of_the_way_is_a_property(model: CDVAE) -> None:
    first, second = (some_crystals(6).structures()[i] for i in (2, 5))
    path = interpolate(model, first, second, num_points=5, allow_outside=True)
    torch.testing.assert_close(path.properties["position"], torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))


def test_a_path_from_a_crystal_to_itself_stands_still(model: CDVAE) -> None:
    """All points start from the same noise."""
    crystal = some_crystals(6).select([4])
    path = interpolate(model, crystal, crystal, num_points=4, allow_outside=True)
    coords = path.frac_coords.view(4, -1, 3)
    assert float(wrap_displacement(coords - coords[:1]).abs().max()) < 1e-3


def test_wrong_ends_are_refused(model: CDVAE) -> None:
    one, two = some_crystals(1), some_crystals(2)
    with pytest.raises(ValueError, match="2 or more, got 1"):
        interpolate(model, one, one, num_points=1, allow_outside=True)
    with pytest.raises(ValueError, match="got a batch of 2"):
        interpolate(model, one, two, allow_outside=True)
