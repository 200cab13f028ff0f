"""The vectors by which the field calls two crystals near: local order of the sites, and statistics of the elements.

Both come from matminer (Ward et al., Comput. Mater. Sci. 152, 60 (2018), doi 10.1016/j.commatsci.2018.05.018), an
optional extra: CrystalNN order parameters averaged over sites, 61 numbers, and magpie element statistics, 132 numbers,
standardised with the constants of the published protocol. What is made of the vectors is in `coverage` and
`distributions`.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.crystals import Composition, CrystalArrays, Crystals, as_arrays
from cdvae_kit.metrics.parallel import Progress, map_crystals

if TYPE_CHECKING:
    from matminer.featurizers.composition import ElementProperty
    from matminer.featurizers.site import CrystalNNFingerprint

logger = logging.getLogger(__name__)

NUM_STRUCTURE_FEATURES = 61
NUM_COMPOSITION_FEATURES = 132

# what pymatgen and matminer raise for a crystal whose neighbours or polyhedra they cannot make out; scipy's QhullError
# is a RuntimeError, numpy's LinAlgError a ValueError
FEATURIZER_ERRORS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Fingerprint:
    """The two vectors of one crystal, or why there are none.

    Attributes:
        structure: (61,) order parameters, mean over sites.
        composition: (132,) standardised element statistics.
        reason: why the crystal has no vectors; None where it has both.
    """

    structure: np.ndarray | None
    composition: np.ndarray | None
    reason: str | None = None

    @property
    def complete(self) -> bool:
        return self.reason is None


def fingerprints(crystals: Crystals, *, num_workers: int = 1, progress: Progress | None = None) -> list[Fingerprint]:
    """One `Fingerprint` a crystal, in order; 0.05 to 0.3 s each, in `num_workers` processes (-1: every core).

    A crystal has both vectors or none: the published protocol counts it as invalid when one site has no order
    parameters.
    """
    return fingerprints_of(as_arrays(crystals), num_workers=num_workers, progress=progress)


def fingerprints_of(
    arrays: Sequence[CrystalArrays], *, num_workers: int = 1, progress: Progress | None = None
) -> list[Fingerprint]:
    """`fingerprints` of crystals that are arrays already."""
    _require_matminer()
    return map_crystals(_fingerprint, arrays, num_workers=num_workers, progress=progress)


def _fingerprint(crystal: CrystalArrays) -> Fingerprint:
    if crystal.fault is not None:
        return Fingerprint(None, None, crystal.fault)
    try:
        structure = structure_fingerprint(crystal)
        composition = composition_fingerprint(crystal.reduced_composition)
    except FEATURIZER_ERRORS as error:
        return Fingerprint(None, None, f"no fingerprint: {type(error).__name__}: {error}")
    if not (np.isfinite(structure).all() and np.isfinite(composition).all()):
        return Fingerprint(None, None, "no fingerprint: a feature is not finite")
    return Fingerprint(structure, composition)


def structure_fingerprint(crystal: CrystalArrays) -> np.ndarray:
    """(61,) CrystalNN order parameters ("ops"), mean over sites; raises one of `FEATURIZER_ERRORS` where it cannot."""
    featurizer = _site_featurizer()
    structure = crystal.structure()
    with warnings.catch_warnings(record=True) as caught:
        # it warns of every site that it has no oxidation state, which no generated crystal has
        warnings.simplefilter("always")
        sites = [featurizer.featurize(structure, i) for i in range(len(structure))]
    for message in sorted({str(warning.message) for warning in caught}):
        logger.debug("while computing a fingerprint: %s", message)
    return np.mean(np.array(sites, dtype=np.float64), axis=0)


@lru_cache(maxsize=100_000)
def composition_fingerprint(composition: Composition) -> np.ndarray:
    """(132,) magpie statistics, standardised; where an element has no value, the mean over elements stands for it."""
    from pymatgen.core import Composition as PymatgenComposition
    from pymatgen.core import Element

    raw = _element_featurizer().featurize(
        PymatgenComposition({Element.from_Z(number): count for number, count in composition})
    )
    means, deviations = composition_scaler()
    standardised = (np.array(raw, dtype=np.float64) - means) / deviations
    # every caller gets the same array
    standardised.setflags(write=False)
    return standardised


@cache
def composition_scaler() -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations (132,) of the published protocol."""
    text = files("cdvae_kit.metrics").joinpath("composition_scaler.json").read_text(encoding="utf-8")
    content = json.loads(text)
    return np.array(content["means"]), np.array(content["stds"])


def stack(vectors: Sequence[Fingerprint]) -> tuple[np.ndarray, np.ndarray]:
    """(n, 61) and (n, 132): the vectors of the crystals that have them, in order."""
    structure = [vector.structure for vector in vectors if vector.structure is not None]
    composition = [vector.composition for vector in vectors if vector.composition is not None]
    return (
        np.array(structure, dtype=np.float64).reshape(-1, NUM_STRUCTURE_FEATURES),
        np.array(composition, dtype=np.float64).reshape(-1, NUM_COMPOSITION_FEATURES),
    )


def _require_matminer() -> None:
    from importlib.util import find_spec

    if find_spec("matminer") is None:
        raise ModuleNotFoundError(
            "fingerprints need matminer, which is not installed: python -m pip install 'cdvae-kit[metrics]'",
            name="matminer",
        )


@cache
def _site_featurizer() -> CrystalNNFingerprint:
    _require_matminer()
    from matminer.featurizers.site import CrystalNNFingerprint

    return CrystalNNFingerprint.from_preset("ops")


@cache
def _element_featurizer() -> ElementProperty:
    _require_matminer()
    from matminer.featurizers.composition import ElementProperty

    # the published numbers were made with the mean over elements where one has no value (noble gases, actinides);
    # said, because it is the default of some releases of matminer only
    return ElementProperty.from_preset("magpie", impute_nan=True)
