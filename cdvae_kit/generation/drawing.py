"""What a run of sampling is asked for, in one value: any crystal of the run follows from it, the model and a number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.cells import CellChoice, in_cell
from cdvae_kit.diffusion.samplers import Sampler, make_sampler
from cdvae_kit.generation.conditions import check_crystals, check_possible
from cdvae_kit.generation.nearby import Seeds, sample_near
from cdvae_kit.models import decoding
from cdvae_kit.models.conditions import Conditions

if TYPE_CHECKING:
    from cdvae_kit.models import CDVAE

CHUNK = 256
"""Crystals that are drawn at once where nothing else is said."""
_HOLDS = "holds_"


@dataclass(frozen=True)
class Draws:
    """The options of a run, those that change its crystals; the arguments of `sample_to_file` by the same names.

    Attributes:
        seeds: crystals whose neighbourhood is sampled; None samples the prior.
    """

    seed: int = 0
    num_atoms: int | None = None
    conditions: Conditions | None = None
    guidance: float = 1.0
    steps: int | None = None
    sampler: str | None = None
    temperature: float = 1.0
    seeds: Seeds | None = None
    cell: CellChoice = "primitive"

    def check(self, model: CDVAE) -> None:
        """Raises `ValueError` where the model cannot draw what is asked for."""
        self.make_sampler(model)
        if self.conditions is not None:
            check_possible(model, self.conditions)

    def make_sampler(self, model: CDVAE) -> Sampler:
        if self.sampler is None:
            return decoding.default_sampler(model, self.steps)
        return make_sampler(self.sampler, num_steps=self.steps, sharpening=model.config.sharpening)

    def draw(self, model: CDVAE, first: int, count: int, *, batch_size: int | None = None) -> CrystalBatch:
        """Crystals number `first` to `first + count - 1`, named after seed and number."""
        names = [name_of(self.seed, first + i) for i in range(count)]
        make = decoding.sample if self.seeds is None else partial(sample_near, seeds=self.seeds)
        crystals = make(
            model,
            count,
            seed=self.seed,
            first_id=first,
            num_atoms=self.num_atoms,
            conditions=self.conditions,
            guidance=self.guidance,
            temperature=self.temperature,
            sampler=self.make_sampler(model),
            batch_size=batch_size,
        )
        if self.conditions is not None:
            # of the primitive cell, whichever is written
            crystals = crystals.replace(
                properties=crystals.properties | checks_as_properties(self.conditions, crystals)
            )
        return in_cell(crystals, self.cell).replace(material_ids=names)


def checks_as_properties(conditions: Conditions, crystals: CrystalBatch) -> dict[str, Tensor]:
    """What was asked for, as columns of a file: `holds_space_group` 1 or 0, and the value of each property asked for.

    Wishes are found out from the finished crystals; a property has `asked_NAME`, since what it is nobody has measured.
    """
    columns: dict[str, Tensor] = {}
    device = crystals.lattice.device
    checks = check_crystals(conditions, crystals)
    for wish in checks[0]:
        columns[column_of(wish)] = torch.tensor([float(check[wish]) for check in checks], device=device)
    for name, value in (conditions.properties or {}).items():
        columns[f"asked_{name}"] = torch.full((len(crystals),), float(value), device=device)
    return columns


def column_of(wish: str) -> str:
    """The column that a wish of `check_crystals` is told in.

    >>> column_of("space group")
    'holds_space_group'
    """
    return f"{_HOLDS}{wish.replace(' ', '_')}"


def wishes_fulfilled(crystals: CrystalBatch) -> dict[str, int]:
    """How many crystals are what was asked for, wish by wish, by the columns of `checks_as_properties`.

    >>> cell = torch.eye(3).expand(2, 3, 3)
    >>> two = CrystalBatch(torch.zeros(2, 3), cell, torch.tensor([29, 29]), torch.tensor([1, 1]),
    ...     properties={"holds_space_group": torch.tensor([1.0, 0.0])})
    >>> wishes_fulfilled(two)
    {'space group': 1}
    """
    return {
        name.removeprefix(_HOLDS).replace("_", " "): int(values.sum())
        for name, values in crystals.properties.items()
        if name.startswith(_HOLDS)
    }


def name_of(seed: int, number: int) -> str:
    """The `material_id` of a sampled crystal.

    >>> name_of(0, 17)
    'sample_0_17'
    """
    return f"sample_{seed}_{number}"
