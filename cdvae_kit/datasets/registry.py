"""The public data sets: where their files are, what proves them, what is in them, and whom to thank.

Only what is known before a file is opened; reading is in `loading`, preprocessing in `cache`.
"""

from __future__ import annotations

import difflib
import logging
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from cdvae_kit.io.download import download_file
from cdvae_kit.io.user_cache import default_cache_dir
from cdvae_kit.typing import NamedProgress, OpenProgress

logger = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

DownloadProgress = NamedProgress
"""Called with a file's name (`perov_5/val.csv`), its bytes at hand and its bytes in all (None where not known)."""

_CDVAE = "https://raw.githubusercontent.com/txie-93/cdvae/f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea/data"
_DIFFCSP = "https://raw.githubusercontent.com/jiaor17/DiffCSP/7121d159826efa2ba9500bf299250d96da37f146/data"


_BYTES_PER_CRYSTAL = 20_000
"""Those of MP-20 take 1,252, those of carbon-24 1,143."""


@dataclass(frozen=True)
class PropertyInfo:
    """A column of numbers: its name, its unit ("" for none) and what it means."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set.

    Attributes:
        name: as it is asked for.
        summary: one sentence on what is in it.
        url: folder of its CSV files; None for a set that the package makes itself.
        blob_ids: the git blob id of each split's file.
        num_crystals: of each split.
        max_atoms: the most atoms in a crystal.
        properties: the columns of numbers.
        target: the property that models of this set predict and optimise.
        structure_cutoff: of the coverage metric, distance of CrystalNN fingerprints.
        composition_cutoff: of the coverage metric, distance of standardised Magpie features.
        licence: of the data, and of their packing.
        citations: whom to cite.
        note: what to know before trusting a number.
        num_bytes: the size of each split's file, where it is known.
    """

    name: str
    summary: str
    url: str | None
    blob_ids: Mapping[str, str]
    num_crystals: Mapping[str, int]
    max_atoms: int
    properties: tuple[PropertyInfo, ...]
    target: str
    structure_cutoff: float | None
    composition_cutoff: float | None
    licence: str
    citations: tuple[str, ...]
    note: str = ""
    num_bytes: Mapping[str, int] = field(default_factory=dict)

    def file_name(self, split: str) -> str:
        """Path of a split's file within a folder of data sets.

        >>> DATASETS["perov_5"].file_name("val")
        'perov_5/val.csv'
        """
        return f"{self.name}/{split}.csv"

    def max_bytes(self, split: str) -> int:
        """The most bytes that a split's file can have: ten times what a line with a CIF takes, a crystal."""
        return _BYTES_PER_CRYSTAL * self.num_crystals[split]


_XIE = "T. Xie, X. Fu, O.-E. Ganea, R. Barzilay, T. Jaakkola, ICLR 2022, arXiv 2110.06197 (packing and splits)"
_FORMATION_ENERGY = PropertyInfo("formation_energy_per_atom", "eV/atom", "DFT formation energy")

_ENTRIES = (
    DatasetInfo(
        name="perov_5",
        summary="ABX3 perovskites of 56 elements, DFT-relaxed, 5 atoms each.",
        url=f"{_CDVAE}/perov_5",
        blob_ids={
            "train": "0769074b5d51d293b765c4371b8f55c468c9c9f2",
            "val": "4a2c8dde98347dd0e01fa83dcf3982c2abe98f9f",
            "test": "d3c5d5af4b27a2a139149f2bb73c8a3dba9d8ac1",
        },
        num_crystals={"train": 11_356, "val": 3_787, "test": 3_785},
        max_atoms=5,
        properties=(
            PropertyInfo("heat_ref", "eV/atom", "formation energy"),
            PropertyInfo("heat_all", "eV/atom", "heat of formation as the source gives it"),
            PropertyInfo("dir_gap", "eV", "direct band gap"),
            PropertyInfo("ind_gap", "eV", "indirect band gap"),
        ),
        target="heat_ref",
        structure_cutoff=0.2,
        composition_cutoff=4.0,
        licence="as packed by CDVAE: MIT",
        citations=(
            "I. E. Castelli et al., Energy Environ. Sci. 5, 5814 (2012)",
            "I. E. Castelli et al., Energy Environ. Sci. 5, 9034 (2012), doi 10.1039/c2ee22341d",
            _XIE,
        ),
        note="Polymorphs of one composition stand on both sides of the split.",
        num_bytes={"val": 3_673_814, "test": 3_671_842},
    ),
    DatasetInfo(
        name="carbon_24",
        summary="Carbon at 10 GPa from random structure searching, DFT-relaxed, 6 to 24 atoms.",
        url=f"{_CDVAE}/carbon_24",
        blob_ids={
            "train": "5e7ae970fbad8ddc46b6963e8cd6e425f11783a6",
            "val": "b3e29b927883642426ca1d9632d00359b412742b",
            "test": "9beca843fde489de1fe288b32f9e3ff710d42803",
        },
        num_crystals={"train": 6_091, "val": 2_032, "test": 2_030},
        max_atoms=24,
        properties=(PropertyInfo("energy_per_atom", "eV/atom", "DFT energy at 10 GPa"),),
        target="energy_per_atom",
        structure_cutoff=0.2,
        composition_cutoff=4.0,
        licence="CC-BY 4.0; as packed by CDVAE: MIT",
        citations=("C. J. Pickard, Materials Cloud 2020.0026 (2020), doi 10.24435/materialscloud:2020.0026/v1", _XIE),
        note="Only about 40 % of the structures are distinct (arXiv 2509.12178): a match rate can mislead.",
        num_bytes={"val": 2_321_923, "test": 2_319_350},
    ),
    DatasetInfo(
        name="mp_20",
        summary="Inorganic compounds of 89 elements from the Materials Project, known to experiment, up to 20 atoms.",
        url=f"{_CDVAE}/mp_20",
        blob_ids={
            "train": "b1c9d498565ac2fd8d075a51ff2ef5e51ba6c21f",
            "val": "7efe4d7ebeb4f460ceaad35e5326c42111d9c9a1",
            "test": "5dc643041df53f5ce4970a79930ad262b4f07acd",
        },
        num_crystals={"train": 27_136, "val": 9_047, "test": 9_046},
        max_atoms=20,
        properties=(
            _FORMATION_ENERGY,
            PropertyInfo("band_gap", "eV", "DFT band gap"),
            PropertyInfo("e_above_hull", "eV/atom", "energy above the convex hull"),
        ),
        target="formation_energy_per_atom",
        structure_cutoff=0.4,
        composition_cutoff=10.0,
        licence="CC-BY 4.0 (Materials Project); as packed by CDVAE: MIT",
        citations=("A. Jain et al., APL Mater. 1, 011002 (2013), doi 10.1063/1.4812323", _XIE),
    ),
    DatasetInfo(
        name="mpts_52",
        summary="Materials Project compounds up to 52 atoms, split by the year they were first reported.",
        url=f"{_DIFFCSP}/mpts_52",
        blob_ids={
            "train": "28c53b0a0fd3f32fb8078aca8e5b484e372790c6",
            "val": "a377ba0ca7bee37ee69d9f50f8362eaa35d9f690",
            "test": "2e8af159618f63be346b6527f155514323964423",
        },
        num_crystals={"train": 27_380, "val": 5_000, "test": 8_096},
        max_atoms=52,
        properties=(_FORMATION_ENERGY,),
        target="formation_energy_per_atom",
        structure_cutoff=0.4,
        composition_cutoff=10.0,
        licence="CC-BY 4.0 (Materials Project); as packed by DiffCSP: MIT",
        citations=(
            "S. G. Baird et al., J. Open Source Softw. 9, 5618 (2024), doi 10.21105/joss.05618",
            "R. Jiao et al., NeurIPS 2023, arXiv 2309.04475 (packing)",
            "A. Jain et al., APL Mater. 1, 011002 (2013), doi 10.1063/1.4812323",
        ),
        note="Its coverage cutoffs are those of MP-20; none were published for it.",
    ),
    DatasetInfo(
        name="ionic_prototypes",
        summary="Charge-balanced ionic crystals in 17 structure types, made by this package, 2 to 14 atoms.",
        url=None,
        blob_ids={},
        num_crystals={"train": 1_503, "val": 189, "test": 197},
        max_atoms=14,
        properties=(PropertyInfo("ewald_energy", "eV/atom", "electrostatic energy of the formal charges"),),
        target="ewald_energy",
        structure_cutoff=None,
        composition_cutoff=None,
        licence="made by this package: MIT",
        citations=("R. D. Shannon, Acta Cryst. A 32, 751 (1976), doi 10.1107/S0567739476001551 (the radii)",),
        note="A toy with right geometry: no claim that a compound exists or is stable.",
    ),
)

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


class UnknownDatasetError(ValueError):
    """A name that stands for no data set."""

    def __init__(self, name: str) -> None:
        simple = name.lower().replace("-", "_")
        close = difflib.get_close_matches(simple, DATASETS, n=1, cutoff=0.5)
        hint = f", did you mean {close[0]!r}?" if close else "."
        super().__init__(f"there is no data set {name!r}{hint} Known are: {', '.join(DATASETS)}")


def dataset_info(name: str) -> DatasetInfo:
    """The entry of that name; an unknown one raises `UnknownDatasetError` with the nearest known names."""
    if name in DATASETS:
        return DATASETS[name]
    raise UnknownDatasetError(name)


def describe_dataset(name: str) -> str:
    """A few lines of text on a data set: size, properties with units, licence, citations.

    >>> print(describe_dataset("carbon_24").splitlines()[0])
    carbon_24: Carbon at 10 GPa from random structure searching, DFT-relaxed, 6 to 24 atoms.
    """
    info = dataset_info(name)
    lines = [f"{info.name}: {info.summary}"]
    lines.append("crystals: " + ", ".join(f"{count:,} {split}" for split, count in info.num_crystals.items()))
    for item in info.properties:
        target = " (the target)" if item.name == info.target else ""
        lines.append(f"property: {item.name}, {item.unit or 'no unit'}: {item.meaning}{target}")
    if info.structure_cutoff is not None and info.composition_cutoff is not None:
        lines.append(f"coverage cutoffs: structure {info.structure_cutoff:g}, composition {info.composition_cutoff:g}")
    lines.append(f"source: {info.url or 'made by this package, nothing to download'}")
    lines.append(f"licence: {info.licence}")
    lines.extend(f"cite: {citation}" for citation in info.citations)
    if info.note:
        lines.append(f"note: {info.note}")
    return "\n".join(lines)


def default_data_dir() -> Path:
    """Where downloaded data sets lie unless another folder is named."""
    return default_cache_dir() / "datasets"


def download_dataset(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    source: str | os.PathLike[str] | None = None,
    splits: Sequence[str] = SPLITS,
    overwrite: bool = False,
    progress: DownloadProgress | None = None,
) -> dict[str, Path]:
    """The files of a public data set by split, downloaded to `<folder>/<name>/` where they are not there yet.

    Every file is checked by its git blob id, whatever it comes from.

    Args:
        name: of the data set.
        folder: of all data sets; by default one in the user's cache.
        source: a mirror, folder or address, that holds `<name>/<split>.csv` or `<name>/<split>.csv.gz`; by default
            the public address.
        splits: which files.
        overwrite: whether a file with other content may be replaced.
        progress: called with the file's name, its bytes at hand and in all.
    """
    info = dataset_info(name)
    if info.url is None:
        raise ValueError(f"{name} is made by the package itself, there is nothing to download: load_dataset({name!r})")
    for split in splits:
        if split not in info.blob_ids:
            raise ValueError(f"{name} has no split {split!r}; it has {', '.join(info.blob_ids)}")
    target = Path(folder) if folder is not None else default_data_dir()
    paths = {}
    for split in splits:
        file_name = info.file_name(split)
        url = f"{info.url}/{split}.csv" if source is None else _in_mirror(source, file_name)
        logger.info("%s from %s", file_name, url)
        paths[split] = download_file(
            url,
            target / file_name,
            git_blob_id=info.blob_ids[split],
            num_bytes=info.num_bytes.get(split),
            max_bytes=info.max_bytes(split),
            overwrite=overwrite,
            progress=None if progress is None else _named(progress, file_name),
        )
    return paths


def _in_mirror(source: str | os.PathLike[str], file_name: str) -> str:
    text = os.fspath(source)
    if urllib.parse.urlsplit(text).scheme in ("http", "https", "file"):
        return f"{text.rstrip('/')}/{file_name}"
    return os.path.join(text, file_name)


def _named(progress: DownloadProgress, file_name: str) -> OpenProgress:
    return lambda done, total: progress(file_name, done, total)
