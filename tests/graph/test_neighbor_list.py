from pathlib import Path

import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.graph import PeriodicGraph, neighbor_list
from cdvae_kit.seeding import make_generator
from tests.graph.oracles import ORACLES, graph_edges, oracle_edges, read_p1

# no multiple of a cell length: the others do not agree on pairs at the cutoff itself
CUTOFFS = [1.7, 3.3, 6.1, 9.23]


def cast(batch: CrystalBatch, dtype: torch.dtype) -> CrystalBatch:
    return batch.replace(frac_coords=batch.frac_coords.to(dtype), lattice=batch.lattice.to(dtype))


def sorted_distances(graph: PeriodicGraph, batch: CrystalBatch) -> Tensor:
    return graph.distances(batch).sort().values


def rock_salt(dtype: torch.dtype = torch.float32) -> CrystalBatch:
    face = [[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
    coords = torch.tensor(face + [[x + 0.5, y, z] for x, y, z in face], dtype=dtype)
    return CrystalBatch(
        coords, 5.64 * torch.eye(3, dtype=dtype)[None], torch.tensor([11] * 4 + [17] * 4), torch.tensor([8])
    )


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_the_zoo_has_the_pairs_that_other_packages_find(
    zoo: CrystalBatch, name: str, dtype: torch.dtype, cutoff: float
) -> None:
    batch = cast(zoo, dtype)
    assert graph_edges(neighbor_list(batch, cutoff)) == oracle_edges(batch, cutoff, ORACLES[name])


def test_a_missing_a_double_and_a_wrong_edge_would_be_seen(zoo: CrystalBatch) -> None:
    expected = oracle_edges(zoo, 3.3, ORACLES["vesin"])
    graph = neighbor_list(zoo, 3.3)
    everything = torch.arange(len(expected))
    for edges in (everything[1:], torch.cat([everything, everything[:1]])):
        assert graph_edges(PeriodicGraph(graph.edge_index[:, edges], graph.cell_offsets[edges], graph.num_edges)) != (
            expected
        )
    assert graph_edges(PeriodicGraph(graph.edge_index.flip(0), graph.cell_offsets + 1, graph.num_edges)) != expected


def test_a_thousand_real_crystals_have_the_pairs_that_vesin_finds(shared_dir: Path) -> None:
    data = shared_dir / "data"
    batch = concatenate(
        [
            read_p1(data / "inorganic_20" / "test.csv.gz", 500),
            read_p1(data / "perov_5" / "test.csv.gz", 250),
            read_p1(data / "carbon_24" / "test.csv.gz", 250),
        ]
    )
    assert len(batch) == 1000
    # a distance that no crystal has: published cells are rounded to 8 digits
    cutoff = 5.0 + 2.0**-20
    assert graph_edges(neighbor_list(batch, cutoff)) == oracle_edges(batch, cutoff, ORACLES["vesin"])


@pytest.mark.parametrize("name", ["matscipy", "ase"])
def test_real_crystals_have_the_pairs_that_older_packages_find(shared_dir: Path, name: str) -> None:
    batch = read_p1(shared_dir / "data" / "inorganic_20" / "val.csv.gz", 100)
    cutoff = 4.0 + 2.0**-20
    assert graph_edges(neighbor_list(batch, cutoff)) == oracle_edges(batch, cutoff, ORACLES[name])


def test_a_left_handed_cell_has_the_pairs_that_vesin_finds(zoo: CrystalBatch) -> None:
    mirrored = zoo.replace(lattice=zoo.lattice * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    assert bool((torch.linalg.det(mirrored.lattice) < 0).all())
    assert graph_edges(neighbor_list(mirrored, 5.2)) == oracle_edges(mirrored, 5.2, ORACLES["vesin"])


def test_a_crystal_has_the_same_edges_alone_and_in_a_batch(zoo: CrystalBatch) -> None:
    graph = neighbor_list(zoo, 4.4)
    for k in range(len(zoo)):
        alone = neighbor_list(zoo.select([k]), 4.4)
        cut = graph.select([k], zoo.num_atoms)
        assert torch.equal(cut.edge_index, alone.edge_index), k
        assert torch.equal(cut.cell_offsets, alone.cell_offsets), k
        assert int(graph.num_edges[k]) == alone.edge_index.shape[1], k


def test_atoms_moved_by_lattice_vectors_keep_their_distances(zoo: CrystalBatch) -> None:
    shift = torch.randint(-3, 4, zoo.frac_coords.shape, generator=make_generator(0))
    moved = zoo.replace(frac_coords=zoo.frac_coords + shift)
    expected = sorted_distances(neighbor_list(zoo, 5.0), zoo)
    torch.testing.assert_close(sorted_distances(neighbor_list(moved, 5.0), moved), expected)


def test_atoms_moved_by_half_a_lattice_vector_do_not_keep_their_distances(zoo: CrystalBatch) -> None:
    shift = torch.zeros_like(zoo.frac_coords)
    shift[12] = 0.5
    moved = zoo.replace(frac_coords=zoo.frac_coords + shift)
    before, after = (sorted_distances(neighbor_list(crystals, 5.0), crystals) for crystals in (zoo, moved))
    assert len(before) != len(after) or not torch.allclose(before, after)


def test_all_atoms_moved_together_keep_their_distances(zoo: CrystalBatch) -> None:
    moved = zoo.replace(frac_coords=zoo.frac_coords + 0.377)
    expected = sorted_distances(neighbor_list(zoo, 5.0), zoo)
    torch.testing.assert_close(sorted_distances(neighbor_list(moved, 5.0), moved), expected)


def test_atoms_in_another_order_have_their_edges_renamed(zoo: CrystalBatch) -> None:
    crystal = zoo.select([4])
    order = torch.randperm(24, generator=make_generator(1))
    shuffled = crystal.replace(frac_coords=crystal.frac_coords[order], atomic_numbers=crystal.atomic_numbers[order])
    renamed = neighbor_list(shuffled, 4.0)
    back = PeriodicGraph(order[renamed.edge_index], renamed.cell_offsets, renamed.num_edges)
    assert graph_edges(back) == graph_edges(neighbor_list(crystal, 4.0))


def test_a_turned_crystal_has_the_same_edges(zoo: CrystalBatch) -> None:
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=make_generator(2), dtype=torch.float64))
    turned = zoo.replace(lattice=zoo.lattice @ turn)
    assert graph_edges(neighbor_list(turned, 5.0)) == graph_edges(neighbor_list(zoo, 5.0))


def test_another_cell_of_the_same_crystal_has_the_same_distances(zoo: CrystalBatch) -> None:
    # far from reduced: the new rows are long and nearly parallel
    change = torch.tensor([[1, 4, 3], [0, 1, 5], [0, 0, 1]], dtype=torch.float64)
    skewed = zoo.replace(lattice=change @ zoo.lattice, frac_coords=zoo.frac_coords @ torch.linalg.inv(change))
    expected = sorted_distances(neighbor_list(zoo, 5.0), zoo)
    torch.testing.assert_close(sorted_distances(neighbor_list(skewed, 5.0), skewed), expected)


def test_a_supercell_has_as_many_times_each_distance(zoo: CrystalBatch) -> None:
    for k in range(len(zoo)):
        crystal = zoo.select([k])
        frac = torch.cat([(crystal.frac_coords + torch.tensor([n, 0.0, 0.0])) for n in range(3)])
        scale = torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64)
        supercell = CrystalBatch(
            frac / scale,
            crystal.lattice * scale[:, None],
            crystal.atomic_numbers.repeat(3),
            crystal.num_atoms * 3,
        )
        expected = sorted_distances(neighbor_list(crystal, 5.0), crystal).repeat_interleave(3)
        torch.testing.assert_close(sorted_distances(neighbor_list(supercell, 5.0), supercell), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_edge_has_its_reverse(zoo: CrystalBatch, dtype: torch.dtype) -> None:
    graph = neighbor_list(cast(zoo, dtype), 7.0)
    reverse = PeriodicGraph(graph.edge_index.flip(0), -graph.cell_offsets, graph.num_edges)
    assert graph_edges(reverse) == graph_edges(graph)


def test_edges_are_sorted_by_target(zoo: CrystalBatch) -> None:
    target = neighbor_list(zoo, 6.0).edge_index[1]
    assert bool((target.diff() >= 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [2.87, 3.3, 4.1, 0.7 * 3.0])
def test_pairs_at_the_cutoff_itself_are_in_along_every_axis(dtype: torch.dtype, length: float) -> None:
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=make_generator(3), dtype=torch.float64))
    cubic = CrystalBatch(
        torch.full((1, 3), 0.3, dtype=dtype),
        (length * turn).to(dtype)[None],
        torch.tensor([84]),
        torch.tensor([1]),
    )
    assert neighbor_list(cubic, 2 * length).edge_index.shape[1] == 6 + 12 + 8 + 6
    assert neighbor_list(cubic, 2 * length * (1 - 1e-5)).edge_index.shape[1] == 6 + 12 + 8


def test_an_atom_is_not_its_own_neighbour_but_one_on_top_of_it_is() -> None:
    crystal = CrystalBatch(torch.full((2, 3), 0.25), 4.0 * torch.eye(3)[None], torch.tensor([6, 6]), torch.tensor([2]))
    assert graph_edges(neighbor_list(crystal, 1.0)) == [(0, 1, 0, 0, 0), (1, 0, 0, 0, 0)]


def test_crystals_without_neighbours_have_no_edges(zoo: CrystalBatch) -> None:
    graph = neighbor_list(zoo, 0.01)
    assert graph.edge_index.shape == (2, 0)
    assert graph.num_edges.tolist() == [0] * len(zoo)
    assert graph.distances(zoo).shape == (0,)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan")])
def test_a_cutoff_that_is_no_distance_is_refused(zoo: CrystalBatch, cutoff: float) -> None:
    with pytest.raises(ValueError, match="positive distance"):
        neighbor_list(zoo, cutoff)


@pytest.mark.parametrize("scale", [0.0, 1e-6, float("nan")])
def test_a_collapsed_cell_is_named_instead_of_filling_the_memory(zoo: CrystalBatch, scale: float) -> None:
    lattice = zoo.lattice.clone()
    lattice[3] *= scale
    with pytest.raises(ValueError, match="crystal 3 has the most"):
        neighbor_list(zoo.replace(lattice=lattice), 6.0)


def test_pruning_keeps_the_nearest(zoo: CrystalBatch) -> None:
    full, pruned = neighbor_list(zoo, 6.0), neighbor_list(zoo, 6.0, max_neighbors=7, tie_tolerance=0.0)
    for atom in range(len(zoo.atomic_numbers)):
        distances = full.distances(zoo)[full.edge_index[1] == atom].sort().values
        kept = pruned.distances(zoo)[pruned.edge_index[1] == atom].sort().values
        assert len(kept) >= min(7, len(distances))
        torch.testing.assert_close(kept[:7], distances[:7])
        # more than seven only where an image and its opposite tie
        assert len(kept) == min(7, len(distances)) or float(kept[-1] - kept[6]) < 1e-9


def test_pruning_a_batch_is_pruning_each_crystal(zoo: CrystalBatch) -> None:
    graph = neighbor_list(zoo, 6.0, max_neighbors=9)
    for k in range(len(zoo)):
        alone = neighbor_list(zoo.select([k]), 6.0, max_neighbors=9)
        assert graph_edges(graph.select([k], zoo.num_atoms)) == graph_edges(alone), k


def anisotropy(graph: PeriodicGraph, batch: CrystalBatch) -> Tensor:
    """What the sum of d d^T over an atom's edges has that a cubic site forbids."""
    vectors = graph.vectors(batch)
    sums = torch.zeros(len(batch.atomic_numbers), 3, 3, dtype=vectors.dtype)
    sums.index_add_(0, graph.edge_index[1], vectors.unsqueeze(2) * vectors.unsqueeze(1))
    isotropic = sums.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(3, dtype=vectors.dtype)
    return (sums - isotropic).abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("max_neighbors", "degree"), [(1, 6), (4, 6), (6, 6), (7, 18), (20, 26)])
def test_pruning_keeps_whole_shells_of_rock_salt(dtype: torch.dtype, max_neighbors: int, degree: int) -> None:
    crystal = rock_salt(dtype)
    graph = neighbor_list(crystal, 6.0, max_neighbors=max_neighbors)
    assert torch.bincount(graph.edge_index[1]).tolist() == [degree] * 8
    assert float(anisotropy(graph, crystal)) < 1e-4


def test_taking_just_the_first_k_would_break_the_symmetry_of_rock_salt() -> None:
    crystal = rock_salt()
    graph = neighbor_list(crystal, 6.0, max_neighbors=6)
    within = torch.arange(48) % 6
    first = torch.nonzero(within < 4).squeeze(1)
    naive = PeriodicGraph(graph.edge_index[:, first], graph.cell_offsets[first], torch.tensor([32]))
    assert float(anisotropy(naive, crystal)) > 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_neighbors": 0}, "at least 1"), ({"max_neighbors": 3, "tie_tolerance": -1.0}, "negative")],
)
def test_pruning_to_nothing_is_refused(zoo: CrystalBatch, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        neighbor_list(zoo, 3.0, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("max_neighbors", [None, 12])
def test_a_gpu_finds_the_same_edges(zoo: CrystalBatch, max_neighbors: int | None) -> None:
    graph = neighbor_list(zoo.clone().to("cuda"), 5.5, max_neighbors=max_neighbors)
    assert graph.edge_index.is_cuda
    assert graph_edges(graph.to("cpu")) == graph_edges(neighbor_list(zoo, 5.5, max_neighbors=max_neighbors))
