"""What a crystal is: lattice, coordinates, elements, the batch, conversion and symmetry."""

from cdvae_kit.crystal.batch import CrystalBatch, concatenate, ragged_index

__all__ = ["CrystalBatch", "concatenate", "ragged_index"]
