"""Crystals of codes whose contents have been read: what is left of decoding after `contents.read_contents`."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cdvae_kit.crystal.symmetric import SymmetricCrystals, join
from cdvae_kit.diffusion.samplers import Sampler
from cdvae_kit.models.contents import Contents
from cdvae_kit.models.decoding import batches_by_size, denoise_contents, to_crystals
from cdvae_kit.models.limits import DecodingLimits

if TYPE_CHECKING:
    from cdvae_kit.models.cdvae import CDVAE


@torch.no_grad()
def decode_contents(
    model: CDVAE,
    z: Tensor,
    contents: Contents,
    sampler: Sampler,
    *,
    seed: int,
    crystal_ids: Tensor,
    limits: DecodingLimits | None = None,
    batch_size: int | None = None,
) -> SymmetricCrystals:
    """One crystal for each code, in order: those of `decoding.decode` with the same arguments.

    Args:
        model: the model.
        z: (num_crystals, latent_dim).
        contents: what the crystals hold, as `read_contents` gives it for these codes.
        sampler: the way to denoise.
        seed: of the starting points.
        crystal_ids: (num_crystals,) long, each crystal's number within the run.
        limits: what the crystals keep to.
        batch_size: crystals at a time; None chooses by size.
    """
    parts, places = [], []
    for part in batches_by_size(contents.orbits.num_atoms, batch_size):
        path = denoise_contents(
            model, z[part], contents.select(part), sampler, seed=seed, crystal_ids=crystal_ids[part], limits=limits
        )
        parts.append(to_crystals(deque(path, maxlen=1).pop()))
        places.append(part)
    return join(parts).select(torch.cat(places).argsort())
