"""Properties of the crystals in a file, each record at its own index: what `generate-crystals predict` does."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.io.atomic import atomic_file
from cdvae_kit.io.crystals.reading import ReadResult
from cdvae_kit.io.results.files import inert
from cdvae_kit.models.calibration import PropertyPrediction, check_names
from cdvae_kit.models.property_predictor import PropertyPredictor
from cdvae_kit.typing import Progress


@dataclass(frozen=True)
class PredictionTable:
    """What a predictor says of each record of a file, those that gave no crystal included.

    Attributes:
        names: one a record.
        formulas: one a record, "" where there is no crystal.
        predictions: one a property; a record that gave no crystal has a fault.
        given: property to (num_records,) values that the file has, NaN where it has none; only properties that it has.
    """

    names: tuple[str, ...]
    formulas: tuple[str, ...]
    predictions: dict[str, PropertyPrediction]
    given: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def faults(self) -> tuple[str | None, ...]:
        """Why a record has no prediction, None where it has one."""
        return next(iter(self.predictions.values())).faults

    def error(self, name: str) -> PredictorError | None:
        """How far the predictions of a property are from the file's own values, None where it has none."""
        found = self.predictions[name]
        if name not in self.given:
            return None
        difference = (found.mean - self.given[name]).abs()
        there = difference.isfinite()
        if not there.any():
            return None
        inside = (difference <= found.half_width)[there]
        return PredictorError(
            int(there.sum()), float(difference[there].mean()), float(inside.float().mean()), found.coverage
        )


@dataclass(frozen=True)
class PredictorError:
    """A predictor's own error on crystals whose values are known.

    Attributes:
        num_crystals: with a value and a prediction.
        mean_absolute_error: in the property's unit.
        share_inside: of them, whose value lies in the interval.
        coverage: the share that the interval was calibrated for.
    """

    num_crystals: int
    mean_absolute_error: float
    share_inside: float
    coverage: float


def predict_records(
    predictor: PropertyPredictor,
    source: ReadResult,
    *,
    properties: Sequence[str] | None = None,
    batch_size: int = 128,
    progress: Progress | None = None,
) -> PredictionTable:
    """The properties of what was read of a file.

    Args:
        predictor: the ensemble.
        source: as `cdvae_kit.io.read_crystals` gives it.
        properties: of those that the predictor knows; None takes all.
        batch_size: crystals at a time.
        progress: called with (crystals done, crystals in all).
    """
    wanted = predictor.config.properties if properties is None else tuple(properties)
    check_names(wanted, predictor.config.properties)
    crystals = source.crystals
    found = predictor.predict(crystals, batch_size=batch_size, progress=progress)
    total = len(crystals) + len(source.failures)
    failed_at = source.failed_at or range(len(crystals), total)
    failed = dict(zip(failed_at, source.failures, strict=True))
    there = [i for i in range(total) if i not in failed]
    own_names = crystals.material_ids or [""] * len(crystals)
    names, formulas = [""] * total, [""] * total
    for i, failure in failed.items():
        names[i] = failure.record or failure.source
    for i, name, formula in zip(there, own_names, _formulas(crystals), strict=True):
        names[i], formulas[i] = name, formula
    index = torch.tensor(there, dtype=torch.long)
    reasons = {i: f"could not be read: {failure.reason}" for i, failure in failed.items()}
    return PredictionTable(
        tuple(names),
        tuple(formulas),
        {name: _in_place(found[name], index, total, reasons) for name in wanted},
        {
            name: _spread_out(crystals.properties[name].float().cpu(), index, total)
            for name in wanted
            if name in crystals.properties
        },
    )


def write_predictions(table: PredictionTable, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """A CSV file with a row a record: name, formula, each property with its half width, and the reason of a failure."""
    columns = ["name", "formula"]
    for name in table.predictions:
        columns += [name, f"{name}_half_width", *([f"{name}_given"] if name in table.given else [])]
    with (
        atomic_file(path, overwrite=overwrite) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*map(inert, columns), "reason"])
        for i, name in enumerate(table.names):
            row = [inert(name), table.formulas[i]]
            for key, found in table.predictions.items():
                row += [_number(found.mean[i]), _number(found.half_width[i])]
                row += [_number(table.given[key][i])] if key in table.given else []
            writer.writerow([*row, inert(table.faults[i] or "")])


def _number(value: Tensor) -> str:
    return "" if math.isnan(float(value)) else f"{float(value):.6g}"


def _in_place(found: PropertyPrediction, index: Tensor, total: int, reasons: dict[int, str]) -> PropertyPrediction:
    faults: list[str | None] = [reasons.get(i) for i in range(total)]
    for place, fault in zip(index.tolist(), found.faults, strict=True):
        faults[place] = fault
    mean, half_width, spread = (_spread_out(one, index, total) for one in (found.mean, found.half_width, found.spread))
    return PropertyPrediction(mean, half_width, spread, found.coverage, found.unit, tuple(faults))


def _spread_out(values: Tensor, index: Tensor, total: int) -> Tensor:
    """(total,): values at their indices, NaN elsewhere."""
    return torch.full((total,), float("nan")).index_copy(0, index, values)


def _formulas(crystals: CrystalBatch) -> list[str]:
    from pymatgen.core import Composition, Element

    formulas = []
    for numbers in crystals.atomic_numbers.cpu().split(crystals.num_atoms.tolist()):
        found, counts = numbers.unique(return_counts=True)
        elements = [Element.from_Z(number) for number in found.tolist()]
        formulas.append(Composition(dict(zip(elements, counts.tolist(), strict=True))).reduced_formula)
    return formulas
