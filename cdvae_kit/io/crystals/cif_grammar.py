"""The text of a CIF block as tags and values, by gemmi's grammar; what the tags mean is found out in `cif`.

Tags are compared in small letters and with dots as underscores, so that names of both dictionaries and of any case are
one. A text that is no CIF is refused with its line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gemmi import cif

NULLS = ("?", ".")

_UNQUOTED = re.compile(
    r"^(\s*_(?:symmetry|space_group|chemical|refine_ls)[\w.\-]*(?:name|formula)[\w.\-]*[ \t]+)"
    r"(?![\"'#;\s])([^\n\"'#]*[^\s\"'#][ \t]+[^\n\"'#]*?)[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_PLACE = re.compile(r"^string:(\d+)(?::\d+\(\d+\))?:?\s*(?:in data_\S*:\s*)?(.*)$", re.DOTALL)
_NO_BLOCK = "holds no CIF data block (a line that starts with data_)"


class GrammarError(ValueError):
    """A text that is no CIF, and where."""


@dataclass(frozen=True)
class CifBlock:
    """A data block.

    Attributes:
        name: what stands after data_.
        items: tag to its values, as the file has them, quotes included; one value where it is not looped.
    """

    name: str
    items: dict[str, list[str]]

    def column(self, *tags: str) -> list[str] | None:
        """The values of the first of the tags that the block has, without quotes."""
        for tag in tags:
            values = self.items.get(tag)
            if values is not None:
                return [plain(value) for value in values]
        return None

    def value(self, *tags: str) -> str | None:
        """The one value of the first of the tags that says something: neither unknown (?) nor inapplicable (.)."""
        for tag in tags:
            values = self.items.get(tag)
            if values and values[0] not in NULLS:
                return plain(values[0])
        return None


def plain(value: str) -> str:
    """A value without its quotes; a quoted "?" is the text."""
    return cif.as_string(value) if value[:1] in "'\";" and value else value


def parse_block(text: str, *, first_line: int = 1) -> CifBlock:
    """The one block of a text that has atoms or a cell.

    Args:
        text: from its "data_" on.
        first_line: the number of its first line in the file, for messages.

    Raises:
        GrammarError: it is no CIF, has no block or several crystals.
    """
    document = _document(_cleaned(text), first_line)
    blocks = [_block(block) for block in document]
    if len(blocks) > 1:
        # journals put their own block of authors and titles before the crystals
        blocks = [block for block in blocks if any(tag.startswith(("_atom_site", "_cell_len")) for tag in block.items)]
    if not blocks:
        raise GrammarError(_NO_BLOCK)
    if len(blocks) > 1:
        names = ", ".join(f"data_{block.name}" for block in blocks[:5])
        raise GrammarError(f"expected one crystal, got the blocks {names}; put each into a record of its own")
    return blocks[0]


def _cleaned(text: str) -> str:
    if not text.isascii():
        # letters of all languages stand in quotes and comments, where gemmi takes none of them
        text = text.replace("\u00a0", " ").replace("\u2212", "-").replace("\ufeff", "")
        text = re.sub(r"[^\x00-\x7f]", "~", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isprintable():
        text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", " ", text)
    return text


def _document(text: str, first_line: int) -> cif.Document:
    try:
        return cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        quoted = _UNQUOTED.sub(r"\1'\2'", text)
        try:
            # a symbol or formula without its quotes is common, and says the same
            return cif.read_string(quoted) if quoted != text else _refuse(error, first_line)
        except (ValueError, RuntimeError):
            return _refuse(error, first_line)


def _refuse(error: Exception, first_line: int) -> cif.Document:
    found = _PLACE.match(str(error))
    if found is None:
        raise GrammarError(f"is no CIF: {error}") from error
    line = int(found.group(1)) + first_line - 1
    if "expected block header" in found.group(2):
        raise GrammarError(f"{_NO_BLOCK}; line {line} comes first") from error
    raise GrammarError(f"is no CIF at line {line}: {found.group(2).strip()}") from error


def _block(block: cif.Block) -> CifBlock:
    items: dict[str, list[str]] = {}
    for item in iter(block):
        pair: Any = item.pair
        if pair is not None:
            _add(items, pair[0], [pair[1]])
            continue
        loop = item.loop
        if loop is not None:
            values, width = loop.values, loop.width()
            for i, tag in enumerate(loop.tags):
                _add(items, tag, values[i::width])
    return CifBlock(block.name, items)


def _add(items: dict[str, list[str]], tag: str, values: list[str]) -> None:
    name = tag.lower().replace(".", "_").rstrip("_")
    # of two spellings of a tag, one may say nothing
    if name not in items or all(value in NULLS for value in items[name]):
        items[name] = values
