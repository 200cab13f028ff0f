"""The exponential moving average of weights: kept beside the training, or as a teacher that works along."""

from __future__ import annotations

import math
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
            before = parameter.detach().clone()
            parameter.copy_(self._averages[name])
            self._averages[name] = before

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


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, *, decay: float) -> None:
    """Moves each parameter of the teacher: teacher ← decay · teacher + (1 − decay) · student.

    Buffers stay the teacher's own, statistics of batch normalisation among them. Where `WeightAverage` is a shelf for
    weights, this is for a network that works beside its student (mean teachers, OBoW, BYOL).

    Args:
        teacher: a copy of the student.
        student: what it follows.
        decay: in [0, 1]; 1 leaves the teacher alone.
    """
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"a teacher's decay must lie in [0, 1], got {decay}")
    own, other = dict(teacher.named_parameters()), dict(student.named_parameters())
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in other.items()}:
        raise ValueError("a teacher follows a student of the same parameters; make it by copy.deepcopy(student)")
    if own:
        torch._foreach_lerp_(list(own.values()), [other[name] for name in own], 1.0 - decay)


def cosine_decay(step: int, num_steps: int, *, start: float) -> float:
    """The decay of a teacher at a step: `start` at first, 1 at the end, along half a cosine (Grill et al. 2020).

    >>> [round(cosine_decay(step, 10, start=0.9), 3) for step in (0, 5, 10)]
    [0.9, 0.95, 1.0]
    """
    return 1.0 - (1.0 - start) * 0.5 * (1.0 + math.cos(math.pi * step / num_steps))
