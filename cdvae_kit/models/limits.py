"""What a decoded crystal may be made of: masks on the elements and on the number of atoms.

The heads obey them while they read a code, so that little has to be thrown away afterwards. What cannot be masked, a
density for one, is checked on whole crystals elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DecodingLimits:
    """Elements and sizes that decoding keeps to.

    Attributes:
        elements: atomic numbers that may occur; None for all that the model knows.
        required: atomic numbers of which every crystal has at least one atom. Exact with a composition of counts;
            a head of fractions draws each atom by itself and cannot promise it.
        num_atoms: smallest and largest number of atoms, both included; None for any.

    >>> DecodingLimits(required=(8, 22)).sizes(20)
    (2, 20)
    """

    elements: tuple[int, ...] | None = None
    required: tuple[int, ...] = ()
    num_atoms: tuple[int, int] | None = None

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
