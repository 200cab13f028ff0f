"""The package's own predictors in the roles that an optimisation has: the model that is climbed, and the judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.generation.optimization.objectives import PropertyRange, UnknownPropertyError
from cdvae_kit.generation.optimization.oracles import Judgement
from cdvae_kit.models.latent_predictor import LatentPredictor

if TYPE_CHECKING:
    from torch import nn

    from cdvae_kit.models.property_predictor import PropertyPredictor

_RANGE_IN_STANDARD_DEVIATIONS = 3.0


class CodeModel:
    """A `LatentPredictor` as the model that an optimiser goes down.

    Its weights hold no largest and smallest value, so that the range of a property is taken for three standard
    deviations around the mean of the training data, until a reference says it exactly.

    Args:
        predictor: fitted to the codes of `autoencoder`.
        autoencoder: whose codes are moved; an error where the predictor was fitted to another one.

    >>> from cdvae_kit.models.predictor_config import LatentPredictorConfig
    >>> settings = LatentPredictorConfig(properties=("gap",), units=("eV",), latent_dim=8)
    >>> CodeModel(LatentPredictor(settings)).ranges["gap"]
    PropertyRange(name='gap', unit='eV', low=-3.0, high=3.0)
    """

    def __init__(self, predictor: LatentPredictor, autoencoder: nn.Module | None = None) -> None:
        if autoencoder is not None:
            predictor.check_autoencoder(autoencoder)
        self.predictor = predictor.eval()
        for parameter in self.predictor.parameters():
            # only the codes move
            parameter.requires_grad_(False)

    def __call__(self, z: Tensor) -> Tensor:
        return self.predictor(z)

    @property
    def names(self) -> tuple[str, ...]:
        return self.predictor.config.properties

    @property
    def mean(self) -> Tensor:
        return self.predictor.property_mean

    @property
    def standard_deviation(self) -> Tensor:
        return self.predictor.property_std

    @property
    def ranges(self) -> Mapping[str, PropertyRange]:
        return {
            name: PropertyRange(
                name,
                unit,
                float(mean - _RANGE_IN_STANDARD_DEVIATIONS * std),
                float(mean + _RANGE_IN_STANDARD_DEVIATIONS * std),
            )
            for name, unit, mean, std in zip(
                self.names, self.predictor.config.units, self.mean, self.standard_deviation, strict=True
            )
        }

    @property
    def held_out_error(self) -> Mapping[str, float]:
        return errors_on_card(self.predictor.card)


class PredictorJudge:
    """A `PropertyPredictor` as the judge.

    Args:
        predictor: trained on other crystals than the one that is optimised.
        names: the properties that it is asked for.
        held_out_error: mean absolute error of each on crystals that it has not seen; by default what the predictor's
            card says of its calibration crystals.
    """

    def __init__(
        self, predictor: PropertyPredictor, names: tuple[str, ...], *, held_out_error: Mapping[str, float] | None = None
    ) -> None:
        unknown = [name for name in names if name not in predictor.config.properties]
        if unknown:
            raise UnknownPropertyError(
                f"the judge knows no property {unknown[0]!r}; it knows {', '.join(predictor.config.properties)}"
            )
        self.predictor = predictor
        self.names = names
        self.held_out_error = errors_on_card(predictor.card) if held_out_error is None else held_out_error

    @property
    def description(self) -> str:
        data = self.predictor.card.get("data", {})
        where = f", trained on {data['num_training']} crystals of {data.get('name', '?')}" if data else ""
        return f"property predictor of {len(self.predictor.members)} networks{where}"

    def judge(self, crystals: CrystalBatch) -> Judgement:
        found = self.predictor.predict(crystals)
        first = found[self.names[0]]
        return Judgement(
            {name: _numbers(found[name].mean) for name in self.names},
            {name: _numbers(found[name].half_width) for name in self.names},
            tuple(None if fault is None else f"the judge: {fault}" for fault in first.faults),
        )


def errors_on_card(card: Mapping[str, Any]) -> dict[str, float]:
    """Mean absolute errors on the calibration crystals, by property, as the card of a predictor has them."""
    errors = card.get("training", {}).get("calibration_error", {})
    return {str(name): float(value) for name, value in errors.items()}


def _numbers(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().cpu().double())
