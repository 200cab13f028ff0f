"""Noise on the elements of the atoms."""

from typing import Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from cdvae_kit.diffusion.state import MASKED

_LEAST_LOG_P = -1e6
"""Of elements that limits exclude: an assignment needs finite numbers."""


class TypeProcess(Protocol):
    """A forward process on elements. Time t runs from 0, data, to 1, noise."""

    is_learned: bool
    """Whether the network's logits are used, and so need a loss."""

    def perturb(
        self,
        atomic_numbers: Tensor,
        t: Tensor,
        composition: Tensor,
        *,
        alike: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """(num_atoms,) long noisy elements; here and below, an atom stands for its orbit.

        Args:
            atomic_numbers: (num_atoms,) long.
            t: one an atom.
            composition: (num_atoms, num_elements), that of its cell.
            alike: (num_atoms,) long, the same number for atoms that could exchange their elements and leave the
                composition as it is: of one crystal and, for orbits, of one multiplicity.
            generator: where randomness comes from.
        """
        ...

    def loss(self, logits: Tensor, atomic_numbers: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """(num_atoms,) loss of the network's logits."""
        ...

    def start(self, drawn: Tensor) -> Tensor:
        """Elements at t = 1, where `drawn` are elements drawn from the predicted composition."""
        ...

    def step(
        self, noisy: Tensor, logits: Tensor, t: Tensor, t_next: Tensor, uniform: Tensor, *, alike: Tensor
    ) -> Tensor:
        """Elements at t_next < t, both one an atom; `uniform` (num_atoms, 2) in (0, 1) is the only randomness."""
        ...


class FixedTypes:
    """Elements come from the predicted counts and stay what they are: no noise."""

    is_learned = False

    def perturb(
        self,
        atomic_numbers: Tensor,
        t: Tensor,
        composition: Tensor,
        *,
        alike: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        return atomic_numbers

    def loss(self, logits: Tensor, atomic_numbers: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def start(self, drawn: Tensor) -> Tensor:
        return drawn

    def step(
        self, noisy: Tensor, logits: Tensor, t: Tensor, t_next: Tensor, uniform: Tensor, *, alike: Tensor
    ) -> Tensor:
        return noisy


class AbsorbingTypes:
    """Elements are masked one after the other, and revealed: masked with probability t.

    Source: Austin et al., "Structured denoising diffusion" (arXiv 2107.03006), absorbing state; the reverse step
    reveals a masked atom with probability (t - t_next) / t.
    """

    is_learned = True

    def perturb(
        self,
        atomic_numbers: Tensor,
        t: Tensor,
        composition: Tensor,
        *,
        alike: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        drawn = torch.rand(t.shape, generator=generator, device=t.device, dtype=t.dtype)
        return torch.where(drawn < t, MASKED, atomic_numbers)

    def loss(self, logits: Tensor, atomic_numbers: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        error = functional.cross_entropy(logits, atomic_numbers - 1, reduction="none")
        return torch.where(noisy == MASKED, error, torch.zeros_like(error))

    def start(self, drawn: Tensor) -> Tensor:
        return torch.full_like(drawn, MASKED)

    def step(
        self, noisy: Tensor, logits: Tensor, t: Tensor, t_next: Tensor, uniform: Tensor, *, alike: Tensor
    ) -> Tensor:
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
        self,
        atomic_numbers: Tensor,
        t: Tensor,
        composition: Tensor,
        *,
        alike: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        one_hot = functional.one_hot(atomic_numbers - 1, composition.shape[-1])
        weights = one_hot + self._sigma(t).unsqueeze(-1) * composition
        return torch.multinomial(weights, 1, generator=generator).squeeze(-1) + 1

    def loss(self, logits: Tensor, atomic_numbers: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        return functional.cross_entropy(logits, atomic_numbers - 1, reduction="none") / self._sigma(t)

    def start(self, drawn: Tensor) -> Tensor:
        return drawn

    def step(
        self, noisy: Tensor, logits: Tensor, t: Tensor, t_next: Tensor, uniform: Tensor, *, alike: Tensor
    ) -> Tensor:
        return logits.argmax(dim=-1) + 1


class ExchangedTypes:
    """Elements change places with one another: the composition is exact all the way.

    At time t each atom takes part in a random exchange with probability t, among those that are alike. Sampling starts
    from the elements that the heads have put there; each step puts those of a group where they are together most
    probable (a linear assignment), so that a wrong place can be mended and none comes or goes.
    """

    is_learned = True

    def perturb(
        self,
        atomic_numbers: Tensor,
        t: Tensor,
        composition: Tensor,
        *,
        alike: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        drawn = torch.rand(2, *t.shape, generator=generator, device=t.device, dtype=t.dtype)
        taking_part = (drawn[0] < t).nonzero().squeeze(-1)
        group = alike.index_select(0, taking_part)
        in_order = taking_part[group.argsort(stable=True)]
        by_chance = drawn[1].index_select(0, taking_part).argsort()
        shuffled = taking_part[by_chance[group.index_select(0, by_chance).argsort(stable=True)]]
        noisy = atomic_numbers.clone()
        noisy[in_order] = atomic_numbers.index_select(0, shuffled)
        return noisy

    def loss(self, logits: Tensor, atomic_numbers: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        return functional.cross_entropy(logits, atomic_numbers - 1, reduction="none")

    def start(self, drawn: Tensor) -> Tensor:
        return drawn

    def step(
        self, noisy: Tensor, logits: Tensor, t: Tensor, t_next: Tensor, uniform: Tensor, *, alike: Tensor
    ) -> Tensor:
        order = alike.argsort(stable=True)
        sizes = torch.unique_consecutive(alike.index_select(0, order), return_counts=True)[1]
        log_p = torch.log_softmax(logits, dim=-1).detach().cpu().double().numpy()
        elements = noisy.cpu().numpy()
        best = elements.copy()
        for rows in np.split(order.cpu().numpy(), np.cumsum(sizes.cpu().numpy())[:-1]):
            here = elements[rows]
            if (here != here[0]).any():
                # a row for each atom, a column for each element that is there, as often as it is
                gain = np.maximum(log_p[rows][:, here - 1], _LEAST_LOG_P)
                best[rows] = here[linear_sum_assignment(gain, maximize=True)[1]]
        return torch.from_numpy(best).to(noisy.device)


def draw_elements(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """(num_atoms,) atomic numbers by inversion of the cumulative probabilities at `uniform`.

    >>> draw_elements(torch.tensor([[0.5, 0.0, 0.5]]), torch.tensor([0.75]))
    tensor([3])
    """
    cumulative = probabilities.cumsum(-1)
    point = uniform.unsqueeze(-1) * cumulative[:, -1:]
    return (cumulative < point).sum(-1).clamp_max(probabilities.shape[-1] - 1) + 1
