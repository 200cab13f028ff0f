"""Bayesian optimisation of codes, for oracles that cost too much to be asked thousands of times.

Needs BoTorch (Balandat et al., arXiv 1910.06403), the extra `cdvae-kit[bayesian]`. A latent space has some hundred
axes, too many for a global model of few values; so the search keeps to a trust region around the best code, as TuRBO
does (Eriksson et al., arXiv 1910.01739), with a Gaussian process whose length scales are expected to grow with the
number of axes (Hvarfner et al., arXiv 2402.02229: BoTorch's default), and every candidate is put through the
prior's flow before the process is asked about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cdvae_kit.generation.latent_region import LatentRegion, path_noise
from cdvae_kit.generation.optimization.latent_optimizers import LatentObjective, LatentPenalty, TryCodes
from cdvae_kit.seeding import make_generator

if TYPE_CHECKING:
    from botorch.models import SingleTaskGP

_CANDIDATE_STREAM = 17


@dataclass(frozen=True)
class BayesianSearch:
    """A trust region that moves and breathes, and Thompson samples of a Gaussian process within it.

    The starts are the first values. Then each round proposes as many codes as there are starts, all in one region
    around the best code so far; a code whose crystal fails counts as the worst value seen. All coordinates are
    whitened. The region doubles after `patience` rounds on end that found something better, and halves after as many
    that did not.

    Attributes:
        num_rounds: after the starts.
        num_candidates: that the process chooses from, in each round.
        axes_at_once: coordinates in which a candidate differs from the best code, on average.
        first_length: half the side of the region's box, in standard deviations.
        shortest_length: where the region starts anew at `first_length`.
        longest_length: where it stops growing.
        patience: rounds.
        level: of the noise that puts candidates on the prior's manifold, 0 to 1; 0 leaves them where they are.
    """

    num_rounds: int = 10
    num_candidates: int = 1000
    axes_at_once: int = 20
    first_length: float = 1.0
    shortest_length: float = 0.05
    longest_length: float = 4.0
    patience: int = 2
    level: float = 0.0

    needs_losses = True
    num_submitted = None
    consistency = 0.0

    def __post_init__(self) -> None:
        if min(self.num_rounds, self.num_candidates, self.axes_at_once, self.patience) < 1:
            raise ValueError(f"every number is at least 1, got {self}")
        if not 0.0 < self.shortest_length <= self.first_length <= self.longest_length or not 0.0 <= self.level < 1.0:
            raise ValueError(f"lengths rise from the shortest to the longest, and the level is under 1, got {self}")

    def settings(self) -> dict[str, Any]:
        return {"kind": "bayesian", **asdict(self)}

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
        require_botorch()
        tried = region.project(region.whitened(z.detach())).double()
        losses = _measured(try_codes, region, tried, z, 0)
        length, streak = self.first_length, 0
        for number in range(1, self.num_rounds + 1):
            proposed = self._propose(region, tried, losses, length, len(z), seed, number, penalty, z)
            best = losses.nan_to_num(nan=torch.inf).min()
            found = _measured(try_codes, region, proposed, z, number)
            tried, losses = torch.cat([tried, proposed]), torch.cat([losses, found])
            better = bool(found.nan_to_num(nan=torch.inf).min() < best)
            streak = max(streak, 0) + 1 if better else min(streak, 0) - 1
            if abs(streak) >= self.patience:
                length = min(2.0 * length, self.longest_length) if better else 0.5 * length
                streak = 0
            if length < self.shortest_length:
                length = self.first_length

    def _propose(
        self,
        region: LatentRegion,
        tried: Tensor,
        losses: Tensor,
        length: float,
        num_proposed: int,
        seed: int,
        number: int,
        penalty: LatentPenalty | None,
        like: Tensor,
    ) -> Tensor:
        """(num_proposed, latent_dim) whitened codes."""
        there = losses.isfinite()
        centre = tried[losses.nan_to_num(nan=torch.inf).argmin()] if bool(there.any()) else tried[0]
        generator = make_generator(seed, _CANDIDATE_STREAM, number)
        candidates = self._candidates(region, centre, length, generator, seed, number, like)
        if penalty is not None:
            # the half that the constraints' heads like best
            with torch.no_grad():
                charge = penalty(region.codes(candidates.to(like)))
            candidates = candidates[charge.argsort(stable=True)[: max(num_proposed, len(candidates) // 2)]]
        if int(there.sum()) < 2:
            # nothing to learn from yet
            return candidates[:num_proposed]
        values = torch.where(there, losses, losses[there].max())
        chosen = _thompson(_fitted(tried, values), candidates, num_proposed, generator)
        return candidates[chosen]

    def _candidates(
        self,
        region: LatentRegion,
        centre: Tensor,
        length: float,
        generator: torch.Generator,
        seed: int,
        number: int,
        like: Tensor,
    ) -> Tensor:
        shape = (self.num_candidates, len(centre))
        moves = length * (2.0 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1.0)
        some = torch.rand(shape, generator=generator, dtype=torch.float64) < self.axes_at_once / len(centre)
        # at least one coordinate changes
        some[torch.arange(shape[0]), torch.randint(shape[1], (shape[0],), generator=generator)] = True
        candidates = centre.cpu() + moves * some
        if self.level:
            ids = torch.arange(len(candidates), device=like.device)
            noise = path_noise(seed, ids, len(centre), number)
            candidates = region.refreshed(candidates.to(like), self.level, noise).cpu().double()
        return region.project(candidates).to(centre)


def _measured(try_codes: TryCodes, region: LatentRegion, whitened: Tensor, like: Tensor, number: int) -> Tensor:
    losses = try_codes(region.codes(whitened.to(like)).unsqueeze(0), [number]).losses
    if losses is None:
        raise RuntimeError("Bayesian optimisation needs the losses that the oracle measures")
    return losses[0].double().to(whitened)


def _fitted(inputs: Tensor, losses: Tensor) -> SingleTaskGP:
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Normalize, Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    process = SingleTaskGP(
        inputs,
        losses.unsqueeze(-1),
        # the priors of the length scales are made for a unit cube
        input_transform=Normalize(d=inputs.shape[1]),
        outcome_transform=Standardize(m=1),
    )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))
    return process


@torch.no_grad()
def _thompson(process: SingleTaskGP, candidates: Tensor, num_chosen: int, generator: torch.Generator) -> Sequence[int]:
    """The lowest candidate of each of `num_chosen` draws from the process, no candidate twice."""
    posterior = process.posterior(candidates)
    base = torch.randn(num_chosen, len(candidates), generator=generator, dtype=torch.float64).to(candidates)
    draws = posterior.rsample_from_base_samples(torch.Size([num_chosen]), base).squeeze(-1)
    chosen: list[int] = []
    for draw in draws:
        draw[chosen] = torch.inf
        chosen.append(int(draw.argmin()))
    return chosen


def require_botorch() -> None:
    """Raises where BoTorch is not installed, before any work is done."""
    if find_spec("botorch") is None:
        raise ModuleNotFoundError(
            "Bayesian optimisation needs BoTorch, which is not installed: python -m pip install 'cdvae-kit[bayesian]'",
            name="botorch",
        )
