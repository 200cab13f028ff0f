"""Learning under the constraint that transforms cost no more than a tolerance, and what its multiplier tells.

Hounie, Chamon and Ribeiro, "Automatic data augmentation via invariance-constrained learning" (ICML 2023, PMLR 202,
arXiv 2209.15031). The clean loss is minimised so that the loss under transforms, drawn with a density proportional to
that loss, stays below a tolerance ε; one multiplier a constraint, γ, grows while it does not and falls while it does.
The multiplier is a price, −d(clean loss)/dε: zero where the symmetry is free, settled where it costs something, and
growing without end where the label breaks it. Their experiments are in `experiments.invariance_constrained`.

Where we differ from their program: the batch statistics of a network do not see the proposals that are only scored;
while γ is zero the transformed samples take no part in the step at all, which is then one of plain training, bit for
bit; and a proposal whose loss is not finite is never accepted. As theirs, the density is proportional to the loss
itself, not to what exceeds a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from cdvae_kit.representation.methods.encoder import Objective
from cdvae_kit.transforms.base import (
    Generator,
    Params,
    Transform,
    join_samples,
    num_samples,
    select_samples,
    uniform,
)

LossFunction: TypeAlias = Callable[[Any, Any], Tensor]
"""(outputs, targets) to (b,): one loss a sample, not negative."""

Label = Literal["invariant", "equivariant"]


@dataclass(frozen=True)
class InvarianceConstraint:
    """E[ℓ(f(g x), g y)] ≤ ε under the transforms g that hurt most.

    Attributes:
        transform: the distribution of g.
        tolerance: ε, in the units of the loss.
        label: whether the label stays as it is, or follows by the transform's `act_on_target`.
        name: the transform's unless given; for multipliers and tables.
    """

    transform: Transform[Any]
    tolerance: float
    label: Label = "invariant"
    name: str = ""

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < math.inf:
            raise ValueError(f"a tolerance must be a positive loss, got {self.tolerance}")
        if self.label not in ("invariant", "equivariant"):
            raise ValueError(f"a label is 'invariant' or 'equivariant', got {self.label!r}")
        if not self.name:
            object.__setattr__(self, "name", self.transform.name)

    def target(self, target: Any, params: Params) -> Any:
        """The label that the transformed sample must have."""
        return target if self.label == "invariant" else self.transform.act_on_target(target, params)


class Chain(NamedTuple):
    """Where the chains of a batch ended.

    Attributes:
        batch: transformed.
        params: of the transform, as `sample` gives them.
        losses: (b,), of the end states, without gradient.
        acceptance: the share of proposals after the first that were taken; not a number if there were none.
    """

    batch: Any
    params: Params
    losses: Tensor
    acceptance: float


@torch.no_grad()
def metropolis_hastings(
    transform: Transform[Any],
    batch: Any,
    loss_of: Callable[[Any, Params], Tensor],
    *,
    num_proposals: int = 2,
    generator: Generator,
) -> Chain:
    """Draws of a transform with a density proportional to its own times the loss, by independent proposals.

    Each proposal is taken with probability min(1, ℓ_new / ℓ_old), sample by sample; the transform's own density
    cancels. The first one is the start, so that one proposal is a plain draw and many come to the stationary density.

    Args:
        transform: what proposes.
        batch: samples.
        loss_of: (changed batch, parameters) to (b,) losses that are not negative.
        num_proposals: at least 1; the paper's program takes 2.
        generator: of proposals and decisions.

    >>> from cdvae_kit.seeding import make_generator
    >>> from cdvae_kit.transforms.vectors import SignFlip
    >>> end = metropolis_hastings(
    ...     SignFlip(0), torch.ones(2000, 1), lambda x, _: 2.0 - x[:, 0], num_proposals=20, generator=make_generator(0)
    ... )
    >>> print(f"{float((end.batch < 0).float().mean()):.2f}")  # losses 3 and 1
    0.75
    """
    if num_proposals < 1:
        raise ValueError(f"a chain needs at least one proposal, got {num_proposals}")
    params = transform.sample(batch, generator=generator)
    losses = _checked_losses(loss_of(transform.apply(batch, params), params), num_samples(batch))
    num_taken = 0
    for _ in range(num_proposals - 1):
        proposed = transform.sample(batch, generator=generator)
        found = _checked_losses(loss_of(transform.apply(batch, proposed), proposed), num_samples(batch))
        decide = uniform(generator, num_samples(batch), like=losses)
        # no quotient: 0/0 is not taken; a state that is no number is left for any that is one
        taken = torch.isfinite(found) & ((decide * losses < found) | ~torch.isfinite(losses))
        params = _where(taken, proposed, params)
        losses = torch.where(taken, found, losses)
        num_taken += int(taken.sum())
    decided = (num_proposals - 1) * num_samples(batch)
    return Chain(transform.apply(batch, params), params, losses, num_taken / decided if decided else math.nan)


def _where(taken: Tensor, proposed: Params, current: Params) -> Params:
    if any(proposed[key].shape != value.shape for key, value in current.items()):
        raise ValueError("two draws of the transform have parameters of different shapes, so that they cannot be mixed")
    return {
        key: torch.where(taken.reshape(-1, *[1] * (value.ndim - 1)), proposed[key], value)
        for key, value in current.items()
    }


def _checked_losses(losses: Tensor, count: int) -> Tensor:
    if losses.shape != (count,):
        raise ValueError(
            f"expected one loss a sample, ({count},), got {tuple(losses.shape)}; torch's losses need reduction='none', "
            "and a sum over what a sample has more than one of"
        )
    if bool((losses < 0.0).any()):
        raise ValueError(f"losses must not be negative, for they are a density here, got {float(losses.min()):g}")
    return losses


@contextmanager
def _still_buffers(model: nn.Module) -> Iterator[None]:
    """What runs within leaves batch statistics as they were."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, before in kept:
            buffer.copy_(before)


class PrimalDual(nn.Module, Objective):
    """Descends the clean loss plus γ times the loss under transforms, and climbs in γ; hand it to `fitting.fit`.

    The batch is (samples, targets). After a step γ ← [γ + η (L − ε)]₊, with L the batch's loss under the transforms.

    Args:
        model: samples to outputs; trained along.
        loss_fn: (outputs, targets) to (b,).
        constraints: one multiplier each; names must differ. None at all is plain training.
        dual_lr: η of the multipliers; 0 holds them.
        num_proposals: S of `metropolis_hastings`; 1 draws from the transform's distribution instead.
        forward: `all` puts clean and transformed samples through the network. `one`, the cheaper variant, puts each
            sample through once: clean with probability 1/(1 + Σγ), else transformed for constraint j with γ_j/(1 + Σγ);
            L is then read off the chain. `one` never cares how large γ is, and its loss is that of `all` over 1 + Σγ.
        initial_dual: γ at the start.

    >>> from cdvae_kit.representation.methods.encoder import MLPEncoder
    >>> from cdvae_kit.seeding import make_generator
    >>> from cdvae_kit.transforms.vectors import SignFlip
    >>> squares = lambda output, target: (output[:, 0] - target) ** 2
    >>> learner = PrimalDual(MLPEncoder([2, 4, 1]), squares, [InvarianceConstraint(SignFlip(0), 0.1)], dual_lr=0.01)
    >>> sorted(learner.loss((torch.ones(8, 2), torch.zeros(8)), generator=make_generator(0)))
    ['clean', 'dual/sign_flip', 'loss', 'transformed/sign_flip']
    """

    duals: Tensor
    """(num_constraints,) double; the multipliers γ."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        constraints: Sequence[InvarianceConstraint],
        *,
        dual_lr: float,
        num_proposals: int = 2,
        forward: Literal["all", "one"] = "all",
        initial_dual: float = 0.0,
    ) -> None:
        super().__init__()
        names = [constraint.name for constraint in constraints]
        if len(set(names)) < len(names):
            raise ValueError(f"constraints need names of their own, got {names}")
        if not (0.0 <= dual_lr < math.inf and 0.0 <= initial_dual < math.inf):
            raise ValueError(
                f"the rate and the start of a multiplier must not be negative, got {dual_lr, initial_dual}"
            )
        if forward not in ("all", "one"):
            raise ValueError(f"forward is 'all' or 'one', got {forward!r}")
        if num_proposals < 1:
            raise ValueError(f"a chain needs at least one proposal, got {num_proposals}")
        self.model = model
        self.loss_fn = loss_fn
        self.constraints = tuple(constraints)
        self.dual_lr = dual_lr
        self.num_proposals = num_proposals
        self.forward_through = forward
        self.register_buffer("duals", torch.full((len(names),), initial_dual, dtype=torch.float64))
        self._values: list[float] | None = None
        self._history: list[tuple[Tensor, list[float]]] = []

    @property
    def multipliers(self) -> dict[str, float]:
        """γ by the constraint's name."""
        return dict(zip((c.name for c in self.constraints), self.duals.tolist(), strict=True))

    @property
    def dual_history(self) -> Tensor:
        """(num_steps, num_constraints): γ after each step."""
        return torch.stack([duals for duals, _ in self._history]) if self._history else self.duals[None][:0]

    @property
    def loss_history(self) -> Tensor:
        """(num_steps, num_constraints): L of each step's batch."""
        values = [values for _, values in self._history]
        return self.duals.new_tensor(values) if values else self.duals[None][:0]

    def forward(self, batch: Any) -> Tensor:
        """The model's outputs."""
        return self.model(batch)

    def loss(self, batch: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
        samples, targets = batch
        chains = [self._hardest(constraint, samples, targets, generator) for constraint in self.constraints]
        if self.forward_through == "one":
            terms = self._one_forward(samples, targets, chains, generator)
        else:
            terms = self._all_forward(samples, targets, chains)
        self._values = [float(terms[f"transformed/{constraint.name}"].detach()) for constraint in self.constraints]
        return terms | {f"dual/{name}": torch.tensor(value) for name, value in self.multipliers.items()}

    def after_step(self, step: int, num_steps: int) -> None:
        """The dual step, with L of the last call of `loss`."""
        if self._values is None:
            raise RuntimeError("there is no loss to step by: call `loss` before `after_step`")
        excess = self.duals.new_tensor([v - c.tolerance for v, c in zip(self._values, self.constraints, strict=True)])
        self.duals.add_(self.dual_lr * excess).clamp_(min=0.0)
        self._history.append((self.duals.clone(), self._values))
        self._values = None

    def _hardest(self, constraint: InvarianceConstraint, samples: Any, targets: Any, generator: Generator) -> Chain:
        def loss_of(changed: Any, params: Params) -> Tensor:
            return self.loss_fn(self.model(changed), constraint.target(targets, params))

        with _still_buffers(self.model):
            return metropolis_hastings(
                constraint.transform, samples, loss_of, num_proposals=self.num_proposals, generator=generator
            )

    def _mean_loss(self, samples: Any, targets: Any) -> Tensor:
        return _checked_losses(self.loss_fn(self.model(samples), targets), num_samples(samples)).mean()

    def _all_forward(self, samples: Any, targets: Any, chains: Sequence[Chain]) -> dict[str, Tensor]:
        clean = self._mean_loss(samples, targets)
        terms, total = {"clean": clean}, clean
        for constraint, chain, dual in zip(self.constraints, chains, self.duals.tolist(), strict=True):
            transformed = chain.losses.mean()
            if dual > 0.0:
                transformed = self._mean_loss(chain.batch, constraint.target(targets, chain.params))
                total = total + dual * transformed
            terms[f"transformed/{constraint.name}"] = transformed
        return terms | {"loss": total}

    def _one_forward(
        self, samples: Any, targets: Any, chains: Sequence[Chain], generator: Generator
    ) -> dict[str, Tensor]:
        count = num_samples(samples)
        shares = torch.cat([self.duals.new_ones(1), self.duals])
        bounds = (shares / shares.sum()).cumsum(0)[:-1]
        chosen = torch.bucketize(uniform(generator, count).to(bounds), bounds, right=True)
        parts = [(samples, targets)] + [
            (chain.batch, constraint.target(targets, chain.params))
            for constraint, chain in zip(self.constraints, chains, strict=True)
        ]
        rows = chosen.cpu() * count + torch.arange(count)
        mixed_samples, mixed_targets = select_samples(join_samples(parts), rows)
        terms = {"loss": self._mean_loss(mixed_samples, mixed_targets)}
        for constraint, chain in zip(self.constraints, chains, strict=True):
            terms[f"transformed/{constraint.name}"] = chain.losses.mean()
        return terms
