"""What a decoded crystal may be made of: masks on the elements and on the number of atoms.

The heads obey them while they read a code, so that little has to be thrown away afterwards. What cannot be masked, a
density for one, is checked on whole crystals elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_ELEMENTS = 100


@dataclass(frozen=True)
class DecodingLimits:
    """Elements and sizes that decoding keeps to.

    Attributes:
        elements: atomic numbers that may occur; None for all that the model knows.
        required: atomic numbers of which every crystal has at least one atom. Exact with a composition of counts;
            a head of fractions draws each atom by itself and cannot promise it.
        num_atoms: smallest and largest number of atoms, both included; None for any.
        composition: (atomic number, atoms) of one formula unit, of which crystals hold an integer number.
        units: how many formula units; None for any.
        space_groups: numbers of the groups that may be chosen; None for all that the model knows.
        sites: (atomic number, index of the Wyckoff position) of all orbits; None for any. It goes with a composition.
        is_allowed: whether a composition, {atomic number: atoms}, may be; None for any.

    >>> DecodingLimits(required=(8, 22)).sizes(20)
    (2, 20)
    """

    elements: tuple[int, ...] | None = None
    required: tuple[int, ...] = ()
    num_atoms: tuple[int, int] | None = None
    composition: tuple[tuple[int, int], ...] | None = None
    units: tuple[int, ...] | None = None
    space_groups: tuple[int, ...] | None = None
    sites: tuple[tuple[int, int], ...] | None = None
    is_allowed: Callable[[Mapping[int, int]], bool] | None = None

    def sizes(self, max_atoms: int) -> tuple[int, int]:
        """Smallest and largest number of atoms for a model of at most `max_atoms`."""
        low, high = self.num_atoms or (1, max_atoms)
        # each required element takes an atom
        low, high = max(low, len(self.required), 1), min(high, max_atoms)
        if low > high:
            raise ValueError(
                f"no number of atoms is left: {self.num_atoms or 'any'} asked for, {len(self.required)} required "
                f"elements, at most {max_atoms} atoms in the model"
            )
        return low, high

    def allowed_sizes(self, max_atoms: int) -> list[int]:
        """All numbers of atoms that crystals may have, in a model of at most `max_atoms`."""
        low, high = self.sizes(max_atoms)
        if self.composition is None:
            return list(range(low, high + 1))
        unit = sum(count for _, count in self.composition)
        sizes = [unit * times for times in self.units or range(1, max_atoms // unit + 1)]
        allowed = [size for size in sizes if low <= size <= high]
        if not allowed:
            raise ValueError(
                f"a formula unit has {unit} atoms: none of {sizes[:5] or f'more than {max_atoms}'} lies in "
                f"{low}..{high}, the numbers of atoms that are left in a model of at most {max_atoms} atoms"
            )
        return allowed

    def unit_counts(self, device: torch.device) -> Tensor:
        """(num_elements,) long: atoms of each element in one formula unit, hydrogen first."""
        if self.composition is None:
            raise ValueError("no composition is asked for")
        counts = torch.zeros(NUM_ELEMENTS, dtype=torch.long, device=device)
        for number, count in self.composition:
            counts[number - 1] = count
        return counts

    def describe(self) -> str:
        """What is asked for, in a few words."""
        words = {
            "elements": self.elements,
            "required": self.required or None,
            "num_atoms": self.num_atoms,
            "composition": self.composition,
            "space groups": self.space_groups,
            "other rules": None if self.is_allowed is None else "on the composition",
        }
        return ", ".join(f"{name} {value}" for name, value in words.items() if value is not None) or "nothing"

    def known(self, known_elements: Tensor) -> Tensor:
        """Those of `known_elements` (num_elements,) long that may occur."""
        if self.elements is not None:
            allowed = torch.tensor(self.elements, dtype=torch.long, device=known_elements.device)
            known_elements = known_elements[torch.isin(known_elements, allowed)]
        missing = sorted(set(self.required) - set(known_elements.tolist()))
        if missing:
            raise ValueError(f"required elements {missing} are not among those that may occur")
        if not len(known_elements):
            raise ValueError(f"no element is left: the model knows none of {list(self.elements or ())}")
        return known_elements

    def required_elements(self, device: torch.device) -> Tensor:
        """(num_required,) long."""
        return torch.tensor(self.required, dtype=torch.long, device=device)
