"""What the numbers of an evaluation depend on beside the crystals."""

from __future__ import annotations

from dataclasses import dataclass

from cdvae_kit.metrics.composition_rules import COMPOSITION_RULES, CompositionRule
from cdvae_kit.metrics.coverage import COVERAGE_CUTOFFS, Cutoffs
from cdvae_kit.metrics.matching.matcher import Matcher, MatcherName, matcher_of


@dataclass(frozen=True)
class EvaluationSettings:
    """What a number depends on beside the crystals; all of it is kept in the result.

    Attributes:
        rule: of the composition; "smact-2014" is what published numbers rest on.
        cutoffs: of coverage: "perov_5", "carbon_24", "mp_20" or a `Cutoffs`.
        matcher: a preset of `matching.MATCHERS` or tolerances, for uniqueness and novelty; reconstruction and METRe
            have their published one, CDVAE's.
        fingerprints: compute CrystalNN fingerprints; without them there is neither coverage nor diversity, and `valid`
            does not ask for them.
        num_samples: valid crystals that the published distances and diversities are taken of.
        symprec: angstrom, of the space groups.
        seed: of that draw and of every interval.
        protocol: name of the protocol that these are of, as `protocols.protocol_settings` makes them; "" without one.
        extended: what costs more, too: templates, and uniqueness, novelty and memorisation without a tolerance.
    """

    rule: CompositionRule = "smact-2014"
    cutoffs: str | Cutoffs = "mp_20"
    matcher: MatcherName | Matcher = "mattergen"
    fingerprints: bool = True
    num_samples: int = 1000
    symprec: float = 0.1
    seed: int = 0
    protocol: str = ""
    extended: bool = False

    def __post_init__(self) -> None:
        if self.rule not in COMPOSITION_RULES:
            raise ValueError(f"composition rule must be one of {', '.join(COMPOSITION_RULES)}, got {self.rule!r}")
        if isinstance(self.cutoffs, str) and self.cutoffs not in COVERAGE_CUTOFFS:
            raise ValueError(
                f"coverage cutoffs must be one of {', '.join(COVERAGE_CUTOFFS)} or two distances, got {self.cutoffs!r}"
            )
        matcher_of(self.matcher)
        if self.num_samples < 1 or not self.symprec > 0:
            raise ValueError(
                f"num_samples must be at least 1 and symprec a positive length, got {self.num_samples} and "
                f"{self.symprec}"
            )

    @property
    def coverage_cutoffs(self) -> Cutoffs:
        return COVERAGE_CUTOFFS[self.cutoffs] if isinstance(self.cutoffs, str) else self.cutoffs

    @property
    def structure_matcher(self) -> Matcher:
        return matcher_of(self.matcher)
