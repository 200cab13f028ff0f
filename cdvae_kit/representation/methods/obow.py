"""OBoW: a student tells from a small view which visual words occur anywhere in the whole sample.

Gidaris, Bursuc, Puy, Komodakis, Cord, Pérez, "OBoW: Online bag-of-visual-words generation for self-supervised learning"
(CVPR 2021, arXiv 2012.11552). The teacher is a moving average of the student; its local features make the bag, over a
vocabulary that is a queue of its own recent features, so that nothing is trained before. Equations as in the authors'
program; where we differ, the docstrings say so.

Everything works on sets of local features (`local_features`), so that a sample may be an image (positions of its
feature maps), a crystal (its atoms) or any graph. Images get by `StagedEncoder` what the paper does on maps: several
levels, no border, words from 3×3 means. The experiments are in `experiments.obow`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.nn.losses import kl_to_soft_target
from cdvae_kit.representation.methods.encoder import Objective, evaluation_mode, unit_rows
from cdvae_kit.representation.methods.local_features import LocalFeatures, as_levelled, points_of_samples
from cdvae_kit.seeding import make_generator
from cdvae_kit.training.ema import cosine_decay, follow
from cdvae_kit.transforms.base import Transform, num_samples

_WORDS = 71  # key of the draws of initial words


class Vocabulary(nn.Module):
    """Visual words v_k, a queue of features, and the bags that local features make over them.

    The temperature follows the data: μ ← (1 − rate) μ + rate · mean over points of min_k |f − v_k|², in training mode,
    so that the soft assignment softmax_k(−inverse_delta |f − v_k|² / μ) is as sharp for long features as for short.
    The mean is over all points, as in the paper, where every image has the same number of them.

    Args:
        num_words: K.
        width: of a feature.
        inverse_delta: δ⁻¹, the sharpness; None assigns each point to its nearest word alone.
        pooling: what a word's weight in the bag is: the largest assignment among the sample's points, or their mean.
        rate: of the running mean μ.
        start: of μ.
        seed: of the initial words, the positive part of normal numbers.
    """

    words: Tensor
    mean_min_distance: Tensor
    pointer: Tensor

    def __init__(
        self,
        num_words: int,
        width: int,
        *,
        inverse_delta: float | None = 10.0,
        pooling: Literal["max", "mean"] = "max",
        rate: float = 0.01,
        start: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_words < 2 or width < 1:
            raise ValueError(f"expected at least 2 words of at least one number, got {num_words} of {width}")
        if inverse_delta is not None and not inverse_delta > 0.0:
            raise ValueError(f"inverse_delta must be positive, or None for the nearest word, got {inverse_delta}")
        if pooling not in ("max", "mean"):
            raise ValueError(f"pooling must be 'max' or 'mean', got {pooling!r}")
        if not 0.0 <= rate <= 1.0 or not start > 0.0:
            raise ValueError(f"expected a rate in [0, 1] and a positive start, got {rate} and {start}")
        self.inverse_delta = inverse_delta
        self.pooling = pooling
        self.rate = rate
        words = torch.randn(num_words, width, generator=make_generator(seed, _WORDS)).clamp_min(0.0)
        self.register_buffer("words", words)
        self.register_buffer("mean_min_distance", torch.tensor(start))
        self.register_buffer("pointer", torch.tensor(0))

    @property
    def num_words(self) -> int:
        return len(self.words)

    @torch.no_grad()
    def bag(self, features: Tensor, sample: Tensor, num_samples: int) -> Tensor:
        """(num_samples, K), rows that sum to 1: which words occur among the points of each sample.

        Args:
            features: (points, width).
            sample: (points,) long, the sample that each belongs to.
            num_samples: each has at least one point.
        """
        assignment = self.assign(features)
        counts = points_of_samples(sample, num_samples)
        bags = assignment.new_zeros(num_samples, self.num_words)
        if self.pooling == "max":
            bags.scatter_reduce_(0, sample[:, None].expand_as(assignment), assignment, "amax", include_self=False)
        else:
            bags.index_add_(0, sample, assignment).div_(counts[:, None])
        return bags / bags.sum(1, keepdim=True)

    @torch.no_grad()
    def assign(self, features: Tensor) -> Tensor:
        """(points, K), rows that sum to 1; in training mode the temperature takes in the distances first."""
        if features.ndim != 2 or features.shape[1] != self.words.shape[1]:
            raise ValueError(f"expected features (points, {self.words.shape[1]}), got {tuple(features.shape)}")
        distances = torch.cdist(features, self.words).square()
        if self.training:
            self.mean_min_distance.lerp_(distances.min(1).values.mean(), self.rate)
        if self.inverse_delta is None:
            return functional.one_hot(distances.argmin(1), self.num_words).to(distances.dtype)
        return (-self.inverse_delta / self.mean_min_distance.clamp_min(1e-12) * distances).softmax(1)

    @torch.no_grad()
    def push(self, features: Tensor) -> None:
        """Puts features (n, width) into the queue, in place of the n oldest words.

        Any n up to K will do; the authors need a K that n divides.
        """
        count = len(features)
        if features.shape[1:] != self.words.shape[1:] or count > self.num_words:
            raise ValueError(
                f"expected at most {self.num_words} features of {self.words.shape[1]} numbers, "
                f"got {tuple(features.shape)}; a vocabulary holds at least one batch"
            )
        index = (self.pointer + torch.arange(count, device=self.words.device)) % self.num_words
        self.words[index] = features.to(self.words.dtype)
        self.pointer.copy_((self.pointer + count) % self.num_words)

    def replace(self, words: Tensor) -> None:
        """Takes over words (K, width) from elsewhere, for instance the centres of k-means."""
        if words.shape != self.words.shape:
            raise ValueError(f"expected words {tuple(self.words.shape)}, got {tuple(words.shape)}")
        self.words.copy_(words)


class BagPredictor(nn.Module):
    """Logits over words that come and go: κ · f · n(G(n(V)))ᵀ, n the unit length of rows.

    A fixed layer would have one row a word, and run after a queue that changes under it; here a network G makes the row
    of a word from the word.

    Args:
        word_features: width of a word.
        out_features: width D of the student's features f, which stay as long as they are.
        kappa: κ, fixed.
    """

    def __init__(self, word_features: int, out_features: int, *, kappa: float = 5.0) -> None:
        super().__init__()
        if not kappa > 0.0:
            raise ValueError(f"kappa must be positive, got {kappa}")
        self.kappa = kappa
        hidden = 2 * out_features
        self.generate = nn.Sequential(
            nn.Linear(word_features, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, out_features),
        )

    def rows(self, words: Tensor) -> Tensor:
        """(K, D), of unit length: the prediction layer for these words."""
        return unit_rows(self.generate(unit_rows(words)))

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        """Student features (b, D) and words (K, c) to logits (b, K)."""
        return self.kappa * features @ self.rows(words).T


@dataclass(frozen=True)
class StudentView:
    """A kind of view that the student sees.

    Attributes:
        transform: makes it.
        count: how many of them at each step.
    """

    transform: Transform[Any]
    count: int = 1


class OnlineBagOfWords(nn.Module, Objective):
    """Student, teacher, and a vocabulary and a predictor a level; `encoder` is the student, for use afterwards.

    The loss is KL(bag ‖ softmax(logits)), the mean over samples, levels and the views of a kind, summed over kinds. The
    teacher takes its step after the optimiser's instead of before its own turn, which is the same sequence. Its batch
    normalisation, in training mode, works on its own batch.

    Args:
        encoder: the student; `levels`, or `local_features` for one level (see `local_features.as_levelled`).
        whole_view: what the teacher sees.
        student_views: kinds of views of the student, parts of the sample as a rule; with or without counts.
        num_words: K of each level, at least the batch size where words are pushed.
        inverse_delta: sharpness of the assignment, None for the nearest word alone.
        kappa: factor of the logits.
        decay: of the teacher at the start, 1 at the end along a cosine; 1 freezes it.
        update_words: whether each step pushes a word a sample; without, the vocabulary stays as it is.
        pooling: of assignments into bags.
        seed: of the initial words.

    >>> from cdvae_kit.representation.methods.encoder import ConvEncoder
    >>> from cdvae_kit.transforms import Identity
    >>> from cdvae_kit.transforms.images import Crop
    >>> views = [StudentView(Crop(0.3, 0.8, size=(8, 8)), count=2)]
    >>> method = OnlineBagOfWords(ConvEncoder(in_channels=3, widths=(8, 16)), Identity(), views, num_words=24)
    >>> images = torch.rand(4, 3, 12, 12, generator=make_generator(0))
    >>> sorted(method.loss(images, generator=make_generator(0)))
    ['loss', 'perplexity_of_samples', 'perplexity_of_the_batch']
    >>> method.bags(images)[0].shape
    torch.Size([4, 24])
    """

    # `nn.ModuleList`s of a `Vocabulary` and a `BagPredictor` a level
    vocabularies: Any
    predictors: Any

    def __init__(
        self,
        encoder: Any,
        whole_view: Transform[Any],
        student_views: Sequence[Transform[Any] | StudentView],
        *,
        num_words: int,
        inverse_delta: float | None = 10.0,
        kappa: float = 5.0,
        decay: float = 0.99,
        update_words: bool = True,
        pooling: Literal["max", "mean"] = "max",
        seed: int = 0,
    ) -> None:
        super().__init__()
        views = [view if isinstance(view, StudentView) else StudentView(view) for view in student_views]
        if not views or any(view.count < 1 for view in views):
            raise ValueError(f"expected at least one student view, each counted at least once, got {student_views}")
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"the teacher's decay must lie in [0, 1], got {decay}")
        self.encoder = encoder
        self.teacher = copy.deepcopy(as_levelled(encoder)).requires_grad_(False)
        self.whole_view = whole_view
        self.student_views = views
        self.decay = decay
        self.update_words = update_words
        widths = self.teacher.level_features
        self.vocabularies = nn.ModuleList(
            Vocabulary(num_words, width, inverse_delta=inverse_delta, pooling=pooling, seed=seed + i)
            for i, width in enumerate(widths)
        )
        self.predictors = nn.ModuleList(BagPredictor(width, encoder.out_features, kappa=kappa) for width in widths)

    def loss(self, batch: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
        count = num_samples(batch)
        whole = self.whole_view(batch, generator=generator)
        kinds = [[view.transform(batch, generator=generator) for _ in range(view.count)] for view in self.student_views]
        bags, words = self._targets(whole, count, generator)
        rows = [predictor.rows(v) for predictor, v in zip(self.predictors, words, strict=True)]
        kappas = [predictor.kappa for predictor in self.predictors]
        losses = []
        for views in kinds:
            found = [
                kl_to_soft_target(kappa * features @ row.T, bag)
                for features in map(self.encoder, views)
                for kappa, row, bag in zip(kappas, rows, bags, strict=True)
            ]
            losses.append(torch.stack(found).mean())
        # of the deepest level; the others collapse no sooner
        return {
            "loss": torch.stack(losses).sum(),
            "perplexity_of_samples": perplexity(bags[-1]).mean(),
            "perplexity_of_the_batch": perplexity(bags[-1].mean(0)),
        }

    def after_step(self, step: int, num_steps: int) -> None:
        """The teacher follows, with a decay that rises to 1."""
        follow(self.teacher, self._student(), decay=cosine_decay(step, num_steps, start=self.decay))

    @torch.no_grad()
    def bags(self, batch: Any) -> list[Tensor]:
        """(b, K) a level: the bags of whole samples by teacher and vocabulary, in evaluation mode."""
        with evaluation_mode(self):
            return self._bags(self.teacher.levels(batch), num_samples(batch))

    @torch.no_grad()
    def _targets(self, whole: Any, count: int, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        """Bags of the teacher, and the words that they count: those of before the push."""
        levels = self.teacher.levels(whole)
        bags = self._bags(levels, count)
        words = [vocabulary.words.clone() for vocabulary in self.vocabularies]
        if self.update_words:
            for vocabulary, local in zip(self.vocabularies, levels, strict=True):
                vocabulary.push(local.one_of_each(count, generator=generator))
        return bags, words

    def _bags(self, levels: Sequence[LocalFeatures], count: int) -> list[Tensor]:
        return [
            vocabulary.bag(local.features, local.sample, count)
            for vocabulary, local in zip(self.vocabularies, levels, strict=True)
        ]

    def _student(self) -> nn.Module:
        return as_levelled(self.encoder)


def perplexity(distribution: Tensor) -> Tensor:
    """exp(−Σ p log p) of rows (..., K) that sum to 1: between 1, one word, and K, all alike.

    Of single bags it says how many words a sample has; of the mean bag, how many words are in use. Where the latter
    falls towards the former, the vocabulary has collapsed.

    >>> perplexity(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    tensor([1., 2.])
    """
    return (-torch.xlogy(distribution, distribution).sum(-1)).exp()


def kmeans_words(features: Tensor, num_words: int, *, seed: int) -> Tensor:
    """(num_words, c): centres of k-means on features (points, c), the vocabulary of BoWNet (arXiv 2002.12247)."""
    from sklearn.cluster import KMeans

    if len(features) < num_words:
        raise ValueError(f"{num_words} centres need as many points, got {len(features)}")
    seed_of_sklearn = make_generator(seed, num_words).initial_seed() % 2**32
    model = KMeans(num_words, n_init=1, random_state=seed_of_sklearn).fit(features.detach().cpu().double().numpy())
    return torch.as_tensor(model.cluster_centers_, dtype=features.dtype)
