"""Equivariant convolutions on e3nn: features turn with the crystal as their irreps say."""

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.utils import scatter

_Path = tuple[int, int, int, str, bool]
"""What e3nn calls an instruction: two inputs, the output, the mode, and whether it has weights."""


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

    norms: Tensor
    coupling: Tensor
    weight_of_row: Tensor

    def __init__(
        self, irreps_in: o3.Irreps, channels: tuple[int, ...], *, lmax: int, num_basis: int, num_neighbors: float
    ) -> None:
        super().__init__()
        harmonics = o3.Irreps.spherical_harmonics(lmax)
        degrees = range(len(channels))
        wanted = {o3.Irrep(degree, (-1) ** degree) for degree in degrees}
        self.num_neighbors = num_neighbors

        irreps_message: list[tuple[int, o3.Irrep]] = []
        instructions: list[_Path] = []
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
        self.from_scalars = len(irreps_in) == 1 and irreps_in.lmax == 0
        # one block of equal width for each degree of the harmonics, as the layer before gives them
        to_scalars = len(channels) == 1 and irreps_in == o3.Irreps([(irreps_in[0].mul, y.ir) for y in harmonics])
        self.is_plain = len(set(channels)) == 1 and (self.from_scalars or to_scalars)
        self.irreps_in = irreps_in
        self.degrees = [harmonics[k].ir.l for _, k, _, _, _ in instructions]
        # for each path to scalars, its own harmonics; e3nn divides a scalar product by the root of its terms' number
        norms = [
            [(entry.ir.l == degree) / entry.ir.dim**0.5 for entry in harmonics for _ in range(entry.ir.dim)]
            for degree in self.degrees
        ]
        self.register_buffer("norms", torch.tensor(norms), persistent=False)
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
        if self.is_plain:
            coupling, weight_of_row = _coupling(self.square, mixed)
            self.register_buffer("coupling", coupling, persistent=False)
            self.register_buffer("weight_of_row", torch.tensor(weight_of_row), persistent=False)

    def forward(self, h: Tensor, edge_index: Tensor, harmonics: Tensor, basis: Tensor) -> Tensor:
        """
        Args:
            h: (num_atoms, irreps_in).
            edge_index: (2, num_edges) long, source and target, sorted by target.
            harmonics: (num_edges, (lmax + 1)^2), spherical harmonics of the edge vectors.
            basis: (num_edges, num_basis), which goes to 0 at the cutoff.
        """
        if not self.is_plain:
            return self.by_e3nn(h, edge_index, harmonics, basis)
        sums = self._from_scalars if self.from_scalars else self._to_scalars
        received = [part / self.num_neighbors**0.5 for part in sums(h, edge_index, harmonics, basis)]
        mixed = _linear(self.mix, received)
        scalars, *vectors = _linear(self.combine, self._with_squares(mixed))
        channels = mixed[0].shape[-1]
        # the gate's own activations, which it scales to a mean square of 1
        outputs = [self.gate.act_scalars.acts[0](scalars[..., :channels])]
        if vectors:
            gates = self.gate.act_gates.acts[0](scalars[..., channels:]).split(channels, dim=-1)
            outputs += [gate * part for gate, part in zip(gates, vectors, strict=True)]
        return self.skip(h) + torch.cat([part.transpose(1, 2).flatten(1) for part in outputs], dim=-1)

    def by_e3nn(self, h: Tensor, edge_index: Tensor, harmonics: Tensor, basis: Tensor) -> Tensor:
        """What `forward` gives, layer by layer as e3nn has it: for all irreps, and several times slower."""
        messages = self.product(h.index_select(0, edge_index[0]), harmonics, self.radial(basis))
        received = scatter(messages, edge_index[1], dim=0, dim_size=len(h), reduce="sum") / self.num_neighbors**0.5
        mixed = self.mix(received)
        return self.skip(h) + self.gate(self.combine(torch.cat([mixed, self.square(mixed, mixed)], dim=-1)))

    # Between here and the gate, features are one tensor a degree, (num_atoms, 2 l + 1, channels): what mixes channels
    # is then a matrix product, and no tensor is made that has channels times harmonics numbers an edge.

    def _with_squares(self, mixed: list[Tensor]) -> list[Tensor]:
        """The features, and behind them, degree by degree, the outputs of `square`."""
        x = torch.cat(mixed, dim=1)
        num_atoms, dim, channels = x.shape
        products = (x.unsqueeze(1) * x.unsqueeze(2)).view(num_atoms, dim * dim, channels)
        weights = self.square.weight.view(-1, channels).index_select(0, self.weight_of_row)
        rows = torch.matmul(self.coupling, products) * weights
        together = [[part] for part in mixed]
        for part, entry in zip(
            rows.split([entry.ir.dim for entry in self.square.irreps_out], 1), self.square.irreps_out, strict=True
        ):
            together[entry.ir.l].append(part)
        return [torch.cat(parts, dim=-1) for parts in together]

    def _from_scalars(self, h: Tensor, edge_index: Tensor, harmonics: Tensor, basis: Tensor) -> list[Tensor]:
        """The sum over edges of weight * h_j * Y, a matrix product for each atom."""
        num_atoms, channels = h.shape
        slots, width = _slots(edge_index[1], num_atoms)
        source = torch.arange(num_atoms, device=h.device).repeat_interleave(width)
        source[slots] = edge_index[0]
        weights = self.radial(_spread(basis, slots, num_atoms * width)).view(num_atoms, width, -1, channels)
        weighted = weights * h.index_select(0, source).view(num_atoms, width, 1, channels)
        on_edges = _spread(harmonics, slots, num_atoms * width).view(num_atoms, width, -1)
        sums = on_edges.transpose(1, 2) @ weighted.flatten(2)
        return [
            sums[:, degree**2 : (degree + 1) ** 2, path * channels : (path + 1) * channels]
            for path, degree in enumerate(self.degrees)
        ]

    def _to_scalars(self, h: Tensor, edge_index: Tensor, harmonics: Tensor, basis: Tensor) -> list[Tensor]:
        """The sum over edges of weight * <h_j, Y>, the scalar products as a matrix product for each atom as source."""
        num_atoms = len(h)
        source, target = edge_index
        channels = self.irreps_in[0].mul
        blocks = [
            h[:, part].view(num_atoms, channels, entry.ir.dim).transpose(1, 2)
            for part, entry in zip(self.irreps_in.slices(), self.irreps_in, strict=True)
        ]
        slots, width = _slots(source, num_atoms)
        on_edges = (harmonics.unsqueeze(1) * self.norms).flatten(1)
        table = _spread(on_edges, slots, num_atoms * width).view(num_atoms, -1, harmonics.shape[-1])
        products = table @ torch.cat(blocks, dim=1)
        products = products.view(num_atoms * width, -1).index_select(0, slots)
        messages = self.radial(basis) * products
        return [messages.new_zeros(num_atoms, messages.shape[-1]).index_add(0, target, messages).unsqueeze(1)]


def _linear(layer: o3.Linear, parts: list[Tensor]) -> list[Tensor]:
    """An e3nn linear layer on (num_atoms, 2 l + 1, channels) for each degree, where its irreps of a degree follow."""
    columns: dict[int, list[Tensor]] = {}
    by_output: dict[int, list[Tensor]] = {}
    for _, path, weight in layer.weight_views(yield_instruction=True):
        by_output.setdefault(path.i_out, []).append(path.path_weight * weight)
    for i_out, blocks in sorted(by_output.items()):
        columns.setdefault(layer.irreps_out[i_out].ir.l, []).append(torch.cat(blocks))
    return [parts[degree] @ torch.cat(blocks, dim=-1) for degree, blocks in sorted(columns.items())]


def _coupling(square: o3.TensorProduct, mixed: o3.Irreps) -> tuple[Tensor, list[int]]:
    """(rows, dim * dim): what each component of `square` is of the products of two components; its path of each row."""
    offsets = [entry.ir.l**2 for entry in mixed]
    dim = sum(entry.ir.dim for entry in mixed)
    rows = {}
    for number, path in enumerate(square.instructions):
        one, two, out = mixed[path.i_in1].ir, mixed[path.i_in2].ir, square.irreps_out[path.i_out].ir
        block = torch.zeros(out.dim, dim, dim)
        block[:, offsets[path.i_in1] :, offsets[path.i_in2] :][:, : one.dim, : two.dim] = (
            path.path_weight * o3.wigner_3j(one.l, two.l, out.l).permute(2, 0, 1)
        )
        rows[path.i_out] = (block.flatten(1), [number] * out.dim)
    ordered = [rows[i] for i in range(len(square.irreps_out))]
    return torch.cat([block for block, _ in ordered]), [number for _, numbers in ordered for number in numbers]


def _slots(index: Tensor, size: int) -> tuple[Tensor, int]:
    """A place for each entry in a table of `size` rows, one row an index, and how wide the table must be."""
    count = torch.bincount(index, minlength=size)
    width = int(count.max()) if len(index) else 1
    order = index.argsort(stable=True)
    first = count.cumsum(0) - count
    ranked = index.index_select(0, order)
    slots = torch.empty_like(index)
    slots[order] = ranked * width + torch.arange(len(index), device=index.device) - first.index_select(0, ranked)
    return slots, width


def _spread(values: Tensor, slots: Tensor, size: int) -> Tensor:
    """(size, ...): the rows of `values` at their slots, 0 elsewhere."""
    return values.new_zeros(size, values.shape[1]).index_copy(0, slots, values)


def _square_paths(irreps: o3.Irreps, wanted: set[o3.Irrep]) -> tuple[o3.Irreps, list[_Path]]:
    """Channel-by-channel products of `irreps` with itself into the wanted irreps, sorted by irrep."""
    outputs: list[tuple[int, o3.Irrep]] = []
    instructions: list[_Path] = []
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
