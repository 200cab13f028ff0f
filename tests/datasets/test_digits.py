"""The handwritten digits."""

import torch

from cdvae_kit.datasets import load_digits


def test_digits_are_all_there_and_within_range() -> None:
    images, labels = load_digits()
    assert images.shape == (1797, 1, 8, 8) and labels.unique().tolist() == list(range(10))
    assert images.min() == 0.0 and images.max() == 1.0


def test_larger_digits_are_the_same_pictures() -> None:
    images, large = load_digits()[0], load_digits(side=20)[0]
    assert large.shape == (1797, 1, 20, 20) and large.min() >= 0.0 and large.max() <= 1.0
    back = torch.nn.functional.interpolate(large, (8, 8), mode="area")
    likeness = torch.nn.functional.cosine_similarity(back.flatten(1), images.flatten(1))
    assert likeness.min() > 0.9
    # the negative control: another picture's
    assert torch.nn.functional.cosine_similarity(back.flatten(1), images.roll(1, 0).flatten(1)).mean() < 0.8
