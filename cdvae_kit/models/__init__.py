"""Encoder, score networks, heads, and the CDVAE made of them; weights that the package carries."""

from cdvae_kit.models.cdvae import CDVAE
from cdvae_kit.models.config import CDVAEConfig
from cdvae_kit.models.pretrained import pretrained_names

__all__ = ["CDVAE", "CDVAEConfig", "pretrained_names"]
