"""How far crystals lie from known ones: in the latent space, by fingerprints, and whether they are known already.

An optimiser can win by leaving the data, where no predictor knows anything; so this stands beside every success rate.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.generation.latent_region import LatentRegion
from cdvae_kit.generation.neighbors import nearest_codes
from cdvae_kit.generation.optimization.trials import encode_each
from cdvae_kit.metrics.crystals import Composition, CrystalArrays, as_arrays
from cdvae_kit.metrics.fingerprints.vectors import composition_fingerprint, fingerprints_of
from cdvae_kit.metrics.novelty import novelty

if TYPE_CHECKING:
    from cdvae_kit.models import CDVAE

_CLOSEST = 10
"""Latent neighbours that a crystal's structure is compared with; fingerprints of all would take minutes."""


@dataclass(frozen=True)
class Remoteness:
    """One row a crystal, (num_crystals,) each; NaN where there is none.

    Attributes:
        latent: distance of the crystal's code to the nearest reference's, in standard deviations.
        composition: distance of the standardised element statistics to the nearest reference's.
        structure: distance of the CrystalNN fingerprints to the nearest of the ten references whose codes are nearest.
        new_composition: 1 where no reference has the reduced composition.
        new: 1 where no reference of its composition matches it (StructureMatcher, CDVAE's tolerances).
        nearest: index of the reference with the nearest code.
        usual_latent: median distance of a reference's code to the nearest other reference's, for comparison.
    """

    latent: np.ndarray
    composition: np.ndarray
    structure: np.ndarray
    new_composition: np.ndarray
    new: np.ndarray
    nearest: np.ndarray
    usual_latent: float

    def summary(self) -> dict[str, Any]:
        """Medians and shares."""
        columns = {name: value for name, value in asdict(self).items() if name not in ("usual_latent", "nearest")}
        medians = {f"median_{name}_distance": _median(columns[name]) for name in ("latent", "composition", "structure")}
        shares = {f"{name}_share": _mean(columns[name]) for name in ("new_composition", "new")}
        return {**medians, "usual_latent_distance": self.usual_latent, **shares, "num_crystals": len(self.latent)}


def remoteness(model: CDVAE, crystals: CrystalBatch, reference: CrystalBatch) -> Remoteness:
    """How far each crystal lies from the reference."""
    region = LatentRegion.of_model(model)
    known = torch.stack([code for code in encode_each(model, reference.to("cpu")) if code is not None])
    codes = encode_each(model, crystals.to("cpu"))
    indices = [i for i, code in enumerate(codes) if code is not None]
    found = torch.stack([code for code in codes if code is not None])
    near = nearest_codes(region, found, known, num_neighbors=_CLOSEST)
    ours, theirs = as_arrays(crystals), as_arrays(reference)
    latent = np.full(len(ours), np.nan)
    latent[indices] = near.distances[:, 0]
    compositions = {crystal.reduced_composition for crystal in theirs}
    neighbors = {index: near.indices[row].tolist() for row, index in enumerate(indices)}
    nearest = np.full(len(ours), -1)
    nearest[indices] = near.indices[:, 0]
    return Remoteness(
        latent,
        _composition_distances(ours, list(compositions)),
        _structure_distances(ours, theirs, neighbors),
        np.array([float(crystal.reduced_composition not in compositions) for crystal in ours]),
        novelty(crystals, reference, matcher="cdvae").novel.astype(np.float64),
        nearest,
        _usual(region, known),
    )


def _usual(region: LatentRegion, known: torch.Tensor) -> float:
    if len(known) < 2:
        return float("nan")
    # a thousand tell the median; all pairs of a large set would take long
    step = max(1, len(known) // 1000)
    own = nearest_codes(region, known[::step], known, num_neighbors=2).distances
    return float(np.median(own[:, 1]))


def _composition_distances(ours: list[CrystalArrays], known: list[Composition]) -> np.ndarray:
    table = np.stack([composition_fingerprint(composition) for composition in known])
    return np.array(
        [
            _smallest(np.linalg.norm(table - composition_fingerprint(crystal.reduced_composition), axis=1))
            for crystal in ours
        ]
    )


def _structure_distances(
    ours: list[CrystalArrays], theirs: list[CrystalArrays], neighbors: dict[int, list[int]]
) -> np.ndarray:
    wanted = sorted({j for some in neighbors.values() for j in some})
    known = dict(zip(wanted, fingerprints_of([theirs[j] for j in wanted]), strict=True))
    distances = np.full(len(ours), np.nan)
    for i, print_of in enumerate(fingerprints_of(ours)):
        others = [known[j].structure for j in neighbors.get(i, ())]
        there = [other for other in others if other is not None]
        if print_of.structure is not None and there:
            distances[i] = min(float(np.linalg.norm(print_of.structure - other)) for other in there)
    return distances


def _smallest(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.min()) if len(values) else float("nan")


def _median(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _mean(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.mean(values)) if len(values) else None
