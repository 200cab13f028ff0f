"""A CIF block as a crystal: its cell, its sites and their elements, under the symmetry operations that it means.

Every file goes this way. Sites come in the file's order, each followed by its images. What the file says beside its
sites (formula, volume, density, multiplicities) is compared with them in `cif_facts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np

from cdvae_kit.crystal.arrays import lattice_matrix
from cdvae_kit.crystal.errors import (
    DisorderedSiteError,
    EmptyCrystalError,
    MissingCellError,
    NonFiniteError,
    OverlappingAtomsError,
)
from cdvae_kit.crystal.species import element_of_label, element_of_type, is_heavy_hydrogen
from cdvae_kit.io.crystals.cif_facts import Built, contradictions_of, stated_formula
from cdvae_kit.io.crystals.cif_grammar import NULLS, CifBlock, parse_block
from cdvae_kit.io.crystals.limits import current_reader_limits, how_to_raise
from cdvae_kit.io.crystals.operations import Operations
from cdvae_kit.io.crystals.orbits import LEAST_TOLERANCE, positions_of
from cdvae_kit.io.crystals.symmetry import StatedSymmetry, choose_symmetry

NAME_TAG = "_cdvae_kit_material_id"
PROPERTY_TAGS = ("_cdvae_kit_property_name", "_cdvae_kit_property_value")

FULL_OCCUPANCY = 1.0 - 1e-6

_LENGTHS = tuple(f"_cell_length_{axis}" for axis in "abc")
_ANGLES = ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma")
_LABELS = ("_atom_site_label", "_atom_site_label_atom_id", "_atom_site_id")
_OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv_as_xyz",
    "_space_group_symop_magn_operation_xyz",
    "_space_group_symop_magn_operation",
)
_CENTRINGS = ("_space_group_symop_magn_centering_xyz", "_space_group_symop_magn_centering")
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_SYMBOL = re.compile(r"_(symmetry_|space_group_)?(pdbx_full_)?(space_group_)?name_h[-_]m(_alt|_full|_ref)?")
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number", "_symmetry_int_table_number")
_IDENTITY = {"x,y,z", "+x,+y,+z"}
_DIGITS = re.compile(r"\s*[+-]?\d*\.?(\d*)(?:[eE]([+-]?\d{1,3}))?")


class CifError(ValueError):
    """A block that does not say what is needed, or contradicts itself."""


class CifCrystal(NamedTuple):
    """What a block holds.

    Attributes:
        lattice: (3, 3), angstrom.
        frac_coords: (num_atoms, 3).
        atomic_numbers: (num_atoms,).
        name: where it has a tag of our own for it.
        properties: likewise.
        notes: what a reader should know: deuterium, a choice, with `lenient` what the file contradicts itself in.
    """

    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    name: str | None
    properties: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Sites:
    """The atoms that a file lists.

    Attributes:
        labels: one a site.
        atomic_numbers: (num_sites,) int64.
        frac_coords: (num_sites, 3).
        rows: (num_sites,) their rows in the file's loop.
        unit: what one in the last digit of the coordinates is worth.
    """

    labels: list[str]
    atomic_numbers: np.ndarray
    frac_coords: np.ndarray
    rows: np.ndarray
    unit: float


def read_cif(text: str, *, first_line: int = 1, lenient: bool = False) -> CifCrystal:
    """The crystal of a text with one block.

    Args:
        text: from its "data_" on.
        first_line: the number of its first line in the file, for messages.
        lenient: take a file that contradicts itself, with a note, in place of an error.
    """
    block = parse_block(text, first_line=first_line)
    if not any(tag in block.items for tag in (*_LENGTHS, *_ANGLES)):
        raise MissingCellError("the CIF gives no cell (_cell_length_a and so on); a molecule has to be put in a box")
    notes: list[str] = []
    lattice = lattice_matrix(*_cell(block, notes))
    sites = _sites(block, lattice, notes)
    gram = lattice @ lattice.T
    if not np.isfinite(gram).all() or not (gram.diagonal() > 0.0).all():
        # told by the check of all crystals, whatever their format
        return _result(block, lattice, sites.frac_coords, sites.atomic_numbers, notes)
    stated = _stated(block)
    if stated is None:
        built = _listed_alone(sites, lattice)
        contradictions = contradictions_of(block, built)
    else:
        built, contradictions = _under_symmetry(block, sites, lattice, stated, notes, lenient=lenient)
    if contradictions and not lenient:
        raise CifError(
            f"the file contradicts itself: {'; '.join(contradictions)}; mend the file, or take it as it is (lenient)"
        )
    notes += [f"contradiction: {text}" for text in contradictions]
    return _result(block, built.lattice, built.frac_coords, built.atomic_numbers, notes)


def _result(
    block: CifBlock, lattice: np.ndarray, frac_coords: np.ndarray, atomic_numbers: np.ndarray, notes: list[str]
) -> CifCrystal:
    names, values = (block.column(tag) or [] for tag in PROPERTY_TAGS)
    if len(names) != len(values):
        raise CifError(f"expected a value for each of {len(names)} properties ({PROPERTY_TAGS[0]}), got {len(values)}")
    properties = {unquote(name): _number(value, PROPERTY_TAGS[1]) for name, value in zip(names, values, strict=True)}
    name = block.value(NAME_TAG) if NAME_TAG in block.items else None
    if name is None and NAME_TAG in block.items:
        # a crystal may be called "?"
        name = block.items[NAME_TAG][0]
    return CifCrystal(
        lattice,
        frac_coords,
        atomic_numbers,
        None if name is None else unquote(name),
        properties,
        tuple(dict.fromkeys(notes)),
    )


def _number(text: str, what: str) -> float:
    """4.123 of "4.123(5)", NaN of "?" and "."."""
    if text in NULLS:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        pass
    bare = re.sub(r"\(\d*\)?$", "", text.strip())
    try:
        whole, divisor = bare.split("/") if bare.count("/") == 1 else (bare, "1")
        return float(whole) / float(divisor)
    except (ValueError, ZeroDivisionError):
        raise CifError(f"{what}: expected a number, got {text[:40]!r}") from None


def _cell(block: CifBlock, notes: list[str]) -> tuple[list[float], list[float]]:
    missing = [tag for tag in (*_LENGTHS, *_ANGLES) if tag not in block.items]
    if missing:
        raise MissingCellError(f"the CIF's cell is incomplete: {', '.join(missing)} is missing")
    for tag in _ANGLES:
        if block.items[tag][0] == ".":
            notes.append(f"{tag} is not stated and taken for 90, the dictionary's default")
    texts = {tag: block.items[tag][0] for tag in (*_LENGTHS, *_ANGLES)}
    unknown = [tag for tag, text in texts.items() if text == "?" or (text == "." and tag in _LENGTHS)]
    if unknown:
        raise MissingCellError(f"the CIF's cell is incomplete: {', '.join(unknown)} is unknown")
    lengths = [_number(texts[tag], tag) for tag in _LENGTHS]
    angles = [90.0 if texts[tag] == "." else _number(texts[tag], tag) for tag in _ANGLES]
    if any(length < 0.0 for length in lengths):
        raise MissingCellError(f"the lengths of a cell are above 0, got {lengths}")
    if all(map(np.isfinite, (*lengths, *angles))):
        half = sum(angles) / 2.0
        if not all(0.0 < angle < 180.0 for angle in angles) or not all(angle < half < 180.0 for angle in angles):
            raise MissingCellError(f"no cell has the angles {', '.join(f'{angle:g}' for angle in angles)}")
    return lengths, angles


def _sites(block: CifBlock, lattice: np.ndarray, notes: list[str]) -> Sites:
    types, labels = block.column("_atom_site_type_symbol"), block.column(*_LABELS)
    if types is None and labels is None:
        raise EmptyCrystalError("the CIF lists no atom (_atom_site_label)")
    num_rows = len(types if types is not None else labels or [])
    types = types or ["?"] * num_rows
    labels = labels or [f"{symbol}{i + 1}" for i, symbol in enumerate(types)]
    rows = _real_rows(block, num_rows, notes)
    if len(labels) != num_rows or not rows:
        raise EmptyCrystalError("the CIF lists no atom, or not one label for each type")
    known = frozenset(stated_formula(block) or ())
    without_type = [labels[i] for i in rows if types[i] in NULLS]
    numbers = [
        element_of_type(types[i], known) if types[i] not in NULLS else element_of_label(labels[i], without_type, known)
        for i in rows
        if not _is_shared(types[i])
    ]
    _refuse_disorder(block, types, labels, rows)
    _refuse_counted_hydrogens(block, labels, rows)
    heavy = {types[i] for i in rows if types[i] not in NULLS and is_heavy_hydrogen(types[i])}
    if heavy or any(types[i] in NULLS and re.match(r"D(?![a-z])", labels[i]) for i in rows):
        notes.append("deuterium and tritium (D, T) are read as hydrogen")
    frac_coords, unit = _coordinates(block, lattice, labels, rows, notes)
    return Sites([labels[i] for i in rows], np.array(numbers, dtype=np.int64), frac_coords, np.array(rows), unit)


def _real_rows(block: CifBlock, num_rows: int, notes: list[str]) -> list[int]:
    """The rows but for those that the file itself calls dummies, whose coordinates mean nothing."""
    flags = block.column("_atom_site_calc_flag")
    if flags is None or len(flags) != num_rows:
        return list(range(num_rows))
    rows = [i for i, flag in enumerate(flags) if flag.lower() != "dum"]
    if len(rows) < num_rows:
        notes.append(f"{num_rows - len(rows)} dummy sites (_atom_site_calc_flag dum) are left out")
    return rows


def _is_shared(symbol: str) -> bool:
    # "0.8Nb + 0.2Zr" is how one database writes a shared site
    return "+ " in symbol or bool(re.match(r"\d", symbol))


def _refuse_disorder(block: CifBlock, types: Sequence[str], labels: Sequence[str], rows: Sequence[int]) -> None:
    named = [types[i] if types[i] not in NULLS else labels[i] for i in range(len(types))]
    stated = block.column("_atom_site_occupancy") or []
    if stated and len(stated) != len(types):
        raise CifError(f"expected an occupancy for each of {len(types)} sites, got {len(stated)}")
    # no statement is a full site
    values = [_number(text, f"atom {labels[i]}, _atom_site_occupancy") for i, text in enumerate(stated)]
    shared = [f"{named[i]} {values[i]:g}" for i in rows if values and values[i] < FULL_OCCUPANCY]
    crowded = [f"{labels[i]} {values[i]:g}" for i in rows if values and values[i] > 1.01]
    if crowded:
        raise CifError(f"an occupancy is at most 1, got {crowded[0]}")
    if shared or any(_is_shared(types[i]) for i in rows):
        raise DisorderedSiteError(
            f"{len(shared) or 'some'} of {len(rows)} sites are disordered "
            f"(the first: {shared[0] if shared else next(types[i] for i in rows if _is_shared(types[i]))}); "
            "order the structure first"
        )


def _refuse_counted_hydrogens(block: CifBlock, labels: Sequence[str], rows: Sequence[int]) -> None:
    counts = block.column("_atom_site_attached_hydrogens") or []
    for i in rows:
        if i < len(counts) and _number(counts[i], f"atom {labels[i]}, _atom_site_attached_hydrogens") > 0:
            raise CifError(
                f"hydrogen atoms are counted but have no positions (at {labels[i]}); add them to the CIF first"
            )


def _coordinates(
    block: CifBlock, lattice: np.ndarray, labels: Sequence[str], rows: Sequence[int], notes: list[str]
) -> tuple[np.ndarray, float]:
    """Fractional coordinates of the rows, and the worth of their last digit."""
    fractions = [block.items.get(f"_atom_site_fract_{axis}") for axis in "xyz"]
    cartesian = [block.items.get(f"_atom_site_cartn_{axis}") for axis in "xyz"]
    use_cartesian = None in cartesian or any(c and not all(c[i] in NULLS for i in rows) for c in fractions)
    columns, names = (fractions, "fract") if use_cartesian else (cartesian, "cartn")
    missing = [f"_atom_site_fract_{axis}" for axis, column in zip("xyz", columns, strict=True) if column is None]
    if missing:
        raise CifError(f"the CIF gives no fractional coordinates: {', '.join(missing)} is missing")
    texts = [[column[i] if i < len(column) else "?" for column in columns if column is not None] for i in rows]
    try:
        coords = np.array(texts, dtype=np.float64)
    except ValueError:
        coords = np.array(
            [
                [
                    _number(text, f"atom {labels[i]}, _atom_site_{names}_{axis}")
                    for text, axis in zip(line, "xyz", strict=True)
                ]
                for i, line in zip(rows, texts, strict=True)
            ]
        )
        for i, line, position in zip(rows, texts, coords, strict=True):
            if np.isnan(position).any() and any(text in NULLS for text in line):
                raise NonFiniteError(
                    f"atom {labels[i]} has no coordinates ({' '.join(line)}); give them, or remove the atom"
                ) from None
    digits = max((_num_decimals(text) for line in texts for text in line), default=0)
    if names == "fract":
        return coords, 10.0**-digits
    lengths = np.linalg.norm(lattice, axis=1)
    return _fractions_of(block, coords, lattice, notes), 10.0**-digits / float(lengths.min() or 1.0)


def _num_decimals(text: str) -> int:
    found = _DIGITS.match(text)
    if found is None:
        return 0
    return min(12, max(0, len(found.group(1)) - int(found.group(2) or 0)))


def _fractions_of(block: CifBlock, coords: np.ndarray, lattice: np.ndarray, notes: list[str]) -> np.ndarray:
    """Fractions of Cartesian coordinates, by the file's own matrix or with a along x and b in the xy plane."""
    vector = np.array([_entry(block, "_atom_sites_cartn_tran_vector", f"{i}") for i in "123"])
    matrix = np.array([[_entry(block, "_atom_sites_cartn_tran_matrix", f"{i}{j}") for j in "123"] for i in "123"])
    if not np.isfinite(matrix).all():
        # rows a, b, c of the cell turned so that the matrix of their coordinates is lower triangular
        matrix = np.linalg.cholesky(lattice @ lattice.T).T
        notes.append("Cartesian coordinates are taken in the frame with a along x and b in the xy plane")
    shift = np.where(np.isfinite(vector), vector, 0.0)
    return np.linalg.solve(matrix, (coords - shift).T).T


def _entry(block: CifBlock, tag: str, index: str) -> float:
    value = block.value(f"{tag}_{index}", f"{tag}{index}")
    return float("nan") if value is None else _number(value, f"{tag}_{index}")


def _stated(block: CifBlock) -> StatedSymmetry | None:
    """What the block says of its symmetry; None where it says that it lists every atom itself, or nothing."""
    operations = next(
        (found for tag in _OPERATIONS if (found := block.column(tag)) and any(text not in NULLS for text in found)),
        [],
    )
    symbols = tuple(
        text
        for tag in block.items
        if _SYMBOL.fullmatch(tag) and (text := block.value(tag)) is not None and text.strip()
    )
    hall, number = block.value(*_HALL) or "", block.value(*_NUMBERS) or ""
    trivial = all(re.sub(r"\s", "", text).lower() in _IDENTITY for text in operations)
    if (
        trivial
        and all(re.sub(r"[\s_]", "", name).upper() == "P1" for name in symbols)
        and number.strip() in ("", "1")
        and re.sub(r"[\s_]", "", hall).upper() in ("", "P1")
    ):
        return None
    return StatedSymmetry(
        tuple(operations),
        tuple(next((found for tag in _CENTRINGS if (found := block.column(tag))), [])),
        hall,
        symbols,
        block.value("_space_group_it_coordinate_system_code") or "",
        number,
    )


def _under_symmetry(
    block: CifBlock,
    sites: Sites,
    lattice: np.ndarray,
    stated: StatedSymmetry,
    notes: list[str],
    *,
    lenient: bool,
) -> tuple[Built, list[str]]:
    """The sites with all their images, and the contradictions of the file."""
    symmetry = choose_symmetry(stated, lattice @ lattice.T, lenient=lenient)
    notes += symmetry.remarks
    if symmetry.contradictions and not lenient:
        # an atom's image that overlaps another would only be what follows from it
        return _listed_alone(sites, lattice), symmetry.contradictions
    if len(symmetry.candidates) == 1:
        built = _built(sites, lattice, symmetry.candidates[0], lenient=lenient, notes=notes)
        return built, symmetry.contradictions + contradictions_of(block, built)
    fitting = []
    for name, operations in zip(symmetry.names, symmetry.candidates, strict=True):
        try:
            built = _built(sites, lattice, operations, lenient=False, notes=[])
        except OverlappingAtomsError:
            continue
        if not contradictions_of(block, built):
            fitting.append((name, built))
    if len(fitting) != 1:
        raise CifError(
            f"{symmetry.source} fits several settings ({', '.join(symmetry.names[:6])}), and nothing in the file tells "
            "which; write the setting (':1', ':2', the full symbol), the Hall symbol or the operations"
        )
    notes.append(f"{symmetry.source} is taken for {fitting[0][0]}, the only setting that fits the rest of the file")
    return fitting[0][1], symmetry.contradictions


def _listed_alone(sites: Sites, lattice: np.ndarray) -> Built:
    return Built(
        lattice, sites.frac_coords, sites.atomic_numbers, np.ones(len(sites.labels), dtype=np.int64), 1, sites.rows
    )


def _built(sites: Sites, lattice: np.ndarray, operations: Operations, *, lenient: bool, notes: list[str]) -> Built:
    most = current_reader_limits().max_sites
    if len(operations) * len(sites.labels) > most:
        raise CifError(
            f"{len(sites.labels)} sites under {len(operations)} operations are more than the {most} positions that are "
            f"taken; {how_to_raise('max_sites')}"
        )
    if not np.isfinite(sites.frac_coords).all():
        raise NonFiniteError("a coordinate is NaN or infinite; mend or leave out the atom")
    orbits = [positions_of(site, operations, lattice, sites.unit)[0] for site in sites.frac_coords]
    doubled = _doubled(orbits, lattice)
    if doubled:
        kept, other = (sites.labels[i] for i in doubled[0])
        text = f"the sites {kept} and {other} stand on one place under the operations"
        if not lenient:
            raise OverlappingAtomsError(
                f"several atoms stand on one site: {text}; list each once, or list all atoms and the group P 1"
            )
        notes.append(f"contradiction: {text}; {len(doubled)} such sites are left out")
    left = sorted(set(range(len(orbits))) - {other for _, other in doubled})
    counts = np.array([len(orbits[i]) for i in left])
    positions = np.concatenate([orbits[i] for i in left])
    numbers = np.repeat(sites.atomic_numbers[left], counts)
    return Built(lattice, positions, numbers, counts, len(operations), sites.rows[left])


def _doubled(orbits: Sequence[np.ndarray], lattice: np.ndarray) -> list[tuple[int, int]]:
    """Sites that are an image of an earlier one, after it."""
    from scipy.spatial import cKDTree

    every = np.concatenate(orbits) % 1.0
    every[every >= 1.0] = 0.0
    owner = np.repeat(np.arange(len(orbits)), [len(orbit) for orbit in orbits])
    firsts = np.cumsum([0, *(len(orbit) for orbit in orbits[:-1])])
    # no step of this length in space is a longer one in fractions
    radius = LEAST_TOLERANCE * float(np.linalg.norm(np.linalg.inv(lattice), 2))
    if radius >= 0.5:
        # a cell of such a size is refused with its own reason
        return []
    near = cKDTree(every, boxsize=1.0).query_ball_point(every[firsts], radius)
    pairs: dict[int, int] = {}
    for i, found in enumerate(near):
        others = np.array([place for place in found if owner[place] > i], dtype=np.int64)
        gaps = every[others] - every[firsts[i]]
        close = np.linalg.norm((gaps - np.rint(gaps)) @ lattice, axis=1) < LEAST_TOLERANCE
        for other in owner[others[close]].tolist():
            pairs.setdefault(other, i)
    return sorted((kept, other) for other, kept in pairs.items())
