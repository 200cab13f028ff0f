"""Orbits of one element and position that are told apart: by what, and what it changes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal.elements import pettifor_ranks
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import SymmetricCrystals, describe
from cdvae_kit.diffusion.coordinates import StraightPath
from cdvae_kit.diffusion.state import NoisyCrystals
from cdvae_kit.generation.fine_tuning import start_from
from cdvae_kit.models.cdvae import CDVAE
from cdvae_kit.models.sites import SiteEmbedding
from cdvae_kit.models.slots import NUM_WAVES, WaveSlots
from cdvae_kit.seeding import make_generator
from tests.crystal.every_group import general_and_special
from tests.models.crystals import noisy, ordinary_crystals
from tests.models.tiny import LATENT_DIM, seed_weights, tiny_config

FITS_ALL = 200


def model(*, numbered: bool = True) -> CDVAE:
    made = CDVAE(tiny_config(max_atoms=FITS_ALL, numbered_orbits=numbered))
    seed_weights(made)
    return made.eval()


def crystals() -> SymmetricCrystals:
    """Two equal orbits and more in every group, float32."""
    made = general_and_special(seed=3)
    return made.replace(free=made.free.float(), lattice=made.lattice.float())


def kinds(orbits: Orbits, elements: Tensor) -> list[tuple[int, int, int]]:
    """Crystal, place of the element in Pettifor's order, position."""
    places = [pettifor_ranks()[number] for number in elements.tolist()]
    return list(zip(orbits.batch.tolist(), places, orbits.position.tolist(), strict=True))


def brute_numbers(orbits: Orbits, elements: Tensor) -> list[int]:
    keys = [(*kind, row) for row, kind in enumerate(kinds(orbits, elements))]
    return [sum(other[0] == key[0] and other < key for other in keys) for key in keys]


def brute_anchors(orbits: Orbits, elements: Tensor) -> list[int]:
    keys = kinds(orbits, elements)
    best: dict[int, int] = {}
    for row, key in enumerate(keys):
        before = best.get(key[0])
        if before is None or (keys.count(key), key, row) < (keys.count(keys[before]), keys[before], before):
            best[key[0]] = row
    return [best[key[0]] for key in keys]


def random_orbits() -> tuple[Orbits, Tensor]:
    generator = make_generator(5)
    num_orbits = torch.randint(1, 8, (40,), generator=generator)
    total = int(num_orbits.sum())
    # groups 1 and 25: all axes polar, one axis polar; few kinds, so that many are equal
    group = torch.where(torch.arange(40) % 2 == 0, 1, 25)
    of_25 = int((Orbits(torch.tensor([25]), torch.tensor([1]), torch.tensor([0])).table.space_group < 25).sum())
    position = torch.randint(0, 3, (total,), generator=generator) + of_25
    elements = torch.randint(1, 3, (total,), generator=generator)
    batch = torch.repeat_interleave(torch.arange(40), num_orbits)
    return Orbits(group, num_orbits, torch.where(group[batch] == 1, 0, position)), elements


def test_numbers_and_anchors_are_those_of_a_search_one_by_one() -> None:
    orbits, elements = random_orbits()
    assert orbits.numbers(elements).tolist() == brute_numbers(orbits, elements)
    assert orbits.anchors(elements).tolist() == brute_anchors(orbits, elements)
    assert int(orbits.numbers(elements).max()) >= 3


def test_a_shift_along_polar_axes_is_not_seen_from_an_anchor() -> None:
    orbits, elements = random_orbits()
    free = torch.rand(len(elements), 3, generator=make_generator(6), dtype=torch.float64) * orbits.is_free
    shift = torch.rand(40, 3, generator=make_generator(7), dtype=torch.float64)[orbits.batch] * orbits.is_polar
    anchors = orbits.anchors(elements)
    apart = orbits.seen_from(anchors, free) - orbits.seen_from(anchors, free + shift)
    assert float((apart - apart.round()).abs().max()) < 1e-12
    other = torch.arange(len(elements)).flip(0)
    apart = orbits.seen_from(other, free) - orbits.seen_from(other, free + shift)
    assert float((apart - apart.round()).abs().max()) > 0.1


def mu_of(made: CDVAE, some: SymmetricCrystals) -> Tensor:
    with torch.no_grad():
        return made.posterior(some, made.graph(some))[0]


def test_codes_do_not_know_the_origin_along_polar_axes() -> None:
    made, some = model(), crystals()
    shift = torch.rand(len(some), 3, generator=make_generator(8))[some.orbits.batch] * some.orbits.is_polar
    moved = some.replace(free=(some.free + shift) % 1.0)
    expected = mu_of(made, some)
    assert float((mu_of(made, moved) - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    half = some.replace(free=(some.free + 0.5 * shift * (torch.arange(len(shift)) % 2).unsqueeze(-1)) % 1.0)
    assert float((mu_of(made, half) - expected).abs().max()) > 1e-3 * float(expected.abs().max())


def velocities(made: CDVAE, some: SymmetricCrystals, rows: Tensor) -> Tensor:
    """Of the orbits at `rows`, which stay within their crystals, in that order."""
    given = noisy(some, mask_every=None)
    orbits = Orbits(some.space_group, some.num_orbits, some.position[rows])
    lattice = given.lattice_parameters, given.lattice
    state = NoisyCrystals(orbits, some.free[rows], some.elements[rows], *lattice, orbits.pairs())
    z = torch.randn(len(some), LATENT_DIM, generator=make_generator(9))
    with torch.no_grad():
        return made.score_network(state, z, torch.full((len(some),), 0.4)).free


def reordered(some: SymmetricCrystals, *, equal: bool) -> Tensor:
    """Rows with two equal orbits of each crystal exchanged; or sorted by element, equal ones in the order they had."""
    if not equal:
        return torch.argsort(some.orbits.batch * 200 + some.elements, stable=True)
    rows = torch.arange(len(some.elements))
    rows[[0, 1]], rows[[4, 5]] = rows[[1, 0]], rows[[5, 4]]
    return rows


def with_equal_orbits() -> SymmetricCrystals:
    generator = make_generator(10)
    orbits = Orbits(torch.tensor([1, 1]), torch.tensor([4, 3]), torch.zeros(7, dtype=torch.long))
    lattice = 4.0 * torch.eye(3) + 0.3 * torch.randn(2, 3, 3, generator=generator)
    elements = torch.tensor([8, 8, 22, 8, 6, 6, 14])
    return SymmetricCrystals(orbits, elements, torch.rand(7, 3, generator=generator), lattice)


@pytest.mark.parametrize("numbered", [True, False])
def test_equal_orbits_are_told_apart_and_others_only_by_what_they_are(numbered: bool) -> None:
    made, some = model(numbered=numbered), with_equal_orbits()
    as_given = velocities(made, some, torch.arange(len(some.elements)))
    for equal, is_same in ((False, True), (True, not numbered)):
        rows = reordered(some, equal=equal)
        assert rows.tolist() != sorted(rows.tolist())
        apart = float((velocities(made, some, rows) - as_given[rows]).abs().max() / as_given.abs().max())
        assert (apart < 1e-5) == is_same, (equal, apart)


def test_gradients_are_finite_where_nothing_is_free() -> None:
    made, some = model(), describe(ordinary_crystals())
    some = some.replace(free=some.free.float(), lattice=some.lattice.float())
    assert not bool(some.select([0]).orbits.is_free.any())
    made.fit_statistics(some)
    made.train()
    terms = made.loss(some, made.graph(some), generator=make_generator(0))
    made.total_loss(terms).backward()
    grads = [parameter.grad for parameter in made.parameters() if parameter.grad is not None]
    assert all(bool(grad.isfinite().all()) for grad in grads)


def test_the_way_from_a_sure_guess_is_the_way() -> None:
    sites = SiteEmbedding(LATENT_DIM, 8, 100, most_orbits=4)
    generator = make_generator(11)
    guess, way = torch.rand(20, 3, generator=generator), 0.9 * torch.rand(20, 3, generator=generator) - 0.45
    phase = 2.0 * torch.pi * guess.unsqueeze(-1) * torch.arange(1, NUM_WAVES + 1)
    waves = torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(1)
    is_free = torch.ones(20, 3, dtype=torch.bool)
    is_free[::2, 1] = False
    seen = sites.seen_from_guess(waves, (guess + way) % 1.0, is_free)
    torch.testing.assert_close(seen[:, :3], way * is_free, atol=1e-5, rtol=0.0)
    assert not bool(seen.view(20, 7, 3)[::2, 0, 1].any())


def test_noise_is_not_exchanged_among_numbered_orbits() -> None:
    for numbered in (True, False):
        process = model(numbered=numbered).processes.coordinates
        assert isinstance(process, StraightPath)
        assert process.match_atoms is not numbered


def test_a_score_network_goes_on_as_it_was_when_its_orbits_get_numbers(tmp_path: Path) -> None:
    before = model(numbered=False)
    some = describe(ordinary_crystals())
    some = some.replace(free=some.free.float(), lattice=some.lattice.float())
    before.fit_statistics(some)
    before.save_pretrained(tmp_path / "before")
    after = CDVAE(tiny_config(max_atoms=FITS_ALL, numbered_orbits=True)).eval()
    start_from(after, tmp_path / "before", train=some)
    rows = torch.arange(len(some.elements))
    torch.testing.assert_close(velocities(after, some, rows), velocities(before, some, rows))


@pytest.mark.parametrize(
    "changes", [{"symmetry": "none"}, {"encoder": {"kind": "dimenet++"}}, {"score_network": {"kind": "painn"}}]
)
def test_without_an_order_or_networks_that_are_told_there_are_no_numbers(changes: dict[str, object]) -> None:
    made = CDVAE(tiny_config(numbered_orbits=True, **changes))
    assert not any("number" in name or "slots" in name for name in made.state_dict())
    assert isinstance(made.processes.coordinates, StraightPath) and made.processes.coordinates.match_atoms


def test_the_orbits_of_a_canonical_description_come_in_the_order_of_their_numbers() -> None:
    for some in (describe(ordinary_crystals()), describe(crystals())):
        first = (some.num_orbits.cumsum(0) - some.num_orbits)[some.orbits.batch]
        assert torch.equal(some.orbits.numbers(some.elements), torch.arange(len(first)) - first)


def test_slots_hold_the_parameters_of_every_orbit_in_one_code() -> None:
    """With maps that are orthonormal, what is read is what was written."""
    orbits, elements = random_orbits()
    slots = WaveSlots(8, 8 * 6 * NUM_WAVES)
    with torch.no_grad():
        slots.maps.copy_(torch.eye(8 * 6 * NUM_WAVES).view(8, 6 * NUM_WAVES, -1))
    waves = torch.randn(len(elements), 6 * NUM_WAVES, generator=make_generator(12))
    number = orbits.numbers(elements)
    torch.testing.assert_close(slots.read(slots.write(waves, number, orbits), number, orbits), waves)
    other = slots.read(slots.write(waves, number, orbits), (number + 1) % 8, orbits)
    assert float((other - waves).abs().max()) > 1.0
