"""Turned frames, for tests of layers on vectors."""

import torch
from torch import Tensor

from cdvae_kit.seeding import make_generator


def orthogonal(determinant: float, seed: int) -> Tensor:
    """A random orthogonal matrix of this determinant, float64."""
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=make_generator(seed), dtype=torch.float64))
    q = q * torch.sign(torch.diagonal(r))
    return q * torch.sign(torch.linalg.det(q)) * determinant
