"""Crystals to and from pymatgen and ASE: the only place where the package touches their classes.

Cell, positions (as the image inside the cell), elements and numeric properties survive both ways. Oxidation states,
site properties, constraints and calculators have no place in a `CrystalBatch` and are left behind. Nothing here opens
a file; both libraries are imported only when a function is called.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.crystal.batch import MAX_ATOMIC_NUMBER, CrystalBatch
from cdvae_kit.crystal.errors import (
    CrystalError,
    DisorderedSiteError,
    EmptyCrystalError,
    MissingCellError,
    NonFiniteError,
    UnknownElementError,
)
from cdvae_kit.crystal.faults import NON_FINITE, crystal_faults

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

logger = logging.getLogger(__name__)

MATERIAL_ID = "material_id"
"""The key of a crystal's name in `Structure.properties` and `Atoms.info`."""

_FLAT = 1e-6  # cubic angstrom; under it positions have no fractions


class _Crystal(NamedTuple):
    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    properties: Mapping[str, Any]


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


def batch_to_structures(batch: CrystalBatch) -> list[Structure]:
    """pymatgen structures, one a crystal; properties that are not NaN go to `Structure.properties`."""
    from pymatgen.core import Element, Lattice, Structure

    elements = {number: Element.from_Z(number) for number in batch.atomic_numbers.unique().tolist()}
    return [
        Structure(
            Lattice(crystal.lattice),
            [elements[number] for number in crystal.atomic_numbers.tolist()],
            crystal.frac_coords,
            properties=dict(crystal.properties),
        )
        for crystal in _unpack(batch)
    ]


def batch_to_atoms(batch: CrystalBatch) -> list[Atoms]:
    """ASE atoms, one a crystal; properties that are not NaN go to `Atoms.info`."""
    from ase import Atoms

    return [
        Atoms(
            numbers=crystal.atomic_numbers,
            positions=crystal.frac_coords @ crystal.lattice,
            cell=crystal.lattice,
            pbc=True,
            info=dict(crystal.properties),
        )
        for crystal in _unpack(batch)
    ]


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

    raw = _from_atoms(crystal) if isinstance(crystal, Atoms) else _from_structure(crystal)
    for fault in crystal_faults(_pack([raw], torch.float64, [""], {}), max_atoms=max_atoms, min_distance=min_distance):
        if fault is not None:
            raise fault


def _named(convert: Any, crystal: Any, index: int) -> _Crystal:
    try:
        raw: _Crystal = convert(crystal)
    except CrystalError as error:
        raise type(error)(f"crystal {index}: {error}") from error
    return raw


def _from_structure(structure: Structure) -> _Crystal:
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
    return _checked(
        _Crystal(
            np.asarray(structure.lattice.matrix, dtype=np.float64),
            np.asarray(structure.frac_coords, dtype=np.float64),
            np.array([s.Z for s in species], dtype=np.int64),
            structure.properties,
        )
    )


def _from_atoms(atoms: Atoms) -> _Crystal:
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
    raw = _checked(_Crystal(cell, atoms.positions, atoms.numbers.astype(np.int64), atoms.info))
    return raw._replace(frac_coords=np.linalg.solve(cell.T, atoms.positions.T).T)


def _checked(raw: _Crystal) -> _Crystal:
    if len(raw.atomic_numbers) == 0:
        raise EmptyCrystalError("expected at least one atom, got none")
    if not (np.isfinite(raw.lattice).all() and np.isfinite(raw.frac_coords).all()):
        raise NonFiniteError(NON_FINITE)
    volume = abs(float(np.linalg.det(raw.lattice)))
    if volume < _FLAT:
        raise MissingCellError(
            f"the cell has no volume ({volume:.1e} cubic angstrom); give three vectors that do not lie in a plane"
        )
    unknown = sorted({int(z) for z in raw.atomic_numbers if not 1 <= z <= MAX_ATOMIC_NUMBER})
    if unknown:
        raise UnknownElementError(
            f"expected atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got {unknown}; rename or remove these atoms"
        )
    return raw


def _pack(
    crystals: list[_Crystal],
    dtype: torch.dtype,
    material_ids: Sequence[str] | None,
    properties: Mapping[str, Sequence[float] | Tensor] | None,
) -> CrystalBatch:
    if material_ids is None and any(MATERIAL_ID in crystal.properties for crystal in crystals):
        material_ids = [str(crystal.properties.get(MATERIAL_ID, "")) for crystal in crystals]
    columns = _numeric_columns(crystals, dtype)
    for name, values in (properties or {}).items():
        columns[name] = torch.as_tensor(values, dtype=dtype)
    if not crystals:
        return CrystalBatch(
            torch.zeros(0, 3, dtype=dtype),
            torch.zeros(0, 3, 3, dtype=dtype),
            torch.zeros(0, dtype=torch.long),
            torch.zeros(0, dtype=torch.long),
            properties=columns,
            material_ids=material_ids,
        )
    frac_coords = np.concatenate([crystal.frac_coords for crystal in crystals])
    # wrapped before it is rounded: float32 would lose digits of a far image
    frac_coords = frac_coords - np.floor(frac_coords)
    return CrystalBatch(
        torch.from_numpy(frac_coords).to(dtype),
        torch.from_numpy(np.stack([crystal.lattice for crystal in crystals])).to(dtype),
        torch.from_numpy(np.concatenate([crystal.atomic_numbers for crystal in crystals])),
        torch.tensor([len(crystal.atomic_numbers) for crystal in crystals]),
        properties=columns,
        material_ids=material_ids,
    )


def _numeric_columns(crystals: list[_Crystal], dtype: torch.dtype) -> dict[str, Tensor]:
    names = {name: None for crystal in crystals for name in crystal.properties if name != MATERIAL_ID}
    columns: dict[str, Tensor] = {}
    left_out: list[str] = []
    for name in names:
        values = [crystal.properties.get(name) for crystal in crystals]
        # bool is a Real to Python, but a flag is not a measured value
        if all(value is None or (isinstance(value, Real) and not isinstance(value, bool)) for value in values):
            numbers = [float("nan") if value is None else float(value) for value in values]
            columns[str(name)] = torch.tensor(numbers, dtype=dtype)
        else:
            left_out.append(str(name))
    if left_out:
        logger.info("properties that are not numbers are left out: %s", ", ".join(left_out))
    return columns


def _unpack(batch: CrystalBatch) -> list[_Crystal]:
    bounds = batch.ptr.tolist()
    lattice = batch.lattice.detach().cpu().double().numpy()
    frac_coords = batch.frac_coords.detach().cpu().double().numpy()
    atomic_numbers = batch.atomic_numbers.cpu().numpy()
    columns = {name: values.detach().cpu().double().tolist() for name, values in batch.properties.items()}
    crystals = []
    for i in range(len(batch)):
        properties: dict[str, Any] = {name: values[i] for name, values in columns.items() if values[i] == values[i]}
        if batch.material_ids is not None and batch.material_ids[i]:
            properties[MATERIAL_ID] = batch.material_ids[i]
        atoms = slice(bounds[i], bounds[i + 1])
        crystals.append(_Crystal(lattice[i], frac_coords[atoms], atomic_numbers[atoms], properties))
    return crystals
