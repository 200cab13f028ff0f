"""What the prior can be told of a crystal before it is made, as one vector of fixed width.

A kind of condition has a slice of the vector: its features, and one number that is 1 where the kind is told. What is
not told is 0. To add a kind, write a subclass of `ConditionKind` and name it in `build_conditions`, below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cdvae_kit.crystal.elements import NUM_FEATURES, chemical_order, element_features
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.crystal.symmetry import CRYSTAL_SYSTEMS, crystal_system
from cdvae_kit.crystal.wyckoff import NUM_GROUPS, all_positions, parse_coordinates, wyckoff_table
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.config import CDVAEConfig
from cdvae_kit.models.heads import element_counts
from cdvae_kit.models.limits import NUM_ELEMENTS

_KEPT = 0.5
"""Share of the conditions that a training code is told, of those that are told anything."""
_UNTOLD = 0.25
"""Share of the training codes that are told nothing: the unconditional prior, which guidance needs, too."""
_WAVES = 4


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
    """Shares of the elements, and, where `described`, what these elements are like.

    Described are: mean, standard deviation, largest and smallest of each of `element_features` over the atoms, how many
    elements there are, and for each element by itself, the rarest first, its features, its share, its number in the
    formula, and its rank in Pettifor's order among the others. From these the space group of a composition that was
    never seen can be told far more often than from shares alone: a small classifier that was trained on MP-20 for a
    minute tells 65.8 % of the groups of validation crystals, and 47.5 % from shares.
    """

    name = "composition"
    _SLOTS, _COUNTS = 6, 12
    """Elements that are described by themselves, and numbers in a formula that are told apart."""

    def __init__(self, *, described: bool = False) -> None:
        self._described = described
        of_slot = NUM_FEATURES + 2 + self._COUNTS + self._SLOTS
        self.size = NUM_ELEMENTS + (4 * NUM_FEATURES + self._SLOTS * (of_slot + 1) if described else 0)

    def facts(self, crystals: SymmetricCrystals) -> tuple[Tensor, Tensor]:
        counts = element_counts(crystals.atomic_numbers, crystals.batch, len(crystals))
        return self._features(counts), torch.ones(len(crystals), dtype=torch.bool, device=counts.device)

    def asked(self, conditions: Conditions) -> Tensor | None:
        if conditions.composition is None:
            return None
        counts = torch.zeros(1, NUM_ELEMENTS)
        for number, count in conditions.composition.items():
            counts[0, number - 1] = count
        return self._features(counts).squeeze(0)

    def _features(self, counts: Tensor) -> Tensor:
        """(num_compositions, size) from the atoms of each element (num_compositions, 100)."""
        shares = counts / counts.sum(-1, keepdim=True)
        if not self._described:
            return shares
        known = _element_features(shares.device).to(shares)[1 : NUM_ELEMENTS + 1]
        mean = shares @ known
        spread = (shares @ known.square() - mean.square()).clamp_min(0.0).sqrt()
        occurs = counts > 0
        of_occurring = known.expand(len(counts), -1, -1)
        missing = ~occurs.unsqueeze(-1)
        most = of_occurring.masked_fill(missing, -torch.inf).amax(1)
        least = of_occurring.masked_fill(missing, torch.inf).amin(1)
        slots = self._slots(counts.round().long(), known)
        num_elements = functional.one_hot(occurs.sum(-1).clamp_max(self._SLOTS) - 1, self._SLOTS).to(shares)
        return torch.cat([shares, mean, spread, most, least, slots.flatten(1), num_elements], dim=-1)

    def _slots(self, counts: Tensor, known: Tensor) -> Tensor:
        """(num_compositions, slots, size of a slot): the rarest element first; 0 where there is none."""
        formula = counts // _greatest_divisors(counts).unsqueeze(-1)
        place = chemical_order(counts.device)[1 : NUM_ELEMENTS + 1].expand_as(counts)
        beyond = 1000
        occurs = counts > 0
        rank = torch.where(occurs, place, beyond).argsort(-1).argsort(-1)
        order = torch.where(occurs, formula * beyond + place, beyond**2).argsort(-1)[:, : self._SLOTS]
        there = occurs.gather(-1, order).unsqueeze(-1).to(known.dtype)
        number = formula.gather(-1, order)
        share = (number / formula.sum(-1, keepdim=True)).unsqueeze(-1)
        parts = [
            known[order],
            torch.ones_like(share),
            share.to(known.dtype),
            functional.one_hot(number.clamp(1, self._COUNTS) - 1, self._COUNTS).to(known.dtype),
            functional.one_hot(rank.gather(-1, order).clamp_max(self._SLOTS - 1), self._SLOTS).to(known.dtype),
        ]
        return torch.cat(parts, dim=-1) * there


def _greatest_divisors(counts: Tensor) -> Tensor:
    """(num_compositions,) long: the greatest common divisor of the counts of each."""
    return torch.from_numpy(np.gcd.reduce(counts.cpu().numpy(), axis=-1)).to(counts.device).clamp_min(1)


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


class Sites(ConditionKind):
    """Wyckoff positions and elements of the first orbits, by their numbers in the canonical description."""

    name = "sites"
    _ORBITS = 10
    _OF_POSITION = 12 + 3 + 1

    def __init__(self) -> None:
        self.size = self._ORBITS * (1 + self._OF_POSITION + NUM_FEATURES)

    def facts(self, crystals: SymmetricCrystals) -> tuple[Tensor, Tensor]:
        orbits, elements = crystals.orbits, crystals.elements
        number = orbits.numbers(elements)
        told = number < self._ORBITS
        parts = [
            torch.ones(len(elements), 1, device=elements.device),
            _position_facts(elements.device).index_select(0, orbits.position),
            _element_features(elements.device).index_select(0, elements),
        ]
        features = torch.zeros(len(crystals), self._ORBITS, self.size // self._ORBITS, device=elements.device)
        features[orbits.batch[told], number[told]] = torch.cat(parts, dim=-1)[told]
        return features.flatten(1), torch.ones(len(crystals), dtype=torch.bool, device=elements.device)

    def asked(self, conditions: Conditions) -> Tensor | None:
        if conditions.sites is None:
            return None
        group = conditions.space_group
        assert group is not None
        elements, position = (torch.tensor(column) for column in zip(*conditions.site_positions(), strict=True))
        orbits = Orbits(torch.tensor([group]), torch.tensor([len(elements)]), position)
        crystal = SymmetricCrystals(orbits, elements, torch.zeros(len(elements), 3), torch.eye(3).unsqueeze(0))
        return self.facts(crystal)[0].squeeze(0)


@lru_cache(maxsize=8)
def _element_features(device: torch.device) -> Tensor:
    """(101, 24), never to be written to: a wish each of thousands would make it anew."""
    return element_features().to(device)


@lru_cache(maxsize=8)
def _position_facts(device: torch.device) -> Tensor:
    """(num_positions, 16): the first point of each Wyckoff position as a map and an offset, its freedom, its size."""
    table = wyckoff_table()
    rows = []
    for position in all_positions():
        matrix, offset = parse_coordinates(position.coordinates)
        rows.append(torch.cat([torch.as_tensor(matrix).flatten(), torch.as_tensor(offset)]).float())
    multiplicity = table.multiplicity.float().log2().unsqueeze(-1) / 3.0
    return torch.cat([torch.stack(rows), table.is_free.float(), multiplicity], dim=-1).to(device)


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
        mean, std = self._scale()
        x = ((values - mean.cpu().to(values)) / std.cpu().to(values)).unsqueeze(-1)
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


def build_conditions(config: CDVAEConfig, scale: Callable[[int], tuple[Tensor, Tensor]]) -> ConditionSpace:
    """What the prior of such a model can be told; `scale` gives mean and standard deviation of a property."""
    properties = [Property(name, partial(scale, i)) for i, name in enumerate(config.properties)]
    well_told = config.prior is not None and config.prior.hint > 0
    kinds: list[ConditionKind] = [Composition(described=well_told), Elements(), NumAtoms(config.max_atoms)]
    kinds += [SpaceGroup(), System(), *([Sites()] if well_told else []), *properties]
    return ConditionSpace(kinds)
