"""Codes of new crystals, drawn from the prior: what `CDVAE.sample` starts from.

Random numbers come from `CrystalNoise`: from the seed and the crystal's own number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.contents import composition_of, read_counts, read_num_atoms
from cdvae_kit.seeding import CrystalNoise

if TYPE_CHECKING:
    from cdvae_kit.models.cdvae import CDVAE

CODE_TRIES = 40
"""How often a code whose composition the critic refuses is drawn, at most."""
_PROPERTY_ROUNDS, _NEAR = 8, 0.1
"""How often a code that misses a property by more than so many standard deviations is drawn, at most."""
_LATENT_STREAM, _CRITIC_STREAM = 1 << 40, 1 << 44
_MAX_DRAWS, _CODES_AT_ONCE = 1000, 256


def latent_noise(seed: int, crystal_ids: Tensor, latent_dim: int, *, attempt: int = 0) -> Tensor:
    """Standard normal (num_crystals, latent_dim) of the crystals' own."""
    return CrystalNoise(seed, crystal_ids).normal_per_crystal(latent_dim, stream=_LATENT_STREAM + attempt)


@torch.no_grad()
def sample_codes(
    model: CDVAE,
    crystal_ids: Tensor,
    *,
    seed: int,
    num_atoms: int | None = None,
    conditions: Conditions | None = None,
    guidance: float = 1.0,
    temperature: float = 1.0,
    tries: int = CODE_TRIES,
) -> Tensor:
    """Codes z of new crystals, (num_crystals, latent_dim), from the learned prior or N(0, I).

    Args:
        model: the model.
        crystal_ids: (num_crystals,) long, each crystal's number within the run.
        seed: the run's seed.
        num_atoms: of a model without a learned prior: codes are drawn again until the model reads this number of atoms
            from each. A learned prior is told.
        conditions: what the learned prior is told.
        guidance: weight of the conditions, see `LatentPrior.transport`.
        temperature: standard deviation of the noise that codes come from.
        tries: a code whose composition the critic does not accept is drawn anew, until it has been tried so often;
            the last one is taken as it is, and 1 takes what comes first. Nothing is drawn anew where the composition
            is asked for. Of several such codes the one is taken from which the model reads a property that is asked for
            nearest.
    """
    model.eval()
    if temperature < 0.0:
        raise ValueError(f"temperature must not be negative, got {temperature}")
    check_num_atoms(model, num_atoms)
    if model.prior is None:
        return _drawn_codes(model, crystal_ids, seed, num_atoms, temperature)
    if num_atoms is not None:
        conditions = replace(conditions or Conditions(), num_atoms=num_atoms)
    prior = model.prior
    told = None if conditions is None else model.conditions.asked(conditions).to(prior.mean)

    def draw(ids: Tensor, attempt: int) -> Tensor:
        noise = _draw_noise(model, ids, seed, attempt, temperature)
        if told is None:
            return prior.transport(noise)
        return prior.transport(noise, told=told.expand(len(noise), -1), guidance=guidance)

    limits = None if conditions is None else conditions.limits()
    is_judged = model.critic is not None and (limits is None or limits.composition is None)

    def draw_accepted(ids: Tensor, first: int) -> Tensor:
        """Codes that the critic accepts, of the attempts from `first` on."""
        z = draw(ids, first)
        # indices of the codes that the critic has not accepted yet
        remaining = torch.arange(len(z), device=z.device)
        for attempt in range(first + 1, first + tries if is_judged else first):
            uniform = CrystalNoise(seed, ids[remaining]).uniform_per_crystal(1, stream=_CRITIC_STREAM + attempt)
            assert model.critic is not None
            refused = ~model.critic.accepts(read_counts(model, z[remaining], limits), uniform.squeeze(-1))
            remaining = remaining[refused]
            if not len(remaining):
                break
            z[remaining] = draw(ids[remaining], attempt)
        return z

    z = draw_accepted(crystal_ids, 0)
    if conditions is None or not conditions.properties or tries == 1:
        return z
    missed = _missed(model, z, conditions.properties)
    for number in range(1, _PROPERTY_ROUNDS):
        far = (missed > _NEAR).nonzero().squeeze(-1)
        if not len(far):
            break
        other = draw_accepted(crystal_ids[far], number * tries)
        by = _missed(model, other, conditions.properties)
        better = by < missed[far]
        z[far[better]], missed[far[better]] = other[better], by[better]
    return z


@torch.no_grad()
def codes_of_compositions(
    model: CDVAE,
    crystal_ids: Tensor,
    counts: Tensor,
    *,
    seed: int,
    conditions: Conditions | None = None,
    guidance: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """As `sample_codes`, for crystals whose cells hold counts (num_crystals, num_elements) of each element."""
    if model.prior is None:
        raise ValueError("compositions are told to a learned prior, which this model has not")
    noise = _draw_noise(model, crystal_ids, seed, 0, temperature)
    asked = conditions or Conditions()
    wishes = [replace(asked, composition=composition_of(row), units=(1,)) for row in counts.cpu().numpy()]
    told = torch.stack([model.conditions.asked(wish) for wish in wishes]).to(noise)
    return model.prior.transport(noise, told=told, guidance=guidance)


def _missed(model: CDVAE, z: Tensor, properties: Mapping[str, float]) -> Tensor:
    """(num_codes,) by how many standard deviations of the training crystals codes miss properties; the worst counts."""
    read = model.property_head(z)
    columns = [list(model.config.properties).index(name) for name in properties]
    wanted = torch.tensor([float(value) for value in properties.values()]).to(read)
    wanted = (wanted - model.property_mean[columns]) / model.property_std[columns]
    return (read[:, columns] - wanted).abs().amax(-1)


def check_num_atoms(model: CDVAE, num_atoms: int | None) -> None:
    """Raises `ValueError` where the model makes no crystals of so many atoms."""
    if num_atoms is not None and not 1 <= num_atoms <= model.config.max_atoms:
        raise ValueError(f"num_atoms must lie in 1..{model.config.max_atoms} for this model, got {num_atoms}")


def _drawn_codes(model: CDVAE, crystal_ids: Tensor, seed: int, num_atoms: int | None, temperature: float) -> Tensor:
    """From N(0, I), until they read the number of atoms that is asked for."""
    z = _draw_noise(model, crystal_ids, seed, 0, temperature)
    if num_atoms is None:
        return z
    # indices of the codes that have not read the number yet
    remaining = torch.arange(len(crystal_ids), device=model.device)
    attempt = 0
    while attempt < _MAX_DRAWS:
        # many draws at once for the last few; a code is the first that fits, however many are drawn at once
        last = min(attempt + max(1, _CODES_AT_ONCE // len(remaining)), _MAX_DRAWS)
        ids = crystal_ids[remaining]
        drawn = torch.stack([_draw_noise(model, ids, seed, i, temperature) for i in range(attempt, last)])
        fits = (read_num_atoms(model, drawn.flatten(0, 1)) == num_atoms).view(drawn.shape[:2])
        found, first = fits.any(dim=0), fits.long().argmax(dim=0)
        z[remaining[found]] = drawn[first[found], found.nonzero().squeeze(-1)]
        remaining = remaining[~found]
        if not len(remaining):
            return z
        attempt = last
    raise ValueError(
        f"{len(remaining)} of {len(crystal_ids)} codes did not read {num_atoms} atoms in {_MAX_DRAWS} draws: the "
        "model hardly ever makes crystals of this size; ask for another num_atoms, or train on such crystals"
    )


def _draw_noise(model: CDVAE, crystal_ids: Tensor, seed: int, attempt: int, temperature: float) -> Tensor:
    return temperature * latent_noise(seed, crystal_ids, model.config.latent_dim, attempt=attempt)
