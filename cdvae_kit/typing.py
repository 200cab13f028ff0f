"""Aliases that more than one floor uses. What one sub-package alone needs stands there."""

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], object]
"""Called with (done, in all)."""
OpenProgress: TypeAlias = Callable[[int, int | None], object]
"""Called with (done, in all), the latter None where it is not known."""
NamedProgress: TypeAlias = Callable[[str, int, int | None], object]
"""Called with (name of the file, done, in all), the latter None where it is not known."""
ShareDone: TypeAlias = Callable[[float], object]
"""Called with the share of the work that is done, from 0 to 1."""
