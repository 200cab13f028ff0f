"""Handwritten digits: the smallest real images that need no download."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def load_digits(*, side: int = 8, margin: int = 0) -> tuple[Tensor, Tensor]:
    """The 1,797 digits that scikit-learn carries (UCI, "Optical Recognition of Handwritten Digits", 8×8 pixels).

    Args:
        side: of the images; where the digit's own part of it is not 8, it is interpolated.
        margin: empty pixels on every side, part of `side`. Strokes reach the border without it, and what moves the
            digit cuts them off.

    Returns:
        Images (n, 1, side, side) in [0, 1] and labels (n,) long, in the file's order.
    """
    from sklearn.datasets import load_digits as load

    found = load()
    images = torch.as_tensor(found.images, dtype=torch.float32)[:, None] / 16.0
    inner = side - 2 * margin
    if margin < 0 or inner < 1:
        raise ValueError(f"a margin of {margin} pixels leaves no digit on a side of {side}")
    if inner != images.shape[-1]:
        images = functional.interpolate(images, (inner, inner), mode="bilinear")
    return functional.pad(images, [margin] * 4), torch.as_tensor(found.target).long()
