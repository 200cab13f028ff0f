"""Crystals through the latent space and back: reconstruction, and paths between two crystals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.models import decoding
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from cdvae_kit.models import CDVAE


def reconstruct(
    model: CDVAE,
    crystals: CrystalBatch | Sequence[Structure | Atoms],
    *,
    seed: int = 0,
    steps: int | None = None,
    batch_size: int | Literal["auto"] = "auto",
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> CrystalBatch:
    """One decoded crystal for each crystal, from a draw of its posterior, as the published protocol has it.

    Crystals are brought to their primitive cells before they are encoded: the answer is the same for every cell of a
    crystal. Names and order are kept; properties are not, since they would be those of other crystals.

    Raises:
        OutsideModelError: crystals lie outside the model (elements, size, group, code), and `allow_outside` is not
            given.
    """
    batch = decoding.as_batch(crystals, reduce=False)
    if batch_size == "auto":
        z = model.encode(batch, seed=seed, allow_outside=allow_outside)
        decoded = model.decode(z, seed=seed, num_steps=steps, progress=progress)
    else:
        z = model.encode(batch, seed=seed, allow_outside=allow_outside, batch_size=batch_size)
        decoded = model.decode(z, seed=seed, num_steps=steps, batch_size=batch_size, progress=progress)
    return decoded.replace(material_ids=batch.material_ids)


def interpolate(
    model: CDVAE,
    first: CrystalBatch | Structure | Atoms,
    second: CrystalBatch | Structure | Atoms,
    *,
    num_points: int = 10,
    seed: int = 0,
    steps: int | None = None,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> CrystalBatch:
    """`num_points` crystals decoded along the straight line between two codes, both ends included.

    All start from the same noise, so that neighbours on the path differ by their code alone. The share of the way is
    the property `position`, from 0 to 1.
    """
    if num_points < 2:
        raise ValueError(f"a path needs at least its two ends: num_points must be 2 or more, got {num_points}")
    ends = []
    for crystal in (first, second):
        batch = decoding.as_batch(crystal if isinstance(crystal, CrystalBatch) else [crystal], reduce=False)
        if len(batch) != 1:
            raise ValueError(f"interpolation goes from one crystal to one other, got a batch of {len(batch)}")
        ends.append(model.encode(batch, allow_outside=allow_outside))
    position = torch.linspace(0.0, 1.0, num_points, device=model.device).unsqueeze(-1)
    z = torch.lerp(ends[0], ends[1], position)
    decoded = decoding.decode(
        model,
        z,
        seed=seed,
        crystal_ids=torch.zeros(num_points, dtype=torch.long, device=model.device),
        num_steps=steps,
        progress=progress,
    )
    return decoded.replace(properties={"position": position.squeeze(-1)})
