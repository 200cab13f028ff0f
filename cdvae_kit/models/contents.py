"""What a code says that a crystal holds: number of atoms, composition, space group and Wyckoff positions.

The most probable of each is read, one after the other. Where limits are given, or the composition fits no Wyckoff
positions, numbers of atoms and compositions are gone through in order of probability until one fits: what is asked for
holds by construction, and nothing is drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import lattice_from_log_parameters
from cdvae_kit.crystal.lattice_families import project_parameters
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.crystal.symmetry import find_space_group
from cdvae_kit.crystal.wyckoff import wyckoff_positions, wyckoff_table
from cdvae_kit.models.assignment import most_probable_assignment
from cdvae_kit.models.enumeration import most_probable_compositions
from cdvae_kit.models.heads import CompositionHead, element_counts
from cdvae_kit.models.limits import NUM_ELEMENTS, DecodingLimits
from cdvae_kit.models.symmetry_heads import Assignment
from cdvae_kit.seeding import CrystalNoise, make_generator

if TYPE_CHECKING:
    from cdvae_kit.models.cdvae import CDVAE

_ELEMENT_STREAM = 1 << 42
_COMPOSITIONS = 256
"""Compositions of one number of atoms that are looked at, before the next number is."""
_AT_ONCE = 16
_GENERIC_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Contents:
    """What crystals hold.

    Attributes:
        orbits: groups and positions.
        elements: (num_orbits,) long.
        log_p: (num_crystals,) log-probability of composition, group and positions given the code.
    """

    orbits: Orbits
    elements: Tensor
    log_p: Tensor

    def select(self, index: Tensor) -> Contents:
        """Those of the crystals at `index`."""
        rows = self.orbits.rows_of(index)
        return Contents(self.orbits.select(index), self.elements[rows], self.log_p[index])


class NothingFitsError(ValueError):
    """No number of atoms, composition and positions that the limits allow."""


def known_elements(model: CDVAE, limits: DecodingLimits | None) -> Tensor:
    """(num_elements,) long: atomic numbers that may occur."""
    known = model.known_elements
    if not len(known):
        # a model that was never fitted to crystals
        known = torch.arange(1, NUM_ELEMENTS + 1, device=model.device)
    return known if limits is None else limits.known(known)


def read_num_atoms(model: CDVAE, z: Tensor, limits: DecodingLimits | None = None) -> Tensor:
    """(num_crystals,) long: the most probable number of atoms of each code, of those that `limits` allow."""
    logits = model.num_atoms_head(z)
    if limits is None:
        return logits.argmax(dim=-1) + 1
    sizes = torch.tensor(limits.allowed_sizes(model.config.max_atoms), device=z.device)
    return sizes[logits[:, sizes - 1].argmax(dim=-1)]


@torch.no_grad()
def read_counts(model: CDVAE, z: Tensor, limits: DecodingLimits | None = None) -> Tensor:
    """(num_crystals, num_elements) long: the most probable composition of each code, that `limits` allow."""
    return _first_counts(model, z, read_num_atoms(model, z, limits), limits)[0]


@torch.no_grad()
def read_contents(
    model: CDVAE,
    z: Tensor,
    *,
    seed: int,
    crystal_ids: Tensor,
    limits: DecodingLimits | None = None,
    num_atoms: Tensor | None = None,
    counts: Tensor | None = None,
) -> Contents:
    """What each code's crystal holds.

    Args:
        model: the model.
        z: (num_crystals, latent_dim).
        seed: for a head of fractions, which draws.
        crystal_ids: (num_crystals,) long, each crystal's number within the run.
        limits: what the crystals keep to.
        num_atoms: (num_crystals,) long, if it is settled already.
        counts: (num_crystals, num_elements) long, if the composition is settled already.

    Raises:
        NothingFitsError: the limits leave nothing that the model knows for some code.
    """
    if limits is not None and limits.sites is not None:
        return _given(model, z, limits)
    if counts is not None:
        num_atoms = counts.sum(-1)
    sizes = read_num_atoms(model, z, limits) if num_atoms is None else num_atoms
    if not isinstance(model.composition_head, CompositionHead) or model.config.symmetry == "none":
        if counts is not None:
            raise ValueError("compositions can be fixed only in models with symmetry='orbits' and composition='counts'")
        return _drawn(model, z, sizes, seed=seed, crystal_ids=crystal_ids, limits=limits)
    settled = counts
    counts, log_p = _first_counts(model, z, sizes, limits, settled)
    groups = _groups(model, limits)
    there, assignment = model.symmetry_head.assign(z, counts, allowed=groups)
    if limits is not None and limits.is_allowed is not None:
        allowed = [limits.is_allowed(composition_of(row)) for row in counts.cpu().numpy()]
        there = there & torch.tensor(allowed, device=z.device)
    found = [_one(assignment, log_p, i) if ok else None for i, ok in enumerate(there.tolist())]
    if groups is not None:
        found = [one if one is not None and has_its_group(*one[:3]) else None for one in found]
    for i in [i for i, one in enumerate(found) if one is None]:
        fixed = None if num_atoms is None else int(num_atoms[i])
        own = limits
        if settled is not None:
            composition = tuple(composition_of(settled[i].cpu().numpy()).items())
            own = replace(limits or DecodingLimits(), composition=composition, units=(1,))
        found[i] = _search(model, z[i : i + 1], own, groups, fixed)
        if found[i] is None:
            raise NothingFitsError(_explain(model, limits, int(crystal_ids[i])))
    return _join([one for one in found if one is not None])


def _given(model: CDVAE, z: Tensor, limits: DecodingLimits) -> Contents:
    """The same orbits for every code, and how probable its code makes group and positions."""
    assert limits.sites is not None
    elements, position = (torch.tensor(column, device=z.device) for column in zip(*sorted(limits.sites), strict=True))
    space_group = wyckoff_table(z.device).space_group.index_select(0, position[:1])
    if model.config.symmetry == "none":
        raise ValueError("Wyckoff positions can be asked of models with symmetry='orbits'; this one has 'none'")
    one = Orbits(space_group, torch.tensor([len(position)], device=z.device), position)
    again = torch.zeros(len(z), dtype=torch.long, device=z.device)
    orbits = one.select(again)
    elements = elements[one.rows_of(again)]
    return Contents(orbits, elements, model.symmetry_head.log_probability(z, orbits, elements))


def composition_of(counts: np.ndarray) -> dict[int, int]:
    """{atomic number: atoms} of counts (num_elements,), hydrogen first."""
    return {int(i) + 1: int(counts[i]) for i in np.flatnonzero(counts)}


def _drawn(
    model: CDVAE, z: Tensor, sizes: Tensor, *, seed: int, crystal_ids: Tensor, limits: DecodingLimits | None
) -> Contents:
    """Without the search: of models without symmetry, or whose elements are drawn atom by atom."""
    if limits is not None and (limits.composition is not None or limits.space_groups is not None):
        raise ValueError(
            "formula and space group can be fixed only in models with symmetry='orbits' and composition='counts'; this "
            f"one has symmetry={model.config.symmetry!r} and composition={model.config.composition!r}"
        )
    uniform = CrystalNoise(seed, crystal_ids, sizes).uniform_per_row(1, stream=_ELEMENT_STREAM).squeeze(-1)
    required = None if limits is None else limits.required_elements(z.device)
    drawn = model.composition_head.draw(z, sizes, uniform, known_elements(model, limits), required)
    zero = torch.zeros(len(z), device=z.device)
    if model.config.symmetry == "none":
        return Contents(Orbits.without_symmetry(sizes), drawn, zero)
    batch = torch.repeat_interleave(torch.arange(len(z), device=z.device), sizes)
    there, assignment = model.symmetry_head.assign(z, element_counts(drawn, batch, len(z)))
    if not bool(there.all()):
        raise NothingFitsError("a drawn composition fits no Wyckoff positions that the model knows")
    return Contents(assignment.orbits, assignment.elements, assignment.log_p)


def _first_counts(
    model: CDVAE, z: Tensor, sizes: Tensor, limits: DecodingLimits | None, settled: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(num_crystals, num_elements) the most probable composition of each code, and its log-probability."""
    head = model.composition_head
    assert isinstance(head, CompositionHead)
    log_p = head.masked_log_probabilities(z, sizes, known_elements(model, limits), limits)
    if settled is not None:
        counts = settled
    elif limits is not None and limits.composition is not None:
        unit = limits.unit_counts(z.device)
        counts = unit * (sizes // unit.sum()).unsqueeze(-1)
    else:
        counts = head.most_probable(log_p, sizes)
    return counts, log_p.gather(-1, counts.unsqueeze(-1)).squeeze(-1).sum(-1)


def _groups(model: CDVAE, limits: DecodingLimits | None) -> Tensor | None:
    """(231,) bool: space groups that may be chosen."""
    if limits is None or limits.space_groups is None:
        return None
    allowed = torch.zeros_like(model.symmetry_head.known_groups)
    allowed[list(limits.space_groups)] = True
    if not bool((allowed & model.symmetry_head.known_groups).any()):
        known = model.symmetry_head.known_groups.nonzero().squeeze(-1).tolist()
        asked = ", ".join(map(str, limits.space_groups[:10]))
        raise ValueError(f"the model has never seen a crystal of space group {asked}; it knows {known}")
    return allowed


def _search(
    model: CDVAE, z: Tensor, limits: DecodingLimits | None, groups: Tensor | None, num_atoms: int | None
) -> _Crystal | None:
    """The first size and composition of one code, in order of probability, that fits some positions."""
    for counts, log_p in _compositions(model, z, limits, groups, num_atoms):
        there, assignment = model.symmetry_head.assign(z.expand(len(counts), -1), counts, allowed=groups)
        for i in there.nonzero().squeeze(-1).tolist():
            one = _one(assignment, log_p, i)
            if groups is None or has_its_group(*one[:3]):
                return one
            others = _without_one_position(model, z, counts[i : i + 1], log_p[i : i + 1], groups, one)
            if others:
                return max(others, key=lambda other: other[3])
    return None


def _without_one_position(
    model: CDVAE, z: Tensor, counts: Tensor, log_p: Tensor, groups: Tensor, one: _Crystal
) -> list[_Crystal]:
    """Assignments of the same composition that leave out one of the positions of `one`, and have their group."""
    found = []
    for position in sorted(set(one[1].tolist())):
        there, assignment = model.symmetry_head.assign(z, counts, allowed=groups, without=[position])
        if bool(there[0]):
            other = _one(assignment, log_p, 0)
            if has_its_group(*other[:3]):
                found.append(other)
    return found


def has_its_group(space_group: int, position: Tensor, elements: Tensor) -> bool:
    """Whether crystals of these orbits have the group and no more, for parameters and cells that are not special.

    Magnesium on all points of a finer lattice, say, has the symmetry of that lattice.
    """
    kinds = {element: kind for kind, element in enumerate(dict.fromkeys(elements.tolist()), start=1)}
    orbits = tuple(sorted((kinds[e], p) for e, p in zip(elements.tolist(), position.tolist(), strict=True)))
    return _generic_group(space_group, orbits) == space_group


@lru_cache(maxsize=100_000)
def _generic_group(space_group: int, kinds_and_positions: tuple[tuple[int, int], ...]) -> int | None:
    kinds, positions = (torch.tensor(column) for column in zip(*kinds_and_positions, strict=True))
    crystal = generic_crystal(space_group, positions, kinds)
    arrays = crystal.lattice[0].tolist(), crystal.frac_coords.tolist(), crystal.atomic_numbers.tolist()
    return find_space_group(*arrays, _GENERIC_TOLERANCE).number


def generic_crystal(space_group: int, position: Tensor, elements: Tensor) -> SymmetricCrystals:
    """A crystal of these orbits (num_orbits,), in float64, whose parameters and cell are not special."""
    orbits = Orbits(torch.tensor([space_group]), torch.tensor([len(position)]), position)
    generator = make_generator(space_group, len(position))
    free = torch.rand(len(position), 3, generator=generator, dtype=torch.float64) * orbits.is_free
    parameters = 0.3 * torch.randn(1, 6, generator=generator, dtype=torch.float64) + math.log(20.0)
    parameters[:, 3:] -= math.log(20.0)
    cell = lattice_from_log_parameters(project_parameters(parameters, orbits.family))
    lattice = orbits.conventional_to_primitive(cell)[0]
    return SymmetricCrystals(orbits, elements, free, lattice.unsqueeze(0))


def _compositions(
    model: CDVAE, z: Tensor, limits: DecodingLimits | None, groups: Tensor | None, num_atoms: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Compositions of one code by size, then probability, a few at once, with their log-probabilities."""
    head = model.composition_head
    assert isinstance(head, CompositionHead)
    allowed = limits.allowed_sizes(model.config.max_atoms) if limits is not None else None
    sizes = [num_atoms] if num_atoms is not None else (model.num_atoms_head(z)[0].argsort(descending=True) + 1).tolist()
    for size in sizes:
        if allowed is not None and size not in allowed:
            continue
        one = torch.tensor([size], device=z.device)
        log_p = head.masked_log_probabilities(z, one, known_elements(model, limits), limits)[0]
        table = log_p.double().cpu().numpy()
        if limits is not None and limits.composition is not None:
            unit = limits.unit_counts(torch.device("cpu")).numpy()
            counts = unit * (size // unit.sum())
            ranked = [(float(table[np.arange(len(counts)), counts].sum()), counts)]
        else:
            ranked = most_probable_compositions(table, size, _COMPOSITIONS)
        if limits is not None and limits.is_allowed is not None:
            ranked = [(value, counts) for value, counts in ranked if limits.is_allowed(composition_of(counts))]
        if groups is not None:
            ranked = [(value, counts) for value, counts in ranked if fits_groups(model, groups, counts)]
        for start in range(0, len(ranked), _AT_ONCE):
            some = ranked[start : start + _AT_ONCE]
            counts = torch.as_tensor(np.array([row for _, row in some]), device=z.device)
            yield counts, torch.tensor([value for value, _ in some], device=z.device)


def fits_groups(model: CDVAE, groups: Tensor, counts: np.ndarray) -> bool:
    """Whether a composition (num_elements,) fits Wyckoff positions of one of the groups (231,) bool, by the numbers."""
    head = model.symmetry_head
    known = tuple((head.known_groups & groups).nonzero().squeeze(-1).tolist())
    positions = head.known_positions.nonzero().squeeze(-1).cpu().numpy()
    atoms = tuple(sorted(counts[counts > 0].tolist(), reverse=True))
    return any(_fits(_sizes_of(positions.tobytes(), group), atoms) for group in known)


@lru_cache(maxsize=2048)
def _sizes_of(known_positions: bytes, group: int) -> tuple[tuple[int, bool], ...]:
    """Multiplicity and freedom of the known positions of a group."""
    known = set(np.frombuffer(known_positions, dtype=np.int64).tolist())
    return tuple(
        (position.primitive_multiplicity, position.num_free > 0)
        for position in wyckoff_positions(group)
        if position.index in known
    )


@lru_cache(maxsize=100_000)
def _fits(sizes: tuple[tuple[int, bool], ...], atoms: tuple[int, ...]) -> bool:
    if not sizes:
        return False
    multiplicity, is_free = (np.array(values) for values in zip(*sizes, strict=True))
    flat = np.zeros((len(atoms), len(sizes), max(atoms) + 1))
    return most_probable_assignment(flat, multiplicity, is_free, np.array(atoms)) is not None


_Crystal = tuple[int, Tensor, Tensor, float]
"""Space group, positions, elements and log-probability of one crystal."""


def _one(assignment: Assignment, log_p: Tensor, index: int) -> _Crystal:
    rows = assignment.orbits.rows_of(torch.tensor([index], device=log_p.device))
    return (
        int(assignment.orbits.space_group[index]),
        assignment.orbits.position[rows],
        assignment.elements[rows],
        float(assignment.log_p[index] + log_p[index]),
    )


def _join(found: list[_Crystal]) -> Contents:
    device = found[0][1].device
    orbits = Orbits(
        torch.tensor([group for group, _, _, _ in found], device=device),
        torch.tensor([len(position) for _, position, _, _ in found], device=device),
        torch.cat([position for _, position, _, _ in found]),
    )
    log_p = torch.tensor([value for _, _, _, value in found], device=device)
    return Contents(orbits, torch.cat([elements for _, _, elements, _ in found]), log_p)


def _explain(model: CDVAE, limits: DecodingLimits | None, crystal: int) -> str:
    asked = limits.describe() if limits is not None else "nothing"
    return (
        f"no composition and Wyckoff positions fit what is asked for ({asked}; the first code that has none: crystal "
        f"{crystal}); the model has at most {model.config.max_atoms} atoms in a primitive cell, and takes only "
        "positions that its training crystals have"
    )
