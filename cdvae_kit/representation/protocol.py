"""What an experiment is, and what it found: arms, seeds, claims. `experiments.running` runs one and keeps its results.

A method adds an experiment by a module with `EXPERIMENT`, an instance of a class that follows `Experiment`, and by one
line in `experiments.registry`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from cdvae_kit.representation.panels import Bars, Panel
from cdvae_kit.typing import ShareDone

SEEDS_OF_A_CLAIM = 3
"""With fewer seeds a claim is looked at, not supported."""
ERRORS_OF_A_CLAIM = 2.0
"""By so many standard errors a number must lie on one side of its threshold."""


@dataclass(frozen=True)
class PartResult:
    """What one part found for one seed.

    Attributes:
        values: arm and its number; the names of arms are unique in an experiment.
        details: anything else that JSON can hold, for figures.
    """

    values: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)


Verdict = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper as an inequality about a number that each seed has, as the difference of two arms.

    The arms of one seed share their data and their start, so that the error is that of the paired differences. Two
    standard errors over three seeds are no proof: of numbers without any effect one in eleven lies that far on the
    right side.

    Attributes:
        text: the sentence.
        per_seed: the number, one a seed.
        threshold: what the number is compared with.
        relation: on which side of the threshold it ought to lie.

    >>> Claim("better", (0.1, 0.2, 0.15)).verdict, Claim("alike", (0.0, 0.0, 0.0)).verdict
    ('holds', 'undecided')
    >>> Claim("small", (0.4, 0.5, 0.45), 0.2, "at most").verdict
    'fails'
    """

    text: str
    per_seed: Sequence[float]
    threshold: float = 0.0
    relation: Literal["at least", "at most"] = "at least"

    def __post_init__(self) -> None:
        if not self.per_seed:
            raise ValueError(f"the claim {self.text!r} has no number of any seed")

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return math.fsum(self.per_seed) / len(self.per_seed)

    @property
    def standard_error(self) -> float:
        """Of the mean over seeds; not a number for a single seed."""
        return standard_error(self.per_seed)

    @property
    def verdict(self) -> Verdict:
        """Whether the mean lies on the right side by more than two standard errors, on the wrong one, or neither.

        Fewer than three seeds, and numbers that are none, decide nothing.
        """
        if len(self.per_seed) < SEEDS_OF_A_CLAIM or not all(map(math.isfinite, self.per_seed)):
            return "undecided"
        beyond = self.value - self.threshold if self.relation == "at least" else self.threshold - self.value
        # the last digits of a float are not what it says
        if abs(beyond) <= ERRORS_OF_A_CLAIM * self.standard_error + 1e-9:
            return "undecided"
        return "holds" if beyond > 0.0 else "fails"


@dataclass(frozen=True)
class ExperimentResult:
    """All numbers of an experiment.

    Attributes:
        experiment: its name.
        paper: its source.
        quick: whether the sizes were those of a trial, which supports no claim.
        seeds: the seeds, in order.
        arms: arm to one value a seed.
        details: part to one mapping a seed, as `PartResult` gave them.
        seconds: the time that all parts took.
        left_out: parts that were not run; the numbers of their arms are none.

    >>> result = ExperimentResult("toy", "none", False, (0, 1), {"a": (0.4, 0.6), "b": (0.1, 0.2)}, {}, 0.0)
    >>> result.mean("a"), round(result.standard_error("a"), 3)
    (0.5, 0.1)
    >>> [round(value, 3) for value in result.differences("a", "b")]
    [0.3, 0.4]
    """

    experiment: str
    paper: str
    quick: bool
    seeds: tuple[int, ...]
    arms: Mapping[str, tuple[float, ...]]
    details: Mapping[str, tuple[Mapping[str, Any], ...]]
    seconds: float
    left_out: tuple[str, ...] = ()

    def per_seed(self, arm: str) -> tuple[float, ...]:
        """The values of an arm, one a seed; where parts were left out, not numbers for an arm that is not there."""
        if arm not in self.arms:
            if self.left_out:
                return (math.nan,) * len(self.seeds)
            raise KeyError(f"{self.experiment} has no arm {arm!r}; it has {', '.join(self.arms)}")
        return self.arms[arm]

    def mean(self, arm: str) -> float:
        """The mean over seeds; not a number where one of them is none."""
        return math.fsum(self.per_seed(arm)) / len(self.seeds)

    def best(self, arms: Sequence[str]) -> str:
        """The arm of the largest mean; one without a number if there is such a one, for then the best is not known."""
        return max(arms, key=lambda arm: math.inf if math.isnan(self.mean(arm)) else self.mean(arm))

    def standard_error(self, arm: str) -> float:
        """Of the mean over seeds; not a number for a single seed."""
        return standard_error(self.per_seed(arm))

    def differences(self, arm: str, other: str) -> tuple[float, ...]:
        """Of two arms, arm − other, one a seed."""
        return tuple(a - b for a, b in zip(self.per_seed(arm), self.per_seed(other), strict=True))


def averaged(columns: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The mean of several numbers that each seed has, one a seed.

    >>> averaged([(0.1, 0.3), (0.3, 0.5)])
    (0.2, 0.4)
    """
    return tuple(math.fsum(row) / len(row) for row in zip(*columns, strict=True))


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of `values`, by their sample variance; not a number for fewer than two."""
    count = len(values)
    if count < 2:
        return math.nan
    if min(values) == max(values):
        # their mean may differ from them by rounding
        return 0.0
    mean = math.fsum(values) / count
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)


class Experiment(Protocol):
    """What `generate-crystals represent` runs.

    The work falls into parts. A part is computed for one seed at a time and kept when it is finished, so that a killed
    run goes on from there; what several arms share (data, a trained network) belongs in one part. A part and a seed
    alone decide the result.
    """

    name: str
    """On the command line: lower case, with hyphens."""
    paper: str
    """Authors, title, venue, arXiv number."""
    summary: str
    """One line: what is compared with what."""
    data: str | os.PathLike[str] | None = None
    """The folder of data sets that are read, None for where `generate-crystals download` puts them."""
    reads_data: bool = False
    """Whether any part reads a data set."""

    def with_data(self, folder: str | os.PathLike[str]) -> Experiment:
        """The same experiment on the data sets in `folder`; `ValueError` where it reads none."""
        raise ValueError(f"{self.name} reads no data set: leave the folder {os.fspath(folder)} out")

    def parts(self, *, quick: bool) -> Sequence[str]:
        """Names of the parts, always in the same order."""
        ...

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        """Computes one part; `quick` takes sizes that fit a test of some seconds and shows no effect."""
        ...

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        """The claims, judged on all seeds; `running.judged` drops those about parts that were left out."""
        ...

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        """What the figure shows; the arms as bars unless the experiment says otherwise."""
        return [Bars(self.summary, "value", result.arms)]
