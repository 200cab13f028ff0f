"""From codes to crystals: order, seeds, sizes, wrong use."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import metric_tensor, wrap_displacement
from cdvae_kit.diffusion.samplers import FlowSampler, LangevinSampler
from cdvae_kit.models import CDVAE, decoding
from cdvae_kit.models import codes as codes_module
from cdvae_kit.models.config import NoiseConfig
from cdvae_kit.seeding import make_generator
from tests.models.tiny import LATENT_DIM, MAX_ATOMS, some_crystals, tiny_model


@pytest.fixture(scope="module")
def model() -> CDVAE:
    return tiny_model()


@pytest.fixture(scope="module")
def codes() -> Tensor:
    return torch.randn(17, LATENT_DIM, generator=make_generator(1))


def assert_same_crystals(found: CrystalBatch, expected: CrystalBatch) -> None:
    assert torch.equal(found.num_atoms, expected.num_atoms)
    assert torch.equal(found.atomic_numbers, expected.atomic_numbers)
    assert float(wrap_displacement(found.frac_coords - expected.frac_coords).abs().max()) < 1e-3
    torch.testing.assert_close(found.lattice, expected.lattice, rtol=1e-3, atol=1e-3)


# -- the same crystals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 5, 17, 100])
def test_the_batch_size_changes_no_crystal(model: CDVAE, codes: Tensor, batch_size: int) -> None:
    expected = model.decode(codes, seed=3)
    assert len(set(expected.num_atoms.tolist())) > 1
    assert_same_crystals(model.decode(codes, seed=3, batch_size=batch_size), expected)


def test_the_batch_size_changes_no_crystal_whose_sampler_draws(codes: Tensor) -> None:
    noisy = tiny_model(noise=NoiseConfig(coordinates="wrapped_normal", types="absorbing", sigma_min=0.1))
    sampler = LangevinSampler(num_levels=3, steps_per_level=1, signal_to_noise=0.1, predictor=True)
    expected = noisy.decode(codes, seed=3, sampler=sampler)
    assert_same_crystals(noisy.decode(codes, seed=3, sampler=sampler, batch_size=4), expected)


def test_codes_in_another_order_give_the_same_crystals_in_that_order(model: CDVAE, codes: Tensor) -> None:
    order = torch.randperm(17, generator=make_generator(2))
    expected = decoding.decode(model, codes, seed=3).select(order)
    assert_same_crystals(decoding.decode(model, codes[order], seed=3, crystal_ids=order), expected)


def test_a_run_cut_into_chunks_gives_the_same_crystals(model: CDVAE) -> None:
    whole = decoding.sample(model, 9, seed=5)
    for first, count in ((0, 4), (4, 3), (7, 2)):
        part = decoding.sample(model, count, seed=5, first_id=first)
        assert_same_crystals(part, whole.select(range(first, first + count)))


def test_one_seed_gives_one_result_bit_for_bit(model: CDVAE) -> None:
    before = torch.random.get_rng_state()
    first, again = (model.sample(6, seed=5) for _ in range(2))
    assert torch.equal(first.frac_coords, again.frac_coords)
    assert torch.equal(first.lattice, again.lattice)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_seed_gives_other_crystals(model: CDVAE, codes: Tensor) -> None:
    first, other = model.decode(codes, seed=1), model.decode(codes, seed=2)
    # the codes are the same, so are the compositions; the starting points are not
    assert torch.equal(first.atomic_numbers, other.atomic_numbers)
    assert float(wrap_displacement(first.frac_coords - other.frac_coords).abs().median()) > 0.01
    assert not torch.equal(model.sample(6, seed=1).lattice, model.sample(6, seed=2).lattice)


def test_crystals_of_one_run_differ(model: CDVAE) -> None:
    z = decoding.sample_codes(model, torch.arange(8), seed=0)
    assert float(torch.pdist(z).min()) > 1e-3
    same = model.decode(z[:1].expand(2, -1), seed=0)
    n = int(same.num_atoms[0])
    assert not torch.allclose(same.frac_coords[:n], same.frac_coords[n:], atol=1e-3)


# -- codes from the prior --------------------------------------------------------------------------------------------


def test_crystals_of_the_size_asked_for_come_and_keep_their_codes_in_other_chunks(model: CDVAE) -> None:
    sizes = decoding.read_num_atoms(model, decoding.sample_codes(model, torch.arange(200), seed=0))
    common, rarer = torch.bincount(sizes).argsort(descending=True)[:2].tolist()
    for size in (common, rarer):
        crystals = model.sample(5, seed=1, num_atoms=size)
        assert crystals.num_atoms.tolist() == [size] * 5
        assert_same_crystals(decoding.sample(model, 2, seed=1, first_id=3, num_atoms=size), crystals.select([3, 4]))


def test_a_code_of_the_size_asked_for_is_the_first_draw_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = tiny_model(prior=None), torch.arange(20)
    draws = [codes_module._draw_noise(model, ids, 0, i, 1.0) for i in range(200)]
    size = int(torch.bincount(decoding.read_num_atoms(model, torch.cat(draws))).argsort(descending=True)[1])
    expected = torch.stack(
        [next(z[k] for z in draws if int(decoding.read_num_atoms(model, z[k : k + 1])) == size) for k in range(20)]
    )
    for at_once in (1, 64, 1024):
        monkeypatch.setattr(codes_module, "_CODES_AT_ONCE", at_once)
        found = decoding.sample_codes(model, ids, seed=0, num_atoms=size)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_size_that_the_model_never_makes_ends_in_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(prior=None)
    monkeypatch.setattr(codes_module, "_MAX_DRAWS", 5)
    monkeypatch.setattr(codes_module, "read_num_atoms", lambda model, z: torch.full((len(z),), 2))
    with pytest.raises(ValueError, match="4 of 4 codes did not read 3 atoms in 5 draws"):
        decoding.sample_codes(model, torch.arange(4), seed=0, num_atoms=3)


def test_at_temperature_0_all_codes_are_equal(model: CDVAE) -> None:
    z = decoding.sample_codes(model, torch.arange(5), seed=0, temperature=0.0)
    torch.testing.assert_close(z, z[:1].expand(5, -1))


def test_temperature_scales_the_noise() -> None:
    plain = tiny_model(prior=None)
    warm, cool = (decoding.sample_codes(plain, torch.arange(2000), seed=0, temperature=t) for t in (1.0, 0.5))
    torch.testing.assert_close(cool, 0.5 * warm)
    torch.testing.assert_close(warm.std(0), torch.ones(LATENT_DIM), atol=0.06, rtol=0.0)
    torch.testing.assert_close(warm.mean(0), torch.zeros(LATENT_DIM), atol=0.09, rtol=0.0)


# -- what comes out --------------------------------------------------------------------------------------------------


def test_progress_counts_up_to_all_crystals(model: CDVAE, codes: Tensor) -> None:
    told: list[tuple[int, int]] = []
    model.decode(codes, batch_size=5, progress=lambda done, total: told.append((done, total)))
    assert told == [(5, 17), (10, 17), (15, 17), (17, 17)]


def test_the_steps_of_denoising_can_be_watched(model: CDVAE, codes: Tensor) -> None:
    num_atoms = decoding.read_num_atoms(model, codes)
    states = list(decoding.denoise(model, codes, num_atoms, FlowSampler(3), seed=0, crystal_ids=torch.arange(17)))
    assert len(states) == 4
    assert float(wrap_displacement(states[1].frac_coords - states[0].frac_coords).abs().max()) > 1e-4
    expected = model.decode(codes, sampler=FlowSampler(3))
    assert_same_crystals(decoding.to_crystals(states[-1]), expected)


def test_crystals_come_in_the_frame_of_their_own_lattice(model: CDVAE, codes: Tensor) -> None:
    lattice = model.decode(codes).lattice
    # c along z, a in the xz plane
    torch.testing.assert_close(lattice[:, 2, :2], torch.zeros(17, 2))
    torch.testing.assert_close(lattice[:, 0, 1], torch.zeros(17))


@pytest.mark.parametrize("batch_size", [None, 1, 3, 50])
def test_batches_hold_every_crystal_once_and_similar_sizes_together(batch_size: int | None) -> None:
    num_atoms = torch.randint(1, 400, (200,), generator=make_generator(3))
    batches = list(decoding.batches_by_size(num_atoms, batch_size))
    assert sorted(torch.cat(batches).tolist()) == list(range(200))
    assert torch.equal(num_atoms[torch.cat(batches)], num_atoms.sort().values)
    for part in batches:
        if batch_size is not None:
            assert len(part) <= batch_size
        else:
            assert int(num_atoms[part].square().sum()) <= 400_000 + 400**2


# -- what goes in ----------------------------------------------------------------------------------------------------


def test_batches_structures_and_atoms_give_the_same_batch() -> None:
    crystals = some_crystals(4)
    expected = decoding.as_batch(crystals, reduce=True)
    for same in (crystals.structures(), crystals.atoms(), tuple(crystals.structures())):
        found = decoding.as_batch(same, reduce=True)
        assert torch.equal(found.atomic_numbers, expected.atomic_numbers)
        torch.testing.assert_close(metric_tensor(found.lattice), metric_tensor(expected.lattice), rtol=1e-4, atol=1e-3)


def test_reduction_keeps_names_and_properties_and_is_not_done_unasked() -> None:
    energy = torch.tensor([1.0, float("nan"), 3.0])
    crystals = some_crystals(3, properties={"energy": energy})
    shear = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    skewed = crystals.replace(
        lattice=shear @ crystals.lattice, frac_coords=crystals.frac_coords @ torch.linalg.inv(shear)
    )
    reduced = decoding.as_batch(skewed, reduce=True)
    assert reduced.material_ids == crystals.material_ids
    torch.testing.assert_close(reduced.properties["energy"], energy, equal_nan=True)
    expected = decoding.as_batch(crystals, reduce=True).lattice
    torch.testing.assert_close(reduced.lattice, expected, rtol=1e-3, atol=1e-2)
    assert torch.equal(decoding.as_batch(skewed, reduce=False).lattice, skewed.lattice)


def test_double_precision_crystals_are_taken(model: CDVAE, zoo: CrystalBatch) -> None:
    small = zoo.select([0, 1, 2])
    for reduce in (True, False):
        assert decoding.as_batch(small, reduce=reduce).lattice.dtype == torch.float32
        assert model.encode(small, reduce=reduce, allow_outside=True).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (list, ValueError, "at least one crystal"),
        (lambda: some_crystals(3).select([]), ValueError, "at least one crystal"),
        (lambda: ["NaCl"], TypeError, "got str"),
        (lambda: some_crystals(1).structures()[0], TypeError, "one Structure; put it into a list"),
        (lambda: some_crystals(1).atoms()[0], TypeError, "one Atoms; put it into a list"),
        (lambda: [*some_crystals(1).atoms(), *some_crystals(1).structures()], TypeError, "got Atoms, Structure"),
    ],
)
def test_what_is_no_sequence_of_crystals_is_refused(make, error: type[Exception], message: str) -> None:
    for reduce in (True, False):
        with pytest.raises(error, match=message):
            decoding.as_batch(make(), reduce=reduce)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(0), "num_crystals must be at least 1"),
        (lambda m: m.sample(2, temperature=-1.0), "temperature must not be negative"),
        (lambda m: m.sample(2, num_atoms=0), f"num_atoms must lie in 1..{MAX_ATOMS}"),
        (lambda m: m.sample(2, num_atoms=MAX_ATOMS + 1), f"num_atoms must lie in 1..{MAX_ATOMS}"),
        (lambda m: m.sample(2, batch_size=0), "batch_size must be at least 1"),
        (lambda m: m.sample(2, num_steps=0), "num_steps must be at least 1"),
        (lambda m: m.sample(2, num_steps=5, sampler=FlowSampler(5)), "num_steps is for the default sampler"),
        (lambda m: m.decode(torch.zeros(2, LATENT_DIM + 1)), rf"\(num_crystals, {LATENT_DIM}\), got \(2, "),
        (lambda m: m.decode(torch.zeros(LATENT_DIM)), "codes must be"),
        (lambda m: m.decode(torch.zeros(0, LATENT_DIM)), "at least one code"),
        (lambda m: m.decode(torch.full((1, LATENT_DIM), float("nan"))), "NaN"),
        (lambda m: m.sample(2, sampler=LangevinSampler()), "trained on straight paths"),
    ],
)
def test_wrong_use_is_told(model: CDVAE, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)


def test_the_default_sampler_suits_the_noise() -> None:
    straight, wrapped, published = (
        decoding.default_sampler(tiny_model(noise=NoiseConfig(coordinates=kind)), steps)
        for kind, steps in (("straight_path", None), ("wrapped_normal", 7), ("gaussian", 9))
    )
    assert isinstance(straight, FlowSampler) and straight.num_steps == 4 and straight.sharpening == 10.0
    assert isinstance(wrapped, FlowSampler) and wrapped.num_steps == 7
    assert published == LangevinSampler(num_levels=9, steps_per_level=100, step_size=1e-4)


def test_crystals_that_are_not_sound_are_drawn_anew_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    model.critic = None
    once = model.sample(5, seed=3, max_tries=1)
    judged: list[int] = []

    def first_crystal_overlaps_once(crystals: CrystalBatch) -> torch.Tensor:
        judged.append(len(crystals))
        worth = torch.full((len(crystals),), decoding.SOUND)
        worth[0] -= 0.1 * (len(judged) == 1)
        return worth

    monkeypatch.setattr(decoding, "soundness", first_crystal_overlaps_once)
    again = model.sample(5, seed=3, max_tries=3)
    assert judged == [5, 1]
    rest = [1, 2, 3, 4]
    assert_same_crystals(again.select(rest), once.select(rest))
    first, other = once.select([0]), again.select([0])
    assert len(first.frac_coords) != len(other.frac_coords) or not torch.equal(first.frac_coords, other.frac_coords)
    judged.clear()
    by_two = model.sample(5, seed=3, max_tries=3, batch_size=2)
    assert_same_crystals(by_two, again)


def test_of_crystals_of_which_none_is_sound_the_best_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    worths = iter([[0.3, 0.1], [0.2, 0.5], [0.2, 0.4]])
    drawn: list[CrystalBatch] = []
    decode = decoding.decode

    def kept_decode(*args: Any, **options: Any) -> Any:
        drawn.append(decode(*args, **options))
        return drawn[-1]

    monkeypatch.setattr(decoding, "soundness", lambda crystals: torch.tensor(next(worths)))
    monkeypatch.setattr(decoding, "decode", kept_decode)
    found = model.sample(2, seed=3, max_tries=3)
    assert len(drawn) == 3
    assert_same_crystals(found.select([0]), drawn[0].select([0]))
    assert_same_crystals(found.select([1]), drawn[1].select([1]))


def test_crystals_that_are_drawn_anew_keep_their_composition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else compositions whose crystals are hard to make would be lost; told nothing, redrawn codes have others."""
    model = tiny_model()
    model.critic = None
    first = model.sample(8, seed=3, max_tries=1)
    attempts: list[int] = []

    def never(crystals: CrystalBatch) -> torch.Tensor:
        attempts.append(len(crystals))
        # the last try is the best of bad ones
        return torch.full((len(crystals),), 0.1 * len(attempts))

    monkeypatch.setattr(decoding, "soundness", never)
    again = model.sample(8, seed=3, max_tries=3)
    assert attempts == [8, 8, 8]
    counts = model.element_counts(first)
    assert torch.equal(model.element_counts(again), counts)
    assert not torch.allclose(again.lattice, first.lattice, atol=1e-3)
    monkeypatch.setattr(decoding, "_holds_compositions", lambda model: False)
    attempts.clear()
    assert not torch.equal(model.element_counts(model.sample(8, seed=3, max_tries=3)), counts)


def test_overlaps_are_found_beside_a_collapsed_cell() -> None:
    cubic, flat = 4.0 * torch.eye(3), torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [3.0, 3.0, 0.0]])
    crystals = CrystalBatch(
        torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [0.05, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        torch.stack([cubic, cubic, flat]),
        torch.tensor([11, 17, 11, 17, 14]),
        torch.tensor([2, 2, 1]),
    )
    assert decoding.soundness(crystals).tolist() == pytest.approx([decoding.SOUND, 0.0, 0.0])
