"""A model as bytes that another process, perhaps on another machine, makes the same model of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cdvae_kit.models.cdvae import CDVAE
from cdvae_kit.models.config import CDVAEConfig
from cdvae_kit.models.pretrained import choose_device


@dataclass(frozen=True)
class PortableModel:
    """Settings and weights; no more is needed where the package is installed.

    Attributes:
        config: `CDVAEConfig` as JSON.
        weights: safetensors.
        digest: SHA-256 of both, the model's name in a process that holds it already.
    """

    config: str = field(repr=False)
    weights: bytes = field(repr=False)
    digest: str

    @classmethod
    def of(cls, model: CDVAE) -> PortableModel:
        from safetensors.torch import save

        config = model.config.model_dump_json()
        weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
        return cls(config, weights, hashlib.sha256(config.encode() + weights).hexdigest())

    def model(self, *, device: str = "auto") -> CDVAE:
        """The model; a process makes it once and keeps the last one.

        Args:
            device: `auto` takes CUDA, then Apple's MPS, then the CPU, as this machine has them.
        """
        key = (self.digest, device)
        if key not in _kept:
            _kept.clear()
            _kept[key] = self._made(device)
        return _kept[key]

    def _made(self, device: str) -> CDVAE:
        import torch
        from safetensors.torch import load

        tensors = load(self.weights)
        model = CDVAE(CDVAEConfig.model_validate_json(self.config))
        # as many as the training set had
        model.known_elements = torch.empty_like(tensors["known_elements"])
        model.load_state_dict(tensors)
        return model.eval().to(choose_device(device))


_kept: dict[tuple[str, str], CDVAE] = {}


def keep(portable: PortableModel, model: CDVAE, *, device: str) -> None:
    """Lets this process take `model` where the portable one is asked for."""
    _kept.clear()
    _kept[portable.digest, device] = model
