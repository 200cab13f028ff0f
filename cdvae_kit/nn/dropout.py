"""Dropout whose randomness comes from a generator, so that a resumed run draws what it would have drawn."""

import torch
from torch import Tensor


def dropout(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """`x` with each number set to 0 with probability `share`, the others scaled up so that the mean stays.

    Args:
        x: any shape.
        share: in [0, 1).
        generator: None leaves `x` as it is.

    >>> from cdvae_kit.seeding import make_generator
    >>> dropout(torch.ones(4), 0.5, make_generator(0)).unique()
    tensor([0., 2.])
    """
    if generator is None or share == 0.0:
        return x
    kept = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) >= share
    return x * kept / (1.0 - share)
