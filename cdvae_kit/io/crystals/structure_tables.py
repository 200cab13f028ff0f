"""Crystals in JSON: pymatgen's structures, JARVIS's atoms, OPTIMADE's attributes, ASE's rows, arrays of our own.

The tables are read, and the classes that they name are never built: a file must not choose what code runs. Which part
of a file is such a table is found out in `json_tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cdvae_kit.crystal.arrays import lattice_matrix
from cdvae_kit.crystal.errors import DisorderedSiteError, MissingCellError, UnknownElementError
from cdvae_kit.crystal.species import LAST_ELEMENT, element_of_type, is_heavy_hydrogen
from cdvae_kit.io.crystals.records import RecordError

FULL_OCCUPANCY = 1.0 - 1e-6

ARRAY_COLUMNS = ("lattice", "frac_coords", "atomic_numbers")
"""Columns of the exact crystal: 9 numbers, 3 an atom, 1 an atom, each row by row in one flat list."""


class TableCrystal(NamedTuple):
    """Cell in angstrom, fractions, atomic numbers, and whether there is deuterium."""

    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    has_deuterium: bool = False


def kind_of_table(content: Any) -> str | None:
    """What a JSON value is of the shapes that `read_table` knows; None where it is none of them."""
    if not isinstance(content, Mapping):
        return None
    if "sites" in content:
        return "pymatgen"
    if "lattice_mat" in content and "coords" in content:
        return "jarvis"
    if "lattice_vectors" in content and "cartesian_site_positions" in content:
        return "optimade"
    if "numbers" in content and "positions" in content and "cell" in content:
        return "ase"
    return "arrays" if all(name in content for name in ARRAY_COLUMNS) else None


def read_table(content: Mapping[str, Any]) -> TableCrystal:
    """The crystal of a table of one of the known shapes."""
    kind = kind_of_table(content)
    if kind is None:
        raise RecordError(
            f"expected a structure (a table with 'lattice' and 'sites' or the like), got {_shown(content)}"
        )
    return _READERS[kind](content)


def _pymatgen(content: Mapping[str, Any]) -> TableCrystal:
    cell = content.get("lattice")
    if not isinstance(cell, Mapping):
        raise MissingCellError("the structure has no lattice matrix; molecules have to be put in a box first")
    if cell.get("matrix") is not None:
        lattice = _matrix(cell["matrix"], "lattice.matrix")
    elif all(name in cell for name in ("a", "b", "c", "alpha", "beta", "gamma")):
        numbers = _numbers([cell[name] for name in ("a", "b", "c", "alpha", "beta", "gamma")], 6, "the lattice")
        lattice = lattice_matrix(numbers[:3].tolist(), numbers[3:].tolist())
    else:
        raise MissingCellError("the structure has no lattice matrix; molecules have to be put in a box first")
    _need_periodic(cell.get("pbc", (True, True, True)))
    symbols, coords = [], []
    for i, site in enumerate(_list(content["sites"], "sites")):
        if not isinstance(site, Mapping):
            raise RecordError(f"expected a table for each site, got {_shown(site)} as sites[{i}]")
        symbols.append(_one_species(site, i))
        if "abc" in site:
            coords.append(_numbers(site["abc"], 3, f"sites[{i}].abc"))
        elif "xyz" in site:
            coords.append(_fractions(_numbers(site["xyz"], 3, f"sites[{i}].xyz")[None], lattice)[0])
        else:
            raise RecordError(f"sites[{i}] has no coordinates (abc or xyz)")
    return _crystal(lattice, np.array(coords).reshape(-1, 3), symbols)


def _one_species(site: Mapping[str, Any], i: int) -> str:
    species = _list(site.get("species"), f"sites[{i}].species")
    if not all(isinstance(item, Mapping) and "element" in item for item in species) or not species:
        raise RecordError(f"expected tables with 'element' as sites[{i}].species, got {_shown(species)}")
    shares = _numbers([item.get("occu", 1.0) for item in species], len(species), f"the occupancies of sites[{i}]")
    if len(species) != 1 or not shares[0] >= FULL_OCCUPANCY:
        shared = ", ".join(f"{item['element']} {share:g}" for item, share in zip(species, shares, strict=True))
        raise DisorderedSiteError(f"a site is disordered (it holds {shared}); order the structure first")
    return str(species[0]["element"])


def _jarvis(content: Mapping[str, Any]) -> TableCrystal:
    lattice = _matrix(content["lattice_mat"], "lattice_mat")
    symbols = [str(symbol) for symbol in _list(content.get("elements"), "elements")]
    coords = _numbers(content["coords"], 3 * len(symbols), "coords").reshape(-1, 3)
    if content.get("cartesian") in (True, "True", "true"):
        coords = _fractions(coords, lattice)
    return _crystal(lattice, coords, symbols)


def _optimade(content: Mapping[str, Any]) -> TableCrystal:
    lattice = _matrix(content["lattice_vectors"], "lattice_vectors")
    _need_periodic(content.get("dimension_types") or (1, 1, 1))
    features = content.get("structure_features") or []
    if isinstance(features, list) and {"disorder", "implicit_atoms", "unknown_positions"} & set(map(str, features)):
        raise DisorderedSiteError(f"the structure has the features {features}; order and complete it first")
    names = [str(name) for name in _list(content.get("species_at_sites"), "species_at_sites")]
    symbols_of: dict[str, str] = {}
    for species in _list(content.get("species") or [], "species"):
        if isinstance(species, Mapping) and "name" in species:
            symbols_of[str(species["name"])] = _optimade_symbol(species)
    positions = _numbers(content["cartesian_site_positions"], 3 * len(names), "cartesian_site_positions")
    symbols = [symbols_of.get(name, name) for name in names]
    return _crystal(lattice, _fractions(positions.reshape(-1, 3), lattice), symbols)


def _optimade_symbol(species: Mapping[str, Any]) -> str:
    symbols = [str(symbol) for symbol in _list(species.get("chemical_symbols"), "chemical_symbols")]
    shares = species.get("concentration") or [1.0] * len(symbols)
    shares = _numbers(shares, len(symbols), "concentration")
    if len(symbols) != 1 or not shares[0] >= FULL_OCCUPANCY or symbols[0].lower() in ("vacancy", "x"):
        shared = ", ".join(f"{symbol} {share:g}" for symbol, share in zip(symbols, shares, strict=True))
        raise DisorderedSiteError(f"a site is disordered (it holds {shared}); order the structure first")
    if any(_list(species.get("nattached") or [], "nattached")):
        raise RecordError(f"atoms are attached to {species['name']} and have no positions; add them first")
    return symbols[0]


def _ase(content: Mapping[str, Any]) -> TableCrystal:
    numbers = _array(content["numbers"], "numbers").reshape(-1)
    lattice = _array(content["cell"], "cell")
    if lattice.size != 9:
        raise MissingCellError(f"expected a cell of 9 numbers, got {lattice.size}")
    lattice = lattice.reshape(3, 3)
    pbc = np.asarray(_array(content.get("pbc", (True, True, True)), "pbc")).reshape(-1)
    if not (len(pbc) in (1, 3) and pbc.all() and lattice.any(axis=1).all()):
        raise MissingCellError(
            f"expected a cell that repeats along three axes, got pbc={pbc.astype(bool).tolist()} and lengths "
            f"{np.linalg.norm(lattice, axis=1).round(3).tolist()}; set atoms.cell and atoms.pbc = True"
        )
    positions = _array(content["positions"], "positions")
    if positions.size != 3 * len(numbers):
        raise RecordError(f"expected 3 coordinates for each of {len(numbers)} atoms, got {positions.size}")
    return TableCrystal(lattice, _fractions(positions.reshape(-1, 3), lattice), _checked_numbers(numbers))


def read_arrays(content: Mapping[str, Any]) -> TableCrystal:
    """The crystal of a table that has `ARRAY_COLUMNS`."""
    columns = [content.get(name) for name in ARRAY_COLUMNS]
    empty = [name for name, values in zip(ARRAY_COLUMNS, columns, strict=True) if values is None]
    if empty:
        raise RecordError(f"has no value for {', '.join(empty)}")
    lattice, frac_coords, numbers = (
        _numbers(values, None, name) for name, values in zip(ARRAY_COLUMNS, columns, strict=True)
    )
    if lattice.size != 9 or frac_coords.size != 3 * len(numbers):
        raise RecordError(
            f"expected 9 numbers of lattice and 3 of frac_coords for each of {len(numbers)} atoms, "
            f"got {lattice.size} and {frac_coords.size}"
        )
    return TableCrystal(lattice.reshape(3, 3), frac_coords.reshape(-1, 3), _checked_numbers(numbers))


_READERS: dict[str, Callable[[Mapping[str, Any]], TableCrystal]] = {
    "pymatgen": _pymatgen,
    "jarvis": _jarvis,
    "optimade": _optimade,
    "ase": _ase,
    "arrays": read_arrays,
}


def _crystal(lattice: np.ndarray, frac_coords: np.ndarray, symbols: Sequence[str]) -> TableCrystal:
    numbers = np.array([element_of_type(symbol) for symbol in symbols], dtype=np.int64)
    return TableCrystal(lattice, frac_coords, numbers, any(is_heavy_hydrogen(symbol) for symbol in set(symbols)))


def _checked_numbers(numbers: np.ndarray) -> np.ndarray:
    whole = np.rint(np.nan_to_num(numbers, nan=-1.0, posinf=-1.0, neginf=-1.0))
    unknown = sorted({f"{number:g}" for number in numbers[(whole != numbers) | (whole < 1) | (whole > LAST_ELEMENT)]})
    if unknown:
        raise UnknownElementError(f"expected atomic numbers 1 to {LAST_ELEMENT}, got {', '.join(unknown[:10])}")
    return whole.astype(np.int64)


def _fractions(positions: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    if not np.isfinite(lattice).all():
        return np.full_like(positions, np.nan)
    if not abs(float(np.linalg.det(lattice))) > 0.0:
        raise MissingCellError("the cell has no volume; give three vectors that do not lie in a plane")
    return np.linalg.solve(lattice.T, positions.T).T


def _matrix(values: Any, what: str) -> np.ndarray:
    return _numbers(values, 9, what).reshape(3, 3)


def _numbers(values: Any, count: int | None, what: str) -> np.ndarray:
    """(count,) float64 of nested lists; None inside is NaN, which has a message of its own."""
    try:
        found = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise RecordError(f"expected numbers as {what}, got {_shown(values)}") from None
    if count is not None and found.size != count:
        raise RecordError(f"expected {count} numbers as {what}, got {found.size}")
    return found.reshape(-1)


def _array(values: Any, what: str) -> np.ndarray:
    """An array as ASE writes it: plain lists, or shape, type and values under "__ndarray__"."""
    if isinstance(values, Mapping) and "array" in values:
        values = values["array"]
    if isinstance(values, Mapping) and isinstance(values.get("__ndarray__"), Sequence):
        parts = values["__ndarray__"]
        values = parts[2] if len(parts) == 3 else None
    return _numbers(values, None, what)


def _list(values: Any, what: str) -> Sequence[Any]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise RecordError(f"expected a list as {what}, got {_shown(values)}")
    return values


def _need_periodic(pbc: Any) -> None:
    flags = pbc if isinstance(pbc, Sequence) and not isinstance(pbc, str) else (pbc,)
    if not all(flags):
        raise MissingCellError(f"expected a cell that repeats along three axes, got pbc={list(flags)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
