"""The published way to judge crystals, as users of CDVAE's protocol run it: one process, crystal by crystal.

matminer's fingerprints site by site, every choice of oxidation states for the composition, pymatgen's distances, its
matcher pair by pair (Xie et al., ICLR 2022, arXiv 2110.06197). Written from the protocol, to measure time against.
"""

import itertools
import warnings
from collections.abc import Sequence
from functools import reduce
from math import gcd

import numpy as np
import smact
from matminer.featurizers.composition import ElementProperty
from matminer.featurizers.site import CrystalNNFingerprint
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element, Structure
from smact.screening import pauling_test

from cdvae_kit.metrics.composition_rules import element_table
from cdvae_kit.metrics.fingerprints.vectors import composition_scaler

# what matminer and pymatgen raise for a crystal whose neighbours or polyhedra they cannot make out
PUBLISHED_ERRORS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


class Published:
    """The featurizers and the matcher, made once."""

    def __init__(self) -> None:
        self.sites = CrystalNNFingerprint.from_preset("ops")
        self.elements = ElementProperty.from_preset("magpie", impute_nan=True)
        self.matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)

    def site_features(self, structure: Structure) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            features = [self.sites.featurize(structure, i) for i in range(len(structure))]
        return np.array(features, dtype=np.float64)

    def composition(self, structure: Structure) -> np.ndarray:
        means, deviations = composition_scaler()
        return (np.array(self.elements.featurize(structure.composition.reduced_composition)) - means) / deviations

    def fingerprints(self, structures: Sequence[Structure]) -> list[tuple[np.ndarray, np.ndarray] | None]:
        found: list[tuple[np.ndarray, np.ndarray] | None] = []
        for structure in structures:
            try:
                found.append((self.site_features(structure).mean(axis=0), self.composition(structure)))
            except PUBLISHED_ERRORS:
                found.append(None)
        return found

    def validity(self, structures: Sequence[Structure]) -> list[bool]:
        return [_far_apart(structure) and _can_be_neutral(structure) for structure in structures]

    def matches(self, first: Sequence[Structure], second: Sequence[Structure]) -> list[float | None]:
        found = [self.matcher.get_rms_dist(a, b) for a, b in zip(first, second, strict=True)]
        return [None if one is None else float(one[0]) for one in found]


def _far_apart(structure: Structure) -> bool:
    distances = structure.distance_matrix + np.diag(np.full(len(structure), np.inf))
    return bool(distances.min() >= 0.5 and structure.volume >= 0.1)


def _can_be_neutral(structure: Structure) -> bool:
    amounts = structure.composition.get_el_amt_dict()
    counts = [int(count) for count in amounts.values()]
    divisor = reduce(gcd, counts)
    tables = [element_table(Element(name).Z, "smact-2014") for name in amounts]
    if len(tables) == 1:
        return True
    known = [table for table in tables if table is not None]
    if len(known) < len(tables):
        return False
    if all(table.metal for table in known):
        return True
    ratios = [(count // divisor,) for count in counts]
    electronegativities = [table.electronegativity for table in known]
    for states in itertools.product(*(table.oxidation_states for table in known)):
        neutral = smact.neutral_ratios(states, stoichs=ratios, threshold=max(counts) // divisor)
        # an element without electronegativity passes
        if neutral and (None in electronegativities or pauling_test(states, electronegativities)):
            return True
    return False
