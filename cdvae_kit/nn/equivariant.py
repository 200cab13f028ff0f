"""Equivariant convolutions on e3nn: features turn with the crystal as their irreps say."""

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.utils import scatter


class EquivariantConvolution(nn.Module):
    """Messages h_j x Y(r_ij) weighted by a function of the distance, summed, mixed, and gated.

    A product of the sum with itself raises the body order by one before the gate: angles between neighbours are
    seen without a loop over triplets (Batatia et al., MACE, arXiv 2206.07697, has the idea).

    Args:
        irreps_in: irreps of the features of an atom.
        channels: numbers of channels for l = 0, 1, ... of the output.
        lmax: highest degree of the spherical harmonics on edges.
        num_basis: width of the radial basis.
        num_neighbors: typical number of neighbours; sums are divided by its square root.
    """

    def __init__(
        self, irreps_in: o3.Irreps, channels: tuple[int, ...], *, lmax: int, num_basis: int, num_neighbors: float
    ) -> None:
        super().__init__()
        harmonics = o3.Irreps.spherical_harmonics(lmax)
        degrees = range(len(channels))
        wanted = {o3.Irrep(degree, (-1) ** degree) for degree in degrees}
        self.num_neighbors = num_neighbors

        irreps_message, instructions = [], []
        for i, (multiplicity, irrep) in enumerate(irreps_in):
            for k, (_, harmonic) in enumerate(harmonics):
                for out in irrep * harmonic:
                    if out in wanted:
                        instructions.append((i, k, len(irreps_message), "uvu", True))
                        irreps_message.append((multiplicity, out))
        messages, permutation, _ = o3.Irreps(irreps_message).sort()
        self.product = o3.TensorProduct(
            irreps_in,
            harmonics,
            messages,
            [(i, k, permutation[out], mode, train) for i, k, out, mode, train in instructions],
            shared_weights=False,
            internal_weights=False,
        )
        # no bias: where the basis vanishes, at the cutoff, so does the message
        self.radial = nn.Sequential(
            nn.Linear(num_basis, 32, bias=False), nn.SiLU(), nn.Linear(32, self.product.weight_numel, bias=False)
        )

        scalars = o3.Irreps([(channels[0], (0, 1))])
        gated = o3.Irreps([(count, (degree, (-1) ** degree)) for degree, count in enumerate(channels) if degree])
        self.gate = e3nn_nn.Gate(
            scalars,
            [torch.nn.functional.silu],
            o3.Irreps([(gated.num_irreps, (0, 1))]) if gated.num_irreps else o3.Irreps(),
            [torch.sigmoid] if gated.num_irreps else [],
            gated,
        )
        self.irreps_out = self.gate.irreps_out
        mixed = o3.Irreps([(count, (degree, (-1) ** degree)) for degree, count in enumerate(channels)])
        self.mix = o3.Linear(messages.simplify(), mixed)
        self.square = o3.TensorProduct(
            mixed, mixed, *_square_paths(mixed, wanted), shared_weights=True, internal_weights=True
        )
        self.combine = o3.Linear((mixed + self.square.irreps_out).simplify(), self.gate.irreps_in)
        self.skip = o3.Linear(irreps_in, self.irreps_out)

    def forward(self, h: Tensor, edge_index: Tensor, harmonics: Tensor, basis: Tensor) -> Tensor:
        """
        Args:
            h: (num_atoms, irreps_in).
            edge_index: (2, num_edges) long, source and target, sorted by target.
            harmonics: (num_edges, (lmax + 1)^2), spherical harmonics of the edge vectors.
            basis: (num_edges, num_basis), which goes to 0 at the cutoff.
        """
        messages = self.product(h.index_select(0, edge_index[0]), harmonics, self.radial(basis))
        received = scatter(messages, edge_index[1], dim=0, dim_size=len(h), reduce="sum") / self.num_neighbors**0.5
        mixed = self.mix(received)
        return self.skip(h) + self.gate(self.combine(torch.cat([mixed, self.square(mixed, mixed)], dim=-1)))


def _square_paths(irreps: o3.Irreps, wanted: set[o3.Irrep]) -> tuple[o3.Irreps, list[tuple[int, int, int, str, bool]]]:
    """Channel-by-channel products of `irreps` with itself into the wanted irreps, sorted by irrep."""
    outputs, instructions = [], []
    for i, (count_i, irrep_i) in enumerate(irreps):
        for k, (count_k, irrep_k) in enumerate(irreps):
            if k < i or count_i != count_k:
                continue
            for out in irrep_i * irrep_k:
                if out in wanted and not (i == k and out.l % 2):
                    instructions.append((i, k, len(outputs), "uuu", True))
                    outputs.append((count_i, out))
    irreps_out, permutation, _ = o3.Irreps(outputs).sort()
    return irreps_out, [(i, k, permutation[out], mode, train) for i, k, out, mode, train in instructions]
