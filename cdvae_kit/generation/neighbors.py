"""Which known crystals lie nearest to a crystal in the latent space, and how far from all of them it is.

Distances are in whitened coordinates: one is a standard deviation of the codes of real crystals along any axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.generation.latent_region import LatentRegion

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from cdvae_kit.models import CDVAE

_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class LatentNeighbors:
    """The nearest references of each crystal, the nearest first.

    Attributes:
        indices: (num_crystals, num_neighbors), indices among the references.
        distances: (num_crystals, num_neighbors), in standard deviations of the codes.
    """

    indices: np.ndarray
    distances: np.ndarray


def latent_neighbors(
    model: CDVAE,
    crystals: CrystalBatch | Sequence[Structure | Atoms],
    reference: CrystalBatch | Sequence[Structure | Atoms],
    *,
    num_neighbors: int = 5,
    allow_outside: bool = False,
) -> LatentNeighbors:
    """The references whose codes are nearest to each crystal's.

    Both are brought to their canonical cells and encoded to the posterior's mean. A crystal that stands among the
    references finds itself at distance zero.

    Args:
        model: the encoder.
        crystals: whose neighbours are wanted.
        reference: among which they are sought.
        num_neighbors: of each crystal, at most as many as there are references.
        allow_outside: take crystals that the model has never seen the like of, too.
    """
    region = LatentRegion.of_model(model)
    codes = model.encode(crystals, allow_outside=allow_outside)
    known = model.encode(reference, allow_outside=True)
    return nearest_codes(region, codes, known, num_neighbors=num_neighbors)


@torch.no_grad()
def nearest_codes(
    region: LatentRegion, codes: Tensor, reference: Tensor, *, num_neighbors: int = 1, skip_self: bool = False
) -> LatentNeighbors:
    """The same for codes; with `skip_self` both are the same and no code is its own neighbour."""
    num_others = len(reference) - skip_self
    if num_neighbors < 1 or num_others < 1:
        raise ValueError(f"expected a neighbour and a reference at least, got {num_neighbors} and {num_others}")
    known = region.whitened(reference)
    indices, distances = [], []
    for start in range(0, len(codes), _ROWS_AT_ONCE):
        some = region.whitened(codes[start : start + _ROWS_AT_ONCE])
        table = torch.cdist(some, known, compute_mode="donot_use_mm_for_euclid_dist")
        if skip_self:
            own = torch.arange(len(some), device=table.device)
            table[own, own + start] = torch.inf
        nearest = table.topk(min(num_neighbors, num_others), dim=1, largest=False)
        indices.append(nearest.indices)
        distances.append(nearest.values)
    return LatentNeighbors(torch.cat(indices).cpu().numpy(), torch.cat(distances).double().cpu().numpy())
