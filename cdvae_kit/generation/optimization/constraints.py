"""What a crystal has to be whatever its properties: elements, number of atoms, density, charge neutrality.

Contradictions are found before a run, decoding is kept to what its heads can be told, an optimiser gets a penalty that
leads codes there, and every crystal is checked at the end: what breaks a constraint is never returned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.metrics.composition_rules import CompositionRule, check_composition, element_table
from cdvae_kit.metrics.crystals import CrystalArrays, Crystals, as_arrays, symbol
from cdvae_kit.metrics.distributions import densities
from cdvae_kit.models.heads import CompositionHead
from cdvae_kit.models.limits import NUM_ELEMENTS, DecodingLimits

if TYPE_CHECKING:
    from cdvae_kit.models import CDVAE

_GRAM_PER_CUBIC_CM = 1.66053906660  # one dalton in one cubic angstrom


class ContradictoryConstraintsError(ValueError):
    """Constraints that no crystal of the model can meet."""


@dataclass(frozen=True)
class Constraints:
    """Constraints on crystals; the defaults allow everything.

    Attributes:
        allowed: atomic numbers that may occur; None for all.
        required: atomic numbers of which there must be an atom.
        forbidden: atomic numbers that must not occur.
        num_atoms: smallest and largest number of atoms in the cell.
        density: lowest and highest density, g/cm^3.
        neutral: the composition can be neutral by `rule`.
        rule: see `cdvae_kit.metrics.composition_rules`.

    >>> Constraints(required=elements("O Ti"), num_atoms=(1, 3)).describe()
    'required elements O, Ti; 1 to 3 atoms'
    """

    allowed: tuple[int, ...] | None = None
    required: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()
    num_atoms: tuple[int, int] | None = None
    density: tuple[float, float] | None = None
    neutral: bool = False
    rule: CompositionRule = "smact-2014"

    def __post_init__(self) -> None:
        both = sorted(set(self.required) & set(self.forbidden))
        if both:
            raise ContradictoryConstraintsError(f"{_names(both)} cannot be both required and forbidden")
        if self.allowed is not None:
            outside = sorted(set(self.required) - set(self.allowed))
            if outside:
                raise ContradictoryConstraintsError(
                    f"required elements {_names(outside)} are not among the allowed ones ({_names(self.allowed)})"
                )
            if not set(self.allowed) - set(self.forbidden):
                raise ContradictoryConstraintsError("every allowed element is forbidden: none is left")
        for name, bounds, smallest in (("num_atoms", self.num_atoms, 1.0), ("density", self.density, 0.0)):
            # a NaN fails the comparison, too
            if bounds is not None and not (smallest <= bounds[0] <= bounds[1]):
                raise ContradictoryConstraintsError(
                    f"{name} must be a range from low to high, low at least {smallest:g}, got {bounds}"
                )
        if self.num_atoms is not None and len(set(self.required)) > self.num_atoms[1]:
            raise ContradictoryConstraintsError(
                f"{len(set(self.required))} required elements need as many atoms, and at most {self.num_atoms[1]} "
                "are asked for"
            )

    def check_model(self, model: CDVAE) -> None:
        """Raises `ContradictoryConstraintsError` where this model makes no crystal that could meet them."""
        known = set(model.known_elements.tolist()) or set(range(1, NUM_ELEMENTS + 1))
        unknown = sorted(set(self.required) - known)
        if unknown:
            raise ContradictoryConstraintsError(
                f"the model has never seen the required elements {_names(unknown)}; it knows {_names(sorted(known))}"
            )
        pool = self._pool(known)
        if not pool:
            raise ContradictoryConstraintsError(
                f"the model knows none of the elements that are left; it knows {_names(sorted(known))}"
            )
        most = model.config.max_atoms
        if self.num_atoms is not None and self.num_atoms[0] > most:
            raise ContradictoryConstraintsError(
                f"at least {self.num_atoms[0]} atoms are asked for, and the model makes cells of at most {most}"
            )
        if len(set(self.required)) > most:
            raise ContradictoryConstraintsError(
                f"{len(set(self.required))} required elements need as many atoms, and the model makes at most {most}"
            )
        if self.neutral:
            self._check_neutral(pool)

    def _check_neutral(self, pool: set[int]) -> None:
        # one element alone, and metals alone, are neutral by the rule
        if len(set(self.required)) < 2:
            return
        tables = {number: element_table(number, self.rule) for number in pool}
        required = [tables[number] for number in set(self.required)]
        if all(table is not None and table.metal for table in required):
            return
        states = [state for table in tables.values() if table is not None for state in table.oxidation_states]
        barren = [n for n in self.required if (table := tables[n]) is None or not table.oxidation_states]
        if barren or not any(state > 0 for state in states) or not any(state < 0 for state in states):
            raise ContradictoryConstraintsError(
                "no composition of the elements that are left can be neutral: "
                + (f"{_names(barren)} has no oxidation state" if barren else "they lack a cation or an anion")
            )

    def _pool(self, known: Iterable[int]) -> set[int]:
        pool = set(known) - set(self.forbidden)
        return pool if self.allowed is None else pool & set(self.allowed)

    def limits(self) -> DecodingLimits | None:
        """What decoding can be told of them; None where that is nothing."""
        if self.allowed is None and not (self.required or self.forbidden or self.num_atoms):
            return None
        everything = range(1, NUM_ELEMENTS + 1)
        elements = None
        if self.allowed is not None or self.forbidden:
            elements = tuple(sorted(self._pool(everything)))
        return DecodingLimits(elements, tuple(sorted(set(self.required))), self.num_atoms)

    def violations(self, crystals: Crystals) -> list[str | None]:
        """For each crystal in plain words what it breaks; None where it meets them all."""
        arrays = as_arrays(crystals)
        found = densities(arrays) if self.density is not None else np.full(len(arrays), np.nan)
        return [self._violation(crystal, float(value)) for crystal, value in zip(arrays, found, strict=True)]

    def _violation(self, crystal: CrystalArrays, density: float) -> str | None:
        if crystal.fault is not None:
            return crystal.fault
        present = set(crystal.atomic_numbers.tolist())
        if foreign := sorted(present - self._pool(present)):
            return f"{_names(foreign)} is not allowed"
        if missing := sorted(set(self.required) - present):
            return f"required {_names(missing)} is missing"
        num_atoms = len(crystal.atomic_numbers)
        if self.num_atoms is not None and not self.num_atoms[0] <= num_atoms <= self.num_atoms[1]:
            return f"{num_atoms} atoms, {self.num_atoms[0]} to {self.num_atoms[1]} asked for"
        if self.density is not None and not self.density[0] <= density <= self.density[1]:
            return f"density {density:.4g} g/cm^3, {self.density[0]:g} to {self.density[1]:g} asked for"
        if self.neutral:
            return check_composition(crystal.reduced_composition, self.rule)
        return None

    def guide(self, model: CDVAE) -> Callable[[Tensor], Tensor] | None:
        """A penalty on codes, (num_crystals,) and differentiable: how improbable the heads find what is asked for.

        Minus the log probability of the elements and of the number of atoms, and how far the log of the density that
        the heads read lies outside its range, times ten. Neutrality has no gradient. None where nothing is asked for.
        """
        limits = self.limits()
        if limits is None and self.density is None:
            return None

        def penalty(z: Tensor) -> Tensor:
            total = z.new_zeros(len(z))
            log_sizes = torch.log_softmax(model.num_atoms_head(z), dim=-1)
            low, high = (limits or DecodingLimits()).sizes(model.config.max_atoms)
            num_atoms = log_sizes[:, low - 1 : high].detach().argmax(-1) + low
            if (low, high) != (1, model.config.max_atoms):
                total = total - torch.logsumexp(log_sizes[:, low - 1 : high], dim=-1)
            if limits is not None and (limits.elements is not None or limits.required):
                total = total + self._composition_penalty(model, z, num_atoms)
            if self.density is not None:
                total = total + 10.0 * self._density_penalty(model, z, num_atoms)
            return total

        return penalty

    def _composition_penalty(self, model: CDVAE, z: Tensor, num_atoms: Tensor) -> Tensor:
        known = model.known_elements.tolist() or list(range(1, NUM_ELEMENTS + 1))
        foreign = torch.tensor(sorted(set(known) - self._pool(known)), dtype=torch.long, device=z.device)
        required = torch.tensor(sorted(set(self.required)), dtype=torch.long, device=z.device)
        head = model.composition_head
        if isinstance(head, CompositionHead):
            none_of_it = head.log_probabilities(z, num_atoms)[:, :, 0]
            some_of_it = torch.log1p(-none_of_it[:, required - 1].exp().clamp_max(1.0 - 1e-6))
            return -none_of_it[:, foreign - 1].sum(-1) - some_of_it.sum(-1)
        fractions = head.fractions(z, num_atoms)
        inside = 1.0 - fractions[:, foreign - 1].sum(-1)
        some = 1.0 - (1.0 - fractions[:, required - 1]).pow(num_atoms.unsqueeze(-1))
        return -inside.clamp_min(1e-6).log() - some.clamp_min(1e-6).log().sum(-1)

    def _density_penalty(self, model: CDVAE, z: Tensor, num_atoms: Tensor) -> Tensor:
        assert self.density is not None
        fractions = model.composition_head.fractions(z, num_atoms)
        mass_per_atom = (fractions * _masses().to(z)).sum(-1)
        per_atom = model.lattice_coding.volume_per_atom(model.lattice_head(z))
        log_density = torch.log(mass_per_atom * _GRAM_PER_CUBIC_CM / per_atom)
        low, high = (max(bound, 1e-6) for bound in self.density)
        return torch.relu(np.log(low) - log_density) + torch.relu(log_density - np.log(high))

    def describe(self) -> str:
        """All of them in one line."""
        parts = []
        if self.allowed is not None:
            parts.append(f"elements {_names(self.allowed)}")
        if self.required:
            parts.append(f"required elements {_names(self.required)}")
        if self.forbidden:
            parts.append(f"forbidden elements {_names(self.forbidden)}")
        if self.num_atoms is not None:
            low, high = self.num_atoms
            parts.append(f"{low} atoms" if low == high else f"{low} to {high} atoms")
        if self.density is not None:
            parts.append(f"{self.density[0]:g} to {self.density[1]:g} g/cm^3")
        if self.neutral:
            parts.append(f"neutral by {self.rule}")
        return "; ".join(parts) or "none"


def elements(symbols: str | Sequence[str]) -> tuple[int, ...]:
    """Atomic numbers of symbols, given one by one or in one text.

    >>> elements("O, Ti Sr")
    (8, 22, 38)
    """
    from pymatgen.core import Element

    words = re.split(r"[\s,;]+", symbols.strip()) if isinstance(symbols, str) else list(symbols)
    numbers = set()
    for word in filter(None, words):
        if not Element.is_valid_symbol(word):
            raise ValueError(f"{word!r} is no element; give symbols such as O, Ti, Sr")
        numbers.add(int(Element(word).Z))
    return tuple(sorted(numbers))


def _names(numbers: Iterable[int]) -> str:
    return ", ".join(symbol(number) for number in numbers)


def _masses() -> Tensor:
    """(num_elements,) daltons; column 0 is hydrogen."""
    from pymatgen.core import Element

    return torch.tensor([float(Element.from_Z(number).atomic_mass) for number in range(1, NUM_ELEMENTS + 1)])
