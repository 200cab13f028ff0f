"""The composed tables: what labels are made of, what is seen, and that the seed alone decides it."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from cdvae_kit.datasets.two_hop import Structure, TwoHopTask

STRUCTURES = get_args(Structure)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_labels_are_the_tables_looked_up_by_hand(structure: Structure) -> None:
    task = TwoHopTask(3, structure, seed=4)
    f = [task.table(which) for which in range(2 if structure in ("two_hop", "non_tree") else 3)]
    for row in task.all_inputs().tolist():
        b = int(f[0][row[0], row[1]])
        expected = {
            "two_hop": lambda b=b, row=row: f[1][b, row[2]],
            "parallel": lambda b=b, row=row: f[2][b, f[1][row[2], row[3]]],
            "three_hop": lambda b=b, row=row: f[2][f[1][b, row[2]], row[3]],
            "non_tree": lambda b=b, row=row: f[1][b, row[1], row[2]],
        }[structure]()
        assert int(task.labels(torch.tensor([row]))) == int(expected)
        assert int(task.bridges(torch.tensor([row]))) == b


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_split_holds_every_input_once_and_trains_on_seen_facts_alone(structure: Structure) -> None:
    task = TwoHopTask(4, structure, seed=1)
    split = task.split(20)
    both = torch.cat([split.train_tokens, split.test_tokens])
    assert torch.equal(both.unique(dim=0), task.all_inputs())
    facts = task.facts(split.train_tokens)
    for which in range(facts.shape[1]):
        assert bool(task.seen_facts(which)[facts[:, which]].all())
    occurring = [set(facts[:, which].tolist()) for which in range(facts.shape[1])]
    counted = [
        sum(fact not in known for fact, known in zip(row, occurring, strict=True))
        for row in task.facts(split.test_tokens).tolist()
    ]
    assert split.unseen_facts.tolist() == counted


def test_the_share_of_seen_facts_is_what_was_asked_for() -> None:
    task = TwoHopTask(10, "two_hop", seed=0, seen_share=0.7)
    assert [int(task.seen_facts(which).sum()) for which in (0, 1)] == [70, 70]
    assert task.largest_training_set == pytest.approx(0.49 * 1000, rel=0.15)
    assert TwoHopTask(5, "three_hop", seed=0, seen_share=1.0).largest_training_set == 625


def test_a_smaller_training_set_lies_within_a_larger_one() -> None:
    task = TwoHopTask(5, "two_hop", seed=2)
    small, large = task.split(11).train_tokens, task.split(30).train_tokens
    assert torch.equal(large[:11], small)


def test_the_seed_decides_the_task_and_another_seed_gives_another() -> None:
    first, again, other = (TwoHopTask(6, "two_hop", seed=seed).split(30) for seed in (3, 3, 4))
    assert torch.equal(first.train_tokens, again.train_tokens) and torch.equal(first.test_labels, again.test_labels)
    assert not torch.equal(first.train_tokens, other.train_tokens)


def test_table_entries_are_uniform() -> None:
    counts = TwoHopTask(40, "two_hop", seed=0).table(0).flatten().bincount(minlength=40).double()
    # 1,600 draws, 40 each: the mean square deviation over the expectation is 1 for a multinomial
    assert float(((counts - 40.0) ** 2).mean() / 40.0) == pytest.approx(1.0, abs=0.7)


def test_bad_sizes_are_refused_with_what_would_do() -> None:
    with pytest.raises(ValueError, match="two_hop, parallel"):
        TwoHopTask(5, "four_hop", seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at most"):
        TwoHopTask(1000, "three_hop", seed=0)
    with pytest.raises(ValueError, match="2 tokens or more"):
        TwoHopTask(1, "two_hop", seed=0)
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        TwoHopTask(5, "two_hop", seed=0, seen_share=0.0)
    task = TwoHopTask(4, "two_hop", seed=0)
    for size in (0, task.largest_training_set + 1):
        with pytest.raises(ValueError, match="are made of seen facts"):
            task.split(size)
