"""Which noise point belongs to which atom or orbit."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cdvae_kit.crystal.lattice import wrap_displacement
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.diffusion.matching import match_noise
from cdvae_kit.seeding import make_generator


def match(noise: Tensor, clean: Tensor, labels: Tensor, num_atoms: Tensor) -> Tensor:
    """Of crystals without symmetry, whose orbits are atoms."""
    return match_noise(noise, clean, labels, Orbits.without_symmetry(num_atoms))


def random_problem(num_crystals: int, size: int, num_labels: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noise, coordinates, labels and numbers of atoms, float64."""
    generator = make_generator(seed, size, num_labels)
    noise, clean = (torch.rand(num_crystals * size, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, num_labels, (num_crystals * size,), generator=generator)
    return noise, clean, labels, torch.full((num_crystals,), size)


def squares(path: Tensor, num_crystals: int) -> Tensor:
    """(num_crystals,) sum of squares."""
    return path.view(num_crystals, -1).square().sum(-1)


@pytest.mark.parametrize(("size", "num_labels"), [(1, 1), (2, 1), (5, 2), (8, 3), (20, 1), (20, 20)])
def test_a_matched_path_is_never_longer_than_the_unmatched_one(size: int, num_labels: int) -> None:
    noise, clean, labels, num_atoms = random_problem(200, size, num_labels, seed=1)
    matched = squares(match(noise, clean, labels, num_atoms) - clean, 200)
    unmatched = squares(wrap_displacement(noise - clean), 200)
    assert bool((matched <= unmatched + 1e-9).all())
    assert float(matched.mean()) < 0.85 * float(unmatched.mean())


@pytest.mark.parametrize(("size", "num_labels", "most"), [(3, 1, 1.02), (6, 1, 1.08), (8, 2, 1.08), (12, 1, 1.15)])
def test_the_pairing_is_close_to_the_best_for_the_same_shift(size: int, num_labels: int, most: float) -> None:
    num_crystals = 100
    noise, clean, labels, num_atoms = random_problem(num_crystals, size, num_labels, seed=2)
    matched = match(noise, clean, labels, num_atoms)
    ratios = []
    for k in range(num_crystals):
        part = slice(k * size, (k + 1) * size)
        displacement = wrap_displacement(matched[part].unsqueeze(0) - clean[part].unsqueeze(1))
        cost = displacement.square().sum(-1)
        cost = torch.where(labels[part].unsqueeze(0) == labels[part].unsqueeze(1), cost, 1e3).numpy()
        rows, columns = linear_sum_assignment(cost)
        ratios.append(np.trace(cost) / max(cost[rows, columns].sum(), 1e-12))
    assert 1.0 - 1e-9 <= min(ratios)
    assert np.mean(ratios) < most


def test_matched_noise_is_the_noise_shifted_as_a_whole_and_permuted_within_a_label() -> None:
    noise, clean, labels, num_atoms = random_problem(50, 8, 3, seed=3)
    matched = match(noise, clean, labels, num_atoms)
    moved = 0
    for k in range(50):
        part = slice(8 * k, 8 * k + 8)
        before, after, label = noise[part], matched[part], labels[part]
        # the shift is known up to which noise point the first atom got
        fitting = []
        for origin in range(8):
            shift = after[0] - before[origin]
            distance = wrap_displacement(after.unsqueeze(1) - before.unsqueeze(0) - shift).abs().amax(-1)
            if float(distance.amin(1).max()) < 1e-9:
                fitting.append(distance.argmin(1))
        assert len(fitting) == 1
        assert sorted(fitting[0].tolist()) == list(range(8))
        assert torch.equal(label[fitting[0]], label)
        moved += int((fitting[0] != torch.arange(8)).sum())
    assert moved > 50


def test_atoms_that_are_all_different_keep_their_own_noise() -> None:
    noise, clean, _, num_atoms = random_problem(20, 6, 1, seed=4)
    matched = match(noise, clean, torch.arange(120), num_atoms)
    shift = (matched - noise).view(20, 6, 3)
    difference = wrap_displacement(shift - shift[:, :1])
    torch.testing.assert_close(difference, torch.zeros_like(difference))


def test_paths_have_no_mean() -> None:
    noise, clean, labels, num_atoms = random_problem(30, 7, 2, seed=5)
    path = (match(noise, clean, labels, num_atoms) - clean).view(30, 7, 3)
    torch.testing.assert_close(path.mean(1), torch.zeros(30, 3, dtype=torch.float64))


def test_a_crystal_that_is_shifted_has_the_same_paths() -> None:
    noise, clean, labels, num_atoms = random_problem(40, 6, 2, seed=6)
    shift = torch.rand(40, 1, 3, generator=make_generator(7), dtype=torch.float64).expand(40, 6, 3).reshape(-1, 3)
    path = match(noise, clean, labels, num_atoms) - clean
    shifted = torch.remainder(clean + shift, 1.0)
    torch.testing.assert_close(match(noise, shifted, labels, num_atoms) - shifted, path)
    # the control: atoms that move apart have other paths
    apart = torch.remainder(clean + 0.3 * torch.rand(240, 3, generator=make_generator(8), dtype=torch.float64), 1.0)
    assert not torch.allclose(match(noise, apart, labels, num_atoms) - apart, path)


def test_a_crystal_is_matched_alike_alone_and_in_a_batch_of_other_sizes() -> None:
    sizes = [1, 5, 3, 8]
    problems = [random_problem(1, size, 2, seed=9) for size in sizes]
    together = match(*(torch.cat(parts) for parts in zip(*problems, strict=True)))
    for part, problem in zip(together.split(sizes), problems, strict=True):
        torch.testing.assert_close(part, match(*problem))


def test_noise_that_is_the_shifted_crystal_needs_no_path() -> None:
    _, clean, _, num_atoms = random_problem(10, 6, 1, seed=10)
    noise = torch.remainder(clean + torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64), 1.0)
    path = match(noise, clean, torch.zeros(60, dtype=torch.long), num_atoms) - clean
    torch.testing.assert_close(path, torch.zeros_like(path))
