"""The vectors by which the field calls two crystals near: local order of the sites, and statistics of the elements.

CrystalNN order parameters averaged over sites, 61 numbers, and magpie element statistics, 132 numbers, standardised
with the constants of the published protocol. The published numbers come from matminer (Ward et al., Comput. Mater. Sci.
152, 60 (2018), doi 10.1016/j.commatsci.2018.05.018); here they are worked out by `crystal_nn_features` and
`element_statistics`, which agree with it to 1e-6 on every crystal that they were compared on. What is made of the
vectors is in `coverage` and `distributions`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.io.results.named_arrays import decode_arrays, encode_arrays
from cdvae_kit.metrics.computing.parallel import Memory, crystal_key, map_crystals
from cdvae_kit.metrics.crystals import Composition, CrystalArrays, Crystals, as_arrays
from cdvae_kit.metrics.fingerprints.crystal_nn_features import NoFingerprintError, describe_sites
from cdvae_kit.metrics.fingerprints.element_statistics import element_statistics
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore

_KIND = "fingerprint 2"
"""Raised with every change of the code that changes a vector."""

NUM_STRUCTURE_FEATURES = 61
NUM_COMPOSITION_FEATURES = 132


@dataclass(frozen=True)
class Fingerprint:
    """The two vectors of one crystal, or why there are none.

    Attributes:
        structure: (61,) order parameters, mean over sites.
        composition: (132,) standardised element statistics.
        reason: why the crystal has no vectors; None where it has both.
        coordination: (num_sites,) neighbours of each site by CrystalNN, where they were worked out with the rest.
    """

    structure: np.ndarray | None
    composition: np.ndarray | None
    reason: str | None = None
    coordination: np.ndarray | None = None

    @property
    def complete(self) -> bool:
        return self.reason is None


def fingerprints(
    crystals: Crystals, *, num_workers: int = 1, progress: Progress | None = None, store: ResultStore | None = None
) -> list[Fingerprint]:
    """One `Fingerprint` a crystal, in order; some 5 ms each, in `num_workers` processes (-1: every core).

    A crystal has both vectors or none: the published protocol counts it as invalid when one site has no order
    parameters. What `store` knows is not computed again.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> [(found.structure.shape, found.composition.shape) for found in fingerprints([salt])]
    [((61,), (132,))]
    """
    return fingerprints_of(as_arrays(crystals), num_workers=num_workers, progress=progress, store=store)


def fingerprints_of(
    arrays: Sequence[CrystalArrays],
    *,
    num_workers: int = 1,
    progress: Progress | None = None,
    store: ResultStore | None = None,
) -> list[Fingerprint]:
    """`fingerprints` of crystals that are arrays already."""
    memory = Memory(store, _KIND, crystal_key, _encode, _decode)
    return map_crystals(fingerprint, arrays, num_workers=num_workers, progress=progress, memory=memory)


def _encode(vectors: Fingerprint) -> bytes:
    arrays = {name: getattr(vectors, name) for name in ("structure", "composition", "coordination")}
    return encode_arrays({name: array for name, array in arrays.items() if array is not None}, vectors.reason)


def _decode(content: bytes) -> Fingerprint:
    arrays, reason = decode_arrays(content)
    found = Fingerprint(arrays.get("structure"), arrays.get("composition"), reason, arrays.get("coordination"))
    if found.complete and (found.structure is None or found.composition is None):
        raise ValueError("a fingerprint without a reason needs both vectors")
    return found


def fingerprint(crystal: CrystalArrays) -> Fingerprint:
    """The vectors of one crystal."""
    if crystal.fault is not None:
        return Fingerprint(None, None, crystal.fault)
    try:
        sites = describe_sites(crystal)
    except NoFingerprintError as error:
        return Fingerprint(None, None, f"no fingerprint: {error}")
    assert sites.features is not None
    composition = composition_fingerprint(crystal.reduced_composition)
    return Fingerprint(sites.features.mean(axis=0), composition, coordination=sites.coordination_numbers)


@lru_cache(maxsize=100_000)
def composition_fingerprint(composition: Composition) -> np.ndarray:
    """(132,) magpie statistics, standardised; where an element has no value, the mean over elements stands for it."""
    means, stds = composition_scaler()
    standardised = (element_statistics(composition) - means) / stds
    # every caller gets the same array
    standardised.setflags(write=False)
    return standardised


@cache
def composition_scaler() -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations (132,) of the published protocol."""
    text = files("cdvae_kit.metrics.fingerprints").joinpath("composition_scaler.json").read_text(encoding="utf-8")
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
