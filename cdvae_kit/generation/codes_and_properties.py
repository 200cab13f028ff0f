"""What trained models say of crystals that may be anything, as the evaluation asks for it: codes and properties.

One crystal's fault stays its own: it has NaN, and disturbs no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from cdvae_kit.crystal.conversion import structures_to_batch
from cdvae_kit.crystal.symmetry import niggli_reduce
from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.metrics.evidence import PropertyFunction
from cdvae_kit.models.cdvae import CDVAE
from cdvae_kit.models.limits import NUM_ELEMENTS
from cdvae_kit.models.property_predictor import PropertyPredictor


def latent_codes(model: CDVAE, crystals: Sequence[CrystalArrays], *, batch_size: int = 256) -> np.ndarray:
    """(num_crystals, latent_dim) means of the posterior; a row of NaN for a crystal that the model cannot take.

    That is one with a fault, with too many atoms or an unknown element, or whose cell cannot be Niggli-reduced.

    >>> from cdvae_kit.models import CDVAEConfig
    >>> model = CDVAE(CDVAEConfig(max_atoms=1, latent_dim=8))
    >>> copper, pair = (CrystalArrays(3 * np.eye(3), np.zeros((n, 3)), np.full(n, 29)) for n in (1, 2))
    >>> np.isnan(latent_codes(model, [copper, pair])).all(axis=1)
    array([False,  True])
    """
    reduced = {}
    for i, crystal in enumerate(crystals):
        if crystal.fault is not None or not _takes(model, crystal):
            continue
        try:
            reduced[i] = niggli_reduce(crystal.structure())
        except (ArithmeticError, ValueError):
            # pymatgen raises these for cells that its algorithm cannot bring to an end
            continue
    codes = np.full((len(crystals), model.config.latent_dim), np.nan)
    if reduced:
        batch = structures_to_batch(list(reduced.values()))
        found = model.encode(batch, batch_size=batch_size, reduce=False, allow_outside=True).double().cpu().numpy()
        codes[list(reduced)] = np.where(np.isfinite(found).all(1, keepdims=True), found, np.nan)
    return codes


def property_functions(predictor: PropertyPredictor) -> dict[str, PropertyFunction]:
    """For each property that the predictor knows a function from crystals to values, NaN where it cannot tell."""
    return {name: partial(_predict, predictor, name) for name in predictor.config.properties}


def _predict(predictor: PropertyPredictor, name: str, crystals: Sequence[CrystalArrays]) -> np.ndarray:
    found = predictor.predict([crystal.structure() for crystal in crystals])[name]
    values: np.ndarray = found.mean.double().cpu().numpy()
    return values


def _takes(model: CDVAE, crystal: CrystalArrays) -> bool:
    return len(crystal.atomic_numbers) <= model.config.max_atoms and int(crystal.atomic_numbers.max()) <= NUM_ELEMENTS
