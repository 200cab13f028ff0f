"""Sound files made unsound: bytes, words, lines, and nodes of JSON, from a seed."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import zipfile
from typing import Any

NUMBERS = (
    *("nan", "inf", "-inf", "1e400", "-1e400", "4e10", "1e-300", "0", "-0", "-1", "1", "2147483648", "1e5", "0x10"),
    *("9" * 5000, "1" + "0" * 400, "0." + "3" * 1600, "1/0", "1/3", "5(99)", "1_000", "1d3", "٣", ".", "?", "-", ""),
)
WORDS = (
    *(
        "data_",
        "loop_",
        "_cell_length_a",
        ";",
        "'",
        '"',
        "\0",
        "\x1b[2J",
        "=cmd",
        "../../x",
        "{}",
        "[]",
        "null",
        "true",
    ),
    *("\n", "\r", "\t", ",", ":", " " * 5000, "x,y,z," * 300, "Uue", "Og", "WAT", "D", "é", "\ufeff", "\U0001f48e"),
    *("Lattice=", "Properties=species:S:1:pos:R:3", "Direct", "Selective dynamics", "@data", "@class", "[model]"),
    *("(" * 3000, "[" * 3000, '{"a":' * 2000, "__class__", "@module", "digest", "crc32"),
)
NODES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**63, 10**30, 1e308, -1e308, 0.1, "", "x", "nan", "\ud800", "9" * 500),
    *([], {}, [[]], [None], {"": None}, [0] * 2000, "a" * 10_000),
)


def mutated(content: bytes, random_: random.Random, others: list[bytes]) -> bytes:
    """Content with one to three faults.

    Args:
        content: of a sound file.
        random_: what is drawn comes from here.
        others: sound files of the same kind, to splice with.
    """
    if content[:2] == b"\x1f\x8b" and random_.random() < 0.6:
        return gzip.compress(mutated(gzip.decompress(content), random_, []), mtime=0)
    if content[:4] == b"PK\x03\x04" and random_.random() < 0.6:
        return _in_archive(content, random_)
    for _ in range(random_.randint(1, 3)):
        content = random_.choice(_WAYS)(content, random_)
    if others and random_.random() < 0.05:
        other = random_.choice(others)
        content = content[: random_.randrange(len(content) + 1)] + other[random_.randrange(len(other) + 1) :]
    return content


def _in_archive(content: bytes, random_: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            inner = old.read(name)
            new.writestr(name, mutated(inner, random_, []) if random_.random() < 0.7 else inner)
    return buffer.getvalue()


def _flip(content: bytes, random_: random.Random) -> bytes:
    if not content:
        return b"\0"
    changed = bytearray(content)
    for _ in range(random_.choice((1, 1, 2, 8))):
        changed[random_.randrange(len(changed))] = random_.choice((0, 255, 10, 48, random_.randrange(256)))
    return bytes(changed)


def _cut(content: bytes, random_: random.Random) -> bytes:
    return content[: random_.randrange(len(content) + 1)]


def _remove(content: bytes, random_: random.Random) -> bytes:
    start = random_.randrange(len(content) + 1)
    return content[:start] + content[start + random_.choice((1, 2, 10, 200)) :]


def _repeat(content: bytes, random_: random.Random) -> bytes:
    start = random_.randrange(len(content) + 1)
    part = content[start : start + random_.choice((1, 10, 300))]
    return content[:start] + part * random_.choice((2, 3, 200)) + content[start:]


def _insert(content: bytes, random_: random.Random) -> bytes:
    start = random_.randrange(len(content) + 1)
    return content[:start] + random_.choice(WORDS).encode() + content[start:]


def _number(content: bytes, random_: random.Random) -> bytes:
    found = list(re.finditer(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?", content[:200_000]))
    if not found:
        return _flip(content, random_)
    match = random_.choice(found)
    return content[: match.start()] + random_.choice(NUMBERS).encode() + content[match.end() :]


def _word(content: bytes, random_: random.Random) -> bytes:
    found = list(re.finditer(rb"[A-Za-z_][\w.]*", content[:200_000]))
    if not found:
        return _insert(content, random_)
    match = random_.choice(found)
    return content[: match.start()] + random_.choice(WORDS).encode() + content[match.end() :]


def _lines(content: bytes, random_: random.Random) -> bytes:
    lines = content.split(b"\n")
    i, j = random_.randrange(len(lines)), random_.randrange(len(lines))
    match random_.randrange(4):
        case 0:
            lines[i], lines[j] = lines[j], lines[i]
        case 1:
            del lines[i]
        case 2:
            lines.insert(j, lines[i])
        case _:
            lines[i] = lines[i][: random_.randrange(len(lines[i]) + 1)]
    return b"\n".join(lines)


def _node(content: bytes, random_: random.Random) -> bytes:
    """Another value at a place of JSON, of the whole file or of one of its lines."""
    lines = content.split(b"\n") if b"\n{" in content else [content]
    i = random_.randrange(len(lines))
    try:
        tree = json.loads(lines[i])
    except (ValueError, RecursionError):
        return _word(content, random_)
    holder: list[Any] = [tree]
    place: Any = 0
    inside: Any = holder
    while random_.random() < 0.85:
        value = inside[place]
        if isinstance(value, dict) and value:
            inside, place = value, random_.choice(list(value))
        elif isinstance(value, list) and value:
            inside, place = value, random_.randrange(len(value))
        else:
            break
    match random_.randrange(4):
        case 0 if inside is not holder:
            del inside[place]
        case 1 if isinstance(inside, dict):
            inside["odd"] = inside.pop(place)
        case 2 if isinstance(inside[place], int | float) and abs(inside[place]) < 1e300:
            inside[place] = inside[place] * random_.choice((-1, 0, 1e10, 1e-10, 3)) + random_.choice((0, 1, 0.5))
        case _:
            inside[place] = random_.choice(NODES)
    try:
        lines[i] = json.dumps(holder[0]).encode()
    except (ValueError, RecursionError):
        return content
    return b"\n".join(lines)


_WAYS = (_flip, _cut, _remove, _repeat, _insert, _number, _number, _word, _lines, _node, _node)
