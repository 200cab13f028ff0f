"""Functional coverage: the inputs about which a training set says anything to a learner that matches patterns.

Chang et al., "The coverage principle" (2025, arXiv 2505.20278; its second version is named "Characterizing pattern
matching and its limits on compositional task structures"). Inputs are tuples of tokens, each with one label. For a set
of positions I, the tokens there are a *fragment* and the rest its *context*:

- two fragments are *linked* if at least k contexts that both were seen in give equal labels, and none gives different
  ones; *equivalent* if a chain of links joins them;
- two inputs of equal label are joined if they differ in I alone and their fragments on I are equivalent;
- *k-coverage* is what such joins reach from the training inputs. k is called evidence here.

Theirs is a loop over pairs for three positions; here agreements are a product of sparse matrices, for any number of
positions. Besides, a link may allow contradictions, for labels with noise. Not to be confused with the coverage of sets
of crystals in `cdvae_kit.metrics.coverage`. Tasks to try it on: `cdvae_kit.datasets.two_hop`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.stats import binom
from torch import Tensor

from cdvae_kit.representation.methods.row_numbers import find_rows, numbered

if TYPE_CHECKING:
    from cdvae_kit.datasets.two_hop import TwoHopTask

_PAIRS_AT_ONCE = 1_000_000
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Partition:
    """Fragments that were seen, and the class of each.

    Attributes:
        fragments: (f, len(indices)) long, all different, sorted.
        classes: (f,) long, from 0.
        num_links: pairs of fragments with enough evidence.
    """

    fragments: Tensor
    classes: Tensor
    num_links: int

    @property
    def num_classes(self) -> int:
        return int(self.classes.max()) + 1


def equivalence_classes(
    tokens: Tensor,
    labels: Tensor,
    indices: Sequence[int],
    *,
    min_evidence: int = 2,
    max_contradictions: int = 0,
) -> Partition:
    """The classes of functionally equivalent fragments at the positions `indices`.

    Args:
        tokens: (n, m) integers, not negative; equal inputs must have equal labels.
        labels: (n,) integers, not negative.
        indices: positions of the fragment: some of them, not all.
        min_evidence: k, the shared contexts that must agree. With 1, about half of all links are random.
        max_contradictions: the shared contexts that may disagree.

    >>> tokens = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1], [2, 0]])
    >>> equivalence_classes(tokens, torch.tensor([5, 5, 7, 7, 6]), [0]).classes
    tensor([0, 0, 1])
    """
    rows, values = _checked(tokens, labels)
    _check_evidence(min_evidence, max_contradictions)
    positions = _checked_fragments([indices], rows.shape[1])[0]
    return _Evidence(rows, values, positions, min_evidence, max_contradictions).partition(min_evidence)


def functional_coverage(
    train_tokens: Tensor,
    train_labels: Tensor,
    query_tokens: Tensor,
    query_labels: Tensor,
    *,
    min_evidence: int = 2,
    max_contradictions: int = 0,
    fragments: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """(q,) bool, which query inputs are covered; training inputs always are.

    Joins run through training and query inputs only: a query of the whole domain gives the paper's set, a query of
    part of it may give less.

    Args:
        train_tokens: as `equivalence_classes`.
        train_labels: as `equivalence_classes`.
        query_tokens: (q, m), the training inputs among them or not.
        query_labels: (q,), the true labels.
        min_evidence: k.
        max_contradictions: as `equivalence_classes`.
        fragments: the sets of positions that may be exchanged; all by default, 2^m − 2.

    >>> train = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1], [0, 2]]), torch.tensor([5, 5, 7, 7, 8])
    >>> functional_coverage(*train, torch.tensor([[1, 2], [2, 0]]), torch.tensor([8, 5]))
    tensor([ True, False])
    """
    depths = coverage_depth(
        train_tokens,
        train_labels,
        query_tokens,
        query_labels,
        evidence=[min_evidence],
        max_contradictions=max_contradictions,
        fragments=fragments,
    )
    return depths > 0


def coverage_depth(
    train_tokens: Tensor,
    train_labels: Tensor,
    query_tokens: Tensor,
    query_labels: Tensor,
    *,
    evidence: Sequence[int] = tuple(range(1, 9)),
    max_contradictions: int = 0,
    fragments: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """(q,) long, the largest k of `evidence` whose k-coverage holds an input, 0 where none does.

    Args:
        train_tokens: as `functional_coverage`, like the rest.
        evidence: values of k to try, at least 1 each; a training input gets the largest.
    """
    train, train_values = _checked(train_tokens, train_labels)
    query, query_values = _checked(query_tokens, query_labels)
    if train.shape[1] != query.shape[1]:
        raise ValueError(f"training inputs have {train.shape[1]} tokens, queries {query.shape[1]}")
    steps = sorted(set(evidence))
    if not steps:
        raise ValueError("expected at least one value of k")
    _check_evidence(steps[0], max_contradictions)
    positions = _checked_fragments(fragments, train.shape[1])
    tokens, values, origin = _united(train, train_values, query, query_values)
    is_training = np.zeros(len(tokens), dtype=bool)
    is_training[origin[: len(train)]] = True
    found = [_Evidence(train, train_values, position, steps[0], max_contradictions) for position in positions]
    graph = _SubstitutionGraph(tokens, values, found)
    depth = np.zeros(len(query), dtype=np.int64)
    for k in steps:
        depth[graph.covered(is_training, k)[origin[len(train) :]]] = k
    return torch.from_numpy(depth)


def required_samples(
    task: TwoHopTask,
    *,
    min_evidence: int,
    target: float = 0.99,
    tolerance: float = 0.02,
    start: int | None = None,
) -> int:
    """The number of training inputs that cover a share `target` of the in-domain inputs.

    In-domain is an unseen input all of whose facts occur in training. The search halves an interval until it is
    narrower than `tolerance`, relative.

    Args:
        task: gives the training set of every size.
        min_evidence: k.
        target: within (0, 1).
        tolerance: of the number.
        start: where to look first; a good guess saves time and does not change what comes out by more than `tolerance`.
    """
    if not 0.0 < target < 1.0 or not 0.0 < tolerance < 1.0:
        raise ValueError(f"target and tolerance must lie between 0 and 1, got {target} and {tolerance}")
    most = task.largest_training_set - 1
    reaches = _remembered(lambda size: in_domain_coverage(task, size, min_evidence=min_evidence) >= target)
    high = min(most, start or task.num_tokens**2)
    low = high
    while not reaches(high):
        if high == most:
            raise ValueError(
                f"{most} inputs, all but one of those made of seen facts, cover less than {target} at k = "
                f"{min_evidence}; take more tokens or a lower target"
            )
        low, high = high, min(most, round(1.25 * high) + 1)
    while low > 1 and reaches(low):
        high, low = low, max(1, round(0.8 * low) - 1)
    while high - low > max(1.0, tolerance * high):
        middle = round((low * high) ** 0.5)
        middle = min(max(middle, low + 1), high - 1)
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def in_domain_coverage(task: TwoHopTask, num_train: int, *, min_evidence: int) -> float:
    """The covered share of the unseen inputs whose facts all occur in training; not a number where there are none."""
    split = task.split(num_train)
    covered = functional_coverage(
        split.train_tokens, split.train_labels, split.test_tokens, split.test_labels, min_evidence=min_evidence
    )
    inside = covered[split.unseen_facts == 0]
    return float(inside.double().mean())


def evidence_beyond_chance(
    tokens: Tensor,
    labels: Tensor,
    *,
    most_links: float = 1.0,
    max_contradictions: int = 0,
    fragments: Sequence[Sequence[int]] | None = None,
) -> int:
    """The smallest k for which fewer than `most_links` pairs of fragments are expected to be linked by chance.

    A count, made before anything is learnt: two fragments that have nothing to do with each other and share s contexts
    agree in at least k of them, and differ in at most `max_contradictions`, with the probability of a binomial
    distribution, at each context that of two inputs at random having one label. Chains of such links cover inputs about
    which the training set says nothing.

    Args:
        tokens: as `equivalence_classes`.
        labels: as `equivalence_classes`; how often each occurs is all that matters here.
        most_links: by chance, over all sets of positions together.
        max_contradictions: as `equivalence_classes`.
        fragments: as `functional_coverage`.

    >>> tokens = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    >>> evidence_beyond_chance(tokens, torch.arange(36) % 2), evidence_beyond_chance(tokens, torch.arange(36))
    (1, 1)
    """
    rows, values = _checked(tokens, labels)
    _check_evidence(1, max_contradictions)
    if not most_links > 0.0:
        raise ValueError(f"the number of links by chance must be positive, got {most_links}")
    positions = _checked_fragments(fragments, rows.shape[1])
    agree = float(np.square(np.bincount(values) / len(values)).sum())
    num_pairs = np.zeros(1)
    for chosen in positions:
        others = tuple(position for position in range(rows.shape[1]) if position not in chosen)
        fragment, context = numbered(rows[:, chosen]), numbered(rows[:, others])
        seen_in = _incidence(fragment, context, int(fragment.max()) + 1)
        shared = np.bincount(sparse.triu(seen_in @ seen_in.T, k=1).data)
        size = max(len(shared), len(num_pairs))
        num_pairs = np.pad(num_pairs, (0, size - len(num_pairs))) + np.pad(shared, (0, size - len(shared)))
    contexts = np.arange(len(num_pairs))
    k = 1
    while True:
        # at most so many contradictions, and with them at least k agreements
        allowed = np.minimum(max_contradictions, contexts - k)
        if float((num_pairs * binom.cdf(allowed, contexts, 1.0 - agree)).sum()) < most_links:
            return k
        k += 1


def scaling_exponent(sizes: Sequence[int], required: Sequence[float]) -> float:
    """The slope of log `required` over log `sizes` by least squares.

    >>> round(scaling_exponent([10, 20, 40], [100, 400, 1600]), 3)
    2.0
    """
    if len(sizes) != len(required) or len(set(sizes)) < 2:
        raise ValueError(f"a slope needs two sizes or more and one number each, got {list(sizes)}, {list(required)}")
    if min(sizes) <= 0 or min(required) <= 0:
        raise ValueError(f"logarithms need positive numbers, got {list(sizes)}, {list(required)}")
    return float(np.polyfit(np.log(sizes), np.log(required), 1)[0])


def predicted_exponent(min_evidence: int) -> float:
    """2.5 − 0.5/k for two-hop tasks, up to logarithms.

    Two equivalent fragments share about n p² contexts at a sampling rate p, so they are linked with a probability of
    (n p²)^k; the n fragments of a class hang together once that is 1/n; and N = p n³.
    """
    _check_evidence(min_evidence, 0)
    return 2.5 - 0.5 / min_evidence


class _Evidence:
    """Pairs of fragments at one set of positions that agree in enough contexts."""

    def __init__(
        self, tokens: Array, labels: Array, positions: tuple[int, ...], min_evidence: int, max_contradictions: int
    ) -> None:
        self.positions = positions
        self.others = tuple(position for position in range(tokens.shape[1]) if position not in positions)
        fragment, context = numbered(tokens[:, positions]), numbered(tokens[:, self.others])
        self.fragments = tokens[:, positions][np.unique(fragment, return_index=True)[1]]
        outcome = numbered(np.column_stack([context, labels]))
        seen_with = _incidence(fragment, outcome, len(self.fragments))
        # only pairs that agree somewhere can be linked: far fewer than those that share a context
        agree = sparse.triu(seen_with @ seen_with.T, k=1).tocoo()
        enough = agree.data >= min_evidence
        first, second, count = agree.row[enough], agree.col[enough], agree.data[enough]
        shared = _shared_contexts(_incidence(fragment, context, len(self.fragments)), first, second)
        sound = shared - count <= max_contradictions
        self.first, self.second, self.agreements = first[sound], second[sound], count[sound]

    def classes(self, min_evidence: int) -> Array:
        """The class of each fragment."""
        linked = self.agreements >= min_evidence
        graph = _graph(self.first[linked], self.second[linked], len(self.fragments))
        classes: Array = connected_components(graph, directed=False)[1]
        return classes

    def partition(self, min_evidence: int) -> Partition:
        return Partition(
            torch.from_numpy(self.fragments),
            torch.from_numpy(self.classes(min_evidence).astype(np.int64)),
            int((self.agreements >= min_evidence).sum()),
        )


class _SubstitutionGraph:
    """Inputs joined by the exchange of equivalent fragments."""

    def __init__(self, tokens: Array, labels: Array, evidence: Sequence[_Evidence]) -> None:
        self.num_inputs = len(tokens)
        self.evidence = evidence
        # of each input at each set of positions: its fragment, and what must stay: label and context
        self.fragment = [find_rows(found.fragments, tokens[:, found.positions]) for found in evidence]
        self.rest = [numbered(np.column_stack([labels, tokens[:, found.others]])) for found in evidence]

    def covered(self, is_training: Array, min_evidence: int) -> Array:
        rows, columns = [], []
        num_groups = 0
        for found, fragment, rest in zip(self.evidence, self.fragment, self.rest, strict=True):
            # a fragment that was not seen is equivalent to itself alone, and joins nothing
            inputs = np.flatnonzero(fragment >= 0)
            if not len(inputs):
                continue
            classes = found.classes(min_evidence)
            group = numbered(np.column_stack([classes[fragment[inputs]], rest[inputs]]))
            rows.append(inputs)
            columns.append(group + self.num_inputs + num_groups)
            num_groups += int(group.max()) + 1
        if not rows:
            return is_training.copy()
        graph = _graph(np.concatenate(rows), np.concatenate(columns), self.num_inputs + num_groups)
        component = connected_components(graph, directed=False)[1][: self.num_inputs]
        reached = np.zeros(self.num_inputs + num_groups, dtype=bool)
        reached[component[is_training]] = True
        return reached[component]


def _shared_contexts(seen_in: sparse.csr_array, first: Array, second: Array) -> Array:
    counts = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        counts.append(np.asarray(seen_in[first[part]].multiply(seen_in[second[part]]).sum(axis=1)).ravel())
    return np.concatenate(counts)


def _incidence(rows: Array, columns: Array, num_rows: int) -> sparse.csr_array:
    shape = (num_rows, int(columns.max()) + 1)
    return sparse.csr_array((np.ones(len(rows), dtype=np.int64), (rows, columns)), shape=shape)


def _graph(first: Array, second: Array, size: int) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(size, size))


def _united(train: Array, train_labels: Array, query: Array, query_labels: Array) -> tuple[Array, Array, Array]:
    """All different inputs with their labels, and the index of each training input and query among them."""
    tokens = np.concatenate([train, query])
    labels = np.concatenate([train_labels, query_labels])
    origin = numbered(tokens)
    _, first = np.unique(origin, return_index=True)
    wrong = labels != labels[first][origin]
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} queries have another label than an equal input, the first {tokens[wrong][0].tolist()}"
        )
    return tokens[first], labels[first], origin


def _checked(tokens: Tensor, labels: Tensor) -> tuple[Array, Array]:
    if tokens.ndim != 2 or tokens.is_floating_point() or labels.is_floating_point():
        raise ValueError(f"expected tokens (n, m) and labels of integers, got {tuple(tokens.shape)} {tokens.dtype}")
    if labels.shape != tokens.shape[:1]:
        raise ValueError(f"expected one label for each of {len(tokens)} inputs, got {tuple(labels.shape)}")
    if not len(tokens):
        raise ValueError("there are no inputs")
    if tokens.shape[1] < 2:
        raise ValueError("inputs of one token have no context; expected 2 tokens or more")
    if int(tokens.min()) < 0 or int(labels.min()) < 0:
        raise ValueError(f"tokens and labels count from 0, got {int(tokens.min())} and {int(labels.min())}")
    rows, values = tokens.cpu().long().numpy(), labels.cpu().long().numpy()
    number = numbered(rows)
    _, first = np.unique(number, return_index=True)
    wrong = values != values[first][number]
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} inputs have another label than an equal input, the first {rows[wrong][0].tolist()}; "
            "choose one label for each input"
        )
    return rows, values


def _checked_fragments(fragments: Sequence[Sequence[int]] | None, arity: int) -> list[tuple[int, ...]]:
    if fragments is None:
        sizes = range(1, arity)
        return [positions for size in sizes for positions in itertools.combinations(range(arity), size)]
    chosen = [tuple(sorted(set(positions))) for positions in fragments]
    for positions in chosen:
        if not 0 < len(positions) < arity or positions[0] < 0 or positions[-1] >= arity:
            raise ValueError(f"a fragment has some of the positions 0..{arity - 1} and not all, got {list(positions)}")
    return chosen


def _check_evidence(min_evidence: int, max_contradictions: int) -> None:
    if min_evidence < 1 or max_contradictions < 0:
        raise ValueError(
            f"expected evidence of 1 or more and no negative number of contradictions, got {min_evidence} and "
            f"{max_contradictions}"
        )


def _remembered(function: Callable[[int], bool]) -> Callable[[int], bool]:
    known: dict[int, bool] = {}

    def ask(size: int) -> bool:
        if size not in known:
            known[size] = function(size)
        return known[size]

    return ask
