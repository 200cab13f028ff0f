"""Metrics of the user's own, from a function of structures or a `Metric` that is named as `module:function`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cdvae_kit.io.functions import load_function
from cdvae_kit.metrics.metric import Measured, Metric, mean, missing, number
from cdvae_kit.missing import finite_or_none

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from cdvae_kit.metrics.evidence import Evidence

logger = logging.getLogger(__name__)

StructureFunction: TypeAlias = Callable[["list[Structure]"], "Sequence[float] | float"]
"""From the generated crystals that can be used to one value each, or to one number of all; NaN where there is none."""


def load_metric(name: str) -> Metric:
    """The metric that `module:function` names: a `Metric`, or a function of pymatgen structures.

    Of a function that gives one value a crystal the mean is the metric, and the values go to each crystal. One that
    raises gives no value, with the reason.

    >>> from pymatgen.core import Lattice, Structure
    >>> from cdvae_kit.metrics import evaluate
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> evaluate([salt, salt], metrics=[load_metric("builtins:len")]).metrics["len"].value
    2.0
    """
    found = load_function(name, "a metric")
    if isinstance(found, Metric):
        return found
    if not callable(found):
        raise ValueError(f"{name} is neither a function nor a Metric, it is {type(found).__name__}")
    return metric_of(found, name.partition(":")[2].replace(".", "_"), source=name)


def metric_of(function: StructureFunction, name: str, *, source: str = "") -> Metric:
    """A function of structures as a metric.

    Args:
        function: called once with all crystals that can be used.
        name: of the number.
        source: where it comes from; the function's module if not given.
    """

    def compute(evidence: Evidence) -> Measured:
        usable = [i for i, crystal in enumerate(evidence.ours) if crystal.fault is None]
        try:
            given: Any = function([evidence.ours[i].structure() for i in usable])
            values = np.array([np.nan if v is None else float(v) for v in np.atleast_1d(np.asarray(given))])
        except Exception as error:  # noqa: BLE001 - somebody else's function may raise anything
            logger.warning("metric %s raised %s: %s", name, type(error).__name__, error)
            return missing(f"it raised {type(error).__name__}: {error}")
        if np.ndim(given) == 0:
            return number(finite_or_none(values[0]), len(usable), note="of all crystals that can be used")
        if values.shape != (len(usable),):
            return missing(f"it gave {len(values)} values for {len(usable)} crystals; expected one each, or one number")
        every = np.full(len(evidence.ours), np.nan)
        every[usable] = np.where(np.isfinite(values), values, np.nan)
        found = mean(every, seed=evidence.seed, note="mean of the crystals that have a value")
        return Measured(found.value, found.num_crystals, found.low, found.high, found.note, every)

    label = name.replace("_", " ")
    return Metric(name, label, "other", None, "", source or getattr(function, "__module__", "") or name, (), compute)
