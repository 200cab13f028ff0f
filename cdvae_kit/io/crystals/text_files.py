"""Files of text cut into records: the blocks of a CIF; a POSCAR is one record, frames are cut in `extxyz`."""

from __future__ import annotations

from collections.abc import Iterator

from cdvae_kit.io.crystals.records import ReadFailure, Record


def cut_cif(text: str, source: str, stem: str) -> Iterator[Record | ReadFailure]:
    """One record a data block that has atoms or a cell; "data_" inside a text field begins none."""
    blocks: list[tuple[int, list[str]]] = []
    in_text_field = False
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith(";"):
            in_text_field = not in_text_field
        if not in_text_field and line.lstrip()[:5].lower() == "data_":
            blocks.append((number, [line.lstrip()]))
        elif blocks:
            blocks[-1][1].append(line)
    texts = [(number, "\n".join(block)) for number, block in blocks]
    if len(texts) > 1:
        # journals put their own block of authors and titles before the crystals
        texts = [item for item in texts if _has_crystal(item[1])] or texts[:1]
    if not texts:
        yield ReadFailure(source, "", "holds no CIF data block (a line that starts with data_)")
    for number, block in texts:
        header = block.split(maxsplit=1)[0][5:]
        name, place = (stem, "") if len(texts) == 1 else (header or stem, f"block data_{header}")
        yield Record(source, place, "cif", block + "\n", name, first_line=number)


def _has_crystal(block: str) -> bool:
    lower = block.lower()
    return "_atom_site" in lower or "_cell_length" in lower or "_cell.length" in lower


def cut_poscar(text: str, source: str, stem: str) -> Iterator[Record | ReadFailure]:
    yield Record(source, "", "poscar", text, stem)
