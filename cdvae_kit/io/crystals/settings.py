"""The settings of the International Tables by the names that people give them.

The table is gemmi's: 564 settings with their Hermann-Mauguin and Hall symbols. Here it is found by every spelling in
use: full and short symbols, blanks and underscores or none, old ones (m3m, e-glides by either letter), and the marks of
origin and axes of the CIF dictionary (:1 :2 :H :R), of ICSD (S Z H R) and of COD (RS HR). A name that fits several
settings gives all of them; which one is meant is decided in `symmetry`, by the cell and the rest of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

import gemmi

from cdvae_kit.io.crystals.operations import Operations, from_lists

_MARKS = {"s": "1", "z": "2", "hr": "h", "rs": "r"}
_ORIGIN_IN_WORDS = re.compile(r"[(;,]*(?:origin(?:choice)?(?:at)?|o)(-1|1|2|centre|center|inversioncentre)\)?$")
_HALL = re.compile(
    r"-?[pabcirhstf](?: -?[12346][12345]?[xyz'\"*=]?[abcnuvwd]*[12345]?[abcnuvwd]*){1,4}(?: ?\([^()]{1,60}\))?"
)
_E_GROUPS = (39, 41, 64, 67, 68)
_MONOCLINIC = range(3, 16)


@dataclass(frozen=True)
class Setting:
    """A setting of a space group.

    Attributes:
        index: its place in the table.
        number: of the type in the Tables, 1 to 230.
        symbol: Hermann and Mauguin's, with a mark of the origin or the axes where there is a choice.
        origin: "1", "2", "h", "r", or "" where there is no choice.
        axes: of monoclinic and orthorhombic settings, such as "b1" or "cab".
        hall: Hall's symbol.
        unique_axis: "a", "b" or "c" of a monoclinic one, else "".
    """

    index: int
    number: int
    symbol: str
    origin: str
    axes: str
    hall: str
    unique_axis: str

    @property
    def operations(self) -> Operations:
        return _operations_of(self.index)


class Named(NamedTuple):
    """The settings that a symbol can mean.

    Attributes:
        settings: at least one.
        is_marked: whether it named origin or axes, so that the operations have no freedom left.
        is_short: whether it left out which axis is unique.
    """

    settings: tuple[Setting, ...]
    is_marked: bool
    is_short: bool


@cache
def all_settings() -> tuple[Setting, ...]:
    found = []
    for index, group in enumerate(gemmi.spacegroup_table()):
        origin = "" if group.ext == "\0" else group.ext.lower()
        axis = group.monoclinic_unique_axis()
        found.append(
            Setting(
                index, group.number, group.xhm(), origin, group.qualifier, group.hall, "" if axis == "\0" else str(axis)
            )
        )
    return tuple(found)


@cache
def _operations_of(index: int) -> Operations:
    group = next(group for i, group in enumerate(gemmi.spacegroup_table()) if i == index)
    return operations_of_gemmi(group.operations())


def operations_of_gemmi(operations: Iterable[gemmi.Op]) -> Operations:
    listed = list(operations)
    unit = gemmi.Op.DEN
    return from_lists(
        [[[entry // unit for entry in row] for row in op.rot] for op in listed],
        [[part / unit for part in op.tran] for op in listed],
    )


@cache
def _settings_by_codes() -> dict[bytes, int]:
    numbers: dict[bytes, int] = {}
    for index, group in enumerate(gemmi.spacegroup_table()):
        numbers.setdefault(operations_of_gemmi(group.operations()).codes.tobytes(), index)
    return numbers


def setting_of_operations(operations: Operations) -> Setting | None:
    """The setting of the table that has just these operations."""
    index = _settings_by_codes().get(operations.codes.tobytes())
    return None if index is None else all_settings()[index]


def settings_by_number(number: int) -> tuple[Setting, ...]:
    """All settings of a type; of a triclinic one the primitive, since the Tables have no other."""
    found = tuple(setting for setting in all_settings() if setting.number == number)
    return found[:1] if number <= 2 else found


def settings_by_symbol(symbol: str, code: str = "") -> Named | None:
    """The settings that a Hermann-Mauguin symbol can mean; None where it is not understood.

    Args:
        symbol: in any spelling.
        code: `_space_group_IT_coordinate_system_code` of the file.

    >>> [setting.symbol for setting in settings_by_symbol("F 4_1/d -3 2/m Z").settings]
    ['F d -3 m:2']
    >>> [setting.symbol for setting in settings_by_symbol("P2(1)/c").settings]
    ['P 1 21/c 1', 'P 21/c 1 1']
    """
    body = _plain(symbol)
    mark = ""
    if ":" in body:
        body, mark = body.split(":", 1)
    words = _ORIGIN_IN_WORDS.search(body)
    if words:
        body, mark = body[: words.start()], "1" if words.group(1) == "1" else "2"
    names = _settings_by_name()
    if not mark and body not in names:
        found = re.fullmatch(r"(.+?)(rs|hr|[hrsz])", body)
        body, mark = (found.group(1), found.group(2)) if found else (body, mark)
    indices, short = names.get(body, ((), False))
    settings = tuple(all_settings()[i] for i in indices)
    chosen = _marked(settings, mark) if mark else settings
    code = "" if code.strip() in ("", ".", "?") else _plain(code)
    if code:
        chosen = tuple(s for s in chosen if code in _codes_of(s)) or chosen
    is_marked = bool(mark or code) and all(s.origin for s in chosen)
    return Named(chosen, is_marked, short) if chosen else None


def _marked(settings: tuple[Setting, ...], mark: str) -> tuple[Setting, ...]:
    origin = _MARKS.get(mark, mark)
    with_choice = tuple(s for s in settings if s.origin)
    if not with_choice:
        # "S" and ":1" name the first of one; ":2" asks for what is not there
        return tuple(s for s in settings if origin == "1" or mark in _codes_of(s))
    return tuple(s for s in with_choice if s.origin == origin or mark in _codes_of(s))


def _codes_of(setting: Setting) -> set[str]:
    """What a file may call the setting in its coordinate-system code."""
    return {setting.origin, setting.axes, setting.origin + setting.axes} - {""}


def settings_by_hall(symbol: str) -> Operations | None:
    """The operations that a Hall symbol spells; None where it is not understood.

    Blanks may be missing or underscores, letters of any case, where the symbol is one of the table.
    """
    plain = re.sub(r"[\s_~]+", " ", symbol).strip().lower()
    plain = re.sub(r"^- ", "-", plain)
    index = _settings_by_hall().get(plain, _settings_by_hall().get(plain.replace(" ", "")))
    if index is not None:
        return all_settings()[index].operations
    if not _HALL.fullmatch(plain):
        # gemmi takes a symbol without blanks for another one
        return None
    try:
        return operations_of_gemmi(gemmi.symops_from_hall(plain))
    except (RuntimeError, ValueError):
        return None


@cache
def _settings_by_hall() -> dict[str, int]:
    """Hall symbol, with its blanks and without, to a setting; "P32" is left out: it may be "P 32" or "P 3 2"."""
    spaced = {setting.hall.lower(): setting.index for setting in reversed(all_settings())}
    joined: dict[str, set[str]] = {}
    for hall in spaced:
        joined.setdefault(hall.replace(" ", ""), set()).add(hall)
    return {name: spaced[halls.pop()] for name, halls in joined.items() if len(halls) == 1} | spaced


def _plain(symbol: str) -> str:
    """A symbol in small letters without what does not tell groups apart."""
    text = symbol.strip().strip("'\"").lower().replace("\u2212", "-")
    # an overbar that follows its digit
    text = re.sub(r"(\d)[\u0304\u0305]", r"-\1", text)
    text = re.sub(r"\\(?:bar|overline)\{?(\d)\}?", r"-\1", text)
    text = re.sub(r"[\s_~${}*]", "", text)
    return re.sub(r"(?<=\d)\((\d)\)", r"\1", text)


@cache
def _settings_by_name() -> dict[str, tuple[tuple[int, ...], bool]]:
    """Name to settings, and whether the name is short; a full name is never taken for another's short one."""
    full: dict[str, list[int]] = {}
    short: dict[str, list[int]] = {}
    for setting in all_settings():
        tokens = setting.symbol.split(":")[0].split()
        for name in set(_full_names(tokens, setting)):
            full.setdefault(name, []).append(setting.index)
        if setting.number in _MONOCLINIC and len(tokens) == 4:
            name = tokens[0] + next(token for token in tokens[1:] if token != "1")
            short.setdefault(name.lower(), []).append(setting.index)
    named = {name: (tuple(found), True) for name, found in short.items()}
    return named | {name: (tuple(found), False) for name, found in full.items()}


def _full_names(tokens: list[str], setting: Setting) -> Iterator[str]:
    number, lattice, axes = setting.number, tokens[0].lower(), [token.lower() for token in tokens[1:]]
    choices = [[token] for token in axes]
    if number in _E_GROUPS and len(axes) == 3 and lattice in "abc":
        # two glides stand across this axis: old symbols name one of them, those since 1992 say e
        choices["abc".index(lattice)].append("e")
    for position in _positions_of_planes(number, len(axes)):
        across = ("", *_axes_across(number, position))
        choices[position] = [f"{axis}{token}" for token in choices[position] for axis in across]
    if number in range(200, 207) or number in range(221, 231):
        # "m3m" until 1983
        choices[1].append(choices[1][0].removeprefix("-"))
    for chosen in product(*choices):
        yield lattice + "".join(chosen)
        if setting.origin == "h":
            yield "h" + "".join(chosen)


def _positions_of_planes(number: int, num_axes: int) -> tuple[int, ...]:
    """Which parts of a symbol are planes whose axis the full symbol names too."""
    if number in range(47, 75):
        return (0, 1, 2)
    if number in range(123, 143) or number in range(191, 195):
        return (1, 2)
    if number in range(162, 168):
        return tuple(i for i in range(1, num_axes) if num_axes == 2 or i == _PLANE_OF_TRIGONAL[number])
    if number in range(200, 207):
        return (0,)
    return (0, 2) if number in range(221, 231) else ()


_PLANE_OF_TRIGONAL = {162: 2, 163: 2, 164: 1, 165: 1}


def _axes_across(number: int, position: int) -> tuple[str, ...]:
    if number in range(221, 231):
        return ("4/", "41/", "42/", "43/") if position == 0 else ("2/",)
    return ("2/",) if number in range(162, 168) else ("2/", "21/")
