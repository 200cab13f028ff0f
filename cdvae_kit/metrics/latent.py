"""How far the sets lie apart in the latent space of a model, and in the features of a potential."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.computing.divergences import frechet_distance
from cdvae_kit.metrics.metric import Family, Measured, Metric, number

if TYPE_CHECKING:
    from cdvae_kit.metrics.evidence import Evidence


def _frechet(evidence: Evidence) -> Measured:
    assert evidence.codes is not None
    return _between(*evidence.codes, where="the latent space")


def _frechet_of_potential(evidence: Evidence) -> Measured:
    assert evidence.embeddings is not None
    return _between(*evidence.embeddings, where="the features of the potential")


def _between(ours: np.ndarray, theirs: np.ndarray, *, where: str) -> Measured:
    ours, theirs = (rows[np.isfinite(rows).all(1)] for rows in (ours, theirs))
    value = frechet_distance(ours, theirs)
    smallest = min(len(ours), len(theirs))
    note = f"squared, between Gaussians in {where}"
    if value is None:
        note = "a set has fewer than two codes"
    elif smallest <= ours.shape[1]:
        note += f"; {smallest} crystals are few for {ours.shape[1]} dimensions, so it is too large"
    return number(value, smallest, note=note)


FAMILY = Family(
    "latent",
    (
        Metric(
            "frechet_distance",
            "Fréchet distance, latent space",
            "distribution",
            "lower",
            "",
            "Heusel et al., NeurIPS 2017, arXiv:1706.08500",
            ("codes",),
            _frechet,
        ),
        Metric(
            "frechet_distance_potential",
            "Fréchet distance, potential's features",
            "distribution",
            "lower",
            "",
            "LeMat-GenBench, arXiv:2512.04562, with the potential that is given",
            ("embeddings",),
            _frechet_of_potential,
        ),
    ),
)
