"""Encoder, score networks, heads, and the CDVAE made of them; property predictors; weights that the package carries."""

from cdvae_kit.models.cdvae import CDVAE
from cdvae_kit.models.config import CDVAEConfig
from cdvae_kit.models.latent_predictor import LatentPredictor
from cdvae_kit.models.predictor_config import LatentPredictorConfig, PropertyPredictorConfig
from cdvae_kit.models.pretrained import pretrained_names
from cdvae_kit.models.property_predictor import PropertyPrediction, PropertyPredictor

__all__ = [
    "CDVAE",
    "CDVAEConfig",
    "LatentPredictor",
    "LatentPredictorConfig",
    "PropertyPrediction",
    "PropertyPredictor",
    "PropertyPredictorConfig",
    "pretrained_names",
]
