"""From the code z to properties: what an optimiser climbs. Fitted after the autoencoder, on its frozen weights.

How it is trained is in `cdvae_kit.training.latent_predictor`. The head that an autoencoder can be trained with
(`CDVAEConfig.properties`) is another one: it shapes z itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.models import pretrained
from cdvae_kit.models.calibration import Calibration, PropertyPrediction, named_predictions, typical_error
from cdvae_kit.models.predictor_config import LatentPredictorConfig
from cdvae_kit.nn.dropout import dropout

WEIGHTS_FOLDER = "latent_predictors"


class LatentNetwork(nn.Module):
    """A linear map plus an MLP with dropout: one member of a `LatentPredictor`."""

    def __init__(self, config: LatentPredictorConfig) -> None:
        super().__init__()
        width, outputs = config.width, len(config.properties)
        self.linear = nn.Linear(config.latent_dim, outputs)
        self.dropout = config.dropout
        self.first = nn.Linear(config.latent_dim, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, outputs)

    def forward(self, z: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """(num_crystals, num_properties) of standardised codes; with a generator, hidden features are dropped."""
        hidden = dropout(functional.silu(self.first(z)), self.dropout, generator)
        hidden = dropout(functional.silu(self.second(hidden)), self.dropout, generator)
        return self.linear(z) + self.last(hidden)


class LatentPredictor(pretrained.PretrainedModule):
    """An ensemble from z to properties, smooth in z.

    Args:
        config: the settings; they are stored in every checkpoint.

    >>> predictor = LatentPredictor(LatentPredictorConfig(properties=("gap",), units=("eV",), latent_dim=8))
    >>> predictor(torch.zeros(3, 8)).shape
    torch.Size([4, 3, 1])
    """

    _EARLIER_NAMES: ClassVar[Mapping[str, str]] = {
        "property_deviation": "property_std",
        "code_deviation": "code_std",
    }

    property_mean: Tensor
    property_std: Tensor
    code_mean: Tensor
    code_std: Tensor

    def __init__(self, config: LatentPredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.card: dict[str, Any] = {}
        """What is known of the weights: data, split, seed, device, time, errors."""
        self.members = nn.ModuleList(LatentNetwork(config) for _ in range(config.num_members))
        self.calibration = Calibration(len(config.properties))
        self.register_buffer("property_mean", torch.zeros(len(config.properties)))
        self.register_buffer("property_std", torch.ones(len(config.properties)))
        self.register_buffer("code_mean", torch.zeros(config.latent_dim))
        self.register_buffer("code_std", torch.ones(config.latent_dim))

    @property
    def device(self) -> torch.device:
        return self.property_mean.device

    @property
    def units(self) -> dict[str, str]:
        """The unit of each property."""
        return dict(zip(self.config.properties, self.config.units, strict=True))

    def forward(self, z: Tensor) -> Tensor:
        """(num_members, num_crystals, num_properties), standardised; differentiable in z (num_crystals, latent_dim)."""
        return torch.stack([self.member(k, z) for k in range(len(self.members))])

    def member(self, k: int, z: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """(num_crystals, num_properties), standardised: what member k says; with a generator, under dropout."""
        if z.ndim != 2 or z.shape[1] != self.config.latent_dim:
            raise ValueError(f"expected codes (num_crystals, {self.config.latent_dim}), got {tuple(z.shape)}")
        return self.members[k]((z - self.code_mean) / self.code_std, generator=generator)

    def in_units(self, standardised: Tensor) -> Tensor:
        """Standardised values (..., num_properties) in the data's own units."""
        return standardised * self.property_std + self.property_mean

    def standardised(self, values: Tensor) -> Tensor:
        """Values (..., num_properties) in the data's own units as `forward` gives them."""
        return (values - self.property_mean) / self.property_std

    @torch.no_grad()
    def predict(self, z: Tensor) -> dict[str, PropertyPrediction]:
        """Each property of each code; a code that is not finite has NaN and a reason in `faults`."""
        members = self.in_units(self(z.to(self.device, self.property_mean.dtype)))
        finite = z.isfinite().all(dim=1).to(self.device)
        members[:, ~finite] = float("nan")
        return named_predictions(
            members,
            self.calibration,
            names=self.config.properties,
            units=self.config.units,
            coverage=self.config.coverage,
            faults=tuple(None if good else "the code is not finite" for good in finite.tolist()),
        )

    @torch.no_grad()
    def fit_statistics(self, codes: Tensor, values: Tensor) -> None:
        """Scales of codes (num_crystals, latent_dim) and of properties (num_crystals, num_properties), NaN left out."""
        for i, name in enumerate(self.config.properties):
            there = values[:, i][values[:, i].isfinite()]
            if len(there) < 2:
                raise ValueError(f"property {name!r} has {len(there)} values in the training crystals; it needs 2")
            self.property_mean[i] = there.mean()
            self.property_std[i] = there.std().clamp_min(1e-6)
        self.code_mean.copy_(codes.mean(0))
        self.code_std.copy_(codes.std(0, correction=0).clamp_min(1e-3))

    def calibrate(self, codes: Tensor, values: Tensor, *, out_of_fold: Tensor) -> None:
        """Makes the intervals hold what they promise; see `PropertyPredictor.calibrate`.

        Args:
            codes: (num_crystals, latent_dim), of crystals that no member has seen.
            values: (num_crystals, num_properties), in the data's own units.
            out_of_fold: (any number, num_properties), errors of members on codes that the member has not learned from.
        """
        predictions = self.predict(codes)
        self.calibration.fit(
            torch.stack([predictions[name].mean for name in self.config.properties], dim=-1),
            torch.stack([predictions[name].spread for name in self.config.properties], dim=-1),
            values.to(self.device),
            offset=typical_error(out_of_fold).to(self.device),
            coverage=self.config.coverage,
        )

    # -- files ---------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], *, device: str = "auto") -> LatentPredictor:
        """The predictor of a checkpoint folder, or one that the package carries; see `PropertyPredictor`."""
        config, tensors, card = pretrained.load_settings(
            name_or_path, LatentPredictorConfig, folder=WEIGHTS_FOLDER, expected=("calibration.quantile",)
        )
        model = pretrained.build(cls, config, tensors, name_or_path)
        pretrained.put_weights(model, tensors, name_or_path)
        model.card = card
        return model.eval().to(pretrained.choose_device(device))

    def _contents(self) -> str:
        named = zip(self.config.properties, self.config.units, strict=True)
        asked = [f"{name} in {unit}" if unit else name for name, unit in named]
        return f"{', '.join(asked)}; {self.config.num_members} networks, {super()._contents()}"

    def check_autoencoder(self, autoencoder: nn.Module) -> None:
        """Raises ValueError if the codes that this predictor knows are not those of `autoencoder`."""
        if self.config.autoencoder and self.config.autoencoder != encoder_digest(autoencoder):
            raise ValueError(
                "this predictor was fitted to the codes of another autoencoder: its encoder's weights differ; take the "
                "autoencoder that it was fitted to, or fit a predictor to this one"
            )


def encoder_digest(autoencoder: nn.Module) -> str:
    """SHA-256 of the weights that make codes: the same for the same weights in single and in half precision."""
    digest = hashlib.sha256()
    for name, tensor in sorted(autoencoder.state_dict().items()):
        if name.startswith("encoder."):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()
