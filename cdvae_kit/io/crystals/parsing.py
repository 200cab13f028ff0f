"""What one record says: its crystal, or the reason why it has none. Runs in worker processes.

Crystals come out as the file has them: atoms in their order, no reduction, no rounding. Only a CIF with symmetry
operations goes through pymatgen's parser, which applies them and sorts the atoms by element.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import unquote

import numpy as np
import torch

from cdvae_kit.crystal.batch import MAX_ATOMIC_NUMBER, CrystalBatch, concatenate
from cdvae_kit.crystal.conversion import atoms_to_batch, crystal_faults, structures_to_batch
from cdvae_kit.crystal.errors import (
    CrystalError,
    DisorderedSiteError,
    EmptyCrystalError,
    MissingCellError,
    OverlappingAtomsError,
    UnknownElementError,
)
from cdvae_kit.crystal.symmetry import niggli_reduce
from cdvae_kit.io.crystals.records import ReadFailure, Record, RecordKind
from cdvae_kit.io.crystals.tables import ARRAY_COLUMNS

if TYPE_CHECKING:
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifBlock

_DENSE_SEARCH_ATOMS = 1000
_FULL_OCCUPANCY = 1.0 - 1e-6
_LENGTHS = ("_cell_length_a", "_cell_length_b", "_cell_length_c")
_ANGLES = ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma")
_FRACTIONS = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
# every spelling that is in use, with and without a last underscore
_OPERATIONS = re.compile(r"_symmetry_equiv_pos_as_xyz_?|_space_group_symop[._]operation_xyz_?", re.IGNORECASE)
_GROUP_NAME = re.compile(r"_(symmetry_)?space_group[._]name_(h-m|h_m|hall).*", re.IGNORECASE)
_GROUP_NUMBER = re.compile(r"_(symmetry_int_tables|space_group[._]it)_number_?", re.IGNORECASE)
CIF_NAME_TAG = "_cdvae_kit_material_id"
CIF_PROPERTY_TAGS = ("_cdvae_kit_property_name", "_cdvae_kit_property_value")
_HEAVY_HYDROGEN = {"D": 1, "T": 1}


class ParseOptions(NamedTuple):
    """What a crystal must be, and what is done with it before it comes back."""

    max_atoms: int | None
    min_distance: float | None
    reduce: Literal["niggli"] | None


class _ParseError(Exception):
    """A record that cannot be understood; what is wrong with an understood crystal is a `CrystalError`."""


@dataclass(frozen=True)
class ParsedRecords:
    """The crystals of a run of records, as arrays (cheap to send between processes), and the failures among them.

    `failed_at` holds the place in the run of each failure.
    """

    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    num_atoms: np.ndarray
    names: list[str]
    properties: list[dict[str, float]]
    failures: list[ReadFailure]
    failed_at: list[int]


class _Parsed(NamedTuple):
    crystal: CrystalBatch
    name: str
    properties: dict[str, float]


def parse_records(records: Sequence[Record], options: ParseOptions) -> ParsedRecords:
    """The crystals of `records` in order, float64, and the failures in order; nothing that a record holds raises."""
    parsed: list[_Parsed | ReadFailure] = [_parse_guarded(record) for record in records]
    sound = [i for i, item in enumerate(parsed) if isinstance(item, _Parsed)]
    faults = _faults([parsed[i].crystal for i in sound], options)  # type: ignore[union-attr]
    for i, fault in zip(sound, faults, strict=True):
        record = records[i]
        if fault is not None:
            parsed[i] = ReadFailure(record.source, record.record, fault)
        elif options.reduce == "niggli":
            parsed[i] = _reduced(parsed[i], record)  # type: ignore[arg-type]
    crystals = [item for item in parsed if isinstance(item, _Parsed)]
    batch = concatenate([item.crystal for item in crystals]) if crystals else structures_to_batch([])
    return ParsedRecords(
        batch.lattice.numpy(),
        batch.frac_coords.numpy(),
        batch.atomic_numbers.numpy(),
        batch.num_atoms.numpy(),
        [item.name for item in crystals],
        [item.properties for item in crystals],
        [item for item in parsed if isinstance(item, ReadFailure)],
        [i for i, item in enumerate(parsed) if isinstance(item, ReadFailure)],
    )


def _parse_guarded(record: Record) -> _Parsed | ReadFailure:
    try:
        # what is not finite gets a reason below, and needs no warning on the way
        with np.errstate(all="ignore"):
            return _PARSERS[record.kind](record)
    except (CrystalError, _ParseError) as error:
        # the converter counts the crystals of its call, which is always this one
        reason = str(error).removeprefix("crystal 0: ")
    except Exception as error:  # noqa: BLE001  parsers of other libraries raise whatever they run into first
        reason = f"cannot be parsed as {record.kind}: {type(error).__name__}: {error}"
    return ReadFailure(record.source, record.record, reason)


def _faults(crystals: Sequence[CrystalBatch], options: ParseOptions) -> list[str | None]:
    """What is wrong with each crystal; large ones are searched for overlaps by cells, not by all pairs of atoms."""
    faults: list[str | None] = [None] * len(crystals)
    small = [i for i, crystal in enumerate(crystals) if len(crystal.frac_coords) <= _DENSE_SEARCH_ATOMS]
    start = 0
    while start < len(small):
        # bounds the memory of all pairs of atoms
        stop, pairs = start, 0
        while stop < len(small) and (stop == start or pairs + len(crystals[small[stop]].frac_coords) ** 2 <= 10**6):
            pairs += len(crystals[small[stop]].frac_coords) ** 2
            stop += 1
        chosen = small[start:stop]
        for i, fault in zip(chosen, _batch_faults([crystals[i] for i in chosen], options), strict=True):
            faults[i] = fault
        start = stop
    for i in set(range(len(crystals))) - set(small):
        faults[i] = _large_fault(crystals[i], options)
    return faults


def _batch_faults(crystals: Sequence[CrystalBatch], options: ParseOptions) -> list[str | None]:
    try:
        found = crystal_faults(concatenate(crystals), max_atoms=options.max_atoms, min_distance=options.min_distance)
    except ValueError as error:
        if len(crystals) == 1:
            return [str(error)]
        # one collapsed cell has too many images to search; alone it is its own fault
        return [fault for crystal in crystals for fault in _batch_faults([crystal], options)]
    return [None if fault is None else str(fault) for fault in found]


def _large_fault(crystal: CrystalBatch, options: ParseOptions) -> str | None:
    from ase.neighborlist import neighbor_list

    fault = crystal_faults(crystal, max_atoms=options.max_atoms, min_distance=None)[0]
    if fault is not None or options.min_distance is None:
        return None if fault is None else str(fault)
    distances = neighbor_list("d", crystal.atoms()[0], options.min_distance)
    if not len(distances):
        return None
    return str(
        OverlappingAtomsError(
            f"the shortest distance between atoms is {distances.min():.3f} angstrom, at least {options.min_distance} "
            "is expected; look for sites given twice or a cell in other units"
        )
    )


def _reduced(parsed: _Parsed, record: Record) -> _Parsed | ReadFailure:
    try:
        structure = niggli_reduce(parsed.crystal.structures()[0])
    except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
        # pymatgen's search can fail to end where rounding plays with it
        return ReadFailure(record.source, record.record, f"its Niggli reduction failed: {error}")
    return parsed._replace(crystal=structures_to_batch([structure], dtype=torch.float64))


def _crystal(lattice: np.ndarray, frac_coords: np.ndarray, atomic_numbers: Sequence[int]) -> CrystalBatch:
    if not len(atomic_numbers):
        raise EmptyCrystalError("expected at least one atom, got none")
    unknown = sorted({number for number in atomic_numbers if not 1 <= number <= MAX_ATOMIC_NUMBER})
    if unknown:
        raise UnknownElementError(f"expected atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got {unknown}")
    return CrystalBatch(
        torch.from_numpy(np.array(frac_coords, dtype=np.float64).reshape(-1, 3)),
        torch.from_numpy(np.array(lattice, dtype=np.float64).reshape(1, 3, 3)),
        torch.tensor(list(atomic_numbers), dtype=torch.long),
        torch.tensor([len(atomic_numbers)]),
    )


@functools.cache
def _element_numbers() -> dict[str, int]:
    from ase.data import atomic_numbers

    return {symbol: number for symbol, number in atomic_numbers.items() if number > 0} | _HEAVY_HYDROGEN


def _atomic_number(text: str) -> int:
    """The number of "Fe", "FE", "Fe3+" or "O2-"; deuterium and tritium are hydrogen."""
    letters = re.match(r"[A-Za-z]*", text.strip())
    symbol = "" if letters is None else letters.group().capitalize()
    if symbol not in _element_numbers():
        raise UnknownElementError(f"expected elements 1 to {MAX_ATOMIC_NUMBER}, got {text!r}; rename or remove it")
    return _element_numbers()[symbol]


def _parse_arrays(record: Record) -> _Parsed:
    columns = [record.content[name] for name in ARRAY_COLUMNS]
    empty = [name for name, values in zip(ARRAY_COLUMNS, columns, strict=True) if values is None]
    if empty:
        raise _ParseError(f"has no value for {', '.join(empty)}")
    # a missing number inside a list becomes NaN, which has its own message
    lattice, frac_coords = (np.array(values, dtype=np.float64) for values in columns[:2])
    numbers = [int(number) for number in columns[2]]
    if lattice.size != 9 or frac_coords.size != 3 * len(numbers):
        raise _ParseError(
            f"expected 9 numbers of lattice and 3 of frac_coords for each of {len(numbers)} atoms, "
            f"got {lattice.size} and {frac_coords.size}"
        )
    return _Parsed(_crystal(lattice, frac_coords, numbers), record.name, dict(record.properties))


def _parse_structure(record: Record) -> _Parsed:
    """A pymatgen table, read without building the classes that it names: a file must not choose what code runs."""
    content = record.content
    lattice = (content.get("lattice") or {}).get("matrix")
    if lattice is None:
        raise MissingCellError("the structure has no lattice matrix; molecules have to be put in a box first")
    if not all(content["lattice"].get("pbc", [True])):
        raise MissingCellError(f"expected a cell that repeats along three axes, got pbc={content['lattice']['pbc']}")
    numbers, frac_coords = [], []
    matrix = np.array(lattice, dtype=np.float64)
    for site in content["sites"]:
        species = site["species"]
        if len(species) != 1 or not float(species[0]["occu"]) >= _FULL_OCCUPANCY:
            shared = ", ".join(f"{item['element']} {item['occu']}" for item in species)
            raise DisorderedSiteError(f"a site is disordered (it holds {shared}); order the structure first")
        numbers.append(_atomic_number(species[0]["element"]))
        frac_coords.append(site["abc"] if "abc" in site else np.linalg.solve(matrix.T, site["xyz"]))
    crystal = _crystal(matrix, np.array(frac_coords, dtype=np.float64), numbers)
    return _Parsed(crystal, record.name, dict(record.properties))


def _parse_poscar(record: Record) -> _Parsed:
    from pymatgen.io.vasp import Poscar

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        poscar = Poscar.from_str(record.content, read_velocities=False)
    if not poscar.true_names:
        raise UnknownElementError("the POSCAR names no elements (VASP 4 form); add their symbols as its sixth line")
    crystal = structures_to_batch([poscar.structure], dtype=torch.float64)
    return _Parsed(_plain(crystal), record.name, dict(record.properties))


def _plain(crystal: CrystalBatch) -> CrystalBatch:
    """The crystal alone: names and properties are kept beside it, since not every record has the same ones."""
    return crystal.replace(properties={}, material_ids=None)


_XYZ_NAME = re.compile(r"(?:^|\s)material_id=(?:\"((?:[^\"\\]|\\.)*)\"|(\S+))")
_XYZ_LATTICE = re.compile(r"(?:^|[\s\"])lattice=", re.IGNORECASE)


def _parse_extxyz(record: Record) -> _Parsed:
    from ase.io.extxyz import read_xyz

    comment = record.content.split("\n", 2)[1]
    if not _XYZ_LATTICE.search(comment):
        raise MissingCellError('the frame has no cell: its second line needs Lattice="ax ay az bx by bz cx cy cz"')
    unknown = _unknown_symbols(record.content, comment)
    if unknown:
        raise UnknownElementError(f"expected elements 1 to {MAX_ATOMIC_NUMBER}, got {unknown}; rename or remove them")
    atoms = next(iter(read_xyz(io.StringIO(record.content), index=slice(None))))
    results = {} if atoms.calc is None else atoms.calc.results
    properties = {
        name: float(value)
        for name, value in {**results, **atoms.info}.items()
        if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    }
    properties.pop("material_id", None)
    # ASE makes numbers of names such as 007
    named = _XYZ_NAME.search(comment)
    name = record.name
    if named:
        name = re.sub(r"\\(.)", r"\1", named.group(1)) if named.group(1) is not None else named.group(2)
    atoms.info, atoms.calc = {}, None
    return _Parsed(_plain(atoms_to_batch([atoms], dtype=torch.float64)), name, {**record.properties, **properties})


def _unknown_symbols(frame: str, comment: str) -> list[str]:
    layout = re.search(r"Properties=\"?(\S+?)\"?(?:\s|$)", comment)
    if layout and not layout.group(1).startswith("species:S:1"):
        # symbols stand in another column or not at all: left to ASE
        return []
    symbols = {line.split(maxsplit=1)[0] for line in frame.splitlines()[2:]}
    return sorted(s for s in symbols if not s.isdigit() and s not in _element_numbers())


def _parse_atoms(record: Record) -> _Parsed:
    from ase import Atoms

    atoms = Atoms(**record.content)
    return _Parsed(_plain(atoms_to_batch([atoms], dtype=torch.float64)), record.name, dict(record.properties))


def _parse_cif(record: Record) -> _Parsed:
    from pymatgen.io.cif import CifBlock

    text = record.content
    if not isinstance(text, str) or "data_" not in text.lower():
        raise _ParseError("holds no CIF data block (a line that starts with data_)")
    # what stands before the block is comment
    text = text[text.lower().index("data_") :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = CifBlock.from_str(text)
    data: dict[str, Any] = block.data
    if not any(tag in data for tag in (*_LENGTHS, *_ANGLES)):
        raise MissingCellError("the CIF gives no cell (_cell_length_a and so on); a molecule has to be put in a box")
    if "_atom_site_label" not in data and "_atom_site_type_symbol" not in data:
        raise EmptyCrystalError("the CIF lists no atom (_atom_site_label)")
    _check_symbols(data)
    _check_hydrogens(data)
    crystal = _plain_cif(data) if _has_trivial_symmetry(data) else _symmetric_cif(block, text)
    properties = dict(record.properties)
    names, values = (_as_list(data.get(tag, [])) for tag in CIF_PROPERTY_TAGS)
    properties.update({unquote(name): float(value) for name, value in zip(names, values, strict=True)})
    name = unquote(data[CIF_NAME_TAG]) if CIF_NAME_TAG in data else record.name
    return _Parsed(crystal, name, properties)


def _as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _check_symbols(data: Mapping[str, Any]) -> None:
    """pymatgen takes the letters that it knows and drops the rest: "Bq" would become boron."""
    for symbol in set(_as_list(data.get("_atom_site_type_symbol", []))):
        # "0.8Nb + 0.2Zr" is how one database writes a shared site
        if "+ " not in symbol:
            _atomic_number(symbol)


def _check_hydrogens(data: Mapping[str, Any]) -> None:
    attached = [_cif_number(value) for value in _as_list(data.get("_atom_site_attached_hydrogens", []))]
    if any(number > 0 for number in attached):
        raise _ParseError("hydrogen atoms are counted but have no positions; add them to the CIF first")


def _has_trivial_symmetry(data: Mapping[str, Any]) -> bool:
    """Whether the CIF lists every atom itself: no operation but x, y, z, no group but P 1, no magnetic tags."""
    if any("magn" in tag or "moment" in tag for tag in data):
        return False
    operations = [op for tag in data if _OPERATIONS.fullmatch(tag) for op in _as_list(data[tag])]
    if operations:
        return all(re.sub(r"[\s'\"+]", "", str(op)).lower() == "x,y,z" for op in operations)
    names = [re.sub(r"[\s_]", "", str(data[tag])).upper() for tag in data if _GROUP_NAME.fullmatch(tag)]
    numbers = [str(data[tag]).strip() for tag in data if _GROUP_NUMBER.fullmatch(tag)]
    return all(name in ("P1", "?", ".", "") for name in names) and all(n in ("1", "?", ".", "") for n in numbers)


def _cif_number(text: str) -> float:
    """4.123 of "4.123(5)"; NaN of "?" and "."."""
    plain = re.sub(r"\(.*", "", str(text)).strip()
    return float("nan") if plain in ("?", ".", "") else float(plain)


def _plain_cif(data: Mapping[str, Any]) -> CrystalBatch:
    from pymatgen.core import Lattice

    missing = [tag for tag in (*_LENGTHS, *_ANGLES) if tag not in data]
    if missing:
        raise MissingCellError(f"the CIF's cell is incomplete: {', '.join(missing)} is missing")
    unplaced = [tag for tag in _FRACTIONS if tag not in data]
    if unplaced:
        raise _ParseError(f"the CIF gives no fractional coordinates: {', '.join(unplaced)} is missing")
    species = _as_list(data.get("_atom_site_type_symbol", data.get("_atom_site_label")))
    occupancies = [_cif_number(value) for value in _as_list(data.get("_atom_site_occupancy", []))]
    shared = [
        f"{symbol} {occupancy}"
        for symbol, occupancy in zip(species, occupancies, strict=bool(occupancies))
        # no statement is a full site
        if occupancy == occupancy and occupancy < _FULL_OCCUPANCY
    ]
    if shared or any("+ " in symbol for symbol in species):
        raise DisorderedSiteError(
            f"{len(shared) or 'some'} of {len(species)} sites are disordered "
            f"(the first: {shared[0] if shared else species[0]}); order the structure first"
        )
    lattice = Lattice.from_parameters(*(_cif_number(data[tag]) for tag in (*_LENGTHS, *_ANGLES))).matrix
    columns = [[_cif_number(value) for value in _as_list(data[tag])] for tag in _FRACTIONS]
    return _crystal(lattice, np.array(columns).T, [_atomic_number(symbol) for symbol in species])


def _symmetric_cif(block: CifBlock, text: str) -> CrystalBatch:
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            structures = CifParser.from_str(text).parse_structures(primitive=False, on_error="raise")
        except ValueError as error:
            if "exceeded tolerance" in str(error):
                raise OverlappingAtomsError(
                    f"several atoms stand on one site, or its occupancies sum to more than 1 ({error})"
                ) from error
            raise
    if len(structures) != 1:
        raise _ParseError(f"expected one crystal in block data_{block.header}, got {len(structures)}")
    structure: Structure = structures[0]
    if "implicit_hydrogens" in structure.site_properties:
        raise _ParseError("hydrogen atoms are counted but have no positions; add them to the CIF first")
    return _plain(structures_to_batch([structure], dtype=torch.float64))


_PARSERS: dict[RecordKind, Callable[[Record], _Parsed]] = {
    "cif": _parse_cif,
    "poscar": _parse_poscar,
    "extxyz": _parse_extxyz,
    "structure": _parse_structure,
    "atoms": _parse_atoms,
    "arrays": _parse_arrays,
}
