"""Symmetry operations as integers: read from triplets, closed under composition, compared, named by their type.

An operation takes a position x, a column of fractions of the cell's edges, to R x + t. Which operations a file means
is decided in `space_groups`; what they make of its sites in `orbits`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from cdvae_kit.io.crystals.limits import current_reader_limits, how_to_raise

PARTS = 1440
"""Parts of an edge in which translations are counted: 24ths, which all settings of the Tables need, 10ths and 16ths."""

_SNAP = 0.005
_TERM = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)?(?:/(\d+(?:\.\d*)?))?\*?([xyz]?)")
# rotations have entries of -1, 0 and 1 in all settings of the Tables; 2 leaves room for odd cells
_LARGEST_ENTRY = 2


class OperationError(ValueError):
    """Text that is no symmetry operation, or operations that are no group."""


@dataclass(frozen=True, eq=False)
class Operations:
    """Operations of a space group, one for each of a cell's equal positions.

    Attributes:
        rotations: (num_operations, 3, 3) int64, the matrices R.
        translations: (num_operations, 3) int64, t in 1/`PARTS` of the edges, from 0 to `PARTS` - 1.
    """

    rotations: np.ndarray
    translations: np.ndarray

    def __len__(self) -> int:
        return len(self.rotations)

    @cached_property
    def codes(self) -> np.ndarray:
        """(num_operations,) sorted int64, a number of its own for each operation: equal groups have equal codes."""
        return np.sort(_codes(self.rotations, self.translations))

    @cached_property
    def number(self) -> int | None:
        """The number of the space-group type in the Tables; None where it is not found."""
        return space_group_number(self)

    @cached_property
    def multiplication_table(self) -> np.ndarray:
        """(n, n) which operation the product of two is: row, the one that acts last."""
        codes = _codes(self.rotations, self.translations)
        order = np.argsort(codes)
        indices = np.searchsorted(codes[order], _codes(*_products(self, self))) % len(self)
        return order[indices].reshape(len(self), len(self))

    @property
    def is_trivial(self) -> bool:
        """Whether there is nothing but x, y, z."""
        return len(self) == 1 and bool((self.rotations[0] == np.eye(3)).all() and not self.translations.any())

    def same_as(self, other: Operations) -> bool:
        return len(self) == len(other) and bool((self.codes == other.codes).all())


def identity() -> Operations:
    return Operations(np.eye(3, dtype=np.int64)[None], np.zeros((1, 3), dtype=np.int64))


def _codes(rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    base = 2 * _LARGEST_ENTRY + 1
    digits = (rotations.reshape(-1, 9) + _LARGEST_ENTRY) @ base ** np.arange(9)
    return digits * PARTS**3 + translations.reshape(-1, 3) @ np.array([PARTS**2, PARTS, 1])


def operations_from_triplets(triplets: tuple[str, ...]) -> Operations:
    """Operations of texts such as "-x+1/2, y, z", without those that come twice.

    Raises:
        OperationError: a text that is no operation, or too many of them.

    >>> operations_from_triplets(("x,y,z", "-y, x-y, z+0.3333")).translations.tolist()
    [[0, 0, 0], [0, 0, 480]]
    """
    # outside of what is remembered: a limit may have changed since
    most = current_reader_limits().max_operation_length
    _refuse_many(len(triplets), "symmetry operations")
    for text in triplets:
        if len(text) > most:
            raise OperationError(
                f"a symmetry operation of {len(text)} characters ({text[:20]}...), at most {most} are taken; "
                f"{how_to_raise('max_operation_length')}"
            )
    return _parsed(triplets)


def _refuse_many(num_operations: int, what: str) -> None:
    most = current_reader_limits().max_operations
    if num_operations > most:
        raise OperationError(
            f"{num_operations} {what}, at most {most} are taken; no cell of the Tables has so many: look at the list, "
            f"or {how_to_raise('max_operations')}"
        )


@lru_cache(maxsize=512)
def _parsed(triplets: tuple[str, ...]) -> Operations:
    parsed = [_triplet(text) for text in triplets]
    return without_repeats(np.array([r for r, _ in parsed]), np.array([t for _, t in parsed]))


def without_repeats(rotations: np.ndarray, translations: np.ndarray) -> Operations:
    """The operations with each of them once, in their order."""
    _, first = np.unique(_codes(rotations, translations), return_index=True)
    first = np.sort(first)
    return Operations(rotations[first], translations[first])


def _triplet(text: str) -> tuple[list[list[int]], list[int]]:
    components = re.sub(r"[\s'\"]", "", text).lower().split(",")
    # the fourth of a magnetic operation turns time around
    if len(components) == 4 and components[3] in ("1", "+1", "-1", "m", "-m", "+m"):
        components.pop()
    if len(components) != 3:
        raise OperationError(f"expected a symmetry operation such as '-x+1/2,y,z', got {text!r}")
    rows = [_component(component, text) for component in components]
    rotation = [row for row, _ in rows]
    if round(float(np.linalg.det(np.array(rotation)))) not in (1, -1):
        raise OperationError(f"the symmetry operation {text!r} keeps no volume; look for a missing or doubled letter")
    return rotation, [shift for _, shift in rows]


def _component(component: str, text: str) -> tuple[list[int], int]:
    coefficients, shift, position = [0.0, 0.0, 0.0], 0.0, 0
    while position < len(component):
        found = _TERM.match(component, position)
        sign, number, divisor, letter = found.groups() if found else ("", None, None, "")
        is_term = found is not None and (number or letter) and (sign or not position)
        if found is None or not is_term or (divisor and (not number or float(divisor) == 0.0)):
            raise OperationError(f"expected a symmetry operation such as '-x+1/2,y,z', got {text!r}")
        value = float(number or 1) / float(divisor or 1)
        value = -value if sign == "-" else value
        if letter:
            coefficients["xyz".index(letter)] += value
        else:
            shift += value
        position = found.end()
    whole = [round(value) for value in coefficients]
    if whole != coefficients or max(map(abs, whole)) > _LARGEST_ENTRY:
        raise OperationError(f"the symmetry operation {text!r} is none of a lattice; expected one as '-x+1/2,y,z'")
    return whole, _parts(shift)


def _parts(shift: float) -> int:
    """A translation in parts of an edge; 0.33 is a third, as whoever wrote it meant."""
    nearest = round(shift * 24) / 24
    return round((nearest if abs(nearest - shift) <= _SNAP else shift) * PARTS) % PARTS


def triplet_text(rotation: np.ndarray, translation: np.ndarray) -> str:
    """An operation as people write it.

    >>> triplet_text(np.diag([-1, 1, 1]), np.array([720, 0, 0]))
    '-x+1/2,y,z'
    """
    components = []
    for row, parts in zip(rotation.tolist(), translation.tolist(), strict=True):
        signs = {-2: "-2", -1: "-", 1: "+", 2: "+2"}
        text = "".join(f"{signs[factor]}{letter}" for factor, letter in zip(row, "xyz", strict=True) if factor)
        divisor = int(np.gcd(parts, PARTS))
        shift = f"+{parts // divisor}/{PARTS // divisor}" if parts else ""
        components.append((text + shift).removeprefix("+"))
    return ",".join(components)


def fault_of_group(operations: Operations) -> str | None:
    """Why the operations are no group: the first product of two of them that is missing; None where they are one."""
    rotations, translations = _products(operations, operations)
    missing = ~np.isin(_codes(rotations, translations), operations.codes)
    if not missing.any():
        return None
    first_missing = int(missing.argmax())
    first, second = divmod(first_missing, len(operations))
    texts = [triplet_text(operations.rotations[i], operations.translations[i]) for i in (second, first)]
    return (
        f"the {len(operations)} listed operations are no group: {texts[0]!r} and then {texts[1]!r} give "
        f"{triplet_text(rotations[first_missing], translations[first_missing])!r}, which is not listed"
    )


def completed(operations: Operations) -> Operations:
    """The group that the operations generate."""
    while True:
        rotations, translations = _products(operations, operations)
        grown = without_repeats(
            np.concatenate([operations.rotations, rotations]), np.concatenate([operations.translations, translations])
        )
        _refuse_many(len(grown), "operations or more are generated by the listed ones")
        if len(grown) == len(operations):
            return operations
        operations = grown


def combined(operations: Operations, centrings: Operations) -> Operations:
    """Every operation followed by every one of the others, as lists of centring translations are meant."""
    _refuse_many(len(operations) * len(centrings), "symmetry operations with their centrings")
    return without_repeats(*_products(centrings, operations))


def _products(left: Operations, right: Operations) -> tuple[np.ndarray, np.ndarray]:
    rotations = np.einsum("aij,bjk->abik", left.rotations, right.rotations)
    shifts = np.einsum("aij,bj->abi", left.rotations, right.translations) + left.translations[:, None]
    if np.abs(rotations).max() > _LARGEST_ENTRY:
        raise OperationError("the listed operations are of no finite group; look for a missing or doubled letter")
    return rotations.reshape(-1, 3, 3), shifts.reshape(-1, 3) % PARTS


def differ_by_origin(left: Operations, right: Operations) -> bool:
    """Whether a shift of the origin by some 24ths of the edges makes one group of operations the other."""
    if len(left) != len(right):
        return False
    ours, theirs = _by_rotation(left), _by_rotation(right)
    unit = np.eye(3, dtype=np.int64).tobytes()
    if ours.keys() != theirs.keys() or not np.array_equal(ours[unit], theirs[unit]):
        return False
    centrings = np.sort(_positions(ours[unit]))
    steps = np.arange(0, PARTS, PARTS // 24)
    shifts = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    for code, translations in ours.items():
        rotation = np.frombuffer(code, dtype=np.int64).reshape(3, 3)
        gap = theirs[code][0] - translations[0] - shifts @ (np.eye(3, dtype=np.int64) - rotation).T
        shifts = shifts[np.isin(_positions(gap % PARTS), centrings)]
    return bool(len(shifts))


def _by_rotation(operations: Operations) -> dict[bytes, np.ndarray]:
    order = np.argsort(_codes(operations.rotations, operations.translations))
    found: dict[bytes, list[np.ndarray]] = {}
    for i in order:
        found.setdefault(operations.rotations[i].astype(np.int64).tobytes(), []).append(operations.translations[i])
    return {code: np.array(translations) for code, translations in found.items()}


def _positions(translations: np.ndarray) -> np.ndarray:
    return np.asarray(translations @ np.array([PARTS**2, PARTS, 1]))


def metric_mismatch(operations: Operations, gram: np.ndarray) -> float:
    """How far the operations are from keeping the cell: the largest change of a length or of an angle's cosine.

    Args:
        operations: of the cell.
        gram: (3, 3) products of the cell's vectors, square angstrom.
    """
    rotations = operations.rotations.astype(np.float64)
    changes = np.abs(rotations.transpose(0, 2, 1) @ gram @ rotations - gram)
    lengths = np.sqrt(gram.diagonal())
    return float((changes / np.outer(lengths, lengths)).max())


def space_group_number(operations: Operations) -> int | None:
    """The type of a group in any setting, by moyo: of a crystal that has these operations and no others.

    Three kinds of atoms on general positions of a cell that the operations keep have no symmetry beyond them.
    """
    from moyopy import Cell, MoyoDataset

    generator = np.random.default_rng(0)
    skew = np.eye(3) + 0.2 * generator.random((3, 3))
    rotations = operations.rotations.astype(np.float64)
    gram = (rotations.transpose(0, 2, 1) @ (skew @ np.diag([16.0, 25.0, 36.0]) @ skew.T) @ rotations).mean(0)
    # large enough that no two of the atoms are closer than the search can tell
    lattice = 10.0 * np.linalg.cholesky(gram)
    shifts = operations.translations / PARTS
    sites = np.array([[0.1237, 0.2371, 0.3919], [0.0713, 0.1641, 0.4127], [0.1873, 0.0591, 0.2803]])
    positions = np.concatenate([rotations @ site + shifts for site in sites]) % 1.0
    numbers = np.repeat([1, 2, 3], len(operations)).tolist()
    try:
        return int(MoyoDataset(Cell(lattice.tolist(), positions.tolist(), numbers), symprec=1e-3).number)
    except ValueError:
        return None


def from_lists(rotations: Sequence[Sequence[Sequence[int]]], translations: Iterable[Sequence[float]]) -> Operations:
    """Operations from matrices of integers and translations in fractions of the edges."""
    parts = np.rint(np.array(list(translations), dtype=np.float64) * PARTS).astype(np.int64) % PARTS
    return without_repeats(np.array(rotations, dtype=np.int64), parts)
