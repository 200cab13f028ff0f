"""Damaged CIFs that we read and others read: is it the same crystal?"""

from __future__ import annotations

import io
import random
import re
import warnings
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from pymatgen.io.cif import CifParser
from pymatgen.symmetry.groups import SpaceGroup

from cdvae_kit.crystal.arrays import split
from cdvae_kit.crystal.species import element_symbols
from cdvae_kit.io import ReadError, read_crystals
from tests.campaign.forked import outcomes
from tests.campaign.mutations import NUMBERS, WORDS
from tests.campaign.sound_cifs import CIFS, MORE_CIFS

# pymatgen takes a word in a text for a block, and reads nothing
SOUND = tuple(text.replace("\ndata_ in a text", "\na text") for text in (*CIFS, *MORE_CIFS))
# pymatgen knows a group again as long as it is held, and needs most of a second for one of 192 operations
_HELD = [SpaceGroup.from_int_number(number) for number in (2, 15, 62, 154, 167, 186, 225)]
_SYMBOLS = {number: symbol for symbol, number in element_symbols().items() if symbol not in ("D", "T")}
_NEIGHBORS, _IMAGES = 8, 3
_ANGSTROM = 0.02
"""What rounding of a written third, and merging of sites that rounding has split, may change of a mean distance."""


class Crystal(NamedTuple):
    """What is compared: how many atoms of which element, the volume in cubic angstrom, and where the atoms are.

    `distances` are those to the nearest 8 atoms in rising order, averaged over the atoms of an element, angstrom: they
    depend neither on the choice of the cell and its axes nor on the order of the atoms.
    """

    elements: tuple[tuple[str, int], ...]
    volume: float
    distances: tuple[tuple[float, ...], ...]

    def is_like(self, other: Crystal) -> bool:
        return (
            self.elements == other.elements
            and abs(self.volume - other.volume) <= 1e-3 * max(self.volume, 1e-9)
            and bool(np.allclose(self.distances, other.distances, rtol=1e-3, atol=_ANGSTROM))
        )


def crystal_of(symbols: list[str], frac_coords: np.ndarray, lattice: np.ndarray) -> Crystal:
    """What is compared of a crystal whose rows of `lattice` are its vectors, angstrom."""
    steps = np.arange(-_IMAGES, _IMAGES + 1)
    offsets = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    frac = frac_coords - np.floor(frac_coords)
    between = (frac[None, :, None] + offsets - frac[:, None, None]) @ lattice
    squares = np.square(between).sum(-1).reshape(len(frac), -1)
    # the first is the atom itself; to sort them all takes most of the time of a comparison
    nearest = np.partition(squares, _NEIGHBORS, axis=1)[:, : _NEIGHBORS + 1]
    distances = np.sqrt(np.sort(nearest, axis=1)[:, 1:])
    rows = np.array(symbols)
    return Crystal(
        tuple(sorted(Counter(symbols).items())),
        abs(float(np.linalg.det(lattice))),
        tuple(tuple(distances[rows == symbol].mean(0).tolist()) for symbol in sorted(set(symbols))),
    )


def damaged_cif(seed: int) -> str:
    """One fault in one number, word or line: the kind of damage that leaves a file that can be read."""
    random_ = random.Random(f"second reader {seed}")
    text = random_.choice(SOUND)
    found = list(re.finditer(r"-?\d+\.?\d*(?:\([0-9]+\))?", text))
    match random_.randrange(6):
        case 0:
            one = random_.choice(found)
            return text[: one.start()] + random_.choice(NUMBERS) + text[one.end() :]
        case 1 | 2:
            one = random_.choice(found)
            digits = list(one.group())
            digits[random_.randrange(len(digits))] = random_.choice("0123456789.-")
            return text[: one.start()] + "".join(digits) + text[one.end() :]
        case 3:
            one = random_.choice(list(re.finditer(r"[A-Za-z_][\w.\-]*", text)))
            return text[: one.start()] + random_.choice(WORDS) + text[one.end() :]
        case 4:
            place = random_.randrange(len(text))
            return text[:place] + text[place + 1 :]
        case _:
            lines = text.split("\n")
            i, j = random_.randrange(len(lines)), random_.randrange(len(lines))
            if random_.random() < 0.5:
                lines[i], lines[j] = lines[j], lines[i]
            else:
                del lines[i]
            return "\n".join(lines)


def by_us(path: Path) -> Crystal | None:
    try:
        crystals = read_crystals(path).crystals
    except ReadError:
        return None
    if len(crystals) != 1:
        return None
    (one,) = split(crystals)
    return crystal_of([_SYMBOLS[number] for number in one.atomic_numbers.tolist()], one.frac_coords, one.lattice)


def by_pymatgen(text: str) -> Crystal | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = CifParser(io.StringIO(text)).parse_structures(primitive=False, on_error="ignore")
        except Exception:  # noqa: BLE001 - another reader's errors are its own
            return None
    if len(found) != 1 or not found[0].is_ordered or not np.isfinite(found[0].lattice.matrix).all():
        return None
    symbols = [re.sub(r"[^A-Za-z].*", "", site.specie.symbol) for site in found[0]]
    return crystal_of(symbols, found[0].frac_coords, found[0].lattice.matrix)


def by_ase(text: str) -> Crystal | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            atoms = ase.io.read(io.StringIO(text), format="cif")
        except Exception:  # noqa: BLE001 - another reader's errors are its own
            return None
    return crystal_of(atoms.get_chemical_symbols(), atoms.get_scaled_positions(), atoms.cell.array)


def stated_elements(text: str) -> tuple[tuple[str, int], ...] | None:
    """The atoms of the cell by the file's own formula and number of formula units; None where it has not both."""
    formula = re.search(r"^_chemical_formula_sum +'([^']*)'$", text, re.MULTILINE)
    units = re.search(r"^_cell_formula_units_Z +([0-9]{1,3})$", text, re.MULTILINE)
    if formula is None or units is None:
        return None
    counts = {
        word[1]: int(word[2] or 1) * int(units[1]) for word in re.finditer(r"([A-Z][a-z]?)([0-9]{0,3})", formula[1])
    }
    return tuple(sorted(counts.items()))


def _read_without_hall(folder: Path, text: str) -> Crystal | None:
    lines = [line for line in text.split("\n") if not re.match(r"_(symmetry_)?space_group_name_hall\b", line, re.I)]
    if len(lines) == len(text.split("\n")):
        return None
    path = folder / "without_hall.cif"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    return by_us(path)


def compared(folder: Path, seed: int) -> tuple[str, list[str]]:
    """How the readers agree on the damaged file of a seed, and what they say where they do not."""
    text = damaged_cif(seed)
    path = folder / "damaged.cif"
    path.write_text(text, encoding="utf-8", errors="replace")
    ours = by_us(path)
    if ours is None:
        return "refused", []
    others = {"pymatgen": by_pymatgen(text), "ase": by_ase(text)}
    read = {name: other for name, other in others.items() if other is not None}
    if not read:
        return "read by us alone", []
    alike = [ours.is_like(other) for other in read.values()]
    told = [f"seed {seed}: ours {ours}, {read}"]
    if not any(alike):
        # the others read no Hall symbols: it makes the difference where nothing else of the symmetry is left
        without_hall = _read_without_hall(folder, text)
        if without_hall is not None and all(without_hall.is_like(other) for other in read.values()):
            return "as its Hall symbol alone says", told
        formula = stated_elements(text)
        fits_us_alone = ours.elements == formula and all(other.elements != formula for other in read.values())
        return ("as its formula says" if fits_us_alone else "different"), told
    if all(alike):
        return ("as both" if len(read) == 2 else "as the one that reads"), []
    return "as one of two", told


def compare(folder: Path, seeds: range, counts: Counter[str], told: defaultdict[str, list[str]]) -> None:
    """Adds up `compared`: how many files of each outcome, and what the readers say of them."""
    for seed, (kind, word) in zip(seeds, outcomes(partial(compared, folder), list(seeds)), strict=True):
        name, words = word if kind == "done" else (kind, [f"seed {seed}: {word}"])
        counts[name] += 1
        told[name] += words
