"""One crystal for each of many wishes, all different, in batches: structure prediction of a whole test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import SymmetricCrystals, join
from cdvae_kit.models import decoding
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.contents import Contents, read_contents
from cdvae_kit.models.decoding import Drawn, decode_contents
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch
    from cdvae_kit.models import CDVAE

_AT_ONCE = 256


@torch.no_grad()
def sample_each(
    model: CDVAE,
    wishes: Sequence[Conditions],
    *,
    seed: int = 0,
    guidance: float = 1.0,
    num_steps: int | None = None,
    max_tries: int = 3,
    progress: Progress | None = None,
) -> tuple[SymmetricCrystals, Tensor]:
    """Crystals and their codes; number i is what wish i asks for, and depends on the seed, i and that wish alone.

    Args:
        model: with a learned prior.
        wishes: what is asked for; all but properties holds.
        seed: the run's seed.
        guidance: weight of the wishes, see `LatentPrior.transport`.
        num_steps: of the default sampler.
        max_tries: as in `decoding.sample`: crystals whose atoms overlap, or that have another group than was asked for,
            are drawn anew.
        progress: called with (crystals done, crystals in all).

    Raises:
        NothingFitsError: a wish that the model cannot fulfil.
    """
    if model.prior is None:
        raise ValueError("wishes are told to a learned prior, which this model has not")
    if not wishes:
        raise ValueError("expected one wish at least, got none")
    model.eval()
    parts, codes = [], []
    for first in range(0, len(wishes), _AT_ONCE):
        some = wishes[first : first + _AT_ONCE]
        ids = torch.arange(first, first + len(some), device=model.device)

        def draw(rows: Tensor, attempt: int, some: Sequence[Conditions] = some, ids: Tensor = ids) -> Drawn:
            chosen = [some[i] for i in rows.tolist()]
            return _draw(model, chosen, ids[rows], seed + (attempt << 48), guidance, num_steps)

        crystals, z = decoding.until_sound(
            draw, another_group_than(some), len(some), device=model.device, tries=max_tries
        )
        parts.append(crystals)
        codes.append(z)
        if progress is not None:
            progress(first + len(some), len(wishes))
    return join(parts), torch.cat(codes)


def _draw(
    model: CDVAE,
    wishes: Sequence[Conditions],
    ids: Tensor,
    seed: int,
    guidance: float,
    num_steps: int | None,
) -> Drawn:
    assert model.prior is not None
    noise = decoding.latent_noise(seed, ids, model.config.latent_dim)
    told = torch.stack([model.conditions.asked(wish) for wish in wishes]).to(noise)
    z = model.prior.transport(noise, told=told, guidance=guidance)
    contents = [
        read_contents(model, z[i : i + 1], seed=seed, crystal_ids=ids[i : i + 1], limits=wish.limits())
        for i, wish in enumerate(wishes)
    ]
    sampler = decoding.default_sampler(model, num_steps)
    return decode_contents(model, z, _join(contents), sampler, seed=seed, crystal_ids=ids, blur=model.config.blur), z


def _join(parts: Sequence[Contents]) -> Contents:
    orbits = Orbits(
        torch.cat([part.orbits.space_group for part in parts]),
        torch.cat([part.orbits.num_orbits for part in parts]),
        torch.cat([part.orbits.position for part in parts]),
    )
    return Contents(orbits, torch.cat([part.elements for part in parts]), torch.cat([part.log_p for part in parts]))


def another_group_than(wishes: Sequence[Conditions]) -> Callable[[SymmetricCrystals, Tensor], Tensor]:
    """For crystals and their rows (num_rows,) of the wishes: which, (num_rows,) bool, have another group than asked."""

    def wrong(crystals: SymmetricCrystals, rows: Tensor) -> Tensor:
        asked = [wishes[row] for row in rows.tolist()]
        found = [
            bool(decoding.in_another_group(crystals.select([i]), wish.limits())[0])
            if wish.space_group is not None or wish.crystal_system is not None
            else False
            for i, wish in enumerate(asked)
        ]
        return torch.tensor(found, device=crystals.lattice.device)

    return wrong


def wishes_of(crystals: CrystalBatch, model: CDVAE) -> list[Conditions]:
    """For each crystal, what structure prediction is given of it: the composition of its primitive cell."""
    prepared = model.prepare(crystals)
    wishes = []
    for numbers in prepared.atomic_numbers.cpu().split(prepared.num_atoms.tolist()):
        found, counts = numbers.unique(return_counts=True)
        units = gcd(*counts.tolist())
        unit = {int(number): int(count) // units for number, count in zip(found, counts, strict=True)}
        wishes.append(Conditions(composition=unit, units=(units,)))
    return wishes
