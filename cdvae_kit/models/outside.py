"""Crystals that a model cannot speak of: elements, sizes, groups and codes that its training crystals do not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.crystal.wyckoff import all_positions

if TYPE_CHECKING:
    from cdvae_kit.models.cdvae import CDVAE

FARTHEST = 1.5
"""A code is far away if it lies so many times as far from the centre of the training codes as the farthest of them."""


class OutsideModelError(ValueError):
    """Crystals that the model has never seen the like of.

    Attributes:
        reasons: one a crystal, None for those within the model.
    """

    def __init__(self, reasons: list[str | None]) -> None:
        self.reasons = reasons
        said = [f"number {i} {reason}" for i, reason in enumerate(reasons) if reason is not None]
        more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
        super().__init__(
            f"{len(said)} of {len(reasons)} crystals lie outside the model: {'; '.join(said[:3])}{more}. Leave them "
            "out, take a model that was trained on such crystals, or allow crystals outside the model "
            "(allow_outside=True)"
        )


def reasons_outside(model: CDVAE, crystals: SymmetricCrystals, z: Tensor | None = None) -> list[str | None]:
    """Why each crystal lies outside the model, or None.

    Args:
        model: a trained model; one without statistics of its training set knows everything.
        crystals: as `CDVAE.prepare` gives them.
        z: (num_crystals, latent_dim) their codes, if these are judged as well.
    """
    from ase.data import chemical_symbols

    reasons: list[str | None] = [None] * len(crystals)

    def say(index: Tensor, words: list[str]) -> None:
        for i, word in zip(index.tolist(), words, strict=True):
            reasons[i] = reasons[i] or word

    numbers = crystals.num_atoms.tolist()
    large = (crystals.num_atoms > model.config.max_atoms).nonzero().squeeze(-1)
    say(large, [f"has {numbers[i]} atoms, more than the {model.config.max_atoms} (max_atoms)" for i in large.tolist()])
    if len(model.known_elements):
        strange = ~torch.isin(crystals.atomic_numbers, model.known_elements.to(crystals.atomic_numbers.device))
        atoms = strange.nonzero().squeeze(-1)
        symbols = [chemical_symbols[number] for number in crystals.atomic_numbers[atoms].tolist()]
        say(crystals.batch[atoms], [f"has {symbol}, which no training crystal has" for symbol in symbols])
    if model.config.symmetry == "orbits" and len(model.known_elements):
        head, orbits = model.symmetry_head, crystals.orbits
        unknown = (~head.known_groups.to(orbits.space_group.device)[orbits.space_group]).nonzero().squeeze(-1)
        groups = orbits.space_group[unknown].tolist()
        say(unknown, [f"has space group {group}, which no training crystal has" for group in groups])
        rows = (~head.known_positions.to(orbits.position.device)[orbits.position]).nonzero().squeeze(-1)
        letters = [all_positions()[i].letter for i in orbits.position[rows].tolist()]
        words = [f"has Wyckoff position {letter}, which no training crystal of its group has" for letter in letters]
        say(orbits.batch[rows], words)
    if z is not None and model.prior is not None:
        ratio = model.prior.distance(z) / model.prior.farthest
        far = (ratio > FARTHEST).nonzero().squeeze(-1)
        say(far, [f"has a code {value:.1f} times as far out as any training crystal" for value in ratio[far].tolist()])
    return reasons


def refuse(reasons: list[str | None]) -> None:
    """Raises `OutsideModelError` if there is a reason."""
    if any(reason is not None for reason in reasons):
        raise OutsideModelError(reasons)
