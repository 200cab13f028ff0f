"""The formats of crystals in one place: their endings, how they are cut into records, and what writes them.

A new format is one entry of `FORMATS`, beside the functions that cut and write it; `reading`, `writing` and the
command line go by this table. Nothing here loads a heavy package: functions are named, and looked up when called.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from cdvae_kit.io.crystals.records import ReadFailure, Record

ReadFormat = Literal[
    "auto",
    "cif",
    "poscar",
    "extxyz",
    "ase_db",
    "csv",
    "parquet",
    "json",
    "jsonl",
    "journal",
    "saved_tensors",
    "optimade",
    "folder",
    "zip",
]
"""What a path holds; "auto" goes by its name, and for JSON by its content."""

WriteFormat = Literal[
    "auto", "extxyz", "cif", "symmetrized_cif", "cif_folder", "poscar_folder", "ase_db", "parquet", "csv", "json"
]
"""What to write; "auto" goes by the ending of the path, a path without one is a folder of CIFs."""

_HERE = "cdvae_kit.io.crystals"


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        name: as in `ReadFormat` or `WriteFormat`.
        suffixes: endings of file names, the first one for files that are written.
        prefixes: beginnings of file names, in small letters.
        cut: "module:function" that makes records; None where it is only written.
        takes: what `cut` gets: the decoded text, the unpacked bytes, or the path.
        has_ids: whether `cut` takes the column of the names too.
        in_folders: whether it is looked for in folders and archives.
        write: "module:function" from a batch to text, to a list of texts for a folder, or into a path.
        writes: which of these.
        write_suffixes: endings that mean this format when it is written; `suffixes` where that is None.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    cut: str | None = None
    takes: Literal["text", "bytes", "path"] = "text"
    has_ids: bool = False
    in_folders: bool = False
    write: str | None = None
    writes: Literal["text", "folder", "path"] = "text"
    write_suffixes: tuple[str, ...] | None = None


FORMATS: tuple[Format, ...] = (
    Format(
        "cif",
        (".cif", ".mcif", ".mmcif"),
        cut="text_files:cut_cif",
        in_folders=True,
        write="encoding:cif_text",
        write_suffixes=(".cif",),
    ),
    Format("symmetrized_cif", write="symmetrized:symmetrized_cif_text", write_suffixes=()),
    Format("poscar", (".vasp", ".poscar"), ("poscar", "contcar"), cut="text_files:cut_poscar", in_folders=True),
    Format("extxyz", (".extxyz", ".xyz"), cut="extxyz:cut_frames", in_folders=True, write="encoding:extxyz_text"),
    Format(
        "ase_db",
        (".db",),
        cut="tables:cut_database",
        takes="path",
        has_ids=True,
        write="encoding:fill_database",
        writes="path",
    ),
    Format(
        "csv",
        (".csv",),
        cut="tables:cut_csv",
        has_ids=True,
        write="encoding:csv_text",
    ),
    Format(
        "parquet",
        (".parquet",),
        cut="tables:cut_parquet",
        takes="path",
        has_ids=True,
        write="encoding:fill_parquet",
        writes="path",
    ),
    Format("json", (".json",), cut="json_tables:cut_json", has_ids=True, write="encoding:json_text"),
    Format("jsonl", (".jsonl", ".ndjson"), cut="json_tables:cut_json_lines", has_ids=True),
    Format("journal", cut="tables:cut_journal"),
    Format("saved_tensors", (".pt",), cut="saved_tensors:cut_saved_tensors", takes="bytes"),
    Format("cif_folder", write="encoding:cif_texts", writes="folder", write_suffixes=("",)),
    Format("poscar_folder", write="encoding:poscar_texts", writes="folder", write_suffixes=()),
)

_BY_NAME = {found.name: found for found in FORMATS}
_BY_SUFFIX = {suffix: found for found in FORMATS for suffix in found.suffixes}

FILE_SUFFIX_IN_FOLDER = {"cif_folder": ".cif", "poscar_folder": ".vasp"}


def format_named(name: str) -> Format:
    """The format of that name; `ValueError` where there is none."""
    if name not in _BY_NAME:
        raise ValueError(f"unknown format {name!r}; choose one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def format_of_name(name: str) -> Format | None:
    """What a file's name says that it is; None where it says nothing.

    >>> format_of_name("perov/val.csv.gz").name
    'csv'
    """
    lower = PurePosixPath(name).name.lower().removesuffix(".gz")
    by_prefix = next((found for found in FORMATS if found.prefixes and lower.startswith(found.prefixes)), None)
    return by_prefix or _BY_SUFFIX.get(PurePosixPath(lower).suffix)


def known_suffixes() -> list[str]:
    return list(_BY_SUFFIX)


def query_of(path: str | os.PathLike[str]) -> str | None:
    """The question to a server that a name stands for; None where it is a path. A `Path` has lost a slash of it.

    >>> query_of(Path("optimade://example.org?nelements=2"))
    'optimade://example.org?nelements=2'
    """
    found = re.match(r"optimade:[/\\]{1,2}", os.fspath(path), re.IGNORECASE)
    return None if found is None else f"optimade://{os.fspath(path)[found.end() :]}"


def write_format_of_suffix(suffix: str) -> Format | None:
    """What is written to a path with this ending."""
    for found in FORMATS:
        if found.write is not None and suffix in (
            found.suffixes if found.write_suffixes is None else found.write_suffixes
        ):
            return found
    return None


def written_suffixes() -> list[str]:
    endings = [found.suffixes if found.write_suffixes is None else found.write_suffixes for found in _writers()]
    return [suffix for group in endings for suffix in group if suffix]


def packable_suffixes() -> list[str]:
    """Formats that may be written with .gz behind the ending."""
    return [found.name for found in _writers() if found.writes == "text"]


def _writers() -> list[Format]:
    return [found for found in FORMATS if found.write is not None]


def function(name: str) -> Callable[..., Any]:
    """The function of an entry such as "encoding:csv_text"."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"{_HERE}.{module}"), attribute)
    return found


def stem_of(name: str) -> str:
    """A path without its endings: what a crystal without a name is called after.

    >>> stem_of("a/quartz.cif.gz"), stem_of("POSCAR")
    ('a/quartz', 'POSCAR')
    """
    path = PurePosixPath(name)
    if path.suffix.lower() == ".gz":
        path = path.with_suffix("")
    return str(path.with_suffix("")) if path.suffix.lower() in (*_BY_SUFFIX, ".zip") else str(path)


def cut(
    found: Format, content: str | bytes | Path, source: str, stem: str, id_column: str
) -> Iterator[Record | ReadFailure]:
    """The records of a file of this format.

    Args:
        found: the format.
        content: text, bytes or path, as its `takes` says.
        source: what to call the file.
        stem: what to call a crystal that has no name.
        id_column: the column of the names in tables.
    """
    if found.cut is None:
        raise ValueError(f"{found.name} is written, not read")
    records: Iterator[Record | ReadFailure] = function(found.cut)(
        content, source, stem, *([id_column] if found.has_ids else [])
    )
    return records
