"""Crystals from pymatgen and ASE: with `export`, the way back, the only place where the package touches their classes.

Cell, positions (as the image inside the cell), elements and numeric properties survive both ways. Oxidation states,
site properties, constraints and calculators have no place in a `CrystalBatch` and are left behind. Nothing here opens
a file; both libraries are imported only when a function is called.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.crystal.arrays import CrystalArrays, split, unusable
from cdvae_kit.crystal.batch import MAX_ATOMIC_NUMBER, CrystalBatch, batch_of_arrays
from cdvae_kit.crystal.errors import (
    CrystalError,
    DisorderedSiteError,
    EmptyCrystalError,
    MissingCellError,
    NonFiniteError,
    UnknownElementError,
)
from cdvae_kit.crystal.export import MATERIAL_ID
from cdvae_kit.crystal.export import batch_to_atoms as batch_to_atoms
from cdvae_kit.crystal.export import batch_to_structures as batch_to_structures
from cdvae_kit.crystal.faults import ANY_CELL, NON_FINITE, crystal_faults

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

logger = logging.getLogger(__name__)


class _Found(NamedTuple):
    """A crystal, and all that stands beside it in the object it comes from."""

    crystal: CrystalArrays
    beside: Mapping[str, Any]


def structures_to_batch(
    structures: Sequence[Structure],
    *,
    dtype: torch.dtype = torch.float32,
    material_ids: Sequence[str] | None = None,
    properties: Mapping[str, Sequence[float] | Tensor] | None = None,
) -> CrystalBatch:
    """A batch of pymatgen structures; the first one that cannot be converted raises its `CrystalError`.

    Args:
        structures: ordered structures, periodic along three axes.
        dtype: of coordinates, lattices and properties.
        material_ids: one name a structure; by default `Structure.properties["material_id"]` ("" where there is none).
        properties: values by name, one a structure; they join the numbers in `Structure.properties`, and win over them.
            Values that are not numbers (text, flags, tables) are left out and logged.

    >>> from pymatgen.core import Lattice, Structure
    >>> batch = structures_to_batch([Structure(Lattice.cubic(4.2), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])])
    >>> batch.atomic_numbers
    tensor([11, 17])
    """
    return _pack(
        [_named(_from_structure, crystal, i) for i, crystal in enumerate(structures)], dtype, material_ids, properties
    )


def atoms_to_batch(
    atoms: Sequence[Atoms],
    *,
    dtype: torch.dtype = torch.float32,
    material_ids: Sequence[str] | None = None,
    properties: Mapping[str, Sequence[float] | Tensor] | None = None,
) -> CrystalBatch:
    """A batch of ASE atoms, periodic along three axes; `Atoms.info` gives names and properties.

    Arguments and errors are those of `structures_to_batch`.
    """
    return _pack([_named(_from_atoms, crystal, i) for i, crystal in enumerate(atoms)], dtype, material_ids, properties)


def check_crystal(
    crystal: Structure | Atoms, *, max_atoms: int | None = None, min_distance: float | None = 0.5
) -> None:
    """Nothing, where the crystal can be used; else its `CrystalError`, which says what is wrong and what to do.

    Args:
        crystal: a pymatgen structure or ASE atoms.
        max_atoms: the most that are taken; None takes any number.
        min_distance: angstrom; atoms (periodic images included) that are closer overlap; None takes any distance.
    """
    from ase import Atoms

    found = _from_atoms(crystal) if isinstance(crystal, Atoms) else _from_structure(crystal)
    for fault in crystal_faults(
        batch_of_arrays([found.crystal], dtype=torch.float64), max_atoms=max_atoms, min_distance=min_distance
    ):
        if fault is not None:
            raise fault


def arrays_of(crystals: Any) -> list[CrystalArrays]:
    """Any crystals as arrays, in order; one that cannot be used keeps its place and says why.

    Args:
        crystals: a batch, or pymatgen structures, ASE atoms, objects with `lattice`, `frac_coords` and
            `atomic_numbers`, and None, in any mixture.
    """
    return list(split(crystals)) if isinstance(crystals, CrystalBatch) else [_any(crystal) for crystal in crystals]


def _any(crystal: Any) -> CrystalArrays:
    from ase import Atoms
    from pymatgen.core.structure import SiteCollection

    if crystal is None:
        return unusable("there is no crystal: it could not be made")
    if isinstance(crystal, CrystalArrays):
        return crystal
    if isinstance(crystal, Atoms | SiteCollection):
        try:
            # for images far away the fractions are wrapped
            found = _from_atoms(crystal) if isinstance(crystal, Atoms) else _from_structure(cast("Structure", crystal))
        except CrystalError as error:
            return unusable(str(error))
        return next(split(batch_of_arrays([found.crystal], dtype=torch.float64)))
    try:
        return CrystalArrays(
            np.array(crystal.lattice, dtype=np.float64).reshape(3, 3),
            np.array(crystal.frac_coords, dtype=np.float64).reshape(-1, 3),
            np.array(crystal.atomic_numbers, dtype=np.int64).reshape(-1),
            fault=getattr(crystal, "fault", None),
        )
    except AttributeError as error:
        raise TypeError(
            "crystals are a CrystalBatch, pymatgen structures, ASE atoms, objects with lattice, frac_coords and "
            f"atomic_numbers, or None; got {type(crystal).__name__}"
        ) from error


def _named(convert: Any, crystal: Any, index: int) -> _Found:
    try:
        found: _Found = convert(crystal)
    except CrystalError as error:
        raise type(error)(f"crystal {index}: {error}") from error
    return found


def _from_structure(structure: Structure) -> _Found:
    from pymatgen.core import DummySpecies, Structure

    if not isinstance(structure, Structure):
        raise MissingCellError(
            f"expected a pymatgen Structure, got {type(structure).__name__}, which has no periodic cell; "
            "put molecules in a box first"
        )
    if not all(structure.lattice.pbc):
        raise MissingCellError(f"expected a cell that repeats along three axes, got pbc={structure.lattice.pbc}")
    shared = [str(site.species) for site in structure if not site.is_ordered]
    if shared:
        raise DisorderedSiteError(
            f"{len(shared)} of {len(structure)} sites are disordered (the first holds {shared[0]}); "
            "order the structure first, for instance with pymatgen's OrderDisorderedStructureTransformation"
        )
    species = structure.species
    unknown = sorted({str(s) for s in species if isinstance(s, DummySpecies)})
    if unknown:
        raise UnknownElementError(f"expected elements 1 to {MAX_ATOMIC_NUMBER}, got {unknown}; rename or remove them")
    crystal = CrystalArrays(
        np.asarray(structure.lattice.matrix, dtype=np.float64),
        np.asarray(structure.frac_coords, dtype=np.float64),
        np.array([s.Z for s in species], dtype=np.int64),
    )
    return _Found(_checked(crystal), structure.properties)


def _from_atoms(atoms: Atoms) -> _Found:
    cell = np.asarray(atoms.cell.array, dtype=np.float64)
    if not (atoms.pbc.all() and cell.any(axis=1).all()):
        raise MissingCellError(
            f"expected a cell that repeats along three axes, got pbc={atoms.pbc.tolist()} and lengths "
            f"{np.linalg.norm(cell, axis=1).round(3).tolist()}; set atoms.cell and atoms.pbc = True"
        )
    if "spacegroup_kinds" in atoms.arrays and "occupancy" in atoms.info:
        shared = [kind for kind in atoms.info["occupancy"].values() if len(kind) > 1 or min(kind.values()) < 1.0]
        if shared:
            raise DisorderedSiteError(
                f"{len(shared)} kinds of site are disordered (the first holds {shared[0]}); order the structure first"
            )
    crystal = _checked(CrystalArrays(cell, atoms.positions, atoms.numbers.astype(np.int64)))
    return _Found(replace(crystal, frac_coords=np.linalg.solve(cell.T, atoms.positions.T).T), atoms.info)


def _checked(raw: CrystalArrays) -> CrystalArrays:
    if len(raw.atomic_numbers) == 0:
        raise EmptyCrystalError("expected at least one atom, got none")
    if not (np.isfinite(raw.lattice).all() and np.isfinite(raw.frac_coords).all()):
        raise NonFiniteError(NON_FINITE)
    # without a cell positions have no fractions; whether a cell is one that is taken, `crystal_faults` says
    if not raw.volume > ANY_CELL.min_volume:
        raise MissingCellError(
            f"the cell has no volume ({raw.volume:.1e} cubic angstrom); give three vectors that do not lie in a plane"
        )
    unknown = sorted({int(z) for z in raw.atomic_numbers if not 1 <= z <= MAX_ATOMIC_NUMBER})
    if unknown:
        raise UnknownElementError(
            f"expected atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got {unknown}; rename or remove these atoms"
        )
    return raw


def _pack(
    found: list[_Found],
    dtype: torch.dtype,
    material_ids: Sequence[str] | None,
    properties: Mapping[str, Sequence[float] | Tensor] | None,
) -> CrystalBatch:
    if material_ids is None and any(MATERIAL_ID in beside for _, beside in found):
        material_ids = [str(beside.get(MATERIAL_ID, "")) for _, beside in found]
    columns = _numeric_columns([beside for _, beside in found], dtype)
    for name, values in (properties or {}).items():
        columns[name] = torch.as_tensor(values, dtype=dtype)
    batch = batch_of_arrays([crystal for crystal, _ in found], dtype=dtype)
    return batch.replace(properties=columns, material_ids=material_ids)


def _numeric_columns(tables: Sequence[Mapping[str, Any]], dtype: torch.dtype) -> dict[str, Tensor]:
    names = {name: None for table in tables for name in table if name != MATERIAL_ID}
    columns: dict[str, Tensor] = {}
    left_out: list[str] = []
    for name in names:
        values = [table.get(name) for table in tables]
        # bool is a Real to Python, but a flag is not a measured value
        if all(value is None or (isinstance(value, Real) and not isinstance(value, bool)) for value in values):
            numbers = [float("nan") if value is None else float(value) for value in values]
            columns[str(name)] = torch.tensor(numbers, dtype=dtype)
        else:
            left_out.append(str(name))
    if left_out:
        logger.info("properties that are not numbers are left out: %s", ", ".join(left_out))
    return columns
