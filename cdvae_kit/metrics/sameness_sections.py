"""The parts of an evaluation that ask whether two crystals are the same: uniqueness, novelty, METRe, reconstruction.

Each returns a `Section`; the other parts are in `evaluation_sections`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.metrics.evaluation_section import Section, mean, rate
from cdvae_kit.metrics.matching import Matcher
from cdvae_kit.metrics.novelty import novelty
from cdvae_kit.metrics.parallel import Progress
from cdvae_kit.metrics.polymorphs import PolymorphResult
from cdvae_kit.metrics.reconstruction import ReconstructionResult
from cdvae_kit.metrics.training_index import TrainingIndex
from cdvae_kit.metrics.uniqueness import uniqueness

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore


def uniqueness_section(
    generated: Sequence[CrystalArrays],
    training: TrainingIndex | None,
    *,
    valid: np.ndarray,
    matcher: Matcher,
    seed: int,
    num_workers: int,
    store: ResultStore | None,
    report: Callable[[str], AbstractContextManager[Progress | None]],
) -> tuple[Section, list[int | None]]:
    """Which crystals are unique among the generated ones, and novel where there is a training set; and their groups.

    A group is a number that crystals which are the same have in common, None where a crystal could not be judged.

    Args:
        generated: the whole set.
        training: what is not novel.
        valid: indices of the valid crystals.
        matcher: when two crystals are the same.
        seed: of the intervals.
        num_workers: processes.
        store: keeps reduced cells and verdicts.
        report: opens a report on one part of the work.
    """
    with report("Uniqueness") as tell:
        found = uniqueness(generated, matcher=matcher, num_workers=num_workers, progress=tell, store=store)
    convention = matcher.describe()
    flags = {"unique": found.unique}
    if training is not None:
        with report("Novelty") as tell:
            new = novelty(generated, training, matcher=matcher, num_workers=num_workers, progress=tell, store=store)
        flags["novel"] = new.novel
        flags["unique_novel"] = found.unique & new.novel
        is_valid = np.zeros(len(generated), dtype=bool)
        is_valid[valid] = True
        flags["valid_unique_novel"] = is_valid & found.unique & new.novel
        convention += f"; {new.num_training} training crystals"
    metrics = [rate(name, values, "uniqueness", seed=seed, note=convention) for name, values in flags.items()]
    verdicts = {name: values.tolist() for name, values in flags.items() if name in ("unique", "novel")}
    return Section(metrics, verdicts), [None if group < 0 else group for group in found.groups.tolist()]


def polymorph_section(found: PolymorphResult, *, seed: int) -> Section:
    """METRe and cRMSE: what is found of the references, whichever generated crystal finds it."""
    note = f"{found.matcher.describe()}; of {found.num_references} references"
    errors = np.where(found.found, found.rms, found.matcher.stol)
    return Section(
        [
            rate("metre", found.found, "reconstruction", seed=seed, note=note),
            mean("crmse", errors, "reconstruction", seed=seed, note=f"{found.matcher.stol:g} for each not found"),
        ]
    )


def reconstruction_section(found: ReconstructionResult, *, seed: int) -> Section:
    """Match rate and RMSE of pairs, filtered as published and not, with the verdict on each."""
    rms = np.array([np.nan if pair.rms is None else pair.rms for pair in found.pairs], dtype=np.float64)
    passes = np.array([pair.passes_filter for pair in found.pairs], dtype=bool)
    there, filtered = ~np.isnan(rms), f"as published: both {found.filter}"
    metrics = [
        rate("match_rate", there & passes, "reconstruction", seed=seed, note=filtered),
        rate("match_rate_unfiltered", there, "reconstruction", seed=seed, note=found.tolerances.describe()),
        mean("rmse", rms[passes], "reconstruction", seed=seed, note="over the matches, filtered"),
        mean("rmse_unfiltered", rms, "reconstruction", seed=seed, note="over the matches"),
    ]
    return Section(
        metrics,
        {"matches": there.tolist()},
        {"rms": rms},
        [None if pair.matches else pair.reason for pair in found.pairs],
    )
