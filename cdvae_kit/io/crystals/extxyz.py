"""Extended XYZ: a file of frames, each with its cell in the second line.

Keys and the letters of column types may be of any case. Numbers beside the cell are properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cdvae_kit.crystal.errors import EmptyCrystalError, MissingCellError, UnknownElementError
from cdvae_kit.crystal.species import LAST_ELEMENT, element_of_type, is_heavy_hydrogen
from cdvae_kit.io.crystals.limits import current_reader_limits
from cdvae_kit.io.crystals.records import ReadFailure, Record, RecordError, integer_of

_COUNT = re.compile(r"\s*\d+\s*$")
# key=value, where either may stand in quotes, and a value in brackets too
_ITEM = re.compile(
    r"""\s*(?P<key>"(?:[^"\\]|\\.)*"|[^\s="]+)"""
    r"""(?:\s*=\s*(?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|\S+))?"""
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?|[+-]?inf(?:inity)?", re.IGNORECASE)
_RESERVED = ("lattice", "cell", "properties", "pbc", "material_id", "origin", "cell_origin")


class XyzCrystal(NamedTuple):
    """Cell in angstrom, fractions, atomic numbers, name and properties, and whether there is deuterium."""

    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    name: str | None
    properties: dict[str, float]
    has_deuterium: bool


def cut_frames(text: str, source: str, stem: str) -> Iterator[Record | ReadFailure]:
    """One record a frame; a broken one costs what stands before the next count with a cell below."""
    lines = text.split("\n")
    start, frame = 0, 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        reason, end = _frame_end(lines, start)
        place = f"frame {frame} (line {start + 1})"
        if reason:
            yield ReadFailure(source, place, reason)
        else:
            yield Record(source, place, "extxyz", "\n".join(lines[start:end]), f"{stem}-{frame}", first_line=start + 1)
        start, frame = end, frame + 1


def _frame_end(lines: list[str], start: int) -> tuple[str, int]:
    """Why the frame at `start` is broken ("" if it is not), and the line after it."""
    try:
        most = current_reader_limits().max_listed_atoms
        num_atoms = integer_of(lines[start], "a number of atoms", most=most, limit="max_listed_atoms")
    except ValueError as error:
        return str(error), _next_frame(lines, start + 1)
    first = start + 2
    last = min(first + num_atoms, len(lines))
    # a line of an atom has a symbol and three numbers: fewer words are the head of the next frame
    end = next((i for i in range(first, last) if len(lines[i].split(maxsplit=4)) < 4), last)
    if end - first < num_atoms:
        reason = f"expected {num_atoms} lines of atoms (symbol and three numbers), got {max(0, end - first)}"
        return reason, _next_frame(lines, start + 1)
    return "", end


def _next_frame(lines: list[str], start: int) -> int:
    for i in range(start, len(lines) - 1):
        if _COUNT.match(lines[i]) and "lattice=" in lines[i + 1].lower():
            return i
    return len(lines)


def read_frame(text: str) -> XyzCrystal:
    """The crystal of one frame.

    >>> frame = read_frame('1\\nlattice="3 0 0 0 3 0 0 0 3" gap=0.5\\nPo 0 0 1.5')
    >>> frame.frac_coords.tolist(), frame.properties
    ([[0.0, 0.0, 0.5]], {'gap': 0.5})
    """
    lines = text.split("\n")
    items = _items(lines[1])
    by_key = {key.lower(): value for key, value in items.items()}
    lattice = _lattice(by_key)
    kinds, first_position = _columns(by_key.get("properties"))
    rows = [line.split() for line in lines[2:] if line.strip()]
    if not rows:
        raise EmptyCrystalError("expected at least one atom, got none")
    num_columns = max(kinds + 1, first_position + 3)
    short = next((row for row in rows if len(row) < num_columns), None)
    if short is not None:
        raise RecordError(f"expected at least {num_columns} columns of each atom, got {' '.join(short)[:60]!r}")
    try:
        positions = np.array([row[first_position : first_position + 3] for row in rows], dtype=np.float64)
    except ValueError:
        bad = next(row for row in rows if not _are_numbers(row[first_position : first_position + 3]))
        raise RecordError(f"expected three numbers as an atom's position, got {' '.join(bad)[:60]!r}") from None
    symbols = [row[kinds] for row in rows]
    numbers = _atomic_numbers(symbols)
    if not abs(float(np.linalg.det(lattice))) > 0.0:
        raise MissingCellError("the cell has no volume; give three vectors that do not lie in a plane")
    frac_coords = np.linalg.solve(lattice.T, positions.T).T
    properties = {
        key: _float(value)
        for key, value in items.items()
        if key.lower() not in _RESERVED and value is not None and _NUMBER.fullmatch(value)
    }
    deuterium = any(is_heavy_hydrogen(symbol) for symbol in set(symbols))
    return XyzCrystal(lattice, frac_coords, numbers, by_key.get("material_id"), properties, deuterium)


def _items(comment: str) -> dict[str, str | None]:
    items: dict[str, str | None] = {}
    for found in _ITEM.finditer(comment):
        value = found.group("value")
        items.setdefault(_bare(found.group("key")), None if value is None else _bare(value))
    return items


def _bare(word: str) -> str:
    if len(word) >= 2 and word[0] == word[-1] == '"':
        return re.sub(r"\\(.)", r"\1", word[1:-1])
    if len(word) >= 2 and word[0] + word[-1] in ("''", "{}", "[]"):
        return word[1:-1]
    return word


def _lattice(by_key: dict[str, str | None]) -> np.ndarray:
    text = by_key.get("lattice") or by_key.get("cell")
    if text is None:
        raise MissingCellError('the frame has no cell: its second line needs Lattice="ax ay az bx by bz cx cy cz"')
    words = text.replace(",", " ").split()
    try:
        values = [_float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != 9:
        raise RecordError(f"expected 9 numbers as Lattice, got {text[:80]!r}")
    pbc = (by_key.get("pbc") or "T T T").replace(",", " ").upper().split()
    if any(word in ("F", "FALSE", "0") for word in pbc):
        raise MissingCellError(f"expected a cell that repeats along three axes, got pbc={' '.join(pbc)}")
    return np.array(values).reshape(3, 3)


def _columns(layout: str | None) -> tuple[int, int]:
    """Which column holds the element, and which the first coordinate."""
    if layout is None:
        return 0, 1
    words = layout.split(":")
    place = 0
    columns: dict[str, tuple[int, str, int]] = {}
    if len(words) % 3:
        raise RecordError(f"expected name:type:count of each column as Properties, got {layout[:80]!r}")
    for name, kind, count in zip(words[::3], words[1::3], words[2::3], strict=True):
        try:
            width = integer_of(count, "a number of columns")
        except ValueError as error:
            raise RecordError(f"Properties: {error}") from error
        columns.setdefault(name.lower(), (place, kind.upper(), width))
        place += width
    species = next((columns[name] for name in ("species", "z", "element", "symbol") if name in columns), None)
    positions = next((columns[name] for name in ("pos", "positions") if name in columns), None)
    if species is None:
        raise UnknownElementError(f"no column holds the elements (species:S:1) in Properties={layout[:80]}")
    if positions is None or positions[2] != 3:
        raise RecordError(f"no three columns hold the positions (pos:R:3) in Properties={layout[:80]}")
    return species[0], positions[0]


def _atomic_numbers(symbols: list[str]) -> np.ndarray:
    known: dict[str, int] = {}
    unknown = []
    for symbol in dict.fromkeys(symbols):
        if symbol.isascii() and symbol.isdigit() and len(symbol) <= 3:
            known[symbol] = int(symbol)
            continue
        try:
            known[symbol] = element_of_type(symbol)
        except UnknownElementError:
            unknown.append(symbol)
    unknown += [symbol for symbol, number in known.items() if not 1 <= number <= LAST_ELEMENT]
    if unknown:
        raise UnknownElementError(
            f"expected elements 1 to {LAST_ELEMENT}, got {sorted(unknown)[:10]}; rename or remove them"
        )
    return np.array([known[symbol] for symbol in symbols], dtype=np.int64)


def _are_numbers(words: list[str]) -> bool:
    try:
        return len([_float(word) for word in words]) == 3
    except ValueError:
        return False


def _float(word: str) -> float:
    return float(word.lower().replace("d", "e")) if _NUMBER.fullmatch(word) else float(word)
