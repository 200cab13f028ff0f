"""Periodic images: which atoms, and which of their repeats, lie within a distance. Graphs are made of this in `graph`.

The search turns each cell into lower triangular form, where the third coordinate of a vector depends on n_c alone, the
second on n_b and n_c. So the cell numbers are counted off axis by axis, each within what the axes before have left of
the radius (Fincke and Pohst 1985, Math. Comp. 44, 463): only pairs that are in reach are ever written down, in any
cell, however thin or skewed, for all crystals at once.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cdvae_kit.crystal.batch import CrystalBatch, ragged_index
from cdvae_kit.crystal.lattice import plane_spacings, volume, wrap_displacement

MAX_PAIRS = 10**9
"""More candidates than this and the cells are collapsed or the cutoff has another unit: an error, not a full memory."""


class ImagePairs(NamedTuple):
    """Pairs of an atom (target) and an image of an atom (source), sorted by target."""

    edge_index: Tensor  # (2, num_pairs) long, row 0 the source, row 1 the target
    cell_offsets: Tensor  # (num_pairs, 3) long
    squared_distances: Tensor | None  # (num_pairs,), square angstrom, without gradient; None where not asked for


def fully_connected_pairs(num_atoms: Tensor, *, self_pairs: bool = True) -> Tensor:
    """(2, sum of num_atoms^2) long: source and target of every pair of atoms of one crystal, sorted by target.

    >>> fully_connected_pairs(torch.tensor([2, 1]))
    tensor([[0, 1, 0, 1, 2],
            [0, 0, 1, 1, 2]])
    """
    # an atom is the target of as many pairs as its crystal has atoms
    num_sources = torch.repeat_interleave(num_atoms, num_atoms)
    first = torch.repeat_interleave(num_atoms.cumsum(0) - num_atoms, num_atoms)
    pairs = torch.stack([ragged_index(first, num_sources), torch.repeat_interleave(num_sources)])
    return pairs if self_pairs else pairs[:, pairs[0] != pairs[1]]


@torch.no_grad()
def pairs_within(batch: CrystalBatch, cutoff: float | Tensor, *, distances: bool = True) -> ImagePairs:
    """All pairs no farther apart than `cutoff`, images of an atom itself included, the atom itself not.

    Both directions of a pair are found, always together. A pair at the cutoff itself is in, up to rounding
    (1e-6 of the cutoff in float32, 1e-12 in float64), so that rounding does not break a crystal's symmetry.

    Args:
        batch: crystals, on any device.
        cutoff: angstrom, one for all or (num_crystals,).
        distances: whether squared distances are given; they take time.
    """
    dtype, device = batch.frac_coords.dtype, batch.frac_coords.device
    margin = 1e-12 if dtype == torch.float64 else 1e-6
    radius = torch.as_tensor(cutoff, dtype=dtype, device=device).expand(len(batch)) * (1.0 + margin)
    _check_size(batch, radius)
    triangle = _lower_triangle(batch.lattice.detach()).to(dtype)
    (a_x, _, _), (b_x, b_y, _), (c_x, c_y, c_z) = triangle.permute(1, 2, 0).contiguous()
    coords = torch.einsum("ni,nij->jn", batch.frac_coords.detach(), triangle[batch.batch]).contiguous()

    # index_select, because on CPU it takes a quarter of the time of brackets
    source, target = fully_connected_pairs(batch.num_atoms)
    x, y, z = (row.index_select(0, source) - row.index_select(0, target) for row in coords)
    crystal = batch.batch.index_select(0, target)
    low, counts = _integers_within(z, radius.index_select(0, crystal), c_z.index_select(0, crystal))
    pair, n_c = _count_off(low, counts)

    # one row per plane: a pair with a choice of n_c
    crystal, steps = crystal.index_select(0, pair), n_c.to(dtype)
    z = z.index_select(0, pair) + steps * c_z.index_select(0, crystal)
    y = y.index_select(0, pair) + steps * c_y.index_select(0, crystal)
    x = x.index_select(0, pair) + steps * c_x.index_select(0, crystal)
    left = (radius * radius).index_select(0, crystal) - z.square_()
    low, counts = _integers_within(y, left.clamp_min(0.0).sqrt_(), b_y.index_select(0, crystal))
    plane, n_b = _count_off(low, counts)

    # one row per line: a pair with a choice of n_b and n_c
    pair, n_c = pair.index_select(0, plane), n_c.index_select(0, plane)
    crystal, steps = crystal.index_select(0, plane), n_b.to(dtype)
    y = y.index_select(0, plane) + steps * b_y.index_select(0, crystal)
    x = x.index_select(0, plane) + steps * b_x.index_select(0, crystal)
    left = left.index_select(0, plane) - y.square_()
    step = a_x.index_select(0, crystal)
    low, counts = _integers_within(x, left.clamp_min(0.0).sqrt_(), step)
    # the line through the atom itself holds one number less: 0, which the numbers from 0 on step over
    itself = torch.nonzero((source == target).index_select(0, pair) & (n_b == 0) & (n_c == 0)).squeeze(1)
    counts[itself] -= 1
    line, n_a = _count_off(low, counts)
    n_a[ragged_index((counts.cumsum(0) - counts - low)[itself], (counts + low)[itself])] += 1

    squared = None
    if distances:
        x = x.index_select(0, line) + n_a * step.index_select(0, line)
        left = (radius * radius).index_select(0, crystal) - left
        squared = left.index_select(0, line) + x.square_()
    pair = pair.index_select(0, line)
    edge_index = torch.stack([source.index_select(0, pair), target.index_select(0, pair)])
    offsets = torch.stack([n_a, n_b.index_select(0, line), n_c.index_select(0, line)], dim=1)
    return ImagePairs(edge_index, offsets.long(), squared)


def shortest_distances(batch: CrystalBatch, *, own_images: bool = True) -> Tensor:
    """(num_crystals,) the shortest distance between atoms of each crystal in angstrom, periodic images included.

    Args:
        batch: crystals of finite coordinates and volume.
        own_images: whether an atom's distance to its own repeats counts. The published validity check leaves it out;
            the answer for a crystal of one atom is then infinity.
    """
    if len(batch) == 0:
        return batch.lattice.new_zeros(0)
    lattice = batch.lattice.detach()
    # no packing of equal spheres is denser than the face-centred cubic one (Hales 2005, Ann. Math. 162, 1065)
    densest = (2.0**0.5 * volume(lattice) / batch.num_atoms).pow(1.0 / 3.0)
    radius = densest if own_images else _nearest_wrapped(batch)
    pairs = pairs_within(batch, radius * 1.001)
    squared = pairs.squared_distances
    assert squared is not None
    if not own_images:
        squared = squared.masked_fill(pairs.edge_index[0] == pairs.edge_index[1], float("inf"))
    shortest = torch.full((len(batch),), float("inf"), dtype=squared.dtype, device=squared.device)
    return shortest.scatter_reduce_(0, batch.batch[pairs.edge_index[1]], squared, "amin").clamp_min(0.0).sqrt()


def _nearest_wrapped(batch: CrystalBatch) -> Tensor:
    """An upper bound of the shortest distance between two atoms: the least over displacements wrapped axis by axis."""
    source, target = fully_connected_pairs(batch.num_atoms, self_pairs=False)
    displacement = wrap_displacement(batch.frac_coords[source] - batch.frac_coords[target])
    crystal = batch.batch[target]
    length = torch.einsum("pi,pij->pj", displacement, batch.lattice[crystal]).norm(dim=-1)
    nearest = torch.full((len(batch),), float("inf"), dtype=length.dtype, device=length.device)
    nearest = nearest.scatter_reduce_(0, crystal, length, "amin").detach()
    # atoms on top of each other: a radius of 0 would miss them by rounding
    return torch.where(nearest.isinf(), torch.zeros_like(nearest), nearest + 1e-5)


def _lower_triangle(lattice: Tensor) -> Tensor:
    """The same cells turned so that a lies along x and b in the xy plane; a left-handed cell is mirrored."""
    lattice = _double(lattice)
    a, b, _ = lattice.unbind(-2)
    x = a / a.norm(dim=-1, keepdim=True)
    normal = torch.linalg.cross(a, b)
    z = normal / normal.norm(dim=-1, keepdim=True)
    y = torch.linalg.cross(z, x)
    turned = lattice @ torch.stack([x, y, z], dim=-1)
    return turned * torch.sign(torch.diagonal(turned, dim1=-2, dim2=-1)).unsqueeze(-2)


def _double(values: Tensor) -> Tensor:
    """float64, but on Apple's devices, which have none."""
    return values if values.device.type == "mps" else values.double()


def _check_size(batch: CrystalBatch, radius: Tensor) -> None:
    lattice = batch.lattice.detach()
    cells = (2.0 * radius.unsqueeze(-1) / plane_spacings(lattice) + 1.0).prod(-1)
    candidates = cells * batch.num_atoms**2
    if not bool(candidates.sum() <= MAX_PAIRS):  # NaN is not <= either
        worst = int(torch.where(candidates.isnan(), float("inf"), candidates).argmax())
        raise ValueError(
            f"about {float(candidates.sum()):.1e} pairs of atoms within reach, expected at most {MAX_PAIRS:.0e}; "
            f"crystal {worst} has the most ({int(batch.num_atoms[worst])} atoms in "
            f"{float(volume(lattice)[worst]):.2g} cubic angstrom, cutoff {float(radius[worst]):.3g} angstrom): "
            "leave out collapsed or non-finite cells, lower the cutoff, or cut the batch"
        )


def _integers_within(start: Tensor, reach: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """The first integer n with |start + n * step| <= reach, and how many there are: int32, to save memory."""
    low, high = torch.ceil((-reach - start) / step), torch.floor((reach - start) / step)
    return low.int(), (high - low + 1.0).clamp_min_(0.0).int()


def _count_off(low: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Rows repeated `counts` times: each repeat's row, and its number, from `low` of the row upwards; int32."""
    ends = counts.cumsum(0, dtype=torch.int32)
    total = int(ends[-1]) if len(ends) else 0
    row = torch.repeat_interleave(counts, output_size=total)
    first = (low - ends + counts).index_select(0, row)
    return row, first.add_(torch.arange(total, dtype=torch.int32, device=low.device))
