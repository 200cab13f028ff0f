"""Predictions with intervals: an ensemble's mean, and a width that held-out crystals have calibrated.

Split conformal prediction with a normalised score (Papadopoulos et al. 2008, "Normalized nonconformity measures for
regression conformal prediction"; Lei et al. 2018, doi 10.1080/01621459.2017.1307116): the interval is
mean +- q sqrt(spread^2 + offset^2), and q is the ceil((n + 1) coverage)-th smallest score of n crystals that no member
has seen. For a new crystal drawn as these were, it holds the value with at least the probability asked for, whatever
the errors' distribution. An ensemble's spread alone promises nothing; here it only says where the interval is wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PropertyPrediction:
    """One property of several crystals.

    Attributes:
        mean: (num_crystals,), in `unit`; NaN where the crystal has a fault.
        half_width: (num_crystals,), in `unit`: the value lies in mean +- half_width with probability `coverage`; NaN
            where there is a fault, or the predictor was never calibrated.
        spread: (num_crystals,), in `unit`: standard deviation over the members of the ensemble, not calibrated.
        coverage: the probability that the interval was calibrated for.
        unit: of all three; "" where it is not known.
        faults: one a crystal: why there is no prediction, None where there is one.
    """

    mean: Tensor
    half_width: Tensor
    spread: Tensor
    coverage: float
    unit: str
    faults: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def num_failed(self) -> int:
        """Crystals without a prediction."""
        return sum(fault is not None for fault in self.faults)


class Calibration(nn.Module):
    """The two numbers of each property that make an ensemble's spread an interval. NaN until `fit`.

    >>> calibration = Calibration(1)
    >>> mean, spread, truth = torch.zeros(99, 1), torch.zeros(99, 1), torch.arange(1.0, 100.0).unsqueeze(1)
    >>> calibration.fit(mean, spread, truth, offset=torch.ones(1), coverage=0.9)
    >>> calibration.half_width(torch.zeros(1, 1))
    tensor([[90.]])
    """

    offset: Tensor
    quantile: Tensor
    num_calibrated: Tensor

    def __init__(self, num_properties: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.full((num_properties,), math.nan))
        self.register_buffer("quantile", torch.full((num_properties,), math.nan))
        self.register_buffer("num_calibrated", torch.zeros(num_properties, dtype=torch.long))

    def half_width(self, spread: Tensor) -> Tensor:
        """(num_crystals, num_properties), in the unit of `spread`."""
        return self.quantile * torch.sqrt(spread.square() + self.offset.square())

    @torch.no_grad()
    def fit(self, mean: Tensor, spread: Tensor, truth: Tensor, *, offset: Tensor, coverage: float) -> None:
        """Sets the quantile of each property from crystals that no member has seen.

        Args:
            mean: (num_crystals, num_properties), the ensemble's.
            spread: (num_crystals, num_properties), between the members.
            truth: (num_crystals, num_properties), NaN where there is no value.
            offset: (num_properties,) positive: a typical error, from other crystals than these.
            coverage: share of new crystals that the interval is to hold.
        """
        self.offset.copy_(offset)
        for i in range(truth.shape[1]):
            there = truth[:, i].isfinite() & mean[:, i].isfinite()
            size = torch.sqrt(spread[there, i].square() + self.offset[i].square())
            scores = ((mean[there, i] - truth[there, i]).abs() / size).sort().values
            rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
            if rank > len(scores):
                raise ValueError(
                    f"{len(scores)} calibration crystals have a value of property {i}; intervals of coverage "
                    f"{coverage} need at least {math.ceil(coverage / (1.0 - coverage) - 1e-9)}: hold out more crystals"
                )
            self.quantile[i] = scores[rank - 1]
            self.num_calibrated[i] = len(scores)


def typical_error(errors: Tensor) -> Tensor:
    """(num_properties,): the median of |errors| (num_crystals, num_properties), NaN left out; never 0."""
    return errors.abs().nanmedian(dim=0).values.clamp_min(1e-6)


def named_predictions(
    members: Tensor,
    calibration: Calibration,
    *,
    names: tuple[str, ...],
    units: tuple[str, ...],
    coverage: float,
    faults: tuple[str | None, ...],
) -> dict[str, PropertyPrediction]:
    """Mean, interval and spread by name, from what each member says: (num_members, num_crystals, num_properties)."""
    mean, spread = members.mean(0), members.std(0, correction=0)
    half_width = calibration.half_width(spread)
    return {
        name: PropertyPrediction(mean[:, i], half_width[:, i], spread[:, i], coverage, units[i], faults)
        for i, name in enumerate(names)
    }


class UnknownPropertyError(ValueError):
    """A property that a predictor was not trained for, and which there are."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no property {name!r} in this predictor; it predicts {', '.join(known)}")


def check_names(wanted: tuple[str, ...] | list[str], known: tuple[str, ...]) -> None:
    """Raises `UnknownPropertyError` for the first name that is not known."""
    for name in wanted:
        if name not in known:
            raise UnknownPropertyError(name, known)
