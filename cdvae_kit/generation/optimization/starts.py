"""Where an optimisation begins: the codes of its starts, and each start's own weights of the goals."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.generation.optimization.trials import encode_each
from cdvae_kit.models import CDVAE, decoding
from cdvae_kit.seeding import CrystalNoise

logger = logging.getLogger(__name__)

_WEIGHT_STREAM = 1 << 45


def weights_of_goals(num_starts: int, num_goals: int, seed: int) -> Tensor:
    """(num_starts, num_goals) shares, uniform on the simplex, each start's own (ParEGO: Knowles 2006)."""
    if num_goals == 1:
        return torch.ones(num_starts, 1)
    uniform = CrystalNoise(seed, torch.arange(num_starts)).uniform_per_crystal(num_goals, stream=_WEIGHT_STREAM)
    exponential = -torch.log(uniform)
    return num_goals * exponential / exponential.sum(-1, keepdim=True)


def start_codes(model: CDVAE, starts: CrystalBatch | int, seed: int) -> tuple[Tensor, list[str], list[str]]:
    """Codes of the starts, their names, and the names of crystals that cannot be a start."""
    if isinstance(starts, int):
        if starts < 1:
            raise ValueError(f"there must be at least one start, got {starts}")
        ids = torch.arange(starts, device=model.device)
        return decoding.sample_codes(model, ids, seed=seed), [f"start_{i}" for i in range(starts)], []
    if not len(starts):
        raise ValueError("there must be at least one start, got an empty batch")
    names = [name or f"start_{i}" for i, name in enumerate(starts.material_ids or [""] * len(starts))]
    codes = encode_each(model, starts)
    there = [i for i, code in enumerate(codes) if code is not None]
    if not there:
        raise ValueError(
            f"none of the {len(names)} starts can be encoded; look at their number of atoms (at most "
            f"{model.config.max_atoms}) and their elements"
        )
    left_out = [name for name, code in zip(names, codes, strict=True) if code is None]
    if left_out:
        logger.warning("%d starts cannot be encoded and are left out, the first: %s", len(left_out), left_out[0])
    return torch.stack([code for code in codes if code is not None]), [names[i] for i in there], left_out
