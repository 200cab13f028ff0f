"""From codes to crystals that are checked and judged: what happens to every snapshot of an optimisation.

A trial is one decoded snapshot. None is lost: what cannot be decoded, encoded again or judged keeps its place and says
why. Which codes are tried is the business of `latent_optimizers`, what is made of the trials that of `ranking`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.errors import CrystalError
from cdvae_kit.generation.latent_region import LatentRegion
from cdvae_kit.generation.optimization.constraints import Constraints
from cdvae_kit.generation.optimization.objectives import Goal, LatentModel, predicted_values
from cdvae_kit.generation.optimization.oracles import Judge
from cdvae_kit.metrics.validity import validity
from cdvae_kit.models import decoding

if TYPE_CHECKING:
    from cdvae_kit.models import CDVAE

logger = logging.getLogger(__name__)

_IDS_PER_START = 1 << 20


@dataclass(frozen=True)
class Trials:
    """Decoded snapshots, one row each.

    Attributes:
        crystals: as they were decoded, or relaxed.
        codes: (num_trials, latent_dim) they were decoded from.
        reread_codes: (num_trials, latent_dim), the codes of the crystals themselves; NaN where a crystal did not pass
            or cannot be encoded.
        numbers: name to (num_trials,). `start`, `snapshot` and `step` say where a trial comes from; `valid` (distances
            and composition), `allowed` (constraints), `submitted` (to the judge) and `relaxed` are 0 or 1; `mismatch`
            is the distance between both codes, in standard deviations. `predicted_X` is the optimised predictor's on
            the code, `reread_X` on the code of the decoded crystal, `critic_X` the critic's, `judged_X` the judge's,
            and `predicted_uncertainty_X` and so on what each is unsure by; NaN for none.
        reasons: why a trial is no candidate; None where it is one.
    """

    crystals: CrystalBatch
    codes: Tensor
    reread_codes: Tensor
    numbers: Mapping[str, np.ndarray]
    reasons: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.reasons)

    def flag(self, name: str) -> np.ndarray:
        """(num_trials,) bool of one of the numbers."""
        return self.numbers[name] == 1

    @property
    def passed(self) -> np.ndarray:
        """(num_trials,) bool: valid and within the constraints."""
        return self.flag("valid") & self.flag("allowed")

    def select(self, index: Sequence[int] | np.ndarray) -> Trials:
        indices = np.asarray(index, dtype=np.int64)
        return Trials(
            self.crystals.select(indices.tolist()),
            self.codes[torch.from_numpy(indices)],
            self.reread_codes[torch.from_numpy(indices)],
            {name: column[indices] for name, column in self.numbers.items()},
            tuple(self.reasons[i] for i in indices.tolist()),
        )

    def with_numbers(self, **columns: np.ndarray) -> Trials:
        return replace(self, numbers={**self.numbers, **columns})

    def as_table(self) -> dict[str, Any]:
        """Everything as lists and tables, for a file of JSON."""
        crystals = self.crystals
        return {
            "num_atoms": crystals.num_atoms.tolist(),
            "atomic_numbers": crystals.atomic_numbers.tolist(),
            "frac_coords": crystals.frac_coords.tolist(),
            "lattice": crystals.lattice.tolist(),
            "codes": self.codes.tolist(),
            "reread_codes": self.reread_codes.tolist(),
            "numbers": {name: column.tolist() for name, column in self.numbers.items()},
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_table(cls, content: Mapping[str, Any]) -> Trials:
        """What `as_table` gave."""
        crystals = CrystalBatch(
            torch.tensor(content["frac_coords"], dtype=torch.float32).view(-1, 3),
            torch.tensor(content["lattice"], dtype=torch.float32),
            torch.tensor(content["atomic_numbers"]),
            torch.tensor(content["num_atoms"]),
        )
        numbers = {name: np.array(column, dtype=np.float64) for name, column in content["numbers"].items()}
        codes, reread_codes = (torch.tensor(content[name]) for name in ("codes", "reread_codes"))
        return cls(crystals, codes, reread_codes, numbers, tuple(content["reasons"]))


def join(parts: Sequence[Trials]) -> Trials:
    """All trials in order; a number that only some parts have is NaN in the others."""
    names = list(dict.fromkeys(name for part in parts for name in part.numbers))
    numbers = {name: np.concatenate([p.numbers.get(name, np.full(len(p), np.nan)) for p in parts]) for name in names}
    return Trials(
        concatenate([part.crystals for part in parts]),
        torch.cat([part.codes for part in parts]),
        torch.cat([part.reread_codes for part in parts]),
        numbers,
        tuple(reason for part in parts for reason in part.reasons),
    )


@dataclass(frozen=True)
class TrialMaker:
    """Decodes and checks codes.

    Attributes:
        model: the decoder.
        goals: whose values are wanted.
        predictor: the one that is optimised; None where the oracle alone leads.
        critic: of crystals, whose word the search goes by; None without one.
        constraints: what crystals have to be.
        region: whose coordinates distances of codes are in.
        seed: of the run.
        max_tries: an invalid crystal, or one that breaks a constraint, is decoded anew from the same code until it has
            been tried this often.
        steps: of the decoder; its own default if None.
        num_draws: decodings of each code, of which the one is kept whose crystal has the nearest code: what is far from
            what was meant is distorted as a rule, and where the decoder errs often, some of many draws are right.
    """

    model: CDVAE
    goals: tuple[Goal, ...]
    predictor: LatentModel | None
    critic: Judge | None
    constraints: Constraints
    region: LatentRegion
    seed: int
    max_tries: int = 1
    steps: int | None = None
    num_draws: int = 1

    def make(self, codes: Tensor, steps: Sequence[int], starts: Sequence[int], *, first_snapshot: int = 0) -> Trials:
        """Trials of codes (num_snapshots, num_starts, latent_dim), start by start.

        Args:
            codes: of the snapshots.
            steps: (num_snapshots,), after how many steps each was taken.
            starts: (num_starts,), numbers of the starts within the run.
            first_snapshot: number of the first one, where a start has trials already.
        """
        num_snapshots, num_starts, _ = codes.shape
        flat = codes.transpose(0, 1).flatten(0, 1).detach()
        numbers = {
            "start": np.repeat(np.array(starts, dtype=np.float64), num_snapshots),
            "snapshot": np.tile(first_snapshot + np.arange(num_snapshots, dtype=np.float64), num_starts),
            "step": np.tile(np.array(steps, dtype=np.float64), num_starts),
        }
        ids = torch.from_numpy(numbers["start"] * _IDS_PER_START + numbers["snapshot"]).long().to(flat.device)
        trials = self._draw(flat, ids, numbers, 0)
        for draw in range(1, self.num_draws):
            again = self._draw(flat, ids, numbers, draw)
            nearer = again.passed & ~(trials.passed & (trials.numbers["mismatch"] <= again.numbers["mismatch"]))
            own = np.arange(len(trials))
            trials = join([trials, again]).select(np.where(nearer, len(trials) + own, own))
        return trials

    def _draw(self, flat: Tensor, ids: Tensor, numbers: Mapping[str, np.ndarray], draw: int) -> Trials:
        """One crystal for each code; those that fail are tried again."""
        first = draw * self.max_tries
        trials = self._check(self._decode(flat, ids, first), flat, numbers)
        for attempt in range(first + 1, first + self.max_tries):
            failed = np.flatnonzero(~trials.passed)
            if not len(failed):
                break
            again = self._decode(flat[torch.from_numpy(failed)], ids[torch.from_numpy(failed)], attempt)
            kept = {name: column[failed] for name, column in numbers.items()}
            source = np.arange(len(trials))
            source[failed] = len(trials) + np.arange(len(failed))
            retried = self._check(again, flat[torch.from_numpy(failed)], kept)
            trials = join([trials, retried]).select(source)
        return self._with_predictions(trials)

    def _decode(self, codes: Tensor, ids: Tensor, attempt: int) -> CrystalBatch:
        return decoding.decode(
            self.model,
            codes,
            seed=self.seed + (attempt << 48),
            crystal_ids=ids,
            num_steps=self.steps,
            limits=self.constraints.limits(),
            # codes that were moved are no codes of real crystals any more
            blur=self.model.config.blur,
        )

    def _check(self, crystals: CrystalBatch, codes: Tensor, numbers: Mapping[str, np.ndarray]) -> Trials:
        on_cpu = crystals.to("cpu")
        verdicts, violations = validity(on_cpu), self.constraints.violations(on_cpu)
        flags = {
            "valid": np.array([float(verdict.valid) for verdict in verdicts]),
            "allowed": np.array([float(violation is None) for violation in violations]),
        }
        reasons = [verdict.reason or violation for verdict, violation in zip(verdicts, violations, strict=True)]
        nowhere = torch.full_like(codes.cpu(), torch.nan)
        return Trials(on_cpu, codes.cpu(), nowhere, {**numbers, **flags}, tuple(reasons))

    def recheck(self, trials: Trials) -> Trials:
        """The same after its crystals were changed."""
        checked = self._with_predictions(self._check(trials.crystals, trials.codes, trials.numbers))
        return replace(checked, reasons=tuple(b or a for a, b in zip(trials.reasons, checked.reasons, strict=True)))

    def _with_predictions(self, trials: Trials) -> Trials:
        passed = np.flatnonzero(trials.passed)
        found = encode_each(self.model, trials.crystals.select(passed.tolist()))
        reread_codes = trials.reread_codes.clone()
        for place, code in zip(passed.tolist(), found, strict=True):
            if code is not None:
                reread_codes[place] = code.cpu()
        device = self.model.device
        apart = self.region.whitened(reread_codes.to(device)) - self.region.whitened(trials.codes.to(device))
        mismatch = apart.norm(dim=-1).double().cpu().numpy()
        trials = replace(trials, reread_codes=reread_codes).with_numbers(mismatch=mismatch)
        if self.predictor is None:
            return trials
        columns = {}
        for kind, codes in (("predicted", trials.codes), ("reread", reread_codes)):
            values, stds = predicted_values(self.predictor, codes.to(device), self.goals)
            for i, goal in enumerate(self.goals):
                columns[f"{kind}_{goal.name}"] = values[:, i]
                columns[f"{kind}_uncertainty_{goal.name}"] = stds[:, i]
        return self._with_critic(trials.with_numbers(**columns))

    def _with_critic(self, trials: Trials) -> Trials:
        passed = np.flatnonzero(trials.passed)
        if self.critic is None or not len(passed):
            return trials
        said = self.critic.judge(trials.crystals.select(passed.tolist()))
        columns = {}
        for goal in self.goals:
            for kind, given in (("critic", said.values), ("critic_uncertainty", said.uncertainties)):
                column = np.full(len(trials), np.nan)
                column[passed] = given.get(goal.name, np.zeros(len(passed)))
                columns[f"{kind}_{goal.name}"] = column
        return trials.with_numbers(**columns)


def encode_each(model: CDVAE, crystals: CrystalBatch) -> list[Tensor | None]:
    """The code of each crystal, None where it cannot be reduced or encoded."""
    if not len(crystals):
        return []
    bare = crystals.replace(properties={}, material_ids=None)
    try:
        return list(model.encode(bare.to(model.device), allow_outside=True))
    except (ValueError, RuntimeError, CrystalError, ArithmeticError, LookupError) as error:
        # one odd cell must not take the others with it
        if len(crystals) == 1:
            logger.info("a decoded crystal cannot be encoded: %s", error)
            return [None]
        half = len(crystals) // 2
        indices = range(len(crystals))
        return encode_each(model, bare.select(indices[:half])) + encode_each(model, bare.select(indices[half:]))


def promised(
    trials: Trials,
    goals: Sequence[Goal],
    scales: Sequence[float],
    weights: np.ndarray,
    *,
    kinds: Sequence[str] = ("reread", "critic"),
) -> np.ndarray:
    """(num_trials,) the loss by those who lead the search, of whom the one who likes a crystal least is believed.

    A value is charged what its giver is unsure by; losses are in standard deviations of the data, and NaN where one of
    them has no value.

    Args:
        trials: with their numbers.
        goals: what is wanted.
        scales: (num_goals,), the standard deviation of each in the data, in its unit.
        weights: (num_trials, num_goals), the share of each goal.
        kinds: whose values are looked at; those who gave none are passed over.
    """
    total = np.zeros(len(trials))
    for i, (goal, scale) in enumerate(zip(goals, scales, strict=True)):
        said = [
            (goal.distance(trials.numbers[f"{kind}_{goal.name}"]) + trials.numbers[f"{kind}_uncertainty_{goal.name}"])
            / scale
            for kind in kinds
            if f"{kind}_{goal.name}" in trials.numbers
        ]
        if said:
            total = total + weights[:, i] * np.maximum.reduce(said)
    return total


def submit(trials: Trials, loss: np.ndarray, num_submitted: int | None) -> Trials:
    """Marks those of each start's trials that the judge is to see: the ones of lowest loss (num_trials,).

    Crystals that have not passed come last. None submits them all. The judge has no part in the choice.
    """
    if num_submitted is None:
        return trials.with_numbers(submitted=np.ones(len(trials)))
    loss = np.where(trials.passed & np.isfinite(loss), loss, np.inf)
    submitted = np.zeros(len(trials))
    for start in np.unique(trials.numbers["start"]):
        own = np.flatnonzero(trials.numbers["start"] == start)
        submitted[own[np.argsort(loss[own], kind="stable")[:num_submitted]]] = 1.0
    return trials.with_numbers(submitted=submitted)


def judged(trials: Trials, judge: Judge, goals: Sequence[Goal]) -> Trials:
    """With the judge's values of the trials that are submitted and passed."""
    asked = np.flatnonzero(trials.flag("submitted") & trials.passed)
    columns = {}
    reasons = list(trials.reasons)
    for goal in goals:
        for kind in ("judged", "judged_uncertainty"):
            columns[f"{kind}_{goal.name}"] = trials.numbers.get(f"{kind}_{goal.name}", np.full(len(trials), np.nan))
    if len(asked):
        verdict = judge.judge(trials.crystals.select(asked.tolist()))
        for goal in goals:
            columns[f"judged_{goal.name}"][asked] = verdict.values[goal.name]
            if goal.name in verdict.uncertainties:
                columns[f"judged_uncertainty_{goal.name}"][asked] = verdict.uncertainties[goal.name]
        for place, reason in zip(asked.tolist(), verdict.reasons, strict=True):
            reasons[place] = reasons[place] or reason
    return replace(trials.with_numbers(**columns), reasons=tuple(reasons))


@dataclass(frozen=True)
class Relaxed:
    """What a relaxation gives for one crystal.

    Attributes:
        crystal: a batch of one; None where it failed.
        energy_per_atom: eV/atom, NaN where there is none.
        reason: why it failed.
    """

    crystal: CrystalBatch | None
    energy_per_atom: float = float("nan")
    reason: str | None = None


Relaxer = Callable[[CrystalBatch], Sequence[Relaxed]]
"""Crystals to relaxed ones, in order; a failure is a `Relaxed` with its reason."""
