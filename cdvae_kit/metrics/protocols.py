"""How papers judge their models: what of it can be set here, and what cannot.

A protocol sets the composition rule, the matcher, what `valid` asks for, and the thresholds of stability as that
paper's own code has them. What it does not set (potentials, hulls, DFT) is said beside the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from cdvae_kit.metrics.evaluation_settings import EvaluationSettings

ProtocolName: TypeAlias = Literal["cdvae", "diffcsp", "mattergen", "lemat", "omatg", "crystalite"]


@dataclass(frozen=True)
class Protocol:
    """One paper's way.

    Attributes:
        name: short.
        source: where it is described, and whose code was read.
        settings: what of `EvaluationSettings` it fixes.
        stability: what of a `StabilityRequest` it fixes: threshold (eV/atom), fmax (eV/angstrom), max_steps.
        num_crystals: that its published numbers rest on.
        differs: what is not as there, one sentence each.
        leaves_out: names of the families of metrics that are not computed, since that paper's code has none of them and
            they compare every crystal with many others.
    """

    name: ProtocolName
    source: str
    settings: Mapping[str, Any]
    num_crystals: int
    stability: Mapping[str, float] = field(default_factory=dict)
    differs: tuple[str, ...] = ()
    leaves_out: tuple[str, ...] = ()

    def describe(self) -> str:
        """What it sets, in words."""
        fixed = {**self.settings, **self.stability}
        return ", ".join(f"{name.replace('_', ' ')} {_word(value)}" for name, value in fixed.items())

    def differences(self, num_generated: int) -> list[str]:
        """What is not as there, with the number of crystals where it is another one."""
        found = list(self.differs)
        if num_generated != self.num_crystals:
            found.insert(
                0,
                f"{num_generated:,} crystals are judged, {self.num_crystals:,} there: coverage and uniqueness change "
                "with their number",
            )
        return found


_VALID_1000 = "with fewer than 1,000 valid crystals its code raises; here all of them are taken"
_NO_MATCHES = ("uniqueness", "novelty", "sun", "polymorphs")
_LEFT_OUT = (
    "uniqueness, novelty, S.U.N. rates and METRe are not computed, as that paper has none: leave the protocol out to "
    "have them"
)
_PROPERTY = "distances of properties are by the predictor that is given, not by that paper's"

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "cdvae": Protocol(
            "cdvae",
            "Xie et al., ICLR 2022, arXiv:2110.06197; github.com/txie-93/cdvae, scripts/compute_metrics.py",
            {"rule": "smact-2014", "matcher": "cdvae", "fingerprints": True, "num_samples": 1000},
            10_000,
            differs=(_LEFT_OUT, _PROPERTY, _VALID_1000),
            leaves_out=_NO_MATCHES,
        ),
        "diffcsp": Protocol(
            "diffcsp",
            "Jiao et al., NeurIPS 2023, arXiv:2309.04475; github.com/jiaor17/DiffCSP, scripts/compute_metrics.py",
            {"rule": "smact-2014", "matcher": "cdvae", "fingerprints": True, "num_samples": 1000},
            10_000,
            differs=(
                "match rates are of one prediction for each reference; the best of 20 asks for the prediction's "
                "validity alone and is not computed",
                _LEFT_OUT,
                _PROPERTY,
                _VALID_1000,
            ),
            leaves_out=_NO_MATCHES,
        ),
        "mattergen": Protocol(
            "mattergen",
            "Zeni et al., Nature 639, 624 (2025), arXiv:2312.03687; github.com/microsoft/mattergen",
            {"rule": "smact-2014", "matcher": "mattergen-disordered", "fingerprints": False},
            1_024,
            {"threshold": 0.1},
            differs=(
                "uniqueness and novelty there are of relaxed crystals: relax first and give the result to have them so",
                "its rates count stable at 0.1 eV/atom above the hull: metasun here, not sun",
                "relaxation by MatterSim or DFT and the Alex-MP reference are not part of this package: calculator, "
                "hull and training set are those that are given",
                "its composition rule reads the tables of the SMACT release that it pins; smact-2014 stands for it",
            ),
        ),
        "lemat": Protocol(
            "lemat",
            "LeMat-GenBench, arXiv:2512.04562; github.com/LeMaterial/lemat-genbench",
            {"rule": "charge", "matcher": "lemat", "fingerprints": False, "extended": True},
            2_500,
            {"threshold": 0.1},
            differs=(
                "its default compares BAWL hashes: unique_by_bonds and novel_by_bonds are by hashes made likewise; the "
                "other rates are of its structure-matcher option",
                "its validity asks for charge within 0.1, distances over half the sum of radii, a density and a "
                "format; here it is the rule charge and 0.5 angstrom",
                "its rates are of valid crystals, these of all of them",
                "its energies are means over Orb, MACE and UMA, each against its own hull; here one calculator and the "
                "hull that is given",
            ),
        ),
        "omatg": Protocol(
            "omatg",
            "Hoellmer et al., ICML 2025, arXiv:2502.02582; github.com/FERMat-ML/OMatG, omg/analysis",
            {"rule": "smact", "matcher": "mattergen", "fingerprints": True},
            10_000,
            {"threshold": 0.1},
            differs=(
                "its composition rule is the installed SMACT's: another release gives other verdicts",
                "its stable rate is at 0.1 eV/atom by MatterSim: metasun here, by the calculator that is given",
                "match rate and METRe are with CDVAE's tolerances, as there",
            ),
        ),
        "crystalite": Protocol(
            "crystalite",
            "Hadži Veljković et al., arXiv:2604.02270; github.com/joshrosie/crystalite, src/eval/dng_eval.py",
            {"rule": "smact-2014", "matcher": "mattergen", "fingerprints": True},
            10_000,
            {"threshold": 0.1, "fmax": 0.005, "max_steps": 200},
            differs=(
                "its S.U.N. relaxes a sample of the unique and novel crystals and multiplies two rates; here every "
                "crystal is relaxed",
                "its hull is the Materials Project's of 2023-02-07 with corrections in the way of MP2020, its "
                "potential NequIP-OAM-L or CHGNet: here those that are given",
                "its matcher is not in the code that was read: pymatgen's own tolerances stand for it",
            ),
        ),
    }
)


def protocol_of(name: str) -> Protocol:
    """The protocol of that name.

    >>> protocol_of("mattergen").stability["threshold"]
    0.1
    """
    if name not in PROTOCOLS:
        raise ValueError(f"there is no protocol {name!r}: choose {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def protocol_settings(name: str, settings: EvaluationSettings | None = None) -> EvaluationSettings:
    """The settings of a protocol; what it does not fix (cutoffs, symprec, seed) is taken from `settings`.

    >>> protocol_settings("lemat", EvaluationSettings(seed=3)).matcher
    'lemat'
    """
    return replace(settings or EvaluationSettings(), **protocol_of(name).settings, protocol=name)


def clashes(name: str, given: Mapping[str, Any]) -> list[str]:
    """Which of the settings that a user gave the protocol fixes to something else."""
    protocol = protocol_of(name)
    fixed = {**protocol.settings, **protocol.stability}
    return [key for key, value in given.items() if key in fixed and fixed[key] != value]


def _word(value: Any) -> str:
    words = {True: "yes", False: "no"}
    return words[value] if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
