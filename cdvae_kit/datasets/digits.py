"""Handwritten digits: the smallest real images that need no download."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def load_digits(*, side: int = 8) -> tuple[Tensor, Tensor]:
    """The 1,797 digits that scikit-learn carries (UCI, "Optical Recognition of Handwritten Digits", 8×8 pixels).

    Args:
        side: of the images; other than 8 they are interpolated.

    Returns:
        Images (n, 1, side, side) in [0, 1] and labels (n,) long, in the file's order.
    """
    from sklearn.datasets import load_digits as load

    found = load()
    images = torch.as_tensor(found.images, dtype=torch.float32)[:, None] / 16.0
    if side != images.shape[-1]:
        images = functional.interpolate(images, (side, side), mode="bilinear")
    return images, torch.as_tensor(found.target).long()
