"""POSCAR and CONTCAR files of VASP: one crystal a file.

The rules are those of VASP 5 and 6: one scale, three, or a negative one that is the volume; positions as fractions or
in angstrom; comments behind the numbers. VASP 4 names no elements, which must then stand behind the positions.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from cdvae_kit.crystal.errors import MissingCellError, UnknownElementError
from cdvae_kit.crystal.species import element_of_type, is_heavy_hydrogen
from cdvae_kit.io.crystals.limits import current_reader_limits, how_to_raise
from cdvae_kit.io.crystals.records import RecordError, integer_of


class PoscarCrystal(NamedTuple):
    """Cell in angstrom, fractions, atomic numbers, and whether there is deuterium among them."""

    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    has_deuterium: bool


def read_poscar(text: str) -> PoscarCrystal:
    """The crystal of a POSCAR.

    >>> lines = ["Po", "-8.0", "1 0 0", "0 1 0", "0 0 1", "Po", "1", "Direct", "0 0 0"]
    >>> read_poscar("\\n".join(lines)).lattice.diagonal()
    array([2., 2., 2.])
    """
    lines = text.split("\n")
    if len(lines) < 7:
        raise RecordError(f"is no POSCAR: expected at least 8 lines, got {len(lines)}")
    scales = _leading_numbers(lines[1])
    lattice = np.array([_numbers(lines, 2 + i, 3, "a vector of the cell") for i in range(3)])
    lattice, scale = _scaled(lattice, scales, lines[1])
    place = 5
    symbols = None if re.match(r"\s*\d", lines[place]) else lines[place].split("!")[0].split()
    if symbols is not None:
        place += 1
    counts = _counts(lines, place, symbols)
    place += 1
    if place < len(lines) and lines[place].strip()[:1] in tuple("sS"):
        place += 1
    mode = lines[place].strip()[:1] if place < len(lines) else ""
    if not mode.isalpha():
        raise RecordError(f"line {place + 1}: expected Direct or Cartesian, got {_shown(lines, place)}")
    first = place + 1
    num_atoms = sum(counts)
    if len(lines) - first < num_atoms:
        raise RecordError(f"expected {num_atoms} lines of positions, got {len(lines) - first}")
    positions = np.array([_numbers(lines, first + i, 3, "a position") for i in range(num_atoms)]).reshape(-1, 3)
    if symbols is None:
        words = [_behind(lines[first + i]) for i in range(num_atoms)]
        if not words or any(word is None for word in words):
            raise UnknownElementError("the POSCAR names no elements (VASP 4 form); add their symbols as its sixth line")
        species = [word for word in words if word is not None]
    else:
        species = [symbol for symbol, count in zip(symbols, counts, strict=True) for _ in range(count)]
    plain = [_without_potential(symbol) for symbol in species]
    numbers = np.array([element_of_type(symbol) for symbol in plain], dtype=np.int64)
    if mode in "cCkK":
        with np.errstate(all="ignore"):
            if not abs(np.linalg.det(lattice)) > 0.0:
                raise MissingCellError("the cell has no volume; give three vectors that do not lie in a plane")
            positions = np.linalg.solve(lattice.T, (positions * scale).T).T
    return PoscarCrystal(lattice, positions, numbers, any(is_heavy_hydrogen(symbol) for symbol in plain))


def _scaled(lattice: np.ndarray, scales: list[float], line: str) -> tuple[np.ndarray, np.ndarray | float]:
    """The cell in angstrom, and the factor of Cartesian positions: VASP scales both alike."""
    if len(scales) >= 3 and all(scale > 0.0 for scale in scales[:3]):
        components = np.array(scales[:3])
        return lattice * components, components
    if len(scales) >= 3 or not scales or scales[0] == 0.0 or not np.isfinite(scales[0]):
        raise RecordError(f"line 2: expected a scale other than 0, or three above 0, got {line.strip()[:40]!r}")
    scale = scales[0]
    if scale < 0.0:
        volume = abs(float(np.linalg.det(lattice)))
        if not volume > 0.0:
            raise MissingCellError("the cell has no volume; give three vectors that do not lie in a plane")
        scale = (-scale / volume) ** (1.0 / 3.0)
    return lattice * scale, scale


def _counts(lines: list[str], place: int, symbols: list[str] | None) -> list[int]:
    words = []
    for word in lines[place].split() if place < len(lines) else []:
        # a comment may follow
        if not word[0].isdigit():
            break
        words.append(word)
    most = current_reader_limits().max_listed_atoms
    try:
        counts = [integer_of(word, "a number of atoms", most=most, limit="max_listed_atoms") for word in words]
    except ValueError as error:
        raise RecordError(f"line {place + 1}: {error}") from error
    if sum(counts) > most:
        raise RecordError(
            f"line {place + 1}: {sum(counts)} atoms in all, at most {most} are taken; "
            f"{how_to_raise('max_listed_atoms')}"
        )
    if not counts or (symbols is not None and len(symbols) != len(counts)):
        raise RecordError(
            f"line {place + 1}: expected a number of atoms for each of {len(symbols or [])} elements, "
            f"got {_shown(lines, place)}"
        )
    return counts


def _leading_numbers(line: str) -> list[float]:
    values: list[float] = []
    for word in line.split():
        try:
            values.append(_float(word))
        except ValueError:
            break
    return values


def _numbers(lines: list[str], place: int, count: int, what: str) -> list[float]:
    words = lines[place].split(maxsplit=count)[:count]
    try:
        values = [_float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != count:
        raise RecordError(f"line {place + 1}: expected {what}, {count} numbers, got {_shown(lines, place)}")
    return values


def _float(word: str) -> float:
    # Fortran writes 1.5D+00
    return float(re.sub(r"[dD](?=[+-]?\d)", "e", word))


def _behind(line: str) -> str | None:
    """The element behind a position, past the flags of selective dynamics."""
    words = [word for word in line.split()[3:] if word.upper() not in ("T", "F", ".TRUE.", ".FALSE.")]
    return words[0] if words and words[0][0].isalpha() else None


def _without_potential(symbol: str) -> str:
    """ "Fe" of "Fe_pv" and "Fe/1a2b", which name a potential too."""
    return re.split(r"[_/.]", symbol, maxsplit=1)[0]


def _shown(lines: list[str], place: int) -> str:
    return repr(lines[place].strip()[:40]) if place < len(lines) else "the end of the file"
