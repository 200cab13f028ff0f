"""Equivalence of fragments and coverage, against a loop over all pairs that follows the definitions word by word."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from cdvae_kit.datasets.two_hop import Structure, TwoHopTask
from cdvae_kit.representation.methods.functional_coverage import (
    coverage_depth,
    equivalence_classes,
    evidence_beyond_chance,
    functional_coverage,
    in_domain_coverage,
    predicted_exponent,
    required_samples,
    scaling_exponent,
)
from cdvae_kit.seeding import make_generator

Row = tuple[int, ...]


def naive_coverage(train: dict[Row, int], domain: dict[Row, int], k: int, allowed: int = 0) -> set[Row]:
    """Breadth first over inputs, fragments joined by hand."""
    arity = len(next(iter(train)))
    neighbours: dict[Row, set[Row]] = {row: set() for row in domain}
    for size in range(1, arity):
        for positions in itertools.combinations(range(arity), size):
            group = naive_classes(train, positions, k, allowed)
            others = [position for position in range(arity) if position not in positions]
            for a, b in itertools.combinations(domain, 2):
                fragment_a, fragment_b = tuple(a[i] for i in positions), tuple(b[i] for i in positions)
                if domain[a] != domain[b] or any(a[i] != b[i] for i in others):
                    continue
                if fragment_a in group and group[fragment_a] == group.get(fragment_b):
                    neighbours[a].add(b)
                    neighbours[b].add(a)
    reached, waiting = set(train), list(train)
    while waiting:
        for other in neighbours[waiting.pop()] - reached:
            reached.add(other)
            waiting.append(other)
    return reached


def naive_classes(train: dict[Row, int], positions: tuple[int, ...], k: int, allowed: int = 0) -> dict[Row, int]:
    arity = len(next(iter(train)))
    others = [position for position in range(arity) if position not in positions]
    behaviour: dict[Row, dict[Row, int]] = {}
    for row, label in train.items():
        behaviour.setdefault(tuple(row[i] for i in positions), {})[tuple(row[i] for i in others)] = label
    group = {fragment: number for number, fragment in enumerate(behaviour)}
    for a, b in itertools.combinations(behaviour, 2):
        shared = behaviour[a].keys() & behaviour[b].keys()
        equal = sum(behaviour[a][context] == behaviour[b][context] for context in shared)
        if equal >= k and len(shared) - equal <= allowed:
            old, new = group[a], group[b]
            group = {fragment: new if number == old else number for fragment, number in group.items()}
    return group


def table(tokens: Tensor, labels: Tensor) -> dict[Row, int]:
    return dict(zip(map(tuple, tokens.tolist()), labels.tolist(), strict=True))


def depths(task: TwoHopTask, num_train: int, **options: int) -> Tensor:
    """Of all inputs, with k up to 3."""
    split, domain = task.split(num_train), task.all_inputs()
    return coverage_depth(
        split.train_tokens, split.train_labels, domain, task.labels(domain), evidence=(1, 2, 3), **options
    )


@pytest.mark.parametrize(
    ("structure", "num_tokens", "num_train"),
    [("two_hop", 5, 40), ("two_hop", 6, 70), ("non_tree", 5, 50), ("parallel", 3, 30), ("three_hop", 3, 30)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_coverage_is_that_of_the_loop_over_pairs(
    structure: Structure, num_tokens: int, num_train: int, seed: int
) -> None:
    task = TwoHopTask(num_tokens, structure, seed=seed)
    num_train = min(num_train, task.largest_training_set)
    split, domain = task.split(num_train), task.all_inputs()
    labels = task.labels(domain)
    for k, allowed in ((1, 0), (2, 0), (2, 1)):
        expected = naive_coverage(table(split.train_tokens, split.train_labels), table(domain, labels), k, allowed)
        found = functional_coverage(
            split.train_tokens, split.train_labels, domain, labels, min_evidence=k, max_contradictions=allowed
        )
        assert {row for row, inside in zip(map(tuple, domain.tolist()), found.tolist(), strict=True) if inside} == (
            expected
        ), f"seed {seed}, k {k}, {allowed} contradictions"


@pytest.mark.parametrize("positions", [(0,), (0, 1), (0, 2), (1, 2)])
def test_classes_are_those_of_the_loop_over_pairs(positions: tuple[int, ...]) -> None:
    split = TwoHopTask(6, "two_hop", seed=3).split(70)
    for k in (1, 2):
        expected = naive_classes(table(split.train_tokens, split.train_labels), positions, k)
        found = equivalence_classes(split.train_tokens, split.train_labels, positions, min_evidence=k)
        groups: dict[int, set[Row]] = {}
        for fragment, number in zip(map(tuple, found.fragments.tolist()), found.classes.tolist(), strict=True):
            groups.setdefault(number, set()).add(fragment)
        by_hand: dict[int, set[Row]] = {}
        for fragment, number in expected.items():
            by_hand.setdefault(number, set()).add(fragment)
        assert sorted(map(sorted, groups.values())) == sorted(map(sorted, by_hand.values()))
        assert found.num_classes == len(by_hand)


def test_a_two_by_two_table_by_hand() -> None:
    # rows 0 and 1 agree in columns 0 and 1; column 2 is known of row 0 alone
    train = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1], [0, 2]])
    labels = torch.tensor([5, 5, 7, 7, 8])
    query = torch.tensor([[1, 2], [2, 0]])
    assert functional_coverage(train, labels, query, torch.tensor([8, 5])).tolist() == [True, False]
    # negative controls: another true label, more evidence than there is, a contradiction
    assert not functional_coverage(train, labels, query[:1], torch.tensor([7])).any()
    assert not functional_coverage(train, labels, query[:1], torch.tensor([8]), min_evidence=3).any()
    more, other = torch.cat([train, torch.tensor([[0, 3], [1, 3]])]), torch.cat([labels, torch.tensor([1, 2])])
    assert not functional_coverage(more, other, query[:1], torch.tensor([8])).any()
    assert functional_coverage(more, other, query[:1], torch.tensor([8]), max_contradictions=1).all()


def test_a_chain_of_links_joins_what_no_link_joins() -> None:
    # 0 and 1 agree in columns 0, 1; 1 and 2 in columns 2, 3; 0 and 2 share no column
    train = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [1, 3], [2, 2], [2, 3]])
    labels = torch.tensor([4, 5, 4, 5, 6, 7, 6, 7])
    assert equivalence_classes(train, labels, [0]).num_classes == 1
    assert equivalence_classes(train, labels, [0]).num_links == 2
    assert functional_coverage(train, labels, torch.tensor([[2, 0]]), torch.tensor([4])).all()


def test_coverage_grows_with_the_data_and_shrinks_with_k() -> None:
    task = TwoHopTask(8, "two_hop", seed=5)
    small, large = depths(task, 90), depths(task, 140)
    counts = [int((large >= k).sum()) for k in (1, 2, 3)]
    assert counts[0] >= counts[1] >= counts[2] > 140
    # with k = 1 a chance link may be contradicted later; what every k covers stays
    assert int((large >= 2).sum()) > int((small >= 2).sum())


def test_training_inputs_are_covered_at_every_k() -> None:
    task = TwoHopTask(6, "two_hop", seed=0)
    split = task.split(40)
    depth = coverage_depth(*(split.train_tokens, split.train_labels) * 2, evidence=(1, 5, 50))
    assert depth.tolist() == [50] * 40


def test_tokens_may_be_renamed_at_each_position() -> None:
    task = TwoHopTask(6, "two_hop", seed=7)
    split, domain = task.split(70), task.all_inputs()
    names = torch.stack([torch.randperm(6, generator=torch.Generator().manual_seed(i)) * 3 for i in range(4)])

    def renamed(tokens: Tensor) -> Tensor:
        return torch.stack([names[position][tokens[:, position]] for position in range(3)], dim=1)

    labels = task.labels(domain)
    before = coverage_depth(split.train_tokens, split.train_labels, domain, labels)
    after = coverage_depth(renamed(split.train_tokens), names[3][split.train_labels], renamed(domain), names[3][labels])
    assert torch.equal(before, after)
    # the control: renaming the training set alone leaves nothing that fits
    with pytest.raises(ValueError, match="another label"):
        coverage_depth(renamed(split.train_tokens), names[3][split.train_labels], domain, labels)


def test_random_labels_are_covered_nowhere() -> None:
    """What makes coverage is that fragments act alike, not that there are many inputs."""
    task = TwoHopTask(8, "two_hop", seed=2)
    split, domain = task.split(200), task.all_inputs()
    noise = torch.randint(0, 8, (8, 8, 8), generator=torch.Generator().manual_seed(0))

    def of(rows: Tensor) -> Tensor:
        return noise[rows[:, 0], rows[:, 1], rows[:, 2]]

    true = functional_coverage(split.train_tokens, split.train_labels, domain, task.labels(domain))
    random = functional_coverage(split.train_tokens, of(split.train_tokens), domain, of(domain))
    assert int(true.sum()) > 260 and int(random.sum()) < 215


def test_an_unseen_fact_is_covered_by_chance_links_alone() -> None:
    """At one shared context a link is often chance, and leads out of the domain; at four it is not."""
    task = TwoHopTask(12, "two_hop", seed=2)
    split = task.split(700)
    arguments = split.train_tokens, split.train_labels, split.test_tokens, split.test_labels
    outside = split.unseen_facts > 0
    by_chance, covered = (functional_coverage(*arguments, min_evidence=k) for k in (1, 4))
    assert float(covered[~outside].double().mean()) > 0.8 and not covered[outside].any()
    assert by_chance[outside].any()


def test_the_positions_that_may_be_exchanged_can_be_chosen() -> None:
    task = TwoHopTask(8, "two_hop", seed=2)
    split = task.split(150)
    arguments = split.train_tokens, split.train_labels, split.test_tokens, split.test_labels
    every, bridge, none = (
        int(functional_coverage(*arguments, fragments=chosen).sum()) for chosen in (None, [(0, 1)], [])
    )
    assert every >= bridge > none == 0


def test_tokens_too_large_for_a_table_are_counted_all_the_same() -> None:
    task = TwoHopTask(5, "parallel", seed=1)
    split = task.split(80)
    plain = coverage_depth(split.train_tokens, split.train_labels, split.test_tokens, split.test_labels)
    large = coverage_depth(
        split.train_tokens * 10**17, split.train_labels, split.test_tokens * 10**17, split.test_labels
    )
    assert torch.equal(plain, large)


def test_the_data_needed_is_where_the_coverage_crosses_the_target() -> None:
    task = TwoHopTask(12, "two_hop", seed=0)
    needed = [required_samples(task, min_evidence=k) for k in (1, 2, 3)]
    assert needed == sorted(needed) and needed[0] < needed[2]
    assert in_domain_coverage(task, needed[1], min_evidence=2) >= 0.99
    assert in_domain_coverage(task, round(0.9 * needed[1]), min_evidence=2) < 0.99
    assert required_samples(task, min_evidence=2, start=100) == pytest.approx(needed[1], rel=0.04)
    with pytest.raises(ValueError, match=r"cover less than 0\.99 at k = 40"):
        required_samples(task, min_evidence=40)


def test_slopes_come_back_and_the_law_has_its_limits() -> None:
    assert scaling_exponent([10, 30], [7.0, 7.0 * 3**2.25]) == pytest.approx(2.25)
    assert [predicted_exponent(k) for k in (1, 2)] == [2.0, 2.25] and predicted_exponent(10**9) == pytest.approx(2.5)
    with pytest.raises(ValueError, match="two sizes"):
        scaling_exponent([10, 10], [1.0, 2.0])
    with pytest.raises(ValueError, match="positive"):
        scaling_exponent([10, 20], [0.0, 2.0])


def test_bad_tables_are_refused_with_what_came() -> None:
    tokens, labels = torch.tensor([[0, 1], [0, 1]]), torch.tensor([3, 4])
    with pytest.raises(ValueError, match=r"another label than an equal input, the first \[0, 1\]"):
        equivalence_classes(tokens, labels, [0])
    with pytest.raises(ValueError, match=r"positions 0\.\.1 and not all"):
        equivalence_classes(tokens, labels[:1].expand(2), [0, 1])
    with pytest.raises(ValueError, match="integers"):
        equivalence_classes(tokens.double(), labels, [0])
    with pytest.raises(ValueError, match="one label for each"):
        equivalence_classes(tokens, labels[:1], [0])
    with pytest.raises(ValueError, match="no inputs"):
        equivalence_classes(tokens[:0], labels[:0], [0])
    with pytest.raises(ValueError, match="no context"):
        equivalence_classes(tokens[:, :1], labels, [0])
    with pytest.raises(ValueError, match="count from 0"):
        equivalence_classes(-tokens, labels, [0])
    with pytest.raises(ValueError, match="evidence of 1"):
        equivalence_classes(tokens[:1], labels[:1], [0], min_evidence=0)
    with pytest.raises(ValueError, match="have 2 tokens, queries 3"):
        functional_coverage(tokens[:1], labels[:1], torch.tensor([[0, 1, 2]]), labels[:1])


def test_one_input_and_no_query_are_no_trouble() -> None:
    one, label = torch.tensor([[2, 3, 4]]), torch.tensor([1])
    assert equivalence_classes(one, label, [1]).num_classes == 1
    assert functional_coverage(one, label, torch.tensor([[2, 3, 5]]), label).tolist() == [False]


@pytest.mark.parametrize("max_contradictions", [0, 1])
def test_links_by_chance_are_as_many_as_expected(max_contradictions: int) -> None:
    tokens = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    tokens = tokens[torch.randperm(64, generator=make_generator(0))[:40]]
    evidence = 3
    found = []
    for draw in range(600):
        # labels that know nothing of the tokens: every link is one by chance
        labels = torch.randint(4, (40,), generator=make_generator(1, draw))
        found.append(
            sum(
                equivalence_classes(
                    tokens, labels, [place], min_evidence=evidence, max_contradictions=max_contradictions
                ).num_links
                for place in (0, 1)
            )
        )
    mean = sum(found) / len(found)
    even = torch.arange(40) % 4
    assert mean > 0.1

    def least(most_links: float) -> int:
        return evidence_beyond_chance(tokens, even, most_links=most_links, max_contradictions=max_contradictions)

    assert least(1.3 * mean) <= evidence < least(0.7 * mean)


def test_labels_that_are_all_alike_need_more_contexts_than_there_are() -> None:
    tokens = torch.cartesian_prod(torch.arange(5), torch.arange(3))
    assert evidence_beyond_chance(tokens, torch.zeros(15, dtype=torch.long)) == 6
    with pytest.raises(ValueError, match="must be positive"):
        evidence_beyond_chance(tokens, torch.zeros(15, dtype=torch.long), most_links=0.0)
