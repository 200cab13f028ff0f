"""Aliases, and the type of classes, that more than one floor uses. What one sub-package alone needs stands there."""

import inspect
from abc import ABCMeta
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


class OwnHelp(ABCMeta):
    """The type of classes built on those of other packages, whose `help` shows what the package itself defines.

    `torch.nn.Module` alone brings more than eighty methods, among which one's own are not found. The inherited ones
    are there and work; only `dir` of the class, which `help` reads, leaves them out. `dir` of an object lists them all.

    >>> class Words(dict, metaclass=OwnHelp):
    ...     def longest(self): ...
    >>> "longest" in dir(Words), "popitem" in dir(Words), "popitem" in dir(Words())
    (True, False, True)
    """

    def __dir__(cls) -> list[str]:
        home = cls.__module__.partition(".")[0]
        own = [base for base in inspect.getmro(cls) if base.__module__.partition(".")[0] == home]
        return sorted({name for base in own for name in vars(base)})
