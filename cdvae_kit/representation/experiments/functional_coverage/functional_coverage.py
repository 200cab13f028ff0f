"""Experiment `functional-coverage`: does what a training set says bound what a network learns from it?

Chang et al., "The coverage principle" (2025, arXiv 2505.20278). The data needed to cover 99 % of the in-domain inputs,
by the evidence asked for; networks trained on one set of composed tables and tested by how deeply an input is covered,
one of them with twenty times the parameters; the task that is no tree; a bridge that is said aloud. The measure for
one's own data is in `methods.functional_coverage`.

Ours is small: 20 tokens for their 50, and a transformer of two layers for their eight. The first network has the
task's wiring built in, so that it tests the order of coverage and not whether bridges are found; the second has not.
An input counts as covered from the k at which no link by chance is to be expected: a count of the training inputs
alone, made before anything is learnt (`evidence_beyond_chance`). At k = 2 links by chance are many among so few tokens,
and a good part of what they cover holds an unseen fact, which no learner knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cdvae_kit.datasets.two_hop import Structure, TwoHopTask
from cdvae_kit.representation.experiments.functional_coverage.chain_of_thought import (
    STRUCTURES,
    bridge_cosine,
    compare_thought,
    thought_arm,
)
from cdvae_kit.representation.experiments.functional_coverage.token_learners import TokenTransformer, WiredMLP
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, fit
from cdvae_kit.representation.methods.functional_coverage import (
    coverage_depth,
    evidence_beyond_chance,
    predicted_exponent,
    required_samples,
    scaling_exponent,
)
from cdvae_kit.representation.panels import Bars, Curve, Lines, Panel
from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult, PartResult
from cdvae_kit.seeding import seeded_weights
from cdvae_kit.typing import ShareDone

EVIDENCE = (1, 2, 3)
DEPTHS = tuple(range(1, 15))
LARGER = 20
"""Times as many parameters has the large network."""
LEARNERS = ("wired network", "large network", "transformer")
BRIDGE_COSINE = "transformer: cosine of states within bridges less between"
FEWEST_CASES = 30
"""Inputs that a depth needs to be compared."""


@dataclass(frozen=True)
class Learning:
    """A task's size and how a network is trained on it.

    Attributes:
        num_tokens: of the task.
        num_train: training inputs.
        fit: how long and how fast.
    """

    num_tokens: int
    num_train: int
    fit: FitSettings


@dataclass(frozen=True)
class Setup:
    """Sizes.

    Attributes:
        sizes: numbers of tokens whose need of data is measured.
        mlp: of the wired network, on the two-hop and the non-tree task.
        large: of the wired network of more parameters, on the two-hop task.
        transformer: of the transformer, on the two-hop task.
        thought: of transformers that say the bridge and that do not, on the two-hop and the non-tree task.
    """

    sizes: tuple[int, ...] = (16, 24, 32, 48, 64)
    mlp: Learning = Learning(20, 2000, FitSettings(300, 250, 2e-3, weight_decay=1.0, schedule="constant"))
    large: Learning = Learning(20, 2000, FitSettings(80, 250, 1e-3, weight_decay=1.0, schedule="constant"))
    transformer: Learning = Learning(20, 2800, FitSettings(400, 250, 2e-3, weight_decay=1.0, schedule="cosine"))
    thought: Learning = Learning(20, 1600, FitSettings(200, 250, 2e-3, weight_decay=1.0, schedule="cosine"))

    def quick(self) -> Setup:
        """Seconds, and no effect."""
        return Setup(
            (12, 16),
            Learning(10, 300, replace(self.mlp.fit, num_epochs=5)),
            Learning(10, 300, replace(self.large.fit, num_epochs=1)),
            Learning(10, 300, replace(self.transformer.fit, num_epochs=2)),
            Learning(10, 300, replace(self.thought.fit, num_epochs=1)),
        )


class FunctionalCoverage(Experiment):
    """The comparisons of one setup."""

    name = "functional-coverage"
    paper = "Chang et al., The coverage principle, 2025, arXiv 2505.20278"
    summary = "what a training set says of an unseen input against what networks learn of it"

    def __init__(self, setup: Setup | None = None) -> None:
        self.setup = Setup() if setup is None else setup

    def parts(self, *, quick: bool) -> Sequence[str]:
        return ["data needed", "wired network", "large network", "transformer", "chain of thought"]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        setup = self.setup.quick() if quick else self.setup
        if part == "data needed":
            return data_needed(setup.sizes, seed, progress)
        if part == "wired network":
            return _wired_network(setup.mlp, seed, progress)
        if part == "chain of thought":
            thought = setup.thought
            return compare_thought(thought.num_tokens, thought.num_train, thought.fit, seed, progress)
        if part == "large network":
            return _large_network(setup.large, seed, progress)
        return _transformer(setup.transformer, seed, progress)

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        found = [
            Claim(
                f"the data needed grow with 2.5 − 0.5/k, k = {k}: distance of the slope from it",
                [abs(slope - predicted_exponent(k)) for slope in result.per_seed(f"slope, k = {k}")],
                0.2,
                "at most",
            )
            for k in EVIDENCE
        ]
        found += [
            Claim(
                "the task that is no tree needs more data: over that of two hops, k = 2",
                result.per_seed("data needed: non-tree over two-hop"),
                1.5,
            ),
            Claim(
                "from the same number of inputs, accuracy in-domain with two hops less that without a tree",
                result.differences("wired network: in-domain", "wired network: in-domain, non-tree"),
                0.2,
            ),
        ]
        found.append(
            Claim(
                "what k beyond chance covers holds no unseen fact: their share",
                result.per_seed("unseen facts among what k beyond chance covers"),
                0.05,
                "at most",
            )
        )
        for learner in LEARNERS:
            of = f"{learner}: {{}}".format
            found += [
                Claim(f"the {learner} knows what k beyond chance covers", result.per_seed(of("inside")), 0.75),
                Claim(
                    f"the {learner} does not know inputs with an unseen fact",
                    result.per_seed(of("an unseen fact")),
                    0.15,
                    "at most",
                ),
                Claim(
                    f"the {learner} knows more the larger the k that covers: rank correlation",
                    _order(result, learner),
                    0.9,
                ),
            ]
        two_hop, non_tree = (
            result.differences(thought_arm(structure, aloud=True), thought_arm(structure, aloud=False))
            for structure in STRUCTURES
        )
        found += [
            Claim(
                "the transformer's states know the bridge: cosine within bridges less between",
                result.per_seed(BRIDGE_COSINE),
            ),
            Claim("a bridge that is said helps two hops: accuracy gained in-domain", two_hop),
            Claim(
                "it helps less where the task is no tree: gain on two hops less gain there",
                [a - b for a, b in zip(two_hop, non_tree, strict=True)],
            ),
        ]
        found.append(
            Claim(
                f"{LARGER} times the parameters do not reach beyond coverage: accuracy gained on unseen facts",
                result.differences("large network: an unseen fact", "wired network: an unseen fact"),
                0.05,
                "at most",
            )
        )
        return found

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        names = [a for a in result.arms if a.startswith((*LEARNERS, *STRUCTURES)) and a != BRIDGE_COSINE]
        sizes = result.details["data needed"][0]["sizes"]
        needed = result.details["data needed"]
        curves = {f"k = {k}": _mean_curve(sizes, [found["two-hop"][str(k)] for found in needed]) for k in EVIDENCE}
        curves["k = 2, non-tree"] = _mean_curve(
            needed[0]["contrast sizes"], [found["non-tree, all facts seen"] for found in needed]
        )
        return [
            Lines("data that cover 99 % in-domain", "tokens", "training inputs", curves, log_x=True, log_y=True),
            Lines(
                "accuracy by what covers an input",
                "largest k",
                "accuracy",
                {learner: _by_depth(result, learner) for learner in LEARNERS},
            ),
            Bars("inside and outside", "accuracy", {name: result.per_seed(name) for name in names}),
        ]


def data_needed(sizes: Sequence[int], seed: int, progress: ShareDone | None) -> PartResult:
    """Of two-hop tasks at every k and size; of the non-tree task at k = 2, all facts seen, at the smaller sizes.

    With a share of facts kept back the non-tree task may have too few inputs to reach 99 % at all.
    """
    needed: dict[str, list[int]] = {str(k): [] for k in EVIDENCE}
    for done, size in enumerate(sizes):
        task = TwoHopTask(size, "two_hop", seed)
        for k in EVIDENCE:
            # what the power law makes of the size before is a good place to start
            known = needed[str(k)]
            start = round(known[-1] * (size / sizes[done - 1]) ** predicted_exponent(k)) if known else None
            known.append(required_samples(task, min_evidence=k, start=start))
        if progress is not None:
            progress(sum(x**3 for x in sizes[: done + 1]) / sum(x**3 for x in sizes))
    small = list(sizes[: max(2, len(sizes) - 2)])
    contrast = {
        structure: [
            required_samples(TwoHopTask(size, structure, seed, seen_share=1.0), min_evidence=2) for size in small
        ]
        for structure in ("two_hop", "non_tree")
    }
    values = {f"slope, k = {k}": scaling_exponent(sizes, needed[str(k)]) for k in EVIDENCE}
    values["slope, k = 2, non-tree"] = scaling_exponent(small, contrast["non_tree"])
    values["data needed: non-tree over two-hop"] = contrast["non_tree"][-1] / contrast["two_hop"][-1]
    details = {
        "sizes": list(sizes),
        "two-hop": needed,
        "contrast sizes": small,
        "two-hop, all facts seen": contrast["two_hop"],
        "non-tree, all facts seen": contrast["non_tree"],
    }
    return PartResult(values, details)


@dataclass(frozen=True)
class Scored:
    """What a trained network makes of the inputs it was not trained on.

    Attributes:
        depth: (q,) long, as `coverage_depth`, up to the last of `DEPTHS`.
        in_domain: (q,) bool, whether all facts occur in training.
        correct: (q,) bool.
        inside: the smallest k at which no link by chance is to be expected.
    """

    depth: Tensor
    in_domain: Tensor
    correct: Tensor
    inside: int

    def accuracy(self, chosen: Tensor) -> float:
        """Of some inputs; not a number where there are none."""
        return float(self.correct[chosen].double().mean())

    def unseen_share(self, k: int) -> float:
        """Of what depth `k` covers, the share that holds an unseen fact."""
        return float((~self.in_domain[self.depth >= k]).double().mean())

    def by_depth(self) -> dict[str, list[int]]:
        """Numbers of inputs and of correct ones for each depth from 0."""
        levels = [0, *DEPTHS]
        return {
            "depth": levels,
            "inputs": [int((self.depth == k).sum()) for k in levels],
            "correct": [int(self.correct[self.depth == k].sum()) for k in levels],
        }


def learn(
    encoder: nn.Module, task: TwoHopTask, learning: Learning, *, seed: int, progress: ShareDone | None = None
) -> Scored:
    """Trains a network with a linear layer on the task and scores all other inputs.

    Args:
        encoder: tokens (b, m) to (b, out_features); made within `seeding.seeded_weights`.
        task: of the same number of tokens.
        learning: the size of the training set, and how long.
        seed: of the last layer and of the order of inputs.
        progress: as `fit`.
    """
    split = task.split(learning.num_train)
    with seeded_weights(seed):
        model = Supervision(encoder, task.num_tokens)
    fit(model, (split.train_tokens, split.train_labels), learning.fit, seed=seed, progress=progress)
    model.eval()
    with torch.no_grad():
        answers = torch.cat([model(part).argmax(1) for part in split.test_tokens.split(4096)])
    depth = coverage_depth(
        split.train_tokens, split.train_labels, split.test_tokens, split.test_labels, evidence=DEPTHS
    )
    inside = evidence_beyond_chance(split.train_tokens, split.train_labels)
    return Scored(depth, split.unseen_facts == 0, answers == split.test_labels, inside)


def _wired_network(learning: Learning, seed: int, progress: ShareDone | None) -> PartResult:
    scored: dict[Structure, Scored] = {}
    structures: tuple[Structure, ...] = ("two_hop", "non_tree")
    for done, structure in enumerate(structures):
        task = TwoHopTask(learning.num_tokens, structure, seed)
        with seeded_weights(seed):
            encoder = WiredMLP(task.wiring, num_tokens=task.num_tokens)
        scored[structure] = learn(encoder, task, learning, seed=seed, progress=_half(progress, done))
    name = "wired network"
    other = scored["non_tree"]
    own = scored["two_hop"]
    values = _values(name, own) | {f"{name}: in-domain, non-tree": other.accuracy(other.in_domain)}
    values |= {
        "k beyond chance": float(own.inside),
        "unseen facts among what k = 2 covers": own.unseen_share(2),
        "unseen facts among what k beyond chance covers": own.unseen_share(own.inside),
    }
    return PartResult(values, {**own.by_depth(), "non-tree": other.by_depth()})


def _large_network(learning: Learning, seed: int, progress: ShareDone | None) -> PartResult:
    task = TwoHopTask(learning.num_tokens, "two_hop", seed)
    with seeded_weights(seed):
        encoder = large_network(task)
    scored = learn(encoder, task, learning, seed=seed, progress=progress)
    return PartResult(_values("large network", scored), scored.by_depth())


def large_network(task: TwoHopTask) -> WiredMLP:
    """The wired network, each layer some 4.6 times as wide: `LARGER` times as many parameters."""
    return WiredMLP(task.wiring, num_tokens=task.num_tokens, width=460, state=600)


def _transformer(learning: Learning, seed: int, progress: ShareDone | None) -> PartResult:
    task = TwoHopTask(learning.num_tokens, "two_hop", seed)
    with seeded_weights(seed):
        encoder = TokenTransformer(arity=task.arity, num_tokens=task.num_tokens)
    scored = learn(encoder, task, learning, seed=seed, progress=progress)
    cosine = bridge_cosine(encoder, task, task.split(learning.num_train).train_tokens)
    return PartResult(_values("transformer", scored) | {BRIDGE_COSINE: cosine}, scored.by_depth())


def _values(name: str, scored: Scored) -> dict[str, float]:
    return {
        f"{name}: inside": scored.accuracy(scored.depth >= scored.inside),
        f"{name}: in-domain": scored.accuracy(scored.in_domain),
        f"{name}: an unseen fact": scored.accuracy(~scored.in_domain),
    }


def _half(progress: ShareDone | None, done: int) -> ShareDone | None:
    return None if progress is None else lambda share: progress(0.5 * (done + share))


def _enough(found: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, int]]:
    """(depth, inputs, correct) of some seeds together, where there are enough inputs."""
    rows = zip(
        found[0]["depth"],
        np.sum([details["inputs"] for details in found], axis=0).tolist(),
        np.sum([details["correct"] for details in found], axis=0).tolist(),
        strict=True,
    )
    return [row for row in rows if row[1] >= FEWEST_CASES]


def _by_depth(result: ExperimentResult, part: str) -> Curve:
    rows = _enough(result.details[part])
    shares = [correct / inputs for _, inputs, correct in rows]
    errors = [math.sqrt(share * (1.0 - share) / row[1]) for share, row in zip(shares, rows, strict=True)]
    return Curve([depth for depth, _, _ in rows], shares, errors)


def _order(result: ExperimentResult, part: str) -> list[float]:
    """Spearman's correlation of depth and accuracy from k = 2, one a seed; not a number for fewer than three depths."""
    from scipy.stats import spearmanr

    found = []
    if part not in result.details:
        return [math.nan] * len(result.seeds)
    for details in result.details[part]:
        rows = [row for row in _enough([details]) if row[0] >= 2]
        shares = [row[2] / row[1] for row in rows]
        found.append(float(spearmanr([row[0] for row in rows], shares).statistic) if len(rows) > 2 else math.nan)
    return found


def _mean_curve(x: Sequence[int], values: Sequence[Sequence[int]]) -> Curve:
    return Curve(list(x), np.mean(values, axis=0).tolist())


EXPERIMENT = FunctionalCoverage()
