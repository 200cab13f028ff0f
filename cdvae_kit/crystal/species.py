"""Which element a text means: the symbol of a type, or the label of a site where nothing else says it.

The rule is strict, since a wrong element is another crystal: vacancies, water, hydroxide, rare earths, tetrahedral
sites and groups of atoms have labels that begin like elements. Deuterium and tritium are hydrogen here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache, lru_cache

from cdvae_kit.crystal.errors import UnknownElementError

LAST_ELEMENT = 118

_HEAVY_HYDROGEN = {"D": 1, "T": 1}
# element, then a charge or the number of a site: Fe, Fe3+, Fe+3, O2-, O-2, Fe2.5+, Na1, Fe(3+), U(IV)
_TYPE = re.compile(
    r"([A-Za-z]{1,2})(?:(\d+(?:\.\d+)?[+-]?|[+-]+|[+-]\d+(?:\.\d+)?)|\((?:\d*[+-]|[+-]\d*|[IViv]+)\)|,?)"
)
_LABEL = re.compile(r"([A-Za-z]+)")
# in capitals these are groups of atoms, rare earths, transition metals, acetate as often as elements
_GROUPS_IN_CAPITALS = frozenset({"CF", "CN", "CO", "HO", "HS", "NH", "NO", "NP", "PO", "RE", "TM", "AC"})
_GROUPS = re.compile(r"[HD][23]O|N2H|O2H|O2D|C2H|N3(?![0-9A-Za-z])|HDO", re.IGNORECASE)
# scattering factors of the International Tables for atoms in a bond
_BONDED = {"Cval": 6, "Siva": 14, "Sival": 14}


@cache
def element_symbols() -> dict[str, int]:
    """Symbol to atomic number, 1 to 118, without deuterium."""
    from ase.data import atomic_numbers

    return {symbol: number for symbol, number in atomic_numbers.items() if 1 <= number <= LAST_ELEMENT}


def is_heavy_hydrogen(text: str) -> bool:
    """Whether a type is deuterium or tritium, which are read as hydrogen.

    >>> is_heavy_hydrogen("D1+"), is_heavy_hydrogen("Dy")
    (True, False)
    """
    found = _TYPE.fullmatch(text.strip())
    return found is not None and found.group(1).upper() in _HEAVY_HYDROGEN


@lru_cache(maxsize=4096)
def element_of_type(text: str, known: frozenset[str] = frozenset()) -> int:
    """The atomic number of a type symbol: an element, then a charge or digits.

    Args:
        text: "Fe", "FE", "Fe3+", "O2-", "D".
        known: symbols that the file's formula names; they tell carbonyl from cobalt where all is in capitals.

    Raises:
        UnknownElementError: it is none, or could be a group of atoms.

    >>> element_of_type("Fe3+"), element_of_type("D")
    (26, 1)
    """
    text = text.strip()
    if text in _BONDED:
        return _BONDED[text]
    found = _TYPE.fullmatch(text)
    if found is None:
        raise _unknown(text)
    letters = found.group(1)
    symbol = letters.capitalize()
    if symbol in _HEAVY_HYDROGEN and len(letters) == 1:
        return _HEAVY_HYDROGEN[symbol]
    if symbol not in element_symbols():
        raise _unknown(text)
    if len(letters) == 2 and letters != symbol and letters.upper() in _GROUPS_IN_CAPITALS and symbol not in known:
        raise UnknownElementError(
            f"expected an element, got {text!r}, which may be {symbol} or a group of atoms; write {symbol!r} if it is "
            "the element, or give the atoms of the group"
        )
    return element_symbols()[symbol]


def element_of_label(label: str, labels: Collection[str] = (), known: frozenset[str] = frozenset()) -> int:
    """The atomic number of a site that has a label and no type: an element, then no other letter.

    Args:
        label: "Fe1", "O(2)", "C12B".
        labels: all labels of the file: beside "C1" and "CB", "CA" is no calcium.
        known: symbols that the file's formula names.

    Raises:
        UnknownElementError: it is none, or it could be read in two ways.

    >>> element_of_label("Si1_2"), element_of_label("O1A")
    (14, 8)
    """
    found = _LABEL.match(label.strip())
    if found is None:
        raise _unlabelled(label)
    letters = found.group(1)
    symbols = element_symbols()
    if _GROUPS.match(label.strip()) or letters.upper() == "T":
        raise _unlabelled(label)
    readings = {letters.capitalize()}.intersection(symbols) if len(letters) <= 2 else set()
    if letters.upper() == "D":
        return 1
    exact = len(letters) == 1 or letters == letters.capitalize()
    if readings and exact:
        return symbols[readings.pop()]
    # what is left is in capitals or has letters after the element
    if letters[0].upper() in symbols:
        readings.add(letters[0].upper())
    if len(letters) > 2 and letters[:2].capitalize() in symbols:
        readings.add(letters[:2].capitalize())
    named = readings & known
    if len(named) == 1:
        return symbols[named.pop()]
    whole = letters.capitalize()
    alone = not any(_stands_alone(other, letters[0]) for other in labels)
    if len(letters) == 2 and whole in symbols and letters.upper() not in _GROUPS_IN_CAPITALS and alone:
        return symbols[whole]
    raise _unlabelled(label)


def _stands_alone(label: str, letter: str) -> bool:
    """Whether a label is of the element with this one letter."""
    found = _LABEL.match(label.strip())
    if found is None or found.group(1)[0].upper() != letter.upper() or letter.upper() not in element_symbols():
        return False
    letters = found.group(1)
    return len(letters) == 1 or letters.capitalize() not in element_symbols()


def _unknown(text: str) -> UnknownElementError:
    return UnknownElementError(
        f"expected elements 1 to {LAST_ELEMENT}, got {text[:40]!r}; vacancies, water and groups of atoms are no "
        "elements: rename or remove it, or give the group's atoms"
    )


def _unlabelled(label: str) -> UnknownElementError:
    return UnknownElementError(
        f"the label {label[:40]!r} does not say which element it is (expected elements 1 to {LAST_ELEMENT}, then no "
        "letter); give the element (_atom_site_type_symbol) or rename the site"
    )
