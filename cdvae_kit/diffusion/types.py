"""Noise on the elements of the atoms."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from cdvae_kit.diffusion.state import MASKED


class TypeProcess(Protocol):
    """A forward process on elements. Time t runs from 0, data, to 1, noise."""

    is_learned: bool
    """Whether the network's logits are used, and so need a loss."""

    def perturb(
        self, atomic_numbers: Tensor, t: Tensor, composition: Tensor, *, generator: torch.Generator | None
    ) -> Tensor:
        """(num_atoms,) long noisy elements. `t` is one an atom; `composition` (num_atoms, num_elements), its cell's."""
        ...

    def loss(self, logits: Tensor, atomic_numbers: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """(num_atoms,) loss of the network's logits."""
        ...

    def start(self, drawn: Tensor) -> Tensor:
        """Elements at t = 1, where `drawn` are elements drawn from the predicted composition."""
        ...

    def step(self, noisy: Tensor, logits: Tensor, t: Tensor, t_next: Tensor, uniform: Tensor) -> Tensor:
        """Elements at t_next < t, both one an atom; `uniform` (num_atoms, 2) in (0, 1) is the only randomness."""
        ...


class HeldTypes:
    """Elements come from the predicted counts and stay what they are: no noise."""

    is_learned = False

    def perturb(
        self, atomic_numbers: Tensor, t: Tensor, composition: Tensor, *, generator: torch.Generator | None
    ) -> Tensor:
        return atomic_numbers

    def loss(self, logits: Tensor, atomic_numbers: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def start(self, drawn: Tensor) -> Tensor:
        return drawn

    def step(self, noisy: Tensor, logits: Tensor, t: Tensor, t_next: Tensor, uniform: Tensor) -> Tensor:
        return noisy


class AbsorbingTypes:
    """Elements are masked one after the other, and revealed: masked with probability t.

    Source: Austin et al., "Structured denoising diffusion" (arXiv 2107.03006), absorbing state; the reverse step
    reveals a masked atom with probability (t - t_next) / t.
    """

    is_learned = True

    def perturb(
        self, atomic_numbers: Tensor, t: Tensor, composition: Tensor, *, generator: torch.Generator | None
    ) -> Tensor:
        drawn = torch.rand(t.shape, generator=generator, device=t.device, dtype=t.dtype)
        return torch.where(drawn < t, MASKED, atomic_numbers)

    def loss(self, logits: Tensor, atomic_numbers: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        error = functional.cross_entropy(logits, atomic_numbers - 1, reduction="none")
        return torch.where(noisy == MASKED, error, torch.zeros_like(error))

    def start(self, drawn: Tensor) -> Tensor:
        return torch.full_like(drawn, MASKED)

    def step(self, noisy: Tensor, logits: Tensor, t: Tensor, t_next: Tensor, uniform: Tensor) -> Tensor:
        reveal = (noisy == MASKED) & (uniform[:, 0] * t < t - t_next)
        # at the end nothing may stay masked
        reveal = reveal | ((noisy == MASKED) & (t_next <= 0.0))
        return torch.where(reveal, draw_elements(torch.softmax(logits, dim=-1), uniform[:, 1]), noisy)


class PublishedTypes:
    """The published corruption: drawn from one-hot + sigma x (predicted composition), set to the argmax at each step.

    Source: Xie et al., arXiv 2110.06197; sigma falls geometrically from 5 to 0.01.
    """

    is_learned = True

    def __init__(self, *, sigma_min: float = 0.01, sigma_max: float = 5.0) -> None:
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def perturb(
        self, atomic_numbers: Tensor, t: Tensor, composition: Tensor, *, generator: torch.Generator | None
    ) -> Tensor:
        one_hot = functional.one_hot(atomic_numbers - 1, composition.shape[-1])
        weights = one_hot + self._sigma(t).unsqueeze(-1) * composition
        return torch.multinomial(weights, 1, generator=generator).squeeze(-1) + 1

    def loss(self, logits: Tensor, atomic_numbers: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        return functional.cross_entropy(logits, atomic_numbers - 1, reduction="none") / self._sigma(t)

    def start(self, drawn: Tensor) -> Tensor:
        return drawn

    def step(self, noisy: Tensor, logits: Tensor, t: Tensor, t_next: Tensor, uniform: Tensor) -> Tensor:
        return logits.argmax(dim=-1) + 1


def draw_elements(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """(num_atoms,) atomic numbers by inversion of the cumulative probabilities at `uniform`.

    >>> draw_elements(torch.tensor([[0.5, 0.0, 0.5]]), torch.tensor([0.75]))
    tensor([3])
    """
    cumulative = probabilities.cumsum(-1)
    point = uniform.unsqueeze(-1) * cumulative[:, -1:]
    return (cumulative < point).sum(-1).clamp_max(probabilities.shape[-1] - 1) + 1
