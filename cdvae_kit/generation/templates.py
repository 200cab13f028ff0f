"""Space group and Wyckoff positions of a composition: what known compounds like it and the prior's draws vote for.

Both see what the other does not. Known compounds (`models.prototypes`) say what a composition like one of the training
set is most likely to have; the prior draws from what it has learnt of all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import SymmetricCrystals, join
from cdvae_kit.crystal.wyckoff import all_positions
from cdvae_kit.generation.wishes import another_group_than
from cdvae_kit.models import decoding
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.contents import Contents, has_its_group, read_contents
from cdvae_kit.models.prototypes import Prototype

if TYPE_CHECKING:
    from cdvae_kit.models import CDVAE

KNOWN_SHARE = 0.8
"""Of the votes, where there are known compounds of the same numbers of atoms."""
_MAX_TRIES = 3
_AT_ONCE = 256

Sites = tuple[tuple[int, int], ...]
"""(atomic number, index of the Wyckoff position) of each orbit, in this order."""


@dataclass(frozen=True)
class Template:
    """What crystals of a composition may be, but for the cell and what positions leave free.

    Attributes:
        support: its share of the votes, 0 to 1.
        space_group: 1 to 230.
        sites: of all orbits.
        units: formula units in the primitive cell.
    """

    support: float
    space_group: int
    sites: Sites
    units: int

    def wish(self, conditions: Conditions) -> Conditions:
        """The same wish with group, positions and formula units of this template."""
        letters = [(number, all_positions()[position].letter) for number, position in self.sites]
        return replace(conditions, units=(self.units,), space_group=self.space_group, sites=letters)


@torch.no_grad()
def vote(
    model: CDVAE,
    wishes: Sequence[Conditions],
    *,
    draws: int = 8,
    ids: Tensor | None = None,
    seed: int = 0,
    guidance: float = 1.0,
    temperature: float = 0.7,
    known_share: float = KNOWN_SHARE,
    new: bool = False,
) -> list[list[Template]]:
    """For each wish the templates that got votes, the most first; each wish by itself.

    Args:
        model: with a learned prior.
        wishes: each with a composition.
        draws: codes that are drawn for each wish.
        ids: (num_wishes,) long, each wish's number within the run, on which its draws depend; 0, 1, ... if None.
        seed: the run's seed.
        guidance: weight of the wishes, see `LatentPrior.transport`.
        temperature: of the noise that codes are drawn from.
        known_share: of known compounds in the votes, see `KNOWN_SHARE`; without any, the draws have all.
        new: leave out what training crystals of exactly this composition have, where anything else got votes: other
            polymorphs are asked for.

    Raises:
        NothingFitsError: a wish that the model cannot fulfil.
    """
    if model.prior is None:
        raise ValueError("templates are voted for by draws of a learned prior, which this model has not")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    if new and model.prototypes is None:
        raise ValueError(
            "this model does not keep what its training crystals have; one trained with model.prototypes does"
        )
    if any(wish.sites is not None for wish in wishes):
        raise ValueError("templates are voted for wishes that leave the Wyckoff positions open; these name them")
    model.eval()
    if ids is None:
        ids = torch.arange(len(wishes), device=model.device)
    found = []
    at_once = max(1, _AT_ONCE // draws)
    for first in range(0, len(wishes), at_once):
        some = wishes[first : first + at_once]
        of_draw = ids[first : first + len(some)].repeat_interleave(draws) * draws
        of_draw = of_draw + torch.arange(draws, device=ids.device).repeat(len(some))
        told = torch.stack([model.conditions.asked(wish) for wish in some]).to(model.device)
        noise = temperature * decoding.latent_noise(seed, of_draw, model.config.latent_dim)
        z = model.prior.transport(noise, told=told.repeat_interleave(draws, dim=0), guidance=guidance)
        for i, wish in enumerate(some):
            rows = slice(i * draws, (i + 1) * draws)
            contents = read_contents(model, z[rows], seed=seed, crystal_ids=of_draw[rows], limits=wish.limits())
            found.append(_templates(model, wish, contents, known_share, new))
    return found


def _templates(model: CDVAE, wish: Conditions, contents: Contents, known_share: float, new: bool) -> list[Template]:
    assert wish.composition is not None
    unit = sum(wish.composition.values())
    share = 1.0 / len(contents.log_p)
    drawn: dict[tuple[int, int, Sites], float] = defaultdict(float)
    sizes: dict[int, float] = defaultdict(float)
    for i in range(len(contents.log_p)):
        one = contents.select(torch.tensor([i], device=contents.log_p.device))
        units = int(one.orbits.num_atoms[0]) // unit
        sites = tuple(sorted(zip(one.elements.tolist(), one.orbits.position.tolist(), strict=True)))
        drawn[units, int(one.orbits.space_group[0]), sites] += share
        sizes[units] += share
    votes: dict[tuple[int, int, Sites], float] = defaultdict(float)
    left_out: set[tuple[int, int, Sites]] = set()
    for units, of_size in sizes.items():
        counts = {number: count * units for number, count in wish.composition.items()}
        found = model.prototypes.of(counts) if model.prototypes is not None else []
        own = {(one.space_group, one.sites) for one in found if new and one.nearest == 0}
        known = _allowed(wish, [one for one in found if (one.space_group, one.sites) not in own])
        for (group, sites), of_known in known.items():
            votes[units, group, sites] += known_share * of_size * of_known
        rest = 1.0 - known_share if known else 1.0
        for key, of_draws in drawn.items():
            if key[0] == units:
                votes[key] += rest * of_draws
        left_out |= {(units, *key) for key in own}
    votes = {key: vote for key, vote in votes.items() if vote > 0.0}
    votes = {key: vote for key, vote in votes.items() if key not in left_out} or votes
    total = sum(votes.values())
    ranked = sorted(votes, key=lambda key: (-votes[key], key))
    return [Template(votes[key] / total, key[1], key[2], key[0]) for key in ranked]


def _allowed(wish: Conditions, found: Sequence[Prototype]) -> dict[tuple[int, Sites], float]:
    """Shares of the templates of known compounds that the wish allows."""
    groups = wish.limits().space_groups
    shares = {
        (one.space_group, one.sites): one.share
        for one in found
        if groups is None or (one.space_group in groups and _has_its_group(one.space_group, one.sites))
    }
    total = sum(shares.values())
    return {key: share / total for key, share in shares.items()}


def _has_its_group(group: int, sites: Sites) -> bool:
    elements, positions = (torch.tensor(column) for column in zip(*sites, strict=True))
    return has_its_group(group, positions, elements)


@torch.no_grad()
def crystals_of(
    model: CDVAE,
    wishes: Sequence[Conditions],
    templates: Sequence[Template],
    *,
    ids: Tensor,
    seed: int = 0,
    guidance: float = 1.0,
    temperature: float | Tensor = 0.0,
    num_steps: int | None = None,
) -> tuple[SymmetricCrystals, Tensor]:
    """One crystal for each template, and its code: the prior is told all of it.

    Args:
        model: with a learned prior.
        wishes: what each template was voted for.
        templates: one for each wish.
        ids: (num_wishes,) long, each crystal's number within the run.
        seed: the run's seed.
        guidance: weight of what is told.
        temperature: of the noise that codes come from, one for all or (num_wishes,); 0 takes the code that the prior
            makes of no noise, nearly the most probable one. Crystals whose atoms are too close, or that have another
            group than the wish asks for, are drawn anew, from ordinary noise, and decoded from blurred codes.
        num_steps: of the default sampler.
    """
    if not model.config.noise.keeps_composition:
        raise ValueError(
            f"elements of a model with noise.types={model.config.noise.types!r} are drawn anew on the way, so that a "
            "formula does not hold"
        )
    model.eval()
    told = [template.wish(wish) for template, wish in zip(templates, wishes, strict=True)]
    heat = torch.as_tensor(temperature, device=model.device, dtype=torch.float32).expand(len(told))
    parts, codes = [], []
    for rows in torch.arange(len(told), device=model.device).split(_AT_ONCE):
        some = [told[i] for i in rows.tolist()]

        def draw(
            which: Tensor, attempt: int, some: Sequence[Conditions] = some, rows: Tensor = rows
        ) -> tuple[SymmetricCrystals, Tensor]:
            chosen = [some[i] for i in which.tolist()]
            hot, blur = heat[rows][which], 0.0
            if attempt:
                hot, blur = hot.clamp_min(1.0), model.config.blur
            return _draw(model, chosen, ids[rows][which], hot, seed + (attempt << 48), guidance, num_steps, blur)

        own = [wishes[i] for i in rows.tolist()]
        crystals, z = decoding.until_sound(
            draw, another_group_than(own), len(own), device=rows.device, tries=_MAX_TRIES
        )
        parts.append(crystals)
        codes.append(z)
    return join(parts), torch.cat(codes)


def _draw(
    model: CDVAE,
    wishes: Sequence[Conditions],
    ids: Tensor,
    temperature: Tensor,
    seed: int,
    guidance: float,
    num_steps: int | None,
    blur: float,
) -> tuple[SymmetricCrystals, Tensor]:
    assert model.prior is not None
    noise = temperature.unsqueeze(-1) * decoding.latent_noise(seed, ids, model.config.latent_dim)
    told = torch.stack([model.conditions.asked(wish) for wish in wishes]).to(noise)
    z = model.prior.transport(noise, told=told, guidance=guidance)
    sites = [sorted(wish.site_positions()) for wish in wishes]
    flat = torch.tensor([site for one in sites for site in one], device=z.device)
    orbits = Orbits(
        torch.tensor([wish.space_group or 1 for wish in wishes], device=z.device),
        torch.tensor([len(one) for one in sites], device=z.device),
        flat[:, 1].contiguous(),
    )
    elements = flat[:, 0].contiguous()
    contents = Contents(orbits, elements, model.symmetry_head.log_probability(z, orbits, elements))
    sampler = decoding.default_sampler(model, num_steps)
    return decoding.decode_contents(model, z, contents, sampler, seed=seed, crystal_ids=ids, blur=blur), z
