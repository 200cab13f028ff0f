"""What the prior can be told of a crystal before it is made, as one vector of fixed width.

A kind of condition has a slice of the vector: its features, and one number that is 1 where the kind is told. What is
not told is 0. To add a kind, write a subclass of `ConditionKind` and name it in `ConditionSpace`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.crystal.symmetry import CRYSTAL_SYSTEMS, crystal_system
from cdvae_kit.crystal.wyckoff import NUM_GROUPS
from cdvae_kit.models.heads import element_counts
from cdvae_kit.models.limits import NUM_ELEMENTS, DecodingLimits

_KEPT = 0.5
"""Share of the conditions that a training code is told, of those that are told anything."""
_UNTOLD = 0.25
"""Share of the training codes that are told nothing: the unconditional prior, which guidance needs, too."""
_WAVES = 4


@dataclass(frozen=True)
class Conditions:
    """What crystals are asked for; None is not asked for. All but properties hold by construction.

    Attributes:
        composition: {atomic number: atoms} of one formula unit, whole numbers; a cell holds whole formula units.
        units: how many formula units a primitive cell may hold; None for any number.
        elements: atomic numbers, each of which occurs, and no other does.
        contains: atomic numbers of which there is at least one atom.
        without: atomic numbers that do not occur.
        num_atoms: in the primitive cell.
        space_group: 1 to 230.
        crystal_system: one of `crystal.symmetry.CRYSTAL_SYSTEMS`.
        properties: name to value, in the data's own unit; the prior is told of it, and the crystal may differ.
        is_allowed: whether a composition, {atomic number: atoms}, may be; the most probable one that may be is taken.

    >>> Conditions(elements=(8, 22), num_atoms=6).limits().required
    (8, 22)
    """

    composition: Mapping[int, int] | None = None
    units: Sequence[int] | None = None
    elements: Sequence[int] | None = None
    contains: Sequence[int] | None = None
    without: Sequence[int] | None = None
    num_atoms: int | None = None
    space_group: int | None = None
    crystal_system: str | None = None
    properties: Mapping[str, float] | None = None
    is_allowed: Callable[[Mapping[int, int]], bool] | None = None

    def __post_init__(self) -> None:
        self._check_elements()
        if self.num_atoms is not None and self.num_atoms < 1:
            raise ValueError(f"num_atoms must be at least 1, got {self.num_atoms}")
        if self.units is not None and (self.composition is None or not self.units or min(self.units) < 1):
            raise ValueError(f"formula units are positive numbers, and go with a formula; got {self.units}")
        if self.space_group is not None and not 1 <= self.space_group <= NUM_GROUPS:
            raise ValueError(f"space groups are numbered from 1 to 230, got {self.space_group}")
        if self.crystal_system is not None and self.crystal_system not in CRYSTAL_SYSTEMS:
            raise ValueError(f"the crystal systems are {', '.join(CRYSTAL_SYSTEMS)}, got {self.crystal_system!r}")
        if self.space_group is not None and self.crystal_system is not None:
            system = crystal_system(self.space_group)
            if system != self.crystal_system:
                raise ValueError(f"space group {self.space_group} is {system}, not {self.crystal_system}")
        if self.composition is not None and self.num_atoms is not None:
            unit = sum(self.composition.values())
            if self.num_atoms % unit:
                raise ValueError(f"{self.num_atoms} atoms are no whole number of formula units of {unit} atoms")

    def _check_elements(self) -> None:
        if self.composition is not None and (not self.composition or min(self.composition.values()) < 1):
            raise ValueError(f"a composition needs positive numbers of atoms, got {dict(self.composition)}")
        named = [*(self.composition or ()), *(self.elements or ()), *(self.contains or ()), *(self.without or ())]
        if wrong := sorted({number for number in named if not 1 <= number <= NUM_ELEMENTS}):
            raise ValueError(f"the models know the elements from Z = 1 to {NUM_ELEMENTS}, got {wrong}")
        there = set(self._there())
        only = set(self.composition or self.elements or range(1, NUM_ELEMENTS + 1))
        if both := sorted(there & set(self.without or ())):
            raise ValueError(f"{_symbols(both)} cannot be both there and not there")
        if foreign := sorted(there - only):
            raise ValueError(f"{_symbols(foreign)} must occur, but only {_symbols(sorted(only))} may")
        if self.composition is not None and self.elements is not None and set(self.elements) != set(self.composition):
            raise ValueError(
                f"the formula has {_symbols(sorted(self.composition))}, not {_symbols(sorted(self.elements))}"
            )

    def _there(self) -> tuple[int, ...]:
        """Atomic numbers that must occur."""
        return tuple(sorted({*(self.composition or ()), *(self.elements or ()), *(self.contains or ())}))

    def limits(self) -> DecodingLimits:
        """What decoding keeps to."""
        allowed = self.composition or self.elements
        without = set(self.without or ())
        if allowed is None and without:
            allowed = [number for number in range(1, NUM_ELEMENTS + 1) if number not in without]
        groups: tuple[int, ...] | None = None
        if self.space_group is not None:
            groups = (self.space_group,)
        elif self.crystal_system is not None:
            groups = tuple(n for n in range(1, NUM_GROUPS + 1) if crystal_system(n) == self.crystal_system)
        return DecodingLimits(
            elements=None if allowed is None else tuple(sorted(allowed)),
            required=self._there(),
            num_atoms=None if self.num_atoms is None else (self.num_atoms, self.num_atoms),
            composition=None if self.composition is None else tuple(sorted(self.composition.items())),
            units=None if self.units is None else tuple(self.units),
            space_groups=groups,
            is_allowed=self.is_allowed,
        )


def _symbols(numbers: Sequence[int]) -> str:
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[number] for number in numbers)


class ConditionKind(ABC):
    """One kind of condition: how it is read off a crystal, hidden in training, and asked for."""

    name: str
    size: int

    @abstractmethod
    def facts(self, crystals: SymmetricCrystals) -> tuple[Tensor, Tensor]:
        """Features (num_crystals, size), and whether each crystal has them (num_crystals,) bool."""

    @abstractmethod
    def asked(self, conditions: Conditions) -> Tensor | None:
        """Features (size,) of what is asked for, None where nothing is."""

    def hide(self, features: Tensor, generator: torch.Generator | None) -> Tensor:
        """What a training code is told, of what is known: all of it, unless a kind can be told in part."""
        return features


class Composition(ConditionKind):
    """Shares of the elements."""

    name, size = "composition", NUM_ELEMENTS

    def facts(self, crystals: SymmetricCrystals) -> tuple[Tensor, Tensor]:
        counts = element_counts(crystals.atomic_numbers, crystals.batch, len(crystals))
        shares = counts / crystals.num_atoms.unsqueeze(-1)
        return shares, torch.ones(len(crystals), dtype=torch.bool, device=shares.device)

    def asked(self, conditions: Conditions) -> Tensor | None:
        if conditions.composition is None:
            return None
        shares = torch.zeros(self.size)
        for number, count in conditions.composition.items():
            shares[number - 1] = count
        return shares / shares.sum()


class Elements(ConditionKind):
    """Which elements occur (1), which do not (-1), and which may (0)."""

    name, size = "elements", NUM_ELEMENTS

    def facts(self, crystals: SymmetricCrystals) -> tuple[Tensor, Tensor]:
        occurs = element_counts(crystals.atomic_numbers, crystals.batch, len(crystals)) > 0
        return 2.0 * occurs.float() - 1.0, torch.ones(len(crystals), dtype=torch.bool, device=occurs.device)

    def asked(self, conditions: Conditions) -> Tensor | None:
        limits = conditions.limits()
        if not limits.required and limits.elements is None:
            return None
        features = torch.zeros(self.size)
        if limits.elements is not None:
            features -= 1.0
            # what may occur is left open, but for a whole chemical system, which is told as such
            features[[number - 1 for number in limits.elements]] = 0.0
        features[[number - 1 for number in limits.required]] = 1.0
        return features

    def hide(self, features: Tensor, generator: torch.Generator | None) -> Tensor:
        """Half of the time the whole chemical system; else some of what occurs, and some of what does not."""

        def draw(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=features.device)

        size = len(features)
        whole = draw(size, 1) < 0.5
        share = torch.where(features > 0.0, draw(size, 1), draw(size, 1).square())
        return torch.where(whole | (draw(*features.shape) < share), features, 0.0)


class NumAtoms(ConditionKind):
    """Atoms in the primitive cell."""

    name = "num_atoms"

    def __init__(self, max_atoms: int) -> None:
        self.size = max_atoms

    def facts(self, crystals: SymmetricCrystals) -> tuple[Tensor, Tensor]:
        there = crystals.num_atoms <= self.size
        index = (crystals.num_atoms - 1).clamp_max(self.size - 1)
        return functional.one_hot(index, self.size).float(), there

    def asked(self, conditions: Conditions) -> Tensor | None:
        size = conditions.num_atoms
        if size is None and conditions.composition is not None and conditions.units and len(conditions.units) == 1:
            size = conditions.units[0] * sum(conditions.composition.values())
        if size is None or size > self.size:
            return None
        return functional.one_hot(torch.tensor(size - 1), self.size).float()


class SpaceGroup(ConditionKind):
    """The number of the space group."""

    name, size = "space_group", NUM_GROUPS + 1

    def facts(self, crystals: SymmetricCrystals) -> tuple[Tensor, Tensor]:
        group = crystals.space_group
        return functional.one_hot(group, self.size).float(), torch.ones_like(group, dtype=torch.bool)

    def asked(self, conditions: Conditions) -> Tensor | None:
        if conditions.space_group is None:
            return None
        return functional.one_hot(torch.tensor(conditions.space_group), self.size).float()


class System(ConditionKind):
    """The crystal system."""

    name, size = "crystal_system", len(CRYSTAL_SYSTEMS)

    def facts(self, crystals: SymmetricCrystals) -> tuple[Tensor, Tensor]:
        numbers = range(1, NUM_GROUPS + 1)
        table = torch.tensor([0, *(CRYSTAL_SYSTEMS.index(crystal_system(number)) for number in numbers)])
        group = crystals.space_group
        return functional.one_hot(table.to(group.device)[group], self.size).float(), torch.ones_like(group).bool()

    def asked(self, conditions: Conditions) -> Tensor | None:
        system = conditions.crystal_system
        if conditions.space_group is not None:
            system = crystal_system(conditions.space_group)
        if system is None:
            return None
        return functional.one_hot(torch.tensor(CRYSTAL_SYSTEMS.index(system)), self.size).float()


class Property(ConditionKind):
    """A property of the model's, standardised, with a few waves so that near values can be told apart.

    Args:
        name: of the property.
        scale: gives mean and standard deviation of the training crystals.
    """

    size = 1 + 2 * _WAVES

    def __init__(self, name: str, scale: Any) -> None:
        self.name = f"property:{name}"
        self._property = name
        self._scale = scale

    def _features(self, values: Tensor) -> Tensor:
        mean, deviation = self._scale()
        x = ((values - mean.cpu().to(values)) / deviation.cpu().to(values)).unsqueeze(-1)
        phase = x * torch.arange(1, _WAVES + 1, device=x.device)
        return torch.cat([x, phase.sin(), phase.cos()], dim=-1)

    def facts(self, crystals: SymmetricCrystals) -> tuple[Tensor, Tensor]:
        missing = torch.full((len(crystals),), torch.nan, device=crystals.lattice.device)
        values = crystals.properties.get(self._property, missing)
        there = values.isfinite()
        return self._features(torch.where(there, values, 0.0)), there

    def asked(self, conditions: Conditions) -> Tensor | None:
        if conditions.properties is None or self._property not in conditions.properties:
            return None
        return self._features(torch.tensor([float(conditions.properties[self._property])])).squeeze(0)


class ConditionSpace:
    """All kinds of conditions of a model, one slice each.

    Args:
        kinds: the kinds, in the order of their slices.
    """

    def __init__(self, kinds: Sequence[ConditionKind]) -> None:
        self.kinds = tuple(kinds)
        self.width = sum(kind.size + 1 for kind in kinds)

    def facts(self, crystals: SymmetricCrystals) -> Tensor:
        """(num_crystals, width): all that is known of crystals."""
        parts = []
        for kind in self.kinds:
            features, there = kind.facts(crystals)
            told = there.float().unsqueeze(-1)
            parts += [features * told, told]
        return torch.cat(parts, dim=-1)

    def hide(self, facts: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """What training codes are told of their facts: kinds are left out at random."""

        def draw() -> Tensor:
            return torch.rand(len(facts), 1, generator=generator, device=facts.device)

        any_told = draw() >= _UNTOLD
        parts = []
        for kind, (features, told) in zip(self.kinds, self._split(facts), strict=True):
            keep = (any_told & (draw() < _KEPT)).float() * told
            parts += [kind.hide(features, generator) * keep, keep]
        return torch.cat(parts, dim=-1)

    def asked(self, conditions: Conditions) -> Tensor:
        """(width,) what is asked for.

        Raises:
            ValueError: a property is asked for that the model does not know.
        """
        known = {kind.name.removeprefix("property:") for kind in self.kinds if kind.name.startswith("property:")}
        if unknown := sorted(set(conditions.properties or {}) - known):
            raise ValueError(
                f"the model was not trained on {', '.join(unknown)}; it knows "
                f"{', '.join(sorted(known)) or 'no property'}"
            )
        parts = []
        for kind in self.kinds:
            features = kind.asked(conditions)
            told = torch.ones(1) if features is not None else torch.zeros(1)
            parts += [torch.zeros(kind.size) if features is None else features, told]
        return torch.cat(parts)

    def _split(self, facts: Tensor) -> list[tuple[Tensor, Tensor]]:
        sizes = [size for kind in self.kinds for size in (kind.size, 1)]
        parts = facts.split(sizes, dim=-1)
        return list(zip(parts[::2], parts[1::2], strict=True))
