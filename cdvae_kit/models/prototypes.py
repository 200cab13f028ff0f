"""Which orbits the training crystals of a composition have, so that those of a composition like it can be told.

Compounds alike in chemistry mostly have structures alike: what stands on which Wyckoff position in NaCl does so in
KBr. A composition is compared with all training compositions of the same numbers of atoms, element by element on
Pettifor's scale, and the nearest ones vote for a space group and for what stands on its positions. (Substitution of
elements by similarity: Hautier et al., Inorg. Chem. 50, 656 (2011); Pettifor, Solid State Commun. 51, 31 (1984); choice
of a template: Kusaba, Liu and Yoshida, Comput. Mater. Sci. 211, 111496 (2022).) Where atoms stand on positions that
leave them free, and the cell, are the model's to say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cdvae_kit.crystal.elements import pettifor_ranks
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.crystal.wyckoff import wyckoff_table

_NEIGHBOURS = 10
_WIDTH = 4.0
"""Votes fall as exp(-d / 4), d the sum of distances in Pettifor's order over the elements. Width and number of
neighbours were chosen on 1,500 validation crystals of MP-20: 1, 10 and 30 neighbours have the right positions for 61.9,
64.1 and 64.1 %; a width of 2 for 63.6 % with 10 neighbours, of 8 for 62.9 % with 30. (Without those that are as near as
the tenth; with them it is 63.8 %.)"""


@dataclass(frozen=True)
class Prototype:
    """Orbits that a composition may have.

    Attributes:
        share: of the votes, 0 to 1.
        space_group: 1 to 230.
        sites: (atomic number, index of the Wyckoff position) of each orbit, in this order.
        nearest: sum over the elements of the distance in Pettifor's order to the nearest compound that votes for it.
    """

    share: float
    space_group: int
    sites: tuple[tuple[int, int], ...]
    nearest: int


class KnownPrototypes(nn.Module):
    """Compositions of the training crystals with their orbits, a few bytes each; part of the weights, never trained."""

    numbers: Tensor
    """int32: atoms of each element in the primitive cell, one list after another; crystals go by these lists."""
    num_elements: Tensor
    """(num_lists,) uint8."""
    num_crystals: Tensor
    """(num_lists,) int32."""
    elements: Tensor
    """uint8: of each crystal, the rarest first, then in Pettifor's order; crystals one after the other."""
    prototype: Tensor
    """(num_crystals,) int32."""
    slot: Tensor
    """uint8: of each orbit of a prototype, which of the crystal's elements it is; prototypes one after the other."""
    position: Tensor
    """int32: `WyckoffPosition.index` of it."""
    num_sites: Tensor
    """(num_prototypes,) int32. Processes that train together cannot exchange smaller signed integers."""

    _KINDS: Mapping[str, torch.dtype] = {
        "numbers": torch.int32,
        "num_elements": torch.uint8,
        "num_crystals": torch.int32,
        "elements": torch.uint8,
        "prototype": torch.int32,
        "slot": torch.uint8,
        "position": torch.int32,
        "num_sites": torch.int32,
    }

    def __init__(self) -> None:
        super().__init__()
        for name, kind in self._KINDS.items():
            self.register_buffer(name, torch.zeros(0, dtype=kind))
        self._by_numbers: dict[tuple[int, ...], _Known] | None = None

    def __len__(self) -> int:
        return len(self.prototype)

    def fit(self, crystals: SymmetricCrystals) -> None:
        """Takes the compositions and orbits of crystals; equal ones once."""
        prototypes: dict[tuple[tuple[int, int], ...], int] = {}
        rows: dict[tuple[int, ...], dict[tuple[tuple[int, ...], int], None]] = defaultdict(dict)
        multiplicity = wyckoff_table().multiplicity.tolist()
        ends = np.cumsum(crystals.num_orbits.cpu().numpy()).tolist()
        elements, positions = crystals.elements.tolist(), crystals.position.tolist()
        for start, end in pairwise([0, *ends]):
            sites = list(zip(elements[start:end], positions[start:end], strict=True))
            counts: dict[int, int] = defaultdict(int)
            for number, position in sites:
                counts[number] += multiplicity[position]
            order = _in_slots(counts)
            slot = {number: k for k, number in enumerate(order)}
            prototype = tuple(sorted((slot[number], position) for number, position in sites))
            index = prototypes.setdefault(prototype, len(prototypes))
            rows[tuple(counts[number] for number in order)][order, index] = None
        columns: dict[str, list[int]] = {
            "numbers": [count for numbers in rows for count in numbers],
            "num_elements": [len(numbers) for numbers in rows],
            "num_crystals": [len(some) for some in rows.values()],
            "elements": [number for some in rows.values() for order, _ in some for number in order],
            "prototype": [index for some in rows.values() for _, index in some],
            "slot": [k for prototype in prototypes for k, _ in prototype],
            "position": [position for prototype in prototypes for _, position in prototype],
            "num_sites": [len(prototype) for prototype in prototypes],
        }
        device = self.elements.device
        for name, kind in self._KINDS.items():
            setattr(self, name, torch.tensor(columns[name], dtype=kind, device=device))
        self._by_numbers = None

    def of(self, counts: Mapping[int, int]) -> list[Prototype]:
        """What crystals of a composition, {atomic number: atoms in the primitive cell}, may be: most votes first.

        Empty where no training crystal has these numbers of atoms.
        """
        order = _in_slots(counts)
        known = self._known().get(tuple(counts[number] for number in order))
        if known is None:
            return []
        rank = np.array(pettifor_ranks())
        # of elements of equal numbers, both in Pettifor's order, to pair them in this order is nearest
        distance = np.abs(rank[list(order)] - rank[known.elements]).sum(-1)
        votes: dict[tuple[int, tuple[tuple[int, int], ...]], float] = defaultdict(float)
        nearest: dict[tuple[int, tuple[tuple[int, int], ...]], int] = {}
        groups = wyckoff_table().space_group
        # all of those that are as near as the last one: which of them come first says nothing
        last = np.partition(distance, min(_NEIGHBOURS, len(distance)) - 1)[min(_NEIGHBOURS, len(distance)) - 1]
        for row in (distance <= last).nonzero()[0][distance[distance <= last].argsort(kind="stable")].tolist():
            sites = tuple(sorted((order[k], position) for k, position in known.sites[row]))
            key = int(groups[sites[0][1]]), sites
            votes[key] += float(np.exp(-(distance[row] - distance.min()) / _WIDTH))
            nearest.setdefault(key, int(distance[row]))
        total = sum(votes.values())
        ranked = sorted(votes, key=lambda key: -votes[key])
        return [Prototype(votes[key] / total, *key, nearest[key]) for key in ranked]

    def _known(self) -> dict[tuple[int, ...], _Known]:
        if self._by_numbers is None:
            sites = list(zip(self.slot.tolist(), self.position.tolist(), strict=True))
            ends = np.cumsum(self.num_sites.cpu().numpy(), dtype=np.int64).tolist()
            of_prototype = [sites[start:end] for start, end in pairwise([0, *ends])]
            numbers, elements = self.numbers.tolist(), self.elements.cpu().numpy().astype(np.int64)
            prototype = self.prototype.tolist()
            self._by_numbers = {}
            at_number = at_element = at_crystal = 0
            for width, size in zip(self.num_elements.tolist(), self.num_crystals.tolist(), strict=True):
                self._by_numbers[tuple(numbers[at_number : at_number + width])] = _Known(
                    elements[at_element : at_element + width * size].reshape(size, width),
                    [of_prototype[index] for index in prototype[at_crystal : at_crystal + size]],
                )
                at_number, at_element, at_crystal = at_number + width, at_element + width * size, at_crystal + size
        return self._by_numbers

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # how much is known is the checkpoint's to say
        for name, kind in self._KINDS.items():
            tensor = state_dict.get(prefix + name)
            if tensor is not None:
                setattr(self, name, torch.empty(tensor.shape, dtype=kind, device=self.elements.device))
        self._by_numbers = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@dataclass(frozen=True)
class _Known:
    """Training crystals of the same numbers of atoms.

    Attributes:
        elements: (num_crystals, num_elements), slot by slot.
        sites: (slot, position) of the orbits of each.
    """

    elements: np.ndarray
    sites: list[list[tuple[int, int]]]


def _in_slots(counts: Mapping[int, int]) -> tuple[int, ...]:
    """Atomic numbers, the rarest first, then in Pettifor's order."""
    ranks = pettifor_ranks()
    return tuple(sorted(counts, key=lambda number: (counts[number], ranks[number])))
