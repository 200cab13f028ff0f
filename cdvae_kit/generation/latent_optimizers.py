"""Ways to move codes down an objective: the published descent, and one that stays where the decoder is good.

They know codes and objectives, no crystals: decoding and judging are in `optimization`. Every crystal's path depends
on its own code, the seed and its own number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cdvae_kit.generation.latent_region import LatentRegion, path_noise

LatentProgress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""
LatentFunction = Callable[[Tensor], Tensor]
"""From codes (num_crystals, latent_dim) to (num_crystals,), differentiable, crystal by crystal."""


@dataclass(frozen=True)
class LatentPath:
    """Codes on the way down.

    Attributes:
        codes: (num_snapshots, num_crystals, latent_dim).
        steps: (num_snapshots,), after how many steps each snapshot was taken.
        losses: (num_snapshots, num_crystals), the objective there, without penalties.
    """

    codes: Tensor
    steps: tuple[int, ...]
    losses: Tensor


class LatentOptimizer(Protocol):
    """What `optimization` needs of an optimiser."""

    @property
    def num_proposals(self) -> int:
        """Snapshots of each path, all of them decoded."""
        ...

    def run(
        self,
        objective: LatentFunction,
        z: Tensor,
        *,
        region: LatentRegion,
        penalty: LatentFunction | None,
        seed: int,
        crystal_ids: Tensor,
        progress: LatentProgress | None = None,
    ) -> LatentPath:
        """The paths from codes z (num_crystals, latent_dim)."""
        ...

    def settings(self) -> dict[str, Any]:
        """What tells one run from another, for the record."""
        ...


@dataclass(frozen=True)
class PublishedDescent:
    """Adam on z with nothing that keeps z near the codes of real crystals.

    Source: Xie et al., ICLR 2022, arXiv 2110.06197, section 4.3, and its public code: a snapshot after the first step,
    after every further 555, and after the last one: 11 in all. The public code minimises the mean over the batch, here
    each crystal's own loss; Adam's step is the same but for its epsilon.

    Attributes:
        num_steps: of Adam.
        learning_rate: of Adam.
        num_snapshots: that the first 10 are spaced for; one more is taken at the end where it is not among them.
    """

    num_steps: int = 5000
    learning_rate: float = 1e-3
    num_snapshots: int = 10

    def __post_init__(self) -> None:
        if not 1 < self.num_snapshots <= self.num_steps or not self.learning_rate > 0.0:
            raise ValueError(f"expected 2 or more snapshots, at most one a step, and a positive rate, got {self}")

    @property
    def snapshot_steps(self) -> tuple[int, ...]:
        """After how many steps the snapshots are taken.

        >>> PublishedDescent().snapshot_steps
        (1, 556, 1111, 1666, 2221, 2776, 3331, 3886, 4441, 4996, 5000)
        """
        interval = self.num_steps // (self.num_snapshots - 1)
        return tuple(i + 1 for i in range(self.num_steps) if i % interval == 0 or i == self.num_steps - 1)

    @property
    def num_proposals(self) -> int:
        return len(self.snapshot_steps)

    def settings(self) -> dict[str, Any]:
        return {"kind": "published", **asdict(self)}

    def run(
        self,
        objective: LatentFunction,
        z: Tensor,
        *,
        region: LatentRegion,
        penalty: LatentFunction | None,
        seed: int,
        crystal_ids: Tensor,
        progress: LatentProgress | None = None,
    ) -> LatentPath:
        z = z.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=self.learning_rate)
        wanted, codes = set(self.snapshot_steps), []
        for step in range(1, self.num_steps + 1):
            loss = objective(z) if penalty is None else objective(z) + penalty(z)
            (z.grad,) = torch.autograd.grad(loss.sum(), z)
            optimizer.step()
            if step in wanted:
                codes.append(z.detach().clone())
                if progress is not None:
                    progress(step, self.num_steps)
        return _path(codes, self.snapshot_steps, objective)


@dataclass(frozen=True)
class GuidedDescent:
    """Adam in whitened coordinates within a trust region, led by the learned prior, in several restarts.

    Each restart begins at the start's code, but for the first one refreshed through the prior at a level of noise that
    rises to `restart_level`, and goes down the objective. Three things keep it where the decoder is good: the step
    towards the prior's denoised code (regularisation by denoising: Romano et al., arXiv 1611.02862), the ball
    that it is projected into after every step, and the objective's own penalty on disagreement. A restart ends with
    a refreshing at `finish_level`, which puts its last code back on the prior's manifold.

    Attributes:
        num_steps: of each restart.
        learning_rate: in standard deviations of the codes; falls to a tenth along a cosine.
        num_restarts: paths from each start.
        num_snapshots: codes that each path gives, evenly over its second half.
        prior_weight: of the step towards the denoised code, beside the objective's gradient.
        prior_level: level of noise, 0 to 1, of the denoising.
        restart_level: highest level of noise of the starts.
        finish_level: level of noise of the last refreshing; 0 for none.
        max_shift: how far from its own beginning a path may go, in standard deviations over all axes; None for any
            distance within the region.
    """

    num_steps: int = 120
    learning_rate: float = 0.1
    num_restarts: int = 4
    num_snapshots: int = 4
    prior_weight: float = 0.1
    prior_level: float = 0.3
    restart_level: float = 0.6
    finish_level: float = 0.1
    max_shift: float | None = None

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.num_restarts < 1 or not 1 <= self.num_snapshots <= self.num_steps:
            raise ValueError(f"expected at least one step, restart and snapshot, got {self}")
        levels = (self.prior_level, self.restart_level, self.finish_level)
        if not all(0.0 <= level < 1.0 for level in levels) or not self.learning_rate > 0.0 or self.prior_weight < 0.0:
            raise ValueError(f"levels lie in [0, 1), the rate is positive, the weight not negative, got {self}")

    @property
    def num_proposals(self) -> int:
        return self.num_restarts * self.num_snapshots

    @property
    def snapshot_steps(self) -> tuple[int, ...]:
        """After how many steps of a restart its snapshots are taken."""
        half = self.num_steps / 2
        spaced = [round(half + half * (i + 1) / self.num_snapshots) for i in range(self.num_snapshots)]
        return tuple(max(1, step) for step in spaced)

    def settings(self) -> dict[str, Any]:
        return {"kind": "guided", **asdict(self)}

    def run(
        self,
        objective: LatentFunction,
        z: Tensor,
        *,
        region: LatentRegion,
        penalty: LatentFunction | None,
        seed: int,
        crystal_ids: Tensor,
        progress: LatentProgress | None = None,
    ) -> LatentPath:
        begin = region.whitened(z.detach())
        codes: list[Tensor] = []
        for restart in range(self.num_restarts):
            # streams of chance: one for each step of each restart, two for its ends
            first = restart * (self.num_steps + 2)
            w = begin
            if restart:
                level = self.restart_level * restart / (self.num_restarts - 1)
                w = region.refreshed(begin, level, path_noise(seed, crystal_ids, begin.shape[1], first))
            codes += self._descend(objective, penalty, region, w, seed, crystal_ids, first + 1)
            if progress is not None:
                progress((restart + 1) * self.num_steps, self.num_restarts * self.num_steps)
        return _path(codes, self.snapshot_steps * self.num_restarts, objective)

    def _descend(
        self,
        objective: LatentFunction,
        penalty: LatentFunction | None,
        region: LatentRegion,
        begin: Tensor,
        seed: int,
        crystal_ids: Tensor,
        first: int,
    ) -> list[Tensor]:
        begin = region.project(begin)
        w = begin.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([w], lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.num_steps, 0.1 * self.learning_rate)
        found: list[Tensor] = []
        for step in range(1, self.num_steps + 1):
            z = region.codes(w)
            loss = objective(z) if penalty is None else objective(z) + penalty(z)
            (gradient,) = torch.autograd.grad(loss.sum(), w)
            if self.prior_weight:
                noise = path_noise(seed, crystal_ids, w.shape[1], first + step)
                here = w.detach()
                gradient = gradient + self.prior_weight * (here - region.denoised(here, self.prior_level, noise))
            # a crystal whose loss has no gradient stays where it is
            w.grad = torch.where(gradient.isfinite().all(-1, keepdim=True), gradient, 0.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                w.copy_(region.project(self._near(w, begin)))
            found += [w.detach().clone()] * self.snapshot_steps.count(step)
        if self.finish_level:
            noise = path_noise(seed, crystal_ids, w.shape[1], first)
            found[-1] = region.project(region.refreshed(found[-1], self.finish_level, noise))
        return [region.codes(code) for code in found]

    def _near(self, w: Tensor, begin: Tensor) -> Tensor:
        if self.max_shift is None:
            return w
        shift = w - begin
        norms = shift.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return begin + shift * (self.max_shift / norms).clamp_max(1.0)


@torch.no_grad()
def _path(codes: list[Tensor], steps: tuple[int, ...], objective: LatentFunction) -> LatentPath:
    return LatentPath(torch.stack(codes), steps, torch.stack([objective(z) for z in codes]))
