"""Ways to move codes down an objective: the published descent, and a search that stays where the decoder is good.

They know codes and objectives, no crystals: what they propose goes through `TryCodes`, which decodes and checks it.
Every start's path depends on its own code, the seed and its own number. Bayesian optimisation is in
`bayesian_search`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cdvae_kit.generation.latent_region import LatentRegion, path_noise

LatentObjective = Callable[[Tensor, Tensor], Tensor]
"""From codes (num_codes, latent_dim), and the start that each belongs to (num_codes,) long, to a loss each
(num_codes,): differentiable, lower is better, and of each code alone."""
LatentPenalty = Callable[[Tensor], Tensor]
"""From codes (num_codes, latent_dim) to a loss each, differentiable."""


@dataclass(frozen=True)
class Feedback:
    """What became of codes that were tried, (num_snapshots, num_starts) of them.

    Attributes:
        codes: (num_snapshots, num_starts, latent_dim), the codes of the decoded crystals; NaN where a crystal is
            invalid, breaks a constraint or cannot be encoded.
        losses: (num_snapshots, num_starts) of the crystals, by the oracle or by a critic; NaN where there is none. None
            where nobody was asked.
    """

    codes: Tensor
    losses: Tensor | None = None


class TryCodes(Protocol):
    """Decodes and checks codes."""

    def __call__(self, codes: Tensor, steps: Sequence[int]) -> Feedback:
        """Of codes (num_snapshots, num_starts, latent_dim), each snapshot taken after so many steps."""
        ...


class LatentOptimizer(Protocol):
    """What `optimization` needs of an optimiser."""

    @property
    def needs_losses(self) -> bool:
        """Whether the oracle is asked about everything that is tried, while it runs."""
        ...

    @property
    def num_submitted(self) -> int | None:
        """How many trials of a start the judge sees; None for all."""
        ...

    @property
    def consistency(self) -> float:
        """What a standard deviation between a crystal's code and the code that it was decoded from costs it."""
        ...

    def run(
        self,
        objective: LatentObjective | None,
        z: Tensor,
        try_codes: TryCodes,
        *,
        region: LatentRegion,
        penalty: LatentPenalty | None,
        seed: int,
        crystal_ids: Tensor,
    ) -> None:
        """Goes from codes z (num_starts, latent_dim) and tries what it finds.

        Args:
            objective: what to go down; None where only the oracle knows.
            z: the starts.
            try_codes: is given what is proposed.
            region: where the codes of real crystals lie.
            penalty: of the constraints.
            seed: of the run.
            crystal_ids: (num_starts,) long, each start's number within the run.
        """
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
        num_spaced: snapshots that are spaced evenly; the last step's is one more where it is not among them.
    """

    num_steps: int = 5000
    learning_rate: float = 1e-3
    num_spaced: int = 10

    def __post_init__(self) -> None:
        if not 1 < self.num_spaced <= self.num_steps or not self.learning_rate > 0.0:
            raise ValueError(f"expected 2 or more snapshots, at most one a step, and a positive rate, got {self}")

    needs_losses = False
    num_submitted = None
    consistency = 0.0

    @property
    def snapshot_steps(self) -> tuple[int, ...]:
        """After how many steps the snapshots are taken.

        >>> PublishedDescent().snapshot_steps
        (1, 556, 1111, 1666, 2221, 2776, 3331, 3886, 4441, 4996, 5000)
        """
        interval = self.num_steps // (self.num_spaced - 1)
        return tuple(i + 1 for i in range(self.num_steps) if i % interval == 0 or i == self.num_steps - 1)

    def settings(self) -> dict[str, Any]:
        return {"kind": "published", **asdict(self)}

    def run(
        self,
        objective: LatentObjective | None,
        z: Tensor,
        try_codes: TryCodes,
        *,
        region: LatentRegion,
        penalty: LatentPenalty | None,
        seed: int,
        crystal_ids: Tensor,
    ) -> None:
        objective = needed(objective)
        rows = torch.arange(len(z), device=z.device)
        z = z.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=self.learning_rate)
        wanted, codes = set(self.snapshot_steps), []
        for step in range(1, self.num_steps + 1):
            z.grad = _gradient(objective, penalty, z, z, rows)
            optimizer.step()
            if step in wanted:
                codes.append(z.detach().clone())
        try_codes(torch.stack(codes), self.snapshot_steps)


@dataclass(frozen=True)
class GuidedSearch:
    """Descents in the region of real codes, in rounds that each go on from crystals that were really decoded.

    Several paths leave each start. A path goes in cycles: steps of Adam in whitened coordinates, projected into the
    region's ball, then noise and the prior's flow back (SDEdit: Meng et al., arXiv 2108.01073), which puts the code
    where codes of real crystals are; the noise falls from cycle to cycle. The codes of the last cycles are decoded, and
    the crystals encoded again: the next round leaves from the best codes of crystals that are valid and meet the
    constraints, by the objective. So the predictor is asked, where it counts, about codes of crystals, which it was
    trained on, and not about codes that only its own gradient has made.

    The defaults were chosen with `tests/benchmarks/measure_optimization.py` on the `val` starts of the public sets;
    `num_submitted` is the published protocol's 11 crystals a start (Xie et al. 2022).

    Attributes:
        num_rounds: of descent, decoding and choice.
        num_paths: from each start.
        num_cycles: of steps and noise, in a round.
        steps_per_cycle: of Adam.
        learning_rate: of Adam, in standard deviations of the codes.
        pull: weight of half the squared distance from the region's centre, beside the objective.
        first_level: noise after the first cycle, 0 to 1.
        last_level: noise after the last cycle.
        spread_level: noise that the paths of the first round begin with, rising from 0 for the first path.
        num_kept: cycles at a round's end whose codes are decoded.
        consistency: what a crystal's loss grows by for each standard deviation between its own code and the code that
            it was decoded from: a crystal that is another one than was meant is a distorted one as a rule.
        max_shift: how far a code may be from its start, in standard deviations; None for anywhere in the region.
        num_submitted: crystals of a start that the judge sees.
    """

    num_rounds: int = 5
    num_paths: int = 4
    num_cycles: int = 3
    steps_per_cycle: int = 20
    learning_rate: float = 0.1
    pull: float = 0.003
    first_level: float = 0.5
    last_level: float = 0.15
    spread_level: float = 0.5
    num_kept: int = 2
    consistency: float = 0.2
    max_shift: float | None = None
    num_submitted: int | None = 11

    def __post_init__(self) -> None:
        counts = (self.num_rounds, self.num_paths, self.num_cycles, self.steps_per_cycle, self.num_kept)
        levels = (self.first_level, self.last_level, self.spread_level)
        if min(counts) < 1 or self.num_kept > self.num_cycles or self.consistency < 0.0:
            raise ValueError(f"numbers from 1, num_kept at most num_cycles, consistency not under 0, got {self}")
        if not all(0.0 <= level < 1.0 for level in levels) or not self.learning_rate > 0.0 or self.pull < 0.0:
            raise ValueError(f"levels lie in [0, 1), the rate is positive, the pull not negative, got {self}")

    needs_losses = False

    def settings(self) -> dict[str, Any]:
        return {"kind": "guided", **asdict(self)}

    def run(
        self,
        objective: LatentObjective | None,
        z: Tensor,
        try_codes: TryCodes,
        *,
        region: LatentRegion,
        penalty: LatentPenalty | None,
        seed: int,
        crystal_ids: Tensor,
    ) -> None:
        objective = needed(objective)
        num_starts, latent_dim = z.shape
        rows = torch.arange(num_starts, device=z.device).repeat_interleave(self.num_paths)
        path = torch.arange(self.num_paths, device=z.device).repeat(num_starts)
        ids = crystal_ids.to(z.device).repeat_interleave(self.num_paths) * self.num_paths + path
        starts = region.whitened(z.detach())
        w = self._spread(region, starts[rows], path, path_noise(seed, ids, latent_dim, 0))
        pool, pool_losses = starts.unsqueeze(1), _losses(objective, penalty, z, rows[:: self.num_paths]).unsqueeze(1)
        steps_per_round = self.num_cycles * self.steps_per_cycle
        for number in range(self.num_rounds):
            kept = []
            for cycle in range(self.num_cycles):
                w = self._descend(objective, penalty, region, w, starts[rows], rows)
                noise = path_noise(seed, ids, latent_dim, 1 + number * self.num_cycles + cycle)
                w = self._inside(region, region.refreshed(w, self._level(cycle), noise), starts[rows])
                if cycle >= self.num_cycles - self.num_kept:
                    done = number * steps_per_round + (cycle + 1) * self.steps_per_cycle
                    kept.append((w.view(num_starts, self.num_paths, latent_dim).transpose(0, 1), done))
            codes = region.codes(torch.cat([some for some, _ in kept]))
            feedback = try_codes(codes, [done for _, done in kept for _ in range(self.num_paths)])
            found = feedback.codes
            whitened = region.whitened(found.transpose(0, 1).to(z))
            losses = self._losses_of(objective, penalty, found.to(z), num_starts)
            if feedback.losses is not None:
                # a critic of crystals sees what their codes do not tell
                critic = feedback.losses.T.to(losses).nan_to_num(nan=torch.inf, posinf=torch.inf)
                losses = torch.maximum(losses, critic)
            apart = (whitened - region.whitened(codes.transpose(0, 1))).norm(dim=-1)
            losses = losses + self.consistency * apart.nan_to_num(nan=torch.inf)
            pool, pool_losses = torch.cat([pool, whitened], dim=1), torch.cat([pool_losses, losses], dim=1)
            # where too few crystals have passed, the start goes again
            best = pool_losses.topk(min(self.num_paths, pool_losses.shape[1]), dim=1, largest=False)
            best_indices = torch.where(best.values.isfinite(), best.indices, 0)
            w = pool.gather(1, best_indices.unsqueeze(-1).expand(-1, -1, latent_dim)).flatten(0, 1)

    def _level(self, cycle: int) -> float:
        share = cycle / max(1, self.num_cycles - 1)
        return self.first_level + (self.last_level - self.first_level) * share

    def _spread(self, region: LatentRegion, w: Tensor, path: Tensor, noise: Tensor) -> Tensor:
        spread = w.clone()
        for number in range(1, self.num_paths):
            own = path == number
            level = self.spread_level * number / (self.num_paths - 1)
            spread[own] = region.refreshed(w[own], level, noise[own])
        return spread

    def _descend(
        self,
        objective: LatentObjective,
        penalty: LatentPenalty | None,
        region: LatentRegion,
        begin: Tensor,
        starts: Tensor,
        rows: Tensor,
    ) -> Tensor:
        w = begin.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([w], lr=self.learning_rate)
        for _ in range(self.steps_per_cycle):
            gradient = _gradient(objective, penalty, region.codes(w), w, rows) + self.pull * w.detach()
            # a code whose loss has no gradient stays where it is
            w.grad = torch.where(gradient.isfinite().all(-1, keepdim=True), gradient, 0.0)
            optimizer.step()
            with torch.no_grad():
                w.copy_(self._inside(region, w, starts))
        return w.detach()

    def _inside(self, region: LatentRegion, w: Tensor, starts: Tensor) -> Tensor:
        if self.max_shift is not None:
            shift = w - starts
            w = starts + shift * (self.max_shift / shift.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
        return region.project(w)

    @torch.no_grad()
    def _losses_of(
        self, objective: LatentObjective, penalty: LatentPenalty | None, codes: Tensor, num_starts: int
    ) -> Tensor:
        """(num_starts, num_snapshots) of the codes (num_snapshots, num_starts, latent_dim); infinite where NaN."""
        flat = codes.transpose(0, 1).flatten(0, 1)
        there = flat.isfinite().all(-1)
        rows = torch.arange(num_starts, device=flat.device).repeat_interleave(len(codes))
        losses = torch.full((len(flat),), torch.inf, dtype=flat.dtype, device=flat.device)
        if bool(there.any()):
            losses[there] = _losses(objective, penalty, flat[there], rows[there])
        return losses.nan_to_num(nan=torch.inf, posinf=torch.inf).view(num_starts, len(codes))


def needed(objective: LatentObjective | None) -> LatentObjective:
    """The objective; an error where there is none."""
    if objective is None:
        raise ValueError(
            "this optimiser goes down a predictor of codes, and none is given; give one, or use Bayesian optimisation, "
            "which asks the oracle alone"
        )
    return objective


def _gradient(objective: LatentObjective, penalty: LatentPenalty | None, z: Tensor, by: Tensor, rows: Tensor) -> Tensor:
    loss = objective(z, rows)
    if penalty is not None:
        loss = loss + penalty(z)
    return torch.autograd.grad(loss.sum(), by)[0]


@torch.no_grad()
def _losses(objective: LatentObjective, penalty: LatentPenalty | None, z: Tensor, rows: Tensor) -> Tensor:
    loss = objective(z, rows)
    return loss if penalty is None else loss + penalty(z)
