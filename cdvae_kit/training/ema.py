"""The exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages of named parameters: after step n, average += (1 - d) (weight - average), d = min(decay, n / (n + 10)).

    The memory is short at first, so that the start is forgotten. A decay of 0 follows the weights.

    Args:
        parameters: name and parameter, as `named_parameters` gives them; the averages start from their values.
        decay: the longest memory.

    >>> weight = nn.Parameter(torch.zeros(1))
    >>> average = WeightAverage([("weight", weight)], decay=0.5)
    >>> _ = weight.data.fill_(1.0)
    >>> average.update()
    >>> average.state_dict()["weight"]
    tensor([0.9091])
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], *, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"the decay of a weight average must lie in [0, 1), got {decay}")
        self.decay = decay
        self.num_updates = 0
        self._parameters = dict(parameters)
        self._averages = {name: value.detach().clone() for name, value in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights as they are now."""
        self.num_updates += 1
        decay = min(self.decay, self.num_updates / (self.num_updates + 10))
        self._move_to_parameters()
        torch._foreach_lerp_(list(self._averages.values()), list(self._parameters.values()), 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters hold the averages within the block, and what they held before after it."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges averages and parameters; twice is nothing."""
        self._move_to_parameters()
        for name, parameter in self._parameters.items():
            held = parameter.detach().clone()
            parameter.copy_(self._averages[name])
            self._averages[name] = held

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name; not to be written to."""
        return dict(self._averages)

    def load_state_dict(self, averages: Mapping[str, Tensor], *, num_updates: int) -> None:
        """Takes over averages of the same names and shapes."""
        if set(averages) != set(self._averages):
            odd = sorted(set(averages) ^ set(self._averages))[:5]
            raise ValueError(f"the averages are of another model: they differ in {odd}")
        for name, value in averages.items():
            self._averages[name].copy_(value)
        self.num_updates = num_updates

    def _move_to_parameters(self) -> None:
        for name, parameter in self._parameters.items():
            if self._averages[name].device != parameter.device:
                self._averages[name] = self._averages[name].to(parameter.device)
