"""What a frozen representation is worth: simple readers of features, and their scores over draws of labels.

A probe is a function (train features, train labels, test features, test labels) -> score. Of classes the score is the
accuracy, of numbers the R².
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from cdvae_kit.representation.methods.encoder import unit_rows
from cdvae_kit.representation.protocol import standard_error
from cdvae_kit.seeding import make_generator

if TYPE_CHECKING:
    import numpy as np

Probe: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], float]


class TooFewSamplesError(ValueError):
    """A probe or a draw of labels asks for more samples than there are."""


@dataclass(frozen=True)
class ProbeScore:
    """A score over draws of the labelled samples.

    Attributes:
        per_draw: one score a draw.
    """

    per_draw: tuple[float, ...]

    @property
    def mean(self) -> float:
        return math.fsum(self.per_draw) / len(self.per_draw)

    @property
    def standard_error(self) -> float:
        """Of the mean over draws; not a number for one draw."""
        return standard_error(self.per_draw)


def linear_probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *, inverse_penalty: float = 1.0
) -> float:
    """Accuracy of a logistic regression on standardised features.

    Args:
        train: (n, d).
        train_labels: (n,) long.
        test: (m, d).
        test_labels: (m,) long; a class that was not seen in training counts as wrong.
        inverse_penalty: scikit-learn's C.
    """
    _check_probe(train, train_labels, test, test_labels)
    _need_two_classes(train_labels)
    from sklearn.linear_model import LogisticRegression

    x, x_test = _standardised(train, test)
    model = LogisticRegression(C=inverse_penalty, max_iter=2000).fit(x, _array(train_labels))
    return float((model.predict(x_test) == _array(test_labels)).mean())


def ridge_probe(
    train: Tensor, train_values: Tensor, test: Tensor, test_values: Tensor, *, penalty: float = 1.0
) -> float:
    """R² of a ridge regression on standardised features: 1 perfect, 0 no better than the mean of the test values.

    Args:
        train: (n, d).
        train_values: (n,) float.
        test: (m, d).
        test_values: (m,) float, not all the same.
        penalty: on the squared weights.
    """
    _check_probe(train, train_values, test, test_values)
    if len(train) < 2 or len(test) < 2:
        raise TooFewSamplesError(f"R² needs at least 2 samples on both sides, got {len(train)} and {len(test)}")
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    x, x_test = _standardised(train, test)
    model = Ridge(alpha=penalty).fit(x, _array(train_values))
    return float(r2_score(_array(test_values), model.predict(x_test)))


def knn_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, *, k: int = 5) -> float:
    """Accuracy of the vote of the k nearest neighbours by cosine; a tie goes to the class with the closer ones."""
    _check_probe(train, train_labels, test, test_labels)
    if not 1 <= k <= len(train):
        raise TooFewSamplesError(f"{k} neighbours among {len(train)} labelled samples; k must lie in 1..{len(train)}")
    closeness, nearest = (unit_rows(test.double()) @ unit_rows(train.double()).T).topk(k, dim=1)
    classes, index = train_labels.unique(return_inverse=True)
    votes = functional.one_hot(index[nearest], len(classes)).double()
    # cosines lie in [-1, 1]: they settle ties and never outweigh a vote
    settled = (votes * (1.0 + (closeness[..., None] + 1.0) / (2.0 * (k + 1)))).sum(1)
    return float((classes[settled.argmax(1)] == test_labels).double().mean())


def prototype_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Accuracy of the nearest mean by cosine (Snell et al., NeurIPS 2017), for one to five labels a class."""
    _check_probe(train, train_labels, test, test_labels)
    rows = unit_rows(train.double())
    classes, index = train_labels.unique(return_inverse=True)
    means = torch.zeros(len(classes), rows.shape[1], dtype=rows.dtype).index_add(0, index, rows)
    closest = (unit_rows(test.double()) @ unit_rows(means).T).argmax(1)
    return float((classes[closest] == test_labels).double().mean())


def over_label_draws(
    probe: Probe,
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    labels_per_class: int,
    num_draws: int = 5,
    seed: int = 0,
) -> ProbeScore:
    """The score of a probe that sees a few labels of each class, over several draws of them.

    The draws depend on the seed and the labels alone, so that encoders are compared on the same ones.

    Args:
        probe: any of this module's, or one's own.
        train: (n, d), what is drawn from.
        train_labels: (n,) long.
        test: (m, d), the same for each draw.
        test_labels: (m,) long.
        labels_per_class: drawn from each class that occurs.
        num_draws: at least 1; the standard error needs 2.
        seed: of the draws.
    """
    if labels_per_class < 1 or num_draws < 1:
        raise ValueError(f"expected at least one label a class and one draw, got {labels_per_class}, {num_draws}")
    scores = []
    for draw in range(num_draws):
        chosen = draw_labels(train_labels, labels_per_class, generator=make_generator(seed, draw))
        scores.append(probe(train[chosen], train_labels[chosen], test, test_labels))
    return ProbeScore(tuple(scores))


def draw_labels(labels: Tensor, labels_per_class: int, *, generator: torch.Generator) -> Tensor:
    """Indices of `labels_per_class` random samples of each class, class by class."""
    classes, counts = labels.unique(return_counts=True)
    if not len(classes):
        raise TooFewSamplesError("there are no labelled samples to draw from")
    if int(counts.min()) < labels_per_class:
        poorest = int(counts.argmin())
        raise TooFewSamplesError(
            f"class {classes[poorest].item()} has {int(counts[poorest])} samples, {labels_per_class} labels of each "
            "class were asked for; ask for fewer or give more samples"
        )
    chosen = []
    for label in classes:
        members = (labels == label).nonzero().flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:labels_per_class]])
    return torch.cat(chosen)


def split_samples(num_samples: int, *, test_share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of training and test samples, each sorted; the same for the same number and seed.

    >>> [len(part) for part in split_samples(10, test_share=0.3, seed=0)]
    [7, 3]
    """
    num_test = round(test_share * num_samples)
    if not 0 < num_test < num_samples:
        raise TooFewSamplesError(f"a test share of {test_share} leaves one side of {num_samples} samples empty")
    order = torch.randperm(num_samples, generator=make_generator(seed, num_samples))
    return order[num_test:].sort().values, order[:num_test].sort().values


def _standardised(train: Tensor, test: Tensor) -> tuple[np.ndarray, np.ndarray]:
    x, x_test = train.detach().double(), test.detach().double()
    mean, spread = x.mean(0), x.std(0, correction=0)
    # a constant column says nothing and is not blown up
    spread = torch.where(spread > 1e-9 * (1.0 + mean.abs()), spread, torch.inf)
    return _array((x - mean) / spread), _array((x_test - mean) / spread)


def _array(values: Tensor) -> Any:
    return values.detach().cpu().numpy()


def _need_two_classes(labels: Tensor) -> None:
    if len(labels.unique()) < 2:
        raise TooFewSamplesError(f"a classifier needs two classes among its {len(labels)} labelled samples, got one")


def _check_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> None:
    for what, features, labels in (("training", train, train_labels), ("test", test, test_labels)):
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise ValueError(
                f"expected {what} features (n, d) with labels (n,), got {tuple(features.shape)}, {tuple(labels.shape)}"
            )
        if not len(features):
            raise TooFewSamplesError(f"there are no {what} samples")
        for name, values in (("features", features), ("labels", labels)):
            finite = torch.isfinite(values).reshape(len(values), -1).all(1)
            if not bool(finite.all()):
                raise ValueError(f"{int((~finite).sum())} of {len(values)} {what} samples have {name} not finite")
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"training features have {train.shape[1]} columns, test features {test.shape[1]}")
