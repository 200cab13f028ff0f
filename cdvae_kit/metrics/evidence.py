"""What the metrics of one evaluation read: both sets, and what is found out about them, once and only when asked for.

Anything that only one family reads is computed there, through `Evidence.once`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np

from cdvae_kit.metrics.crystal_set import CrystalSet, CrystalSource, crystal_set
from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.metrics.distributions import sample_valid
from cdvae_kit.metrics.evaluation_settings import EvaluationSettings
from cdvae_kit.metrics.fingerprints.vectors import Fingerprint, fingerprints_of
from cdvae_kit.metrics.matching.training_index import TrainingIndex
from cdvae_kit.metrics.metric import Need
from cdvae_kit.metrics.novelty import NoveltyResult, novelty
from cdvae_kit.metrics.symmetry import space_groups
from cdvae_kit.metrics.uniqueness import UniquenessResult, uniqueness
from cdvae_kit.metrics.validity import Validity, validity_of
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore
    from cdvae_kit.metrics.relaxing import StabilityFound, StabilityRequest

Found = TypeVar("Found")

ProgressFactory: TypeAlias = Callable[[str, str], AbstractContextManager[Progress | None]]
"""Opens a report on one part of the work, from its title and what is counted, as `cdvae_kit.cli.console` does."""

Encode: TypeAlias = Callable[[Sequence[CrystalArrays]], np.ndarray]
"""(num_crystals, latent_dim) codes; NaN rows for crystals that have none."""

PropertyFunction: TypeAlias = Callable[[Sequence[CrystalArrays]], "np.ndarray | Sequence[float]"]
"""One value a crystal, in order, NaN where there is none; crystals that cannot be used are not among them."""


def silent(title: str, unit: str) -> AbstractContextManager[Progress | None]:
    """A report that tells nothing."""
    return nullcontext()


@dataclass(frozen=True)
class Evidence:
    """The sets of one evaluation and what is known about them.

    Attributes:
        generated: the crystals that are judged.
        reference: those that they are compared with; None without.
        train: what is not novel; None without.
        settings: rule, cutoffs, matcher, seed.
        paired: generated crystal i should be reference i.
        predicted: the generated crystals are predictions of the reference, in any order.
        property_names: whose distributions are compared.
        predictors: of properties.
        units: of properties.
        encode: crystals to latent codes.
        embed: crystals to features of a potential.
        stability: how stability is judged.
        num_workers: processes.
        store: keeps what is expensive.
        report: opens a report on a long part.
    """

    generated: CrystalSet
    reference: CrystalSet | None = None
    train: CrystalSource | TrainingIndex | None = None
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    paired: bool = False
    predicted: bool = False
    property_names: Sequence[str] = ()
    predictors: Mapping[str, PropertyFunction] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    encode: Encode | None = None
    embed: Encode | None = None
    stability: StabilityRequest | None = None
    num_workers: int = 1
    store: ResultStore | None = None
    report: ProgressFactory = silent
    _found: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def has(self, needs: Sequence[Need]) -> bool:
        """All of these are given."""
        given: dict[Need, bool] = {
            "reference": self.reference is not None,
            "train": self.train is not None,
            "fingerprints": self.settings.fingerprints,
            "codes": self.encode is not None and self.reference is not None,
            "embeddings": self.embed is not None and self.reference is not None,
            "stability": self.stability is not None,
            "predicted": (self.predicted or self.paired) and self.reference is not None,
            "pairs": self.paired and self.reference is not None,
            "extended": self.settings.extended,
        }
        return all(given[need] for need in needs)

    def once(self, function: Callable[[Evidence], Found]) -> Found:
        """What `function` finds in this evidence; a second call does not compute it again."""
        if function not in self._found:
            self._found[function] = function(self)
        return cast(Found, self._found[function])

    @property
    def ours(self) -> Sequence[CrystalArrays]:
        """The generated crystals."""
        return self.generated.arrays

    @property
    def theirs(self) -> Sequence[CrystalArrays]:
        """The reference crystals; none without a reference."""
        return () if self.reference is None else self.reference.arrays

    @property
    def seed(self) -> int:
        return self.settings.seed

    @cached_property
    def vectors(self) -> list[Fingerprint] | None:
        """Fingerprints of the generated crystals; None where none are wanted."""
        return self._fingerprints(self.generated, "generated")

    @cached_property
    def reference_vectors(self) -> list[Fingerprint] | None:
        """Of the reference; None without one."""
        return self._fingerprints(self.reference, "reference")

    def _fingerprints(self, crystals: CrystalSet | None, whose: str) -> list[Fingerprint] | None:
        if crystals is None or not self.settings.fingerprints:
            return None
        with self.report(f"Fingerprints, {whose}", "crystals") as tell:
            return fingerprints_of(crystals.arrays, num_workers=self.num_workers, progress=tell, store=self.store)

    @cached_property
    def verdicts(self) -> list[Validity]:
        """On structure and composition of the generated crystals."""
        return validity_of(self.ours, rule=self.settings.rule)

    @cached_property
    def valid_flags(self) -> list[bool]:
        """By structure, composition and, where they are wanted, fingerprint, one a generated crystal."""
        if self.vectors is None:
            return [verdict.valid for verdict in self.verdicts]
        return [verdict.valid and vector.complete for verdict, vector in zip(self.verdicts, self.vectors, strict=True)]

    @cached_property
    def valid(self) -> np.ndarray:
        """Indices of the valid generated crystals."""
        return np.flatnonzero(self.valid_flags)

    @cached_property
    def sampled(self) -> np.ndarray:
        """Indices of those of them that the published distances and diversities are taken of."""
        return sample_valid(self.valid_flags, num_samples=self.settings.num_samples, seed=self.seed)

    @cached_property
    def groups(self) -> list[int | None]:
        """Space group of each generated crystal, None where none is found."""
        return space_groups(self.ours, self.settings.symprec)

    @cached_property
    def reference_groups(self) -> list[int | None]:
        """Of the reference."""
        return space_groups(self.theirs, self.settings.symprec)

    @cached_property
    def training_index(self) -> TrainingIndex | None:
        """The training crystals by composition; None without."""
        if self.train is None or isinstance(self.train, TrainingIndex):
            return self.train
        return TrainingIndex.from_crystals(crystal_set(self.train).arrays)

    @cached_property
    def uniqueness(self) -> UniquenessResult:
        """Which generated crystals are the same."""
        with self.report("Uniqueness", "crystals") as tell:
            return uniqueness(
                self.ours,
                matcher=self.settings.structure_matcher,
                num_workers=self.num_workers,
                progress=tell,
                store=self.store,
            )

    @cached_property
    def kinds(self) -> list[int | None]:
        """A number that crystals which are the same have in common, None where a crystal could not be judged."""
        return [None if group < 0 else group for group in self.uniqueness.groups.tolist()]

    @cached_property
    def novelty(self) -> NoveltyResult:
        """Which generated crystals are not in the training set, which must be given."""
        index = self.training_index
        assert index is not None
        with self.report("Novelty", "crystals") as tell:
            return novelty(
                self.ours,
                index,
                matcher=self.settings.structure_matcher,
                num_workers=self.num_workers,
                progress=tell,
                store=self.store,
            )

    @cached_property
    def relaxed(self) -> StabilityFound:
        """The generated crystals relaxed, and compared with the hull; a calculator must be given."""
        from cdvae_kit.metrics.relaxing import judge_stability

        assert self.stability is not None
        return judge_stability(
            self.ours,
            None if self.reference is None else self.theirs,
            self.stability,
            num_workers=self.num_workers,
            store=self.store,
            report=lambda title: self.report(title, "crystals"),
        )

    @cached_property
    def codes(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Latent codes of both sets, NaN rows where a crystal cannot be used; None without an encoder."""
        if self.encode is None:
            return None
        return _codes(self.encode, self.ours), _codes(self.encode, self.theirs)

    @cached_property
    def embeddings(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Features of a potential of both sets, NaN rows where it has none; None where none are wanted."""
        if self.embed is None:
            return None
        return _codes(self.embed, self.ours), _codes(self.embed, self.theirs)


def _codes(encode: Encode, crystals: Sequence[CrystalArrays]) -> np.ndarray:
    usable = [i for i, crystal in enumerate(crystals) if crystal.fault is None]
    found = np.asarray(encode([crystals[i] for i in usable]), dtype=np.float64)
    if found.ndim != 2 or len(found) != len(usable):
        raise ValueError(f"encode must give ({len(usable)}, latent_dim) codes, one row a crystal, got {found.shape}")
    codes = np.full((len(crystals), found.shape[1]), np.nan)
    codes[usable] = found
    return codes
