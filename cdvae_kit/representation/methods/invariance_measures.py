"""Tables of frozen encoders: how far each feels each transform, and how well each serves each target.

Both measures of Speicher, Nanda and Gummadi, "Understanding the role of invariance in transfer learning" (TMLR 2024,
arXiv 2407.04325), for any encoder, probe and kind of data. Their experiments are in `experiments.invariance_transfer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cdvae_kit.representation.methods.encoder import embed
from cdvae_kit.representation.methods.probing import Probe, linear_probe
from cdvae_kit.representation.methods.similarity import Metric, sensitivity
from cdvae_kit.representation.panels import Matrix
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import Transform


@dataclass(frozen=True)
class Table:
    """Numbers by row and column.

    Attributes:
        values: one row for each of `rows`, one number for each of `columns`.

    >>> table = Table(("a", "b"), ("x",), ((0.5,), (0.25,)))
    >>> table["b", "x"], table.column("x")
    (0.25, {'a': 0.5, 'b': 0.25})
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    def __getitem__(self, place: tuple[str, str]) -> float:
        row, column = place
        return self.values[_place(row, self.rows)][_place(column, self.columns)]

    def row(self, row: str) -> dict[str, float]:
        """Column and number."""
        return dict(zip(self.columns, self.values[_place(row, self.rows)], strict=True))

    def column(self, column: str) -> dict[str, float]:
        """Row and number."""
        return {row: self[row, column] for row in self.rows}

    def as_matrix(self, title: str, *, row_label: str = "", column_label: str = "") -> Matrix:
        """For a figure."""
        return Matrix(title, self.rows, self.columns, self.values, row_label, column_label)


def _place(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise KeyError(f"there is no {name!r} in the table; there are {', '.join(names)}")
    return names.index(name)


def mean_table(tables: Sequence[Table]) -> Table:
    """The mean of tables with the same names, number by number."""
    first = tables[0]
    if any((table.rows, table.columns) != (first.rows, first.columns) for table in tables):
        raise ValueError("only tables of the same rows and columns have a mean")
    values = torch.tensor([table.values for table in tables], dtype=torch.float64).mean(0)
    return Table(first.rows, first.columns, tuple(tuple(row) for row in values.tolist()))


class ProbeData(NamedTuple):
    """A target: labelled samples to fit a probe on, and others to judge it by."""

    train: Any
    train_labels: Tensor
    test: Any
    test_labels: Tensor


def sensitivity_matrix(
    encoders: Mapping[str, Any],
    transforms: Mapping[str, Transform[Any]],
    batch: Any,
    *,
    metric: Metric = "l2",
    generator: torch.Generator,
) -> Table:
    """The sensitivity of each encoder (rows) to each transform (columns): 0 invariant, 1 as far as two samples.

    Two draws of the transform are compared, not a draw with the sample itself. All encoders see the same views and the
    same pairs of samples, and transforms of one distribution the same draws. What an untrained encoder gives is no
    yardstick: see `similarity.sensitivity`.

    Args:
        encoders: anything that `encoder.embed` takes.
        transforms: of the whole sample. Where only a part of it changes, as the object before its background, make the
            pairs and use `sensitivity_of_pairs`.
        batch: at least 2 samples.
        metric: distance between features.
        generator: of views and pairs.

    >>> from cdvae_kit.transforms.images import Rotate
    >>> draws = make_generator(0)
    >>> x = torch.rand(6, 3, 8, 8, generator=draws)
    >>> table = sensitivity_matrix({"mean": lambda b: b.mean((2, 3))}, {"turn": Rotate()}, x, generator=draws)
    >>> table.rows, table.columns, table["mean", "turn"] > 0.0
    (('mean',), ('turn',), True)
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    pairs = {}
    for name, transform in transforms.items():
        # the same draws for each: transforms of one distribution differ in their strength alone
        draws = make_generator(seed)
        pairs[name] = (transform(batch, generator=draws), transform(batch, generator=draws))
    return sensitivity_of_pairs(encoders, pairs, metric=metric, generator=generator)


def sensitivity_of_pairs(
    encoders: Mapping[str, Any],
    pairs: Mapping[str, tuple[Any, Any]],
    *,
    metric: Metric = "l2",
    generator: torch.Generator,
) -> Table:
    """As `sensitivity_matrix`, of views that are already there: by name, two batches whose rows belong together."""
    if not encoders or not pairs:
        raise ValueError(f"expected at least one encoder and one transform, got {len(encoders)} and {len(pairs)}")
    # the same strangers for every entry, so that entries differ in what they are about alone
    seed = int(torch.randint(2**31, (), generator=generator))
    values = tuple(
        tuple(
            sensitivity(embed(encoder, first), embed(encoder, second), metric=metric, generator=make_generator(seed))
            for first, second in pairs.values()
        )
        for encoder in encoders.values()
    )
    return Table(tuple(encoders), tuple(pairs), values)


def transfer_matrix(
    encoders: Mapping[str, Any], datasets: Mapping[str, ProbeData], probe: Probe = linear_probe
) -> Table:
    """The score of a probe on the frozen features of each encoder (rows) for each target (columns)."""
    if not encoders or not datasets:
        raise ValueError(f"expected at least one encoder and one target, got {len(encoders)} and {len(datasets)}")
    values = tuple(
        tuple(
            probe(embed(encoder, data.train), data.train_labels, embed(encoder, data.test), data.test_labels)
            for data in datasets.values()
        )
        for encoder in encoders.values()
    )
    return Table(tuple(encoders), tuple(datasets), values)
