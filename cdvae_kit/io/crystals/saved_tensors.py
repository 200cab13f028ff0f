"""Crystals in the files that CDVAE's own scripts save (`eval_gen.pt`, `eval_recon.pt`, `eval_opt.pt`): tensors alone.

Such a file is a zip of raw numbers and a program of PyTorch's own that puts tensors around them. The program is never
run: its steps are followed by hand, tensors are made of the numbers by numpy, and every other thing that it would build
(the script's arguments, a batch of graphs) becomes an empty box. No name in the file is looked up.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from cdvae_kit.crystal.arrays import lattice_matrix
from cdvae_kit.io.crystals.limits import current_max_bytes, current_reader_limits, how_to_raise, largest_unpacked
from cdvae_kit.io.crystals.records import ReadFailure, Record, UnreadableSourceError

_DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_DAMAGE = (
    *(LookupError, TypeError, ValueError, ArithmeticError, AttributeError),
    *(OSError, EOFError, RuntimeError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile),
)
_NEEDED = ("frac_coords", "num_atoms", "atom_types", "lengths", "angles")
_SKIPPED_OPCODES = {"PROTO", "FRAME"}


class _Box:
    """A thing of the program that is not built."""


class _Name:
    """A name that the program asks for; it is compared, never looked up."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Mark:
    """Where a tuple or a call begins on the stack."""


class _ProgramError(ValueError):
    """A program that does what no saved tensor needs."""


def cut_saved_tensors(content: bytes, source: str, stem: str) -> Iterator[Record | ReadFailure]:
    """One record a crystal; of several samples of each, all."""
    tables = _tensors(content)
    missing = [name for name in _NEEDED if not isinstance(tables.get(name), np.ndarray)]
    if missing:
        raise UnreadableSourceError(
            f"holds no crystals as CDVAE's scripts save them: it has no tensor {', '.join(missing)}; it has "
            f"{', '.join(sorted(map(str, tables))[:12])}"
        )
    frac_coords, num_atoms, atom_types, lengths, angles = (tables[name] for name in _NEEDED)
    num_samples = 1 if num_atoms.ndim < 2 else len(num_atoms)
    counts = num_atoms.reshape(num_samples, -1).astype(np.int64)
    try:
        coords = frac_coords.reshape(num_samples, -1, 3).astype(np.float64)
        types = atom_types.reshape(num_samples, -1).astype(np.int64)
        cells = np.concatenate(
            [part.reshape(num_samples, counts.shape[1], 3).astype(np.float64) for part in (lengths, angles)], axis=-1
        )
    except ValueError as error:
        raise UnreadableSourceError(f"holds tensors of shapes that are not those of crystals ({error})") from error
    for sample in range(num_samples):
        if (counts[sample] < 0).any() or counts[sample].sum() != coords.shape[1] != types.shape[1]:
            raise UnreadableSourceError(
                f"num_atoms sums to {counts[sample].sum()}, and there are {coords.shape[1]} coordinates"
            )
        ends = counts[sample].cumsum()
        for i, (start, end) in enumerate(zip(ends - counts[sample], ends, strict=True)):
            name = f"{stem}-{i}" if num_samples == 1 else f"{stem}-{sample}-{i}"
            place = f"crystal {i}" if num_samples == 1 else f"crystal {i} of sample {sample}"
            with np.errstate(all="ignore"):
                lattice = lattice_matrix(cells[sample, i, :3].tolist(), cells[sample, i, 3:].tolist())
            arrays = {
                "lattice": lattice.ravel(),
                "frac_coords": coords[sample, start:end].ravel(),
                "atomic_numbers": types[sample, start:end],
            }
            yield Record(source, place, "structure", arrays, name)


def _tensors(content: bytes) -> dict[str, Any]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        names = archive.namelist()
        program_name = next(name for name in names if name.endswith("/data.pkl") or name == "data.pkl")
    except (*_DAMAGE, StopIteration) as error:
        raise UnreadableSourceError(
            "is no file of tensors as PyTorch 1.6 and later save them (a zip with data.pkl); it may be older or damaged"
        ) from error
    most, limit = largest_unpacked(len(content))
    if sum(info.file_size for info in archive.infolist()) > most:
        raise _too_much(f"it unpacks to more than {most} bytes", limit)
    folder = program_name.removesuffix("data.pkl")
    try:
        little = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
        order: Literal["<", ">"] = ">" if little.strip() == b"big" else "<"
        result = _follow(archive.read(program_name), _Storages(archive, folder, order))
    except _DAMAGE as error:
        told = f" ({error})" if isinstance(error, _ProgramError) else ""
        raise UnreadableSourceError(f"is a damaged file of tensors{told}; fetch it again") from error
    if not isinstance(result, dict):
        raise UnreadableSourceError("holds no table of tensors; expected what CDVAE's scripts save")
    return {str(name): value for name, value in result.items() if isinstance(name, str)}


class _Storages:
    """The raw numbers of the archive, each read once, and how many bytes may still become tensors."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, order: Literal["<", ">"]) -> None:
        self._archive, self._folder, self._order = archive, folder, order
        self._known: dict[tuple[str, str], np.ndarray] = {}
        self._most = self._left = current_max_bytes()

    def read(self, kind: str, key: str) -> np.ndarray:
        if kind not in _DTYPES:
            raise _ProgramError(f"a tensor of {kind}")
        if (kind, key) not in self._known:
            dtype = np.dtype(_DTYPES[kind]).newbyteorder(self._order)
            content = self._archive.read(f"{self._folder}data/{key}")
            self.spend(len(content))
            self._known[kind, key] = np.frombuffer(content, dtype=dtype)
        return self._known[kind, key]

    def spend(self, num_bytes: int) -> None:
        self._left -= num_bytes
        if self._left < 0:
            raise _too_much(f"its tensors have more than {self._most} bytes", "max_bytes")


def _too_much(what: str, limit: str) -> UnreadableSourceError:
    return UnreadableSourceError(f"holds too much: {what}; {how_to_raise(limit)}")


def _follow(program: bytes, storages: _Storages) -> Any:
    """What the program leaves on its stack: plain values, arrays for tensors, boxes for all the rest."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    most = current_reader_limits().max_steps
    for step, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if step > most:
            raise _too_much(f"its program has more than {most} steps", "max_steps")
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in _SKIPPED_OPCODES:
            continue
        if name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[_whole(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[_whole(argument)])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif argument is not None and isinstance(argument, str | int | float | bytes) and name not in _NAMES:
            stack.append(argument)
        else:
            _act(name, argument, stack, storages)
    raise _ProgramError("it has no end")


def _whole(argument: Any) -> int:
    return int(argument)


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
    "MARK": _Mark,
}
_NAMES = {"GLOBAL", "INST", "PERSID", "EXT1", "EXT2", "EXT4"}


def _act(name: str, argument: Any, stack: list[Any], storages: _Storages) -> None:
    if name == "GLOBAL":
        stack.append(_Name(str(argument).replace(" ", ".")))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(_Name(f"{module}.{attribute}"))
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        size = int(name[-1])
        stack[-size:] = [tuple(stack[-size:])]
    elif name in ("TUPLE", "LIST", "FROZENSET"):
        stack.append(tuple(_to_mark(stack)))
    elif name == "DICT":
        items = _to_mark(stack)
        stack.append(_filled({}, items))
    elif name in ("SETITEMS", "SETITEM"):
        items = _to_mark(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        _filled(stack[-1], items)
    elif name in ("APPENDS", "APPEND", "ADDITEMS"):
        items = [stack.pop()] if name == "APPEND" else _to_mark(stack)
        if isinstance(stack[-1], list):
            stack[-1].extend(items)
    elif name == "BINPERSID":
        stack.append(_stored(stack.pop(), storages))
    elif name == "REDUCE":
        arguments, called = stack.pop(), stack.pop()
        stack.append(_made(called, arguments, storages))
    elif name in ("NEWOBJ", "NEWOBJ_EX"):
        del stack[-(2 if name == "NEWOBJ" else 3) :]
        stack.append(_Box())
    elif name == "BUILD":
        stack.pop()
    elif name in ("POP", "POP_MARK"):
        stack.pop() if name == "POP" else _to_mark(stack)
    elif name == "DUP":
        stack.append(stack[-1])
    else:
        raise _ProgramError(f"the step {name}, which no saved tensor needs")


def _to_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while not isinstance(stack[-1], _Mark):
        items.append(stack.pop())
    stack.pop()
    return items[::-1]


def _filled(table: Any, items: list[Any]) -> Any:
    if isinstance(table, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            # keys that are boxes would all be one
            if isinstance(key, str | int | float | bool | bytes):
                table[key] = value
    return table


def _stored(reference: Any, storages: _Storages) -> Any:
    """The numbers of ("storage", kind, key, device, count)."""
    if not (isinstance(reference, tuple) and len(reference) >= 3 and reference[0] == "storage"):
        return _Box()
    kind, key = reference[1], reference[2]
    if not isinstance(kind, _Name) or not str(key).isalnum():
        raise _ProgramError("a storage without a type")
    return storages.read(kind.name.rsplit(".", 1)[-1], str(key))


def _made(called: Any, arguments: Any, storages: _Storages) -> Any:
    name = called.name if isinstance(called, _Name) else ""
    if name == "collections.OrderedDict":
        return {}
    if name == "torch._utils._rebuild_tensor_v2" and isinstance(arguments[0], np.ndarray):
        numbers, offset, shape, strides = arguments[:4]
        shape, strides = tuple(map(int, shape)), tuple(map(int, strides))
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        size = int(np.prod(shape, dtype=object))
        if (
            offset < 0
            or min((*shape, *strides), default=0) < 0
            or size > len(numbers)
            or (size and last >= len(numbers))
        ):
            raise _ProgramError("a tensor larger than its numbers")
        # a program may ask for the same numbers again and again
        storages.spend(size * numbers.itemsize)
        item = numbers.itemsize
        view = np.lib.stride_tricks.as_strided(
            numbers[offset:], shape, tuple(stride * item for stride in strides), writeable=False
        )
        return np.ascontiguousarray(view).astype(view.dtype.newbyteorder("="))
    return _Box()
