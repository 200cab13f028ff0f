"""Numbers that are missing: NaN in arrays, None in tables and in JSON, which has no NaN."""

import math
from typing import TypeGuard


def is_finite(value: float | None) -> TypeGuard[float]:
    """Whether there is a number, and a finite one.

    >>> is_finite(0.5), is_finite(None), is_finite(math.nan), is_finite(-math.inf)
    (True, False, False, False)
    """
    return value is not None and math.isfinite(value)


def finite_or_none(value: float | None) -> float | None:
    """The number as a Python float; None where it is missing, NaN or infinite.

    >>> [finite_or_none(value) for value in (0.5, None, math.nan, math.inf)]
    [0.5, None, None, None]
    """
    return float(value) if is_finite(value) else None


def nan_as_none(value: float) -> float | None:
    """The number as a Python float, an infinite one too; None for NaN.

    >>> [nan_as_none(value) for value in (0.5, math.nan, math.inf)]
    [0.5, None, inf]
    """
    return None if math.isnan(value) else float(value)
