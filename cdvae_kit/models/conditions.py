"""What crystals are asked for, checked for contradictions; how the prior is told of it is in `condition_kinds`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cdvae_kit.crystal.symmetry import CRYSTAL_SYSTEMS, crystal_system
from cdvae_kit.crystal.wyckoff import NUM_GROUPS, all_positions, position_of
from cdvae_kit.models.limits import NUM_ELEMENTS, DecodingLimits


@dataclass(frozen=True)
class Conditions:
    """What crystals are asked for; None is not asked for. All but properties hold by construction.

    Attributes:
        composition: {atomic number: atoms} of one formula unit, integers; a cell holds an integer number of them.
        units: how many formula units a primitive cell may hold; None for any number.
        elements: atomic numbers, each of which occurs, and no other does.
        contains: atomic numbers of which there is at least one atom.
        without: atomic numbers that do not occur.
        num_atoms: in the primitive cell.
        space_group: 1 to 230.
        crystal_system: one of `crystal.symmetry.CRYSTAL_SYSTEMS`.
        sites: (atomic number, letter of the Wyckoff position) of all orbits, in the space group; it goes with a
            composition that these orbits have.
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
    sites: Sequence[tuple[int, str]] | None = None
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
                raise ValueError(f"{self.num_atoms} atoms are no integer number of formula units of {unit} atoms")
        if self.sites is not None:
            self._check_sites()

    def _check_sites(self) -> None:
        if self.space_group is None or self.composition is None:
            raise ValueError("Wyckoff positions need the space group that their letters belong to, and a composition")
        atoms: Counter[int] = Counter()
        for number, position in self.site_positions():
            atoms[number] += all_positions()[position].primitive_multiplicity
        taken = Counter(position for _, position in self.site_positions())
        for position, times in taken.items():
            if times > 1 and not all_positions()[position].num_free:
                raise ValueError(
                    f"position {all_positions()[position].letter} of space group {self.space_group} is a fixed set of "
                    f"points, and is taken {times} times"
                )
        times = sum(atoms.values()) // sum(self.composition.values())
        if (self.units is not None and times not in self.units) or self.num_atoms not in (None, sum(atoms.values())):
            raise ValueError(
                f"the Wyckoff positions hold {sum(atoms.values())} atoms, {times} formula units; asked for are "
                f"num_atoms={self.num_atoms}, units={self.units}"
            )
        if atoms != Counter({number: count * times for number, count in self.composition.items()}):
            raise ValueError(
                f"the Wyckoff positions hold {_symbols(sorted(atoms.elements()))}, which is no integer number of the "
                f"formula units of {dict(self.composition)}"
            )

    def site_positions(self) -> tuple[tuple[int, int], ...]:
        """(atomic number, index of the Wyckoff position) of all orbits that are asked for.

        Raises:
            ValueError: the space group has no position of a letter.
        """
        assert self.space_group is not None
        return tuple((number, position_of(self.space_group, letter).index) for number, letter in self.sites or ())

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
            sites=None if self.sites is None else self.site_positions(),
            is_allowed=self.is_allowed,
        )


def _symbols(numbers: Sequence[int]) -> str:
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[number] for number in numbers)
