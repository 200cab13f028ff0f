"""What needs a trained model: sampling into files, reconstruction, interpolation, codes."""

from cdvae_kit.generation.judging import latent_codes
from cdvae_kit.generation.reconstruction import interpolate, reconstruct
from cdvae_kit.generation.sampling import sample_to_file
from cdvae_kit.generation.workflow import train

__all__ = ["interpolate", "latent_codes", "reconstruct", "sample_to_file", "train"]
