"""Damaged CIFs that we read and others read: is it the same crystal?"""

from __future__ import annotations

import io
import random
import re
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ase.io
from pymatgen.io.cif import CifParser

from cdvae_kit.crystal.lattice import volume
from cdvae_kit.crystal.species import element_symbols
from cdvae_kit.io import ReadError, read_crystals
from tests.campaign.forked import outcomes
from tests.campaign.mutations import NUMBERS, WORDS
from tests.campaign.targets import CIFS

_SYMBOLS = {number: symbol for symbol, number in element_symbols().items() if symbol not in ("D", "T")}


class Crystal(NamedTuple):
    """What is compared: how many atoms of which element, and the volume in cubic angstrom."""

    elements: tuple[tuple[str, int], ...]
    volume: float

    def is_like(self, other: Crystal) -> bool:
        return self.elements == other.elements and abs(self.volume - other.volume) <= 1e-3 * max(self.volume, 1e-9)


def damaged_cif(seed: int) -> str:
    """One fault in one number, word or line: the kind of damage that leaves a file that can be read."""
    random_ = random.Random(f"second reader {seed}")
    text = random_.choice(CIFS)
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
    counts = Counter(_SYMBOLS[number] for number in crystals.atomic_numbers.tolist())
    return Crystal(tuple(sorted(counts.items())), float(volume(crystals.lattice)[0]))


def by_pymatgen(text: str) -> Crystal | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = CifParser(io.StringIO(text)).parse_structures(primitive=False, on_error="ignore")
        except Exception:  # noqa: BLE001 - another reader's errors are its own
            return None
    if len(found) != 1 or not found[0].is_ordered:
        return None
    counts = Counter(re.sub(r"[^A-Za-z].*", "", site.specie.symbol) for site in found[0])
    return Crystal(tuple(sorted(counts.items())), float(found[0].volume))


def by_ase(text: str) -> Crystal | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            atoms = ase.io.read(io.StringIO(text), format="cif")
        except Exception:  # noqa: BLE001 - another reader's errors are its own
            return None
    return Crystal(tuple(sorted(Counter(atoms.get_chemical_symbols()).items())), float(atoms.get_volume()))


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
    if any(ours.is_like(other) for other in read.values()):
        return "as another reader", []
    return "different", [f"seed {seed}: ours {ours}, {read}"]


def agreement(folder: Path, seeds: range) -> tuple[Counter[str], list[str]]:
    """Counts of `compared`, and the differences."""
    counts: Counter[str] = Counter()
    differences: list[str] = []
    for kind, word in outcomes(partial(compared, folder), list(seeds)):
        name, told = word if kind == "done" else (kind, [])
        counts[name] += 1
        differences += told
    return counts, differences
