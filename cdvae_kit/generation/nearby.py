"""New crystals near given ones: their codes lie at a set distance from those of the given crystals.

Distances are in whitened codes, in which each axis has the spread 1 over the training crystals, as a root mean square
over the axes. At 0 the code is the given crystal's own; at 1 it is as far from it as training codes are from their
centre; from some 1.4 on, the distance between two training crystals that have nothing in common, crystals are those
that the prior draws without a given one. `latent_neighbors` tells whole lengths: sqrt(latent_dim) times these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.diffusion.samplers import Sampler
from cdvae_kit.models import decoding
from cdvae_kit.models.conditions import Conditions

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from cdvae_kit.models import CDVAE


@dataclass(frozen=True)
class Seeds:
    """Where codes start from, and how far they go.

    Attributes:
        codes: (num_seeds, latent_dim), those of the given crystals; crystal i of a run takes number i modulo num_seeds.
        distance: root mean square over the axes of whitened codes.
    """

    codes: Tensor
    distance: float

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or not len(self.codes):
            raise ValueError(f"expected codes (1 or more, latent_dim) to start from, got {tuple(self.codes.shape)}")
        if not 0.0 <= self.distance < float("inf"):
            raise ValueError(f"the distance must be 0 or more, got {self.distance}")


def seeds_of(
    model: CDVAE,
    crystals: CrystalBatch | Sequence[Structure | Atoms],
    *,
    distance: float = 0.2,
    allow_outside: bool = False,
) -> Seeds:
    """The codes (posterior means) of crystals to start from.

    Raises:
        OutsideModelError: a crystal lies outside the model (elements, size, group, code), and `allow_outside` is not
            given.
    """
    return Seeds(model.encode(crystals, allow_outside=allow_outside).cpu(), distance)


@torch.no_grad()
def codes_near(
    model: CDVAE,
    seeds: Seeds,
    crystal_ids: Tensor,
    *,
    seed: int,
    conditions: Conditions | None = None,
    guidance: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Codes (num_crystals, latent_dim) at the distance of the seeds, or nearer.

    Each lies on the straight line from its seed to a code that the prior draws under the conditions, and goes no
    further than that code. So a property that is asked for steers the direction, and large distances leave the prior
    alone.

    Args:
        model: the model.
        seeds: where codes start from.
        crystal_ids: (num_crystals,) long, each crystal's number within the run.
        seed: as the other arguments, see `decoding.sample_codes`.
        conditions: what the prior is told.
        guidance: weight of the conditions.
        temperature: of the noise that the prior draws from.
    """
    drawn = decoding.sample_codes(
        model, crystal_ids, seed=seed, conditions=conditions, guidance=guidance, temperature=temperature
    )
    start = seeds.codes.to(drawn)[crystal_ids.to(drawn.device) % len(seeds.codes)]
    way = drawn - start
    share = (seeds.distance / whitened_length(model, way).clamp_min(1e-9)).unsqueeze(-1)
    # the prior's own code to the last bit, where that is near enough
    return torch.where(share < 1.0, start + share * way, drawn)


def whitened_length(model: CDVAE, change: Tensor) -> Tensor:
    """(num_crystals,) lengths of differences of codes (num_crystals, latent_dim), in the units of this module."""
    whitened = change if model.prior is None else change @ model.prior.whiten
    return whitened.square().mean(-1).sqrt()


def sample_near(
    model: CDVAE,
    num_crystals: int,
    seeds: Seeds,
    *,
    seed: int = 0,
    first_id: int = 0,
    num_atoms: int | None = None,
    conditions: Conditions | None = None,
    guidance: float = 1.0,
    temperature: float = 1.0,
    num_steps: int | None = None,
    sampler: Sampler | None = None,
    max_tries: int = 3,
    batch_size: int | None = None,
) -> SymmetricCrystals:
    """New crystals number `first_id`, `first_id` + 1, ... of the run `seed`, near the seeds.

    What is asked for holds as it does for `CDVAE.sample`, whose arguments these are; the distance is the code's, and a
    crystal whose formula or group is asked for may differ more from the given one than its code does.

    Raises:
        ValueError: what is asked for is not in the model.
    """
    if num_atoms is not None:
        conditions = replace(conditions or Conditions(), num_atoms=num_atoms)

    def codes(ids: Tensor, own: int) -> Tensor:
        return codes_near(
            model, seeds, ids, seed=own, conditions=conditions, guidance=guidance, temperature=temperature
        )

    return decoding.sample(
        model,
        num_crystals,
        seed=seed,
        first_id=first_id,
        conditions=conditions,
        num_steps=num_steps,
        sampler=sampler,
        max_tries=max_tries,
        batch_size=batch_size,
        codes=codes,
    )
