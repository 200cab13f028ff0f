"""SimCLR, the baseline objective of this half.

Chen et al., "A simple framework for contrastive learning of visual representations" (ICML 2020, arXiv 2002.05709).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cdvae_kit.nn.losses import nt_xent
from cdvae_kit.representation.methods.encoder import Objective
from cdvae_kit.transforms.base import Transform


class SimCLR(nn.Module, Objective):
    """Two views of a sample attract, those of others repel; the features are what lies below the projector.

    Args:
        encoder: trained along; module or `Encoder` with `out_features`.
        augmentation: makes each view.
        width: of the projection.
        temperature: of the loss.

    >>> from cdvae_kit.representation.methods.encoder import MLPEncoder
    >>> from cdvae_kit.seeding import make_generator
    >>> from cdvae_kit.transforms import Identity
    >>> terms = SimCLR(MLPEncoder([2, 4]), Identity()).loss(torch.eye(8, 2), generator=make_generator(0))
    >>> terms["loss"].shape
    torch.Size([])
    """

    def __init__(
        self, encoder: Any, augmentation: Transform[Any], *, width: int = 64, temperature: float = 0.2
    ) -> None:
        super().__init__()
        if not temperature > 0.0:
            raise ValueError(f"the temperature must be positive, got {temperature}")
        hidden = encoder.out_features
        self.encoder = encoder
        self.projector = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.augmentation = augmentation
        self.temperature = temperature

    def loss(self, batch: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
        first, second = (self.augmentation(batch, generator=generator) for _ in range(2))
        z_first, z_second = (self.projector(self.encoder(view)) for view in (first, second))
        return {"loss": nt_xent(z_first, z_second, temperature=self.temperature)}
