"""The handwritten digits."""

import pytest
import torch

from cdvae_kit.datasets import load_digits


def test_digits_are_all_there_and_within_range() -> None:
    images, labels = load_digits()
    assert images.shape == (1797, 1, 8, 8) and labels.unique().tolist() == list(range(10))
    assert images.min() == 0.0 and images.max() == 1.0


def test_a_margin_is_empty_and_the_digit_within_is_the_same() -> None:
    plain, framed = load_digits()[0], load_digits(side=12, margin=2)[0]
    assert torch.equal(framed[:, :, 2:-2, 2:-2], plain) and framed.sum() == plain.sum()
    with pytest.raises(ValueError, match="leaves no digit"):
        load_digits(side=4, margin=2)


def test_larger_digits_are_the_same_pictures() -> None:
    images, large = load_digits()[0], load_digits(side=20)[0]
    assert large.shape == (1797, 1, 20, 20) and large.min() >= 0.0 and large.max() <= 1.0
    back = torch.nn.functional.interpolate(large, (8, 8), mode="area")
    similarity = torch.nn.functional.cosine_similarity(back.flatten(1), images.flatten(1))
    assert similarity.min() > 0.9
    # the negative control: another picture's
    assert torch.nn.functional.cosine_similarity(back.flatten(1), images.roll(1, 0).flatten(1)).mean() < 0.8
