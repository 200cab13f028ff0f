"""Who judges crystals: any Python function from crystals to values, and the package's own independent predictor.

An oracle may raise, or have no value for some crystals: that is recorded for these crystals and stops nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.io.functions import load_function

if TYPE_CHECKING:
    from pymatgen.core import Structure

logger = logging.getLogger(__name__)

Oracle = Callable[["list[Structure]"], "Mapping[str, Sequence[float]] | Sequence[float]"]
"""From pymatgen structures to one value each, or to values by the name of the property; NaN where there is none."""


@dataclass(frozen=True)
class Judgement:
    """What an oracle says of crystals.

    Attributes:
        values: name to (num_crystals,), NaN where there is no value.
        uncertainties: the oracle's own uncertainty, likewise; empty where it gives none.
        reasons: why a crystal has no value, one a crystal; None where it has all.
    """

    values: Mapping[str, np.ndarray]
    uncertainties: Mapping[str, np.ndarray]
    reasons: tuple[str | None, ...]


class Judge(Protocol):
    """What the loop asks. Failures are in the judgement."""

    @property
    def description(self) -> str:
        """Who judges, in a few words."""
        ...

    @property
    def held_out_error(self) -> Mapping[str, float]:
        """Mean absolute error on crystals that it has not seen, by property; empty where it is not known."""
        ...

    def judge(self, crystals: CrystalBatch) -> Judgement:
        """One value a property and crystal."""
        ...


class FunctionJudge:
    """An oracle as a judge.

    Args:
        function: see `Oracle`; a plain sequence is taken for the values of the first of `names`.
        names: the properties that it is asked for.
        description: who it is; the function's own name where it is empty.

    >>> from ase.build import bulk
    >>> from cdvae_kit.crystal.conversion import atoms_to_batch
    >>> judge = FunctionJudge(lambda structures: [s.volume / len(s) for s in structures], ("volume_per_atom",))
    >>> judge.judge(atoms_to_batch([bulk("Cu", "fcc", a=3.6)])).values["volume_per_atom"].round(2)
    array([11.66])
    """

    def __init__(self, function: Oracle, names: Sequence[str], description: str = "") -> None:
        self.function = function
        self.names = tuple(names)
        self._description = description

    held_out_error: Mapping[str, float] = MappingProxyType({})

    @property
    def description(self) -> str:
        return self._description or f"{self.function.__module__}:{getattr(self.function, '__qualname__', 'function')}"

    def judge(self, crystals: CrystalBatch) -> Judgement:
        structures = crystals.structures()
        try:
            values = self._ask(structures)
        except Exception as error:  # noqa: BLE001 - somebody else's function may raise anything
            if len(structures) == 1:
                return self._failed(f"the oracle raised {type(error).__name__}: {error}")
            # one crystal can fail a whole call: find out which
            logger.info("the oracle raised %s on %d crystals; asking one by one", type(error).__name__, len(structures))
            return _join([self.judge(crystals.select([i])) for i in range(len(crystals))])
        missing = [
            ", ".join(name for name in self.names if not np.isfinite(values[name][i])) for i in range(len(structures))
        ]
        return Judgement(
            {name: np.where(np.isfinite(column), column, np.nan) for name, column in values.items()},
            {},
            tuple(f"the oracle has no value of {names}" if names else None for names in missing),
        )

    def _ask(self, structures: list[Structure]) -> dict[str, np.ndarray]:
        answer: Any = self.function(list(structures))
        by_name = dict(answer) if isinstance(answer, Mapping) else {self.names[0]: answer}
        absent = [name for name in self.names if name not in by_name]
        if absent:
            raise ValueError(f"it gave no values of {', '.join(absent)}, only of {', '.join(map(str, by_name))}")
        columns = {}
        for name in self.names:
            # None stands for no value, as NaN does
            column = np.array([np.nan if v is None else float(v) for v in by_name[name]], dtype=np.float64)
            if column.shape != (len(structures),):
                raise ValueError(f"it gave {column.shape} values of {name} for {len(structures)} crystals")
            columns[name] = column
        return columns

    def _failed(self, reason: str) -> Judgement:
        return Judgement({name: np.array([np.nan]) for name in self.names}, {}, (reason,))


def _join(parts: Sequence[Judgement]) -> Judgement:
    return Judgement(
        {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
        {name: np.concatenate([part.uncertainties[name] for part in parts]) for name in parts[0].uncertainties},
        tuple(reason for part in parts for reason in part.reasons),
    )


def load_oracle(name: str) -> Oracle:
    """The function that `module:function` names; modules of the working folder are found, too.

    >>> load_oracle("math:prod").__name__
    'prod'
    """
    found: Any = load_function(name, "an oracle")
    if not callable(found):
        raise ValueError(f"{name} is no function, it is {type(found).__name__}")
    oracle: Oracle = found
    return oracle
