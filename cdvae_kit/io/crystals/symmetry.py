"""Which symmetry operations a file means, from all that it says of its space group, and where it contradicts itself.

In this order: the operations that it lists, its Hall symbol, its Hermann-Mauguin symbol, its number. What comes later
is compared with what was chosen. Where a symbol fits several settings, the cell decides: the axis of a monoclinic cell
whose angle is not 90 degrees, the axes of a rhombohedral one. What is open after that stays open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cdvae_kit.io.crystals.operations import (
    OperationError,
    Operations,
    combined,
    completed,
    differ_by_origin,
    fault_of_group,
    identity,
    metric_mismatch,
    operations_from_triplets,
)
from cdvae_kit.io.crystals.settings import (
    Named,
    Setting,
    setting_of_operations,
    settings_by_hall,
    settings_by_number,
    settings_by_symbol,
)

METRIC_TOLERANCE = 0.02
"""By how much, in the cosine of an angle and as a share of a length, a cell may miss the symmetry of its operations."""

_NULLS = ("", "?", ".")
_RIGHT_ANGLE = 2e-4  # cosine of 89.99 degrees: below it the angle of a cell is meant to be 90


@dataclass(frozen=True)
class StatedSymmetry:
    """All that a file says of its space group; empty where it says nothing.

    Attributes:
        operations: texts such as "-x,y+1/2,-z".
        centrings: operations of a magnetic file by which all others are multiplied.
        hall: Hall's symbol.
        symbols: Hermann-Mauguin symbols.
        code: `_space_group_IT_coordinate_system_code`.
        number: of the Tables, as text.
    """

    operations: tuple[str, ...] = ()
    centrings: tuple[str, ...] = ()
    hall: str = ""
    symbols: tuple[str, ...] = ()
    code: str = ""
    number: str = ""


@dataclass
class ChosenSymmetry:
    """What the file means.

    Attributes:
        candidates: the groups of operations that it can mean, one unless the file leaves it open.
        source: which statement they come from, in words.
        names: what to call each of the candidates in a message.
        contradictions: statements of the file that do not agree with each other.
        remarks: statements that are not understood, and so were not compared.
    """

    candidates: list[Operations]
    source: str
    names: list[str]
    contradictions: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class SymmetryError(ValueError):
    """A space group that the file does not say clearly."""


def choose_symmetry(stated: StatedSymmetry, gram: np.ndarray, *, lenient: bool = False) -> ChosenSymmetry:
    """The operations that a file means.

    Args:
        stated: what it says.
        gram: (3, 3) products of the cell's vectors, square angstrom.
        lenient: whether operations that are no group are completed to one, rather than an error.

    Raises:
        SymmetryError: nothing that it says is understood.
    """
    number, contradictions = _number(stated.number)
    symbols = [symbol for symbol in stated.symbols if symbol.strip() not in _NULLS]
    named = [(symbol, found) for symbol in symbols if (found := settings_by_symbol(symbol, stated.code)) is not None]
    hall = settings_by_hall(stated.hall) if stated.hall.strip() not in _NULLS else None
    if stated.operations:
        chosen = _listed(stated, lenient=lenient)
    elif hall is not None:
        chosen = ChosenSymmetry([hall], f"the Hall symbol {stated.hall!r}", [stated.hall])
    elif named:
        chosen = _by_symbols(named, number, gram)
    elif number is not None:
        chosen = _by_number(number, gram)
    elif symbols or stated.hall.strip() not in _NULLS or contradictions:
        said = ", ".join(map(repr, [*symbols, *([stated.hall] if stated.hall else [])]))
        if not said:
            raise SymmetryError("; ".join(contradictions))
        raise SymmetryError(
            f"the space group {said} is not understood and no operations are listed; list them "
            "(_space_group_symop_operation_xyz) or write the symbol as the International Tables do"
        )
    else:
        return ChosenSymmetry([identity()], "no statement", ["P 1"])
    if chosen.contradictions and not lenient:
        return chosen
    strange = [symbol for symbol in symbols if symbol not in dict(named)]
    strange += [stated.hall] if hall is None and stated.hall.strip() not in _NULLS else []
    chosen.remarks += [f"the space-group symbol {symbol!r} is not understood, and not compared" for symbol in strange]
    chosen.contradictions += contradictions
    if stated.operations and hall is not None:
        _hold_against_hall(chosen, stated.hall, hall)
    for symbol, found in named:
        _hold_against_symbol(chosen, symbol, found)
    if number is not None:
        _hold_against_number(chosen, number)
    _hold_against_cell(chosen, gram)
    return chosen


def _number(text: str) -> tuple[int | None, list[str]]:
    text = text.strip()
    if text in _NULLS:
        return None, []
    # "14.0" is what a spreadsheet makes of it; a number of 5,000 digits is none
    whole = text.removesuffix(".0")
    if whole.isdigit() and len(whole) <= 4 and 1 <= int(whole) <= 230:
        return int(whole), []
    return None, [f"space groups are numbered from 1 to 230, and the file gives {text[:20]!r}"]


def _listed(stated: StatedSymmetry, *, lenient: bool) -> ChosenSymmetry:
    operations = operations_from_triplets(stated.operations)
    if stated.centrings:
        operations = combined(operations, operations_from_triplets(stated.centrings))
    fault = None if operations.is_trivial else fault_of_group(operations)
    if fault is not None and lenient:
        operations = completed(operations)
    source = "the listed operations"
    return ChosenSymmetry([operations], source, [source], [fault] if fault else [])


def _by_symbols(named: Sequence[tuple[str, Named]], number: int | None, gram: np.ndarray) -> ChosenSymmetry:
    symbol, found = named[0]
    settings: list[Setting] = list(found.settings)
    for _, other in named[1:]:
        indices = {setting.index for setting in other.settings}
        both = [setting for setting in settings if setting.index in indices]
        # where there is none the check below says so
        settings = both or settings
    settings = [setting for setting in settings if setting.number == number] or settings
    return _of_settings(_fitting(settings, gram), f"the symbol {symbol!r}", one_type=False)


def _by_number(number: int, gram: np.ndarray) -> ChosenSymmetry:
    return _of_settings(
        _fitting(list(settings_by_number(number)), gram), f"the space-group number {number}", one_type=True
    )


def _of_settings(settings: Sequence[Setting], source: str, *, one_type: bool) -> ChosenSymmetry:
    candidates: list[Operations] = []
    names: list[str] = []
    standard = [setting for setting in settings if not setting.axes]
    if not one_type and len({s.origin for s in settings}) == 1 and len(standard) == 1:
        # "C m m e" is also what the Tables call the same group with a and b exchanged
        settings = standard
    for setting in settings:
        if not any(setting.operations.same_as(other) for other in candidates):
            candidates.append(setting.operations)
            names.append(setting.symbol)
    return ChosenSymmetry(candidates, source, names)


def _fitting(settings: list[Setting], gram: np.ndarray) -> list[Setting]:
    """The settings whose symmetry the cell has; all, where it has that of none."""
    axis = _unique_axis(gram)
    if settings and all(setting.unique_axis for setting in settings):
        by_axis = [s for s in settings if s.unique_axis == (axis or "b")]
        # a cell of right angles is of any axis, and the Tables choose b
        return by_axis or settings
    return [s for s in settings if metric_mismatch(s.operations, gram) <= METRIC_TOLERANCE] or settings


def _unique_axis(gram: np.ndarray) -> str:
    """The axis whose angle is farthest from 90 degrees, "" where none is off."""
    lengths = np.sqrt(gram.diagonal())
    cosines = np.abs([gram[1, 2], gram[0, 2], gram[0, 1]]) / [
        lengths[1] * lengths[2],
        lengths[0] * lengths[2],
        lengths[0] * lengths[1],
    ]
    return "abc"[int(cosines.argmax())] if cosines.max() > _RIGHT_ANGLE else ""


def _hold_against_hall(chosen: ChosenSymmetry, symbol: str, hall: Operations) -> None:
    if not chosen.candidates[0].same_as(hall):
        _differ(chosen, f"the Hall symbol {symbol!r}", _called(hall))


def _differ(chosen: ChosenSymmetry, other: str, meaning: str) -> None:
    chosen.contradictions.append(
        f"{chosen.source} and {other} mean different groups: {_called(chosen.candidates[0])}, and {meaning}"
    )


def _hold_against_symbol(chosen: ChosenSymmetry, symbol: str, named: Named) -> None:
    """A symbol without a mark of the origin leaves it free; a short one leaves the axes free too."""
    for operations in chosen.candidates:
        for setting in named.settings:
            if setting.operations.same_as(operations) or (
                not named.is_marked and differ_by_origin(setting.operations, operations)
            ):
                return
    operations = chosen.candidates[0]
    # an R lattice may be centred the other way around, and the symbol does not say so
    reverse = not named.is_marked and named.settings[0].symbol.startswith("R")
    if reverse and operations.number == named.settings[0].number:
        return
    meaning = " or ".join(sorted({_called(setting.operations) for setting in named.settings}))
    _differ(chosen, f"the symbol {symbol!r}", meaning)


def _hold_against_number(chosen: ChosenSymmetry, number: int) -> None:
    fitting = [i for i, operations in enumerate(chosen.candidates) if operations.number == number]
    if fitting:
        chosen.candidates = [chosen.candidates[i] for i in fitting]
        chosen.names = [chosen.names[i] for i in fitting]
        return
    _differ(chosen, "the space-group number", f"number {number}")


def _hold_against_cell(chosen: ChosenSymmetry, gram: np.ndarray) -> None:
    if all(metric_mismatch(operations, gram) > METRIC_TOLERANCE for operations in chosen.candidates):
        lengths = np.sqrt(gram.diagonal())
        angles = np.degrees(np.arccos(np.clip(gram / np.outer(lengths, lengths), -1.0, 1.0)))
        shown = ", ".join(f"{x:.4g}" for x in [*lengths, angles[1, 2], angles[0, 2], angles[0, 1]])
        chosen.contradictions.append(
            f"the cell ({shown}) does not have the symmetry of {_called(chosen.candidates[0])}, the group by "
            f"{chosen.source}"
        )


def _called(operations: Operations) -> str:
    """A group in a message: its number, and its symbol where its setting is one of the table."""
    setting = setting_of_operations(operations)
    if setting is not None:
        return f"{setting.symbol} (number {setting.number})"
    number = operations.number
    return f"a group of {len(operations)} operations" if number is None else f"a setting of number {number}"


__all__ = [
    "METRIC_TOLERANCE",
    "ChosenSymmetry",
    "OperationError",
    "StatedSymmetry",
    "SymmetryError",
    "choose_symmetry",
]
