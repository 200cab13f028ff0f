"""What the pictures of an experiment show, as numbers; `visualization.experiments` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor


@dataclass(frozen=True)
class Bars:
    """One bar an arm, with its standard error and a dot a seed.

    Attributes:
        values: the arm's label and its value for each seed.
        reference: a level to compare with, for instance chance, and its label.
        log: orders of magnitude count: dots without bars; what is 0 says so.
    """

    title: str
    y_label: str
    values: Mapping[str, Sequence[float]]
    reference: tuple[str, float] | None = None
    log: bool = False


@dataclass(frozen=True)
class Curve:
    """A line through points, with the standard error as a band where it is known."""

    x: Sequence[float]
    y: Sequence[float]
    standard_error: Sequence[float] | None = None


@dataclass(frozen=True)
class Lines:
    """Curves over a common axis."""

    title: str
    x_label: str
    y_label: str
    curves: Mapping[str, Curve]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Matrix:
    """A table as colours, with its numbers written into the fields.

    Attributes:
        values: one row for each of `rows`, one number for each of `columns`.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    row_label: str = ""
    column_label: str = ""


@dataclass(frozen=True)
class Pictures:
    """Images in a grid.

    Attributes:
        images: (num_rows, num_columns, channels, h, w) in [0, 1], 1 or 3 channels.
        row_labels: one a row, or none at all.
    """

    title: str
    images: Tensor
    row_labels: Sequence[str] = ()


@dataclass(frozen=True)
class Points:
    """Points of a plane whose axes have no unit, one colour a group.

    Attributes:
        groups: label, written at the middle of its points, to their x and y.
    """

    title: str
    groups: Mapping[str, tuple[Sequence[float], Sequence[float]]]


Panel: TypeAlias = Bars | Lines | Matrix | Pictures | Points
