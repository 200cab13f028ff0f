"""The two experiments on functional coverage: networks, scores, sites of perovskites, and what is said without data."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.datasets.perovskite_tables import perovskite_table
from cdvae_kit.datasets.two_hop import TwoHopTask
from cdvae_kit.representation.experiments.functional_coverage.chain_of_thought import (
    ThinksAloud,
    bridge_cosine,
    in_domain_accuracy,
    train_transformer,
)
from cdvae_kit.representation.experiments.functional_coverage.composition_coverage import (
    CompositionCoverage,
    answers_of_other_sites,
    compare_splits,
    depth_slope,
    perovskite_sites,
    split_table,
)
from cdvae_kit.representation.experiments.functional_coverage.functional_coverage import (
    LARGER,
    FunctionalCoverage,
    Learning,
    Scored,
    Setup,
    large_network,
    learn,
)
from cdvae_kit.representation.experiments.functional_coverage.token_learners import TokenTransformer, WiredMLP
from cdvae_kit.representation.experiments.registry import load_experiment
from cdvae_kit.representation.experiments.running import run_experiment
from cdvae_kit.representation.methods.fitting import FitSettings
from cdvae_kit.representation.methods.functional_coverage import coverage_depth, evidence_beyond_chance
from cdvae_kit.representation.protocol import PartResult
from cdvae_kit.seeding import seeded_weights


def cube(numbers: list[int], *, turned: bool = False) -> CrystalBatch:
    """ABX3 of 4 Å: A at the corner, B in the middle, X on the faces; or moved by half a cell, with other axes."""
    frac = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    if turned:
        frac = (frac[:, [2, 0, 1]] + 0.5) % 1.0
    return CrystalBatch(frac, 4.0 * torch.eye(3)[None], torch.tensor(numbers), torch.tensor([5]))


def test_the_transformer_sees_no_later_token() -> None:
    with seeded_weights(0):
        model = TokenTransformer(arity=4, num_tokens=6, width=16, num_heads=2).eval()
    tokens = torch.tensor([[1, 2, 3, 4]])
    changed = torch.tensor([[1, 2, 3, 0]])
    before, after = model.states(tokens), model.states(changed)
    assert torch.allclose(before[:, :3], after[:, :3], atol=1e-6)
    # the control: the last state does change, and the order of tokens matters
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-3)
    assert not torch.allclose(model(tokens), model(tokens[:, [1, 0, 2, 3]]), atol=1e-3)


@pytest.mark.parametrize("structure", ["two_hop", "parallel", "three_hop", "non_tree"])
def test_the_wired_network_looks_at_every_token(structure: str) -> None:
    task = TwoHopTask(5, structure, seed=0)  # type: ignore[arg-type]
    with seeded_weights(0):
        model = WiredMLP(task.wiring, num_tokens=5)
    one = torch.zeros(1, task.arity, dtype=torch.long)
    for place in range(task.arity):
        other = one.clone()
        other[0, place] = 3
        assert not torch.allclose(model(one), model(other), atol=1e-4), place


def test_a_network_learns_a_covered_table_and_not_one_of_unseen_facts() -> None:
    learning = Learning(8, 240, FitSettings(40, 60, 5e-3, weight_decay=0.3, schedule="cosine"))
    task = TwoHopTask(8, "two_hop", seed=0, seen_share=0.8)
    with seeded_weights(0):
        encoder = WiredMLP(task.wiring, num_tokens=8, width=32, state=32)
    scored = learn(encoder, task, learning, seed=0)
    inside, outside = scored.accuracy(scored.in_domain), scored.accuracy(~scored.in_domain)
    assert inside > 0.5 > 0.3 > outside, (inside, outside)


def test_a_transformer_that_says_the_bridge_answers_by_what_it_said() -> None:
    task = TwoHopTask(6, "two_hop", seed=0, seen_share=1.0)
    split = task.split(150)
    settings = FitSettings(150, 50, 5e-3)
    model = train_transformer(task, split, settings, aloud=True, seed=0)
    assert isinstance(model, ThinksAloud)
    # on what it was trained on it is right, and it was right about the bridge first
    assert float((model.eval()(split.train_tokens).argmax(1) == split.train_labels).double().mean()) > 0.95
    # the control: another bridge put into its mouth, another answer
    said = [torch.full((50, 1), bridge) for bridge in (0, 3)]
    states = [model.transformer.states(torch.cat([split.train_tokens[:50], one], dim=1))[:, -1] for one in said]
    assert bool((model.head(states[0]).argmax(1) != model.head(states[1]).argmax(1)).any())
    silent = train_transformer(task, split, settings, aloud=False, seed=0)
    assert in_domain_accuracy(model, split) > in_domain_accuracy(silent, split) - 0.1


def test_states_of_one_bridge_are_alike_where_the_network_knows_it() -> None:
    task = TwoHopTask(6, "two_hop", seed=0)
    with seeded_weights(0):
        network = TokenTransformer(arity=3, num_tokens=6, width=16, num_heads=2)
    tokens = task.split(80).train_tokens
    untrained = bridge_cosine(network, task, tokens)
    assert abs(untrained) < 0.3

    class Knows(TokenTransformer):
        def states(self, tokens: torch.Tensor) -> torch.Tensor:
            known = torch.nn.functional.one_hot(task.bridges(tokens), 6).float()
            return known[:, None].expand(-1, 3, -1)

    with seeded_weights(0):
        knows = Knows(arity=3, num_tokens=6, width=16, num_heads=2)
    assert bridge_cosine(knows, task, tokens) == pytest.approx(1.0)


def test_the_large_network_has_twenty_times_the_parameters() -> None:
    task = TwoHopTask(20, "two_hop", seed=0)
    count = [
        sum(weight.numel() for weight in network.parameters())
        for network in (WiredMLP(task.wiring, num_tokens=20), large_network(task))
    ]
    assert LARGER <= count[1] / count[0] < 1.2 * LARGER


def test_evidence_beyond_chance_leaves_hardly_an_unseen_fact_among_what_is_covered() -> None:
    task = TwoHopTask(20, "two_hop", seed=0)
    split = task.split(2000)
    depth = coverage_depth(split.train_tokens, split.train_labels, split.test_tokens, split.test_labels)
    unseen = split.unseen_facts > 0
    inside = evidence_beyond_chance(split.train_tokens, split.train_labels)
    assert float(unseen[depth >= inside].double().mean()) < 0.05
    # the control: what two contexts speak for, as the experiment once had it
    assert inside > 2 and float(unseen[depth >= 2].double().mean()) > 0.2


def test_accuracy_by_doublings_of_k_is_a_slope_weighted_by_inputs() -> None:
    counts = {"depth": [0, 1, 2, 4, 8], "inputs": [99, 100, 100, 100, 3], "correct": [0, 20, 40, 60, 0]}
    # k = 0 and the three inputs at k = 8 are left out
    assert depth_slope(counts) == pytest.approx(0.2)
    assert math.isnan(depth_slope({"depth": [0, 1], "inputs": [50, 50], "correct": [1, 1]}))


def test_scores_are_counted_by_depth() -> None:
    scored = Scored(
        torch.tensor([0, 2, 2, 3]), torch.tensor([False, False, True, True]), torch.tensor([0, 1, 0, 1]) > 0, 2
    )
    counted = scored.by_depth()
    assert counted["depth"][:4] == [0, 1, 2, 3]
    assert counted["inputs"][:4] == [1, 0, 2, 1] and counted["correct"][:4] == [0, 0, 1, 1]
    assert scored.unseen_share(2) == pytest.approx(1 / 3) and scored.unseen_share(3) == 0.0
    assert scored.accuracy(scored.depth == 2) == 0.5 and math.isnan(scored.accuracy(scored.depth == 1))


def test_a_trial_of_the_tables_runs_and_gives_every_claim_and_panel(tmp_path: Path) -> None:
    tiny = Setup(
        (12, 14),
        *[Learning(6, 60, FitSettings(1, 30, 1e-3))] * 4,
    )
    experiment = FunctionalCoverage(tiny)
    result = run_experiment(experiment, seeds=[0, 1], folder=tmp_path)
    assert len(experiment.claims(result)) == 19
    assert experiment.panels(result)[0].title.startswith("data")
    again = FunctionalCoverage(tiny).run("transformer", 1, quick=False)
    assert dict(again.values) == pytest.approx({arm: result.per_seed(arm)[1] for arm in again.values}, nan_ok=True)


def test_sites_are_read_by_distance_wherever_the_origin_is() -> None:
    # calcium titanate, in any order of atoms and shifted; then with the cations exchanged
    sites = perovskite_sites(
        concatenate([cube([20, 22, 8, 8, 8]), cube([20, 22, 8, 8, 8], turned=True), cube([22, 20, 8, 7, 8])])
    )
    assert sites.tokens.tolist() == [[20, 22, 1], [22, 20, 0]]
    assert sites.anions == ((7, 8, 8), (8, 8, 8))
    assert sites.crystals.tolist() == [0, 2] and list(sites.reasons) == [1]


def test_the_lowest_of_two_polymorphs_stands_and_what_is_no_perovskite_is_given_back() -> None:
    rock_salt = CrystalBatch(
        torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]),
        4.0 * torch.eye(3)[None],
        torch.tensor([11, 17]),
        torch.tensor([2]),
    )
    crystals = concatenate([cube([20, 22, 8, 8, 8]), rock_salt, cube([20, 22, 8, 8, 8]), cube([20, 22, 26, 8, 8])])
    sites = perovskite_sites(crystals, energy=torch.tensor([0.3, 0.0, 0.1, 0.0]))
    assert sites.crystals.tolist() == [2]
    assert set(sites.reasons) == {0, 1, 3} and "2 atoms" in sites.reasons[1] and "crystal 2" in sites.reasons[0]
    nothing = perovskite_sites(rock_salt)
    assert nothing.tokens.shape == (0, 3) and list(nothing.reasons) == [0]


def test_ions_that_are_left_out_are_in_one_part_alone_and_never_covered() -> None:
    table = perovskite_table("random", seed=0, num_cations=12)
    train, test = split_table(table.tokens, "left out", train_share=0.75, seed=0)
    assert not set(table.tokens[train, 0].tolist()) & set(table.tokens[test, 0].tolist())
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(table.tokens)))
    depth = coverage_depth(table.tokens[train], table.labels[train], table.tokens[test], table.labels[test])
    assert int((depth >= 2).sum()) == 0
    # the control: the same number of inputs at random
    train, test = split_table(table.tokens, "random", train_share=0.75, seed=0)
    depth = coverage_depth(table.tokens[train], table.labels[train], table.tokens[test], table.labels[test])
    assert float((depth >= 2).double().mean()) > 0.9
    with pytest.raises(ValueError, match="one side empty"):
        split_table(table.tokens[:1], "random", train_share=0.5, seed=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_table(table.tokens, "random", train_share=1.0, seed=0)


def test_radii_carry_over_to_unseen_ions_where_the_rule_is_of_radii_alone() -> None:
    above = {}
    for rule in ("tolerance", "random"):
        table = perovskite_table(rule, seed=0, num_cations=18)  # type: ignore[arg-type]
        found = compare_splits(rule, table.tokens, table.labels, table.radii, seed=0, quick=True).values
        above[rule] = found[f"{rule}, left out: from properties"] - found[f"{rule}, left out: from the other sites"]
    assert above["tolerance"] > 0.2 and above["random"] < 0.1, above


def test_the_other_sites_vote_and_all_inputs_speak_where_none_agrees() -> None:
    train = torch.tensor([[0, 5], [1, 5], [2, 5], [0, 6], [1, 7], [2, 7]])
    labels = torch.tensor([3, 3, 1, 0, 1, 1])
    assert answers_of_other_sites(train, labels, torch.tensor([[9, 5], [9, 6], [9, 8]])).tolist() == [3, 0, 1]


def test_without_the_data_set_its_part_says_why_and_the_rest_stands(tmp_path: Path) -> None:
    experiment = CompositionCoverage(tmp_path)
    found = experiment.run("Perov-5", 0, quick=False)
    assert not found.values and "generate-crystals download perov_5" in found.details["skipped"]
    assert "a trial" in experiment.run("Perov-5", 0, quick=True).details["skipped"]
    result = run_experiment(experiment, seeds=[0], quick=True)
    assert len(experiment.claims(result)) == 3 and len(experiment.panels(result)) == 2


def test_a_folder_of_data_is_taken_and_one_that_is_not_there_refused(tmp_path: Path) -> None:
    assert CompositionCoverage(num_bins=3).with_data(tmp_path).data == tmp_path
    with pytest.raises(FileNotFoundError, match=r"no folder .*gone"):
        CompositionCoverage().with_data(tmp_path / "gone")


def test_real_perovskites_are_read_into_a_table(
    shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cdvae_kit.datasets.loading import load_dataset
    from cdvae_kit.representation.experiments.functional_coverage import composition_coverage as coverage_on_crystals

    lines = _first_records(shared_dir / "data/perov_5/val.csv.gz", 60)
    (tmp_path / "val.csv").write_text(lines)
    crystals = load_dataset(tmp_path, split="val", cache_dir=tmp_path / "entries", num_workers=1).crystals
    monkeypatch.setattr(coverage_on_crystals, "_load_perov_5", lambda folder: crystals)
    found: PartResult = CompositionCoverage(num_bins=2).run("Perov-5", 0, quick=False)
    assert found.details["compositions"] + found.details["set aside"] == len(crystals) == 60
    assert found.details["set aside"] < 5
    assert 0.0 <= found.values["Perov-5, random: from properties"] <= 1.0


def _first_records(path: Path, count: int) -> str:
    import csv
    import gzip
    import io

    with gzip.open(path, "rt") as file:
        rows = [row for row, _ in zip(csv.reader(file), range(count + 1), strict=False)]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


@pytest.mark.slow
def test_the_experiments_are_registered_and_tokens_need_no_crystals() -> None:
    assert load_experiment("composition-coverage").name == "composition-coverage"
    code = (
        "import sys\nfrom cdvae_kit.representation.experiments.registry import load_experiment\n"
        "load_experiment('functional-coverage')\nassert 'pymatgen' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
