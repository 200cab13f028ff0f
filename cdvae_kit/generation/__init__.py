"""What needs a trained model, and the way to one: training, sampling into files, reconstruction, paths, codes."""

from cdvae_kit.generation.codes_and_properties import latent_codes
from cdvae_kit.generation.conditions import check_crystals, check_possible, conditions_from
from cdvae_kit.generation.model_training import train_model
from cdvae_kit.generation.nearby import sample_near, seeds_of
from cdvae_kit.generation.reconstruction import interpolate, reconstruct
from cdvae_kit.generation.sampling import sample_to_file
from cdvae_kit.generation.structure_prediction import predict_structures

__all__ = [
    "check_crystals",
    "check_possible",
    "conditions_from",
    "interpolate",
    "latent_codes",
    "predict_structures",
    "reconstruct",
    "sample_near",
    "sample_to_file",
    "seeds_of",
    "train_model",
]
