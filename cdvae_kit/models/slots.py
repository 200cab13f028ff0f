"""Slots within z for the parameters of each orbit of a crystal, by the orbit's number in the canonical description.

What the encoder writes into z is linear in sines and cosines of the parameters, and so is what the decoder reads first:
a code of ordered numbers is learnt at once, where a mean over orbits has to be taken apart again.
"""

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from cdvae_kit.crystal.orbits import Orbits

NUM_WAVES = 3
"""Harmonics of each free parameter that are written and asked for."""


class WaveSlots(nn.Module):
    """Maps between the waves of orbits, (num_orbits, 6 NUM_WAVES) as `where_it_stands` gives them, and codes z."""

    def __init__(self, most_orbits: int, latent_dim: int) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.zeros(most_orbits, 6 * NUM_WAVES, latent_dim))

    def write(self, waves: Tensor, number: Tensor, orbits: Orbits) -> Tensor:
        """(num_crystals, latent_dim) what all orbits of a crystal add to its code."""
        written = torch.matmul(waves.unsqueeze(1), self.maps.index_select(0, number)).squeeze(1)
        return scatter(written, orbits.batch, dim=0, dim_size=len(orbits.num_orbits), reduce="sum")

    def read(self, z: Tensor, number: Tensor, orbits: Orbits) -> Tensor:
        """(num_orbits, 6 NUM_WAVES) what z says of each orbit."""
        of_orbit = z.index_select(0, orbits.batch).unsqueeze(-1)
        return torch.matmul(self.maps.index_select(0, number), of_orbit).squeeze(-1)
