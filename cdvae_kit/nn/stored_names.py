"""Parameters and buffers that were stored under other names: a module that takes both. No weight changes here."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn


class RenamedModule(nn.Module):
    """A module that also loads what earlier versions stored under other names.

    `_EARLIER_NAMES` tells the name now by the name then, of a parameter, a buffer or a whole part of the module. What
    is saved has the names of now.

    >>> import torch
    >>> class Scaled(RenamedModule):
    ...     _EARLIER_NAMES = {"inner": "linear"}
    ...
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = nn.Linear(1, 1, bias=False)
    >>> Scaled().load_state_dict({"inner.weight": torch.ones(1, 1)})
    <All keys matched successfully>
    """

    _EARLIER_NAMES: ClassVar[Mapping[str, str]] = {}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # torch hands over a copy, of which the parts of this module take theirs afterwards
        for name in [name for name in state_dict if name.startswith(prefix)]:
            first, dot, rest = name[len(prefix) :].partition(".")
            now = prefix + self._EARLIER_NAMES.get(first, first) + dot + rest
            # a file that has both is refused by torch
            if now not in state_dict:
                state_dict[now] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
