"""Experiment `composition-coverage`: functional coverage of tables of ABX3 compositions, and where it does not bind.

Chang et al., "The coverage principle" (2025, arXiv 2505.20278), on the sites of a prototype instead of tokens; all of
this module is ours. An input is (ion on A, ion on B, anions on X), its label a binned property. A table is split twice:
at random, and with some ions of A left out of training altogether. A network learns from the names of ions alone, a
random forest from their properties. Real labels are smooth in the elements' properties, so that models know more than
what is covered: coverage is a lower bound of the region to trust, not a limit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.datasets.perovskite_tables import equal_bins, perovskite_table
from cdvae_kit.representation.experiments.functional_coverage.token_learners import WiredMLP
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, fit
from cdvae_kit.representation.methods.functional_coverage import coverage_depth, evidence_beyond_chance
from cdvae_kit.representation.panels import Bars, Curve, Lines, Panel
from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult, PartResult
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.typing import ShareDone

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch

DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16)
FEWEST_CASES = 30
ANIONS = frozenset({7, 8, 9, 16, 17, 34, 35, 53})
"""N, O, F, S, Cl, Se, Br, I: none of them stands on the sites of cations in Perov-5."""


@dataclass(frozen=True)
class SiteTable:
    """Compositions of a prototype.

    Attributes:
        tokens: (n, 3) long: the atomic numbers on A and B, and the number of the three atoms on X among `anions`.
        anions: sorted atomic numbers, one triple a token of X.
        crystals: (n,) long, the index of each in the batch.
        reasons: index in the batch and why it is not an ABX3 perovskite, or which crystal stands for its composition.
    """

    tokens: Tensor
    anions: tuple[tuple[int, ...], ...]
    crystals: Tensor
    reasons: Mapping[int, str]


def perovskite_sites(crystals: CrystalBatch, *, energy: Tensor | None = None) -> SiteTable:
    """Reads A, B and X off crystals of five atoms: B is the cation nearer to the anions.

    Args:
        crystals: of any kind; those that are no ABX3 are given back with the reason.
        energy: (num_crystals,), of which the lowest stands for a composition that occurs more than once; the first
            without it.
    """
    rows: list[tuple[int, int, tuple[int, ...]]] = []
    indices: list[int] = []
    reasons: dict[int, str] = {}
    starts = (crystals.num_atoms.cumsum(0) - crystals.num_atoms).tolist()
    shifts = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3).to(crystals.frac_coords.dtype)
    for i, (start, count) in enumerate(zip(starts, crystals.num_atoms.tolist(), strict=True)):
        numbers = crystals.atomic_numbers[start : start + count].tolist()
        anions = [j for j, z in enumerate(numbers) if z in ANIONS]
        cations = [j for j, z in enumerate(numbers) if z not in ANIONS]
        if count != 5 or len(anions) != 3:
            reasons[i] = f"{count} atoms of which {len(anions)} are anions; ABX3 has 5 and 3"
            continue
        frac = crystals.frac_coords[start : start + count]
        between = frac[cations][:, None, None] - frac[anions][None, :, None] + shifts
        nearest = (between @ crystals.lattice[i]).norm(dim=-1).amin(-1).mean(-1)
        b, a = (cations[j] for j in nearest.argsort().tolist())
        rows.append((numbers[a], numbers[b], tuple(sorted(numbers[j] for j in anions))))
        indices.append(i)
    order = indices if energy is None else sorted(indices, key=lambda i: (float(energy[i]), i))
    of = dict(zip(indices, rows, strict=True))
    first: dict[tuple[int, int, tuple[int, ...]], int] = {}
    for i in order:
        if of[i] in first:
            reasons[i] = f"crystal {first[of[i]]} stands for this composition"
        else:
            first[of[i]] = i
    chosen = sorted(first.values())
    names = tuple(sorted({of[i][2] for i in chosen}))
    number = {triple: n for n, triple in enumerate(names)}
    tokens = torch.tensor([[of[i][0], of[i][1], number[of[i][2]]] for i in chosen], dtype=torch.long).reshape(-1, 3)
    return SiteTable(tokens, names, torch.tensor(chosen, dtype=torch.long), dict(sorted(reasons.items())))


def split_table(
    tokens: Tensor, kind: Literal["random", "left out"], *, train_share: float, seed: int, site: int = 0
) -> tuple[Tensor, Tensor]:
    """Indices of training and test inputs; where ions are left out, those on `site` of the test occur in no other.

    Args:
        tokens: (n, m) long.
        kind: at random, or by ion.
        train_share: of inputs, or of the ions on `site`.
        seed: of the choice.
        site: whose ions are left out.
    """
    if not 0.0 < train_share < 1.0:
        raise ValueError(f"the share of training inputs must lie between 0 and 1, got {train_share}")
    names, place = tokens[:, site].unique(return_inverse=True)
    units = torch.arange(len(tokens)) if kind == "random" else place
    total = len(tokens) if kind == "random" else len(names)
    count = round(train_share * total)
    if not 0 < count < total:
        raise ValueError(f"a share of {train_share} of {total} leaves one side empty; give more compositions")
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[torch.randperm(total, generator=make_generator(seed, total))[:count]] = True
    return chosen[units].nonzero().flatten(), (~chosen[units]).nonzero().flatten()


def network_answers(train: Tensor, train_labels: Tensor, test: Tensor, *, seed: int, num_epochs: int = 100) -> Tensor:
    """(q,) the labels that a network gives which knows the ions by their names alone: an embedding each, per site.

    Args:
        train: (n, m) long, from 0 at each site.
        train_labels: (n,) long.
        test: (q, m) long; an ion that is not in training keeps its random embedding.
        seed: of weights and order.
        num_epochs: of training.
    """
    arity = train.shape[1]
    wiring = [(site,) for site in range(arity)] + [tuple(-1 - site for site in range(arity))]
    with seeded_weights(seed):
        encoder = WiredMLP(wiring, num_tokens=1 + int(torch.cat([train, test]).max()), width=32, state=64)
        model = Supervision(encoder, 1 + int(train_labels.max()))
    settings = FitSettings(num_epochs, 128, 3e-3, weight_decay=1.0, schedule="cosine")
    fit(model, (train, train_labels), settings, seed=seed)
    model.eval()
    with torch.no_grad():
        answers: Tensor = model(test).argmax(1)
    return answers


def forest_answers(train: Tensor, train_labels: Tensor, test: Tensor, *, seed: int, num_trees: int = 100) -> Tensor:
    """(q,) the labels that a random forest gives to properties (q, d)."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(num_trees, random_state=seed, n_jobs=1)
    forest.fit(train.numpy(), train_labels.numpy())
    return torch.from_numpy(forest.predict(test.numpy()))


def answers_of_other_sites(train: Tensor, train_labels: Tensor, test: Tensor, *, site: int = 0) -> Tensor:
    """(q,) the commonest label of training inputs that agree on all sites but one; of all inputs where none does.

    Given the whole table, it is the best that a learner can do who is blind to `site`, and the level that knowledge of
    an ion never seen must exceed.
    """
    others = [place for place in range(train.shape[1]) if place != site]
    group = torch.cat([train[:, others], test[:, others]]).unique(dim=0, return_inverse=True)[1]
    num_labels = 1 + int(train_labels.max())
    counts = torch.zeros(1 + int(group.max()), num_labels)
    counts.index_put_((group[: len(train)], train_labels), torch.ones(len(train)), accumulate=True)
    # all inputs settle ties, and speak where no other does
    counts += 0.5 * train_labels.bincount(minlength=num_labels) / len(train)
    return counts.argmax(1)[group[len(train) :]]


def by_depth(depth: Tensor, correct: Tensor) -> dict[str, list[int]]:
    """Numbers of inputs and of correct ones for each depth, 0 and `DEPTHS`."""
    levels = [0, *DEPTHS]
    return {
        "depth": levels,
        "inputs": [int((depth == k).sum()) for k in levels],
        "correct": [int(correct[depth == k].sum()) for k in levels],
    }


def compare_splits(
    name: str,
    tokens: Tensor,
    labels: Tensor,
    properties: Tensor,
    *,
    seed: int,
    train_share: float = 0.3,
    max_contradictions: int = 0,
    quick: bool = False,
) -> PartResult:
    """Coverage, and by it the accuracy of a network on names and of a forest on properties, in both splits of a table.

    Args:
        name: before the names of arms.
        tokens: (n, 3) long.
        labels: (n,) long.
        properties: (n, d) of each input's ions.
        seed: of splits and learners.
        train_share: of inputs in the random split; of ions in the other, which then takes as many inputs at random.
        max_contradictions: of a link between fragments.
        quick: learners of a trial.
    """
    numbered = torch.stack([column.unique(return_inverse=True)[1] for column in tokens.T], dim=1)
    values: dict[str, float] = {}
    details: dict[str, Any] = {}
    kinds: tuple[Literal["random", "left out"], ...] = ("random", "left out")
    for kind in kinds:
        train, test = _equal_splits(tokens, kind, train_share, seed)
        depth = coverage_depth(
            tokens[train],
            labels[train],
            tokens[test],
            labels[test],
            evidence=DEPTHS,
            max_contradictions=max_contradictions,
        )
        inside = evidence_beyond_chance(tokens[train], labels[train], max_contradictions=max_contradictions)
        values[f"{name}, {kind}: covered"] = float((depth >= inside).double().mean())
        answers = {
            "the other sites": answers_of_other_sites(tokens, labels, tokens[test]),
            "names": network_answers(
                numbered[train], labels[train], numbered[test], seed=seed, num_epochs=2 if quick else 100
            ),
            "properties": forest_answers(
                properties[train], labels[train], properties[test], seed=seed, num_trees=5 if quick else 100
            ),
        }
        for learner, found in answers.items():
            values[f"{name}, {kind}: from {learner}"] = float((found == labels[test]).double().mean())
            details[f"{kind}: from {learner}"] = by_depth(depth, found == labels[test])
    return PartResult(values, details)


def _equal_splits(
    tokens: Tensor, kind: Literal["random", "left out"], train_share: float, seed: int
) -> tuple[Tensor, Tensor]:
    if kind == "random":
        return split_table(tokens, kind, train_share=train_share, seed=seed)
    # a fifth of the ions is kept back, and of the rest as many inputs are learnt as in the random split
    rest, test = split_table(tokens, kind, train_share=0.8, seed=seed)
    count = min(len(rest), round(train_share * len(tokens)))
    return rest[torch.randperm(len(rest), generator=make_generator(seed, 1))[:count].sort().values], test


class CompositionCoverage(Experiment):
    """Two synthetic tables, and Perov-5 where it is there.

    Args:
        data: the folder where the data sets lie, by default where `generate-crystals download` puts them.
        num_bins: of the property.
    """

    name = "composition-coverage"
    paper = "Chang et al., The coverage principle, 2025, arXiv 2505.20278 (on crystals: ours)"
    summary = "learners on ABX3 compositions inside and outside of functional coverage"
    reads_data = True

    def __init__(self, data: str | os.PathLike[str] | None = None, *, num_bins: int = 4) -> None:
        self.data = data
        self.num_bins = num_bins

    def with_data(self, folder: str | os.PathLike[str]) -> Experiment:
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"there is no folder {os.fspath(folder)} to read data sets from")
        return CompositionCoverage(folder, num_bins=self.num_bins)

    def parts(self, *, quick: bool) -> Sequence[str]:
        return ["tolerance factor", "random table", "Perov-5"]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        if part == "Perov-5":
            return self._perov_5(seed, quick)
        rule: Literal["tolerance", "random"] = "tolerance" if part == "tolerance factor" else "random"
        table = perovskite_table(rule, seed=seed, num_cations=12 if quick else 24)
        return compare_splits(part, table.tokens, table.labels, table.radii, seed=seed, quick=quick)

    def _perov_5(self, seed: int, quick: bool) -> PartResult:
        if quick:
            return PartResult({}, {"skipped": "a trial reads no data set"})
        loaded = _load_perov_5(self.data)
        if isinstance(loaded, str):
            return PartResult({}, {"skipped": loaded})
        heat = loaded.properties["heat_ref"]
        sites = perovskite_sites(loaded, energy=heat)
        tokens, labels = sites.tokens, equal_bins(heat[sites.crystals], self.num_bins)
        found = compare_splits(
            "Perov-5", tokens, labels, _element_columns(sites), seed=seed, train_share=0.6, max_contradictions=1
        )
        read = {"crystals": len(loaded), "compositions": len(tokens), "set aside": len(sites.reasons)}
        return PartResult(found.values, {**found.details, **read})

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        def more_than_others(table: str, kind: str, learner: str) -> tuple[float, ...]:
            return result.differences(f"{table}, {kind}: from {learner}", f"{table}, {kind}: from the other sites")

        learners = ("names", "properties")
        unseen = [more_than_others("random table", "left out", learner) for learner in learners]
        found = [
            Claim(
                "labels of the tolerance factor are known of ions never seen, from their radii: above the other sites",
                more_than_others("tolerance factor", "left out", "properties"),
                0.3,
            ),
            Claim(
                "labels of the random table are not, from names or radii: above the other sites",
                [max(values) for values in zip(*unseen, strict=True)],
                0.1,
                "at most",
            ),
            Claim(
                "labels of the random table are known where it is covered, from names: above the other sites",
                more_than_others("random table", "random", "names"),
                0.3,
            ),
        ]
        if "Perov-5, random: from names" in result.arms:
            slopes = {
                learner: [depth_slope(details[f"random: from {learner}"]) for details in result.details["Perov-5"]]
                for learner in learners
            }
            found += [
                Claim("Perov-5: the larger k, the more is known from names: accuracy a doubling", slopes["names"]),
                Claim(
                    "Perov-5: knowledge from properties depends less on k than that from names",
                    [a - b for a, b in zip(slopes["names"], slopes["properties"], strict=True)],
                ),
            ]
        return found

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        shown: list[Panel] = []
        for part in self.parts(quick=result.quick):
            arms = {
                arm.removeprefix(f"{part}, "): values for arm, values in result.arms.items() if arm.startswith(part)
            }
            if arms:
                shown.append(Bars(part, "share of test inputs", arms))
        details = result.details["Perov-5"]
        if "random: from names" in details[0]:
            curves = {
                key: _curve([found[key] for found in details])
                for key in ("random: from names", "random: from properties")
            }
            shown.append(Lines("Perov-5 by what covers an input", "largest k", "accuracy", curves))
        return shown


def _load_perov_5(folder: str | os.PathLike[str] | None) -> CrystalBatch | str:
    """All splits that are there, or why there is none."""
    from cdvae_kit.crystal import concatenate
    from cdvae_kit.datasets.loading import load_dataset

    found, missing = [], ""
    for split in ("train", "val", "test"):
        try:
            found.append(load_dataset("perov_5", split=split, folder=folder).crystals)
        except FileNotFoundError as error:
            missing = str(error)
    return concatenate(found) if found else missing


def _element_columns(sites: SiteTable) -> Tensor:
    from cdvae_kit.crystal.elements import element_features

    table = element_features()
    anions = torch.tensor(sites.anions)[sites.tokens[:, 2]]
    return torch.cat([table[sites.tokens[:, 0]], table[sites.tokens[:, 1]], table[anions].mean(1)], dim=1)


def _pooled(found: Sequence[Mapping[str, Sequence[int]]]) -> list[tuple[int, int, int]]:
    inputs = np.sum([counts["inputs"] for counts in found], axis=0).tolist()
    correct = np.sum([counts["correct"] for counts in found], axis=0).tolist()
    return list(zip(found[0]["depth"], inputs, correct, strict=True))


def _curve(found: Sequence[Mapping[str, Sequence[int]]]) -> Curve:
    rows = [row for row in _pooled(found) if row[1] >= FEWEST_CASES]
    shares = [correct / inputs for _, inputs, correct in rows]
    errors = [(share * (1.0 - share) / row[1]) ** 0.5 for share, row in zip(shares, rows, strict=True)]
    return Curve([row[0] for row in rows], shares, errors)


def depth_slope(found: Mapping[str, Sequence[int]]) -> float:
    """By how much the accuracy grows as k doubles, by least squares over inputs; not a number for one depth alone.

    >>> depth_slope({"depth": [0, 1, 2, 4], "inputs": [50, 100, 100, 100], "correct": [0, 50, 60, 70]})
    0.1
    """
    rows = [row for row in _pooled([found]) if row[0] >= 1 and row[1] >= FEWEST_CASES]
    if len(rows) < 2:
        return float("nan")
    doublings = np.log2([row[0] for row in rows])
    shares = [row[2] / row[1] for row in rows]
    slope = np.polyfit(doublings, shares, 1, w=np.sqrt([row[1] for row in rows]))[0]
    return round(float(slope), 12)


EXPERIMENT = CompositionCoverage()
