import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.graph import PeriodicGraph, fully_connected_pairs, neighbor_list, triplets
from cdvae_kit.seeding import make_generator
from tests.graph.oracles import graph_edges


def test_the_gradient_of_distances_is_that_of_finite_differences(zoo: CrystalBatch) -> None:
    batch = zoo.select([1, 2, 5])
    graph = neighbor_list(batch, 3.2)

    def distances(frac_coords: Tensor, lattice: Tensor) -> Tensor:
        return graph.distances(batch.replace(frac_coords=frac_coords, lattice=lattice))

    assert torch.autograd.gradcheck(
        distances, (batch.frac_coords.clone().requires_grad_(), batch.lattice.clone().requires_grad_())
    )


def test_edges_are_found_for_coordinates_that_need_a_gradient(zoo: CrystalBatch) -> None:
    moving = zoo.replace(
        frac_coords=zoo.frac_coords.clone().requires_grad_(), lattice=zoo.lattice.clone().requires_grad_()
    )
    assert graph_edges(neighbor_list(moving, 4.0, max_neighbors=6)) == graph_edges(
        neighbor_list(zoo, 4.0, max_neighbors=6)
    )


def test_a_vector_points_from_the_target_to_the_image_of_the_source() -> None:
    batch = CrystalBatch(
        torch.tensor([[0.1, 0.0, 0.0], [0.9, 0.0, 0.0]]),
        torch.diag(torch.tensor([10.0, 20.0, 20.0]))[None],
        torch.tensor([1, 1]),
        torch.tensor([2]),
    )
    graph = PeriodicGraph(torch.tensor([[1], [0]]), torch.tensor([[-1, 0, 0]]), torch.tensor([1]))
    torch.testing.assert_close(graph.vectors(batch), torch.tensor([[-2.0, 0.0, 0.0]]))


@pytest.mark.parametrize("index", [[0], [4, 1], [2, 2, 0], [-1, 3], []])
def test_selected_edges_are_those_of_the_selected_crystals(zoo: CrystalBatch, index: list[int]) -> None:
    selected = neighbor_list(zoo, 4.0).select(index, zoo.num_atoms)
    if not index:
        assert selected.edge_index.shape == (2, 0) and selected.num_crystals == 0
        return
    expected = neighbor_list(zoo.select(index), 4.0)
    assert torch.equal(selected.edge_index, expected.edge_index)
    assert torch.equal(selected.cell_offsets, expected.cell_offsets)
    assert torch.equal(selected.num_edges, expected.num_edges)


def test_edges_found_before_atoms_moved_through_faces_join_the_same_atoms(zoo: CrystalBatch) -> None:
    # the control below needs atoms that leave the cell: they start right at its faces
    near = zoo.replace(frac_coords=torch.where(zoo.frac_coords < 0.5, 0.001, 0.999).double())
    graph = neighbor_list(near, 4.0)
    step = 0.01 * torch.randn(near.frac_coords.shape, generator=make_generator(0), dtype=torch.float64)
    moved = near.replace(frac_coords=near.frac_coords + step)
    source, target = graph.edge_index
    cartesian = torch.einsum("ei,eij->ej", step[source] - step[target], zoo.lattice[graph.edge_crystal])
    expected = graph.vectors(near) + cartesian
    assert torch.allclose(graph.after_moves(near, moved).vectors(moved), expected, atol=1e-10)
    assert not torch.allclose(graph.vectors(moved), expected, atol=0.1)


def test_a_crystal_that_is_not_there_cannot_be_selected(zoo: CrystalBatch) -> None:
    with pytest.raises(IndexError, match="holds 6 crystals"):
        neighbor_list(zoo, 4.0).select([6], zoo.num_atoms)


def test_counts_of_another_batch_are_refused(zoo: CrystalBatch) -> None:
    with pytest.raises(ValueError, match="6 crystals, got 2"):
        neighbor_list(zoo, 4.0).select([0], zoo.num_atoms[:2])


def test_offsets_that_do_not_fit_the_edges_are_refused() -> None:
    with pytest.raises(ValueError, match="cell_offsets"):
        PeriodicGraph(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long), torch.tensor([3]))


@pytest.mark.parametrize("self_pairs", [True, False])
def test_fully_connected_pairs_are_all_pairs_of_one_crystal(self_pairs: bool) -> None:
    num_atoms = [3, 1, 4, 2]
    expected, first = [], 0
    for n in num_atoms:
        atoms = range(first, first + n)
        expected += [(j, i) for i in atoms for j in atoms if self_pairs or i != j]
        first += n
    pairs = fully_connected_pairs(torch.tensor(num_atoms), self_pairs=self_pairs)
    assert list(map(tuple, pairs.T.tolist())) == expected


def test_triplets_are_all_ways_over_two_edges_but_the_way_back(zoo: CrystalBatch) -> None:
    batch = zoo.select([0, 2, 5])
    graph = neighbor_list(batch, 3.4)
    edges = list(zip(graph.edge_index.T.tolist(), graph.cell_offsets.tolist(), strict=True))
    expected = [
        (incoming, outgoing)
        for outgoing, ((j, i), there) in enumerate(edges)
        for incoming, ((k, middle), back) in enumerate(edges)
        if middle == j and not (k == i and all(a + b == 0 for a, b in zip(there, back, strict=True)))
    ]
    found = list(zip(*(edge.tolist() for edge in triplets(graph, batch.num_atoms)), strict=True))
    assert found == expected
    assert len(found) > 1000


def test_a_triplet_to_another_image_of_the_same_atom_stays() -> None:
    chain = CrystalBatch(
        torch.zeros(1, 3), torch.diag(torch.tensor([2.0, 9.0, 9.0]))[None], torch.tensor([1]), torch.tensor([1])
    )
    incoming, outgoing = triplets(neighbor_list(chain, 2.5), chain.num_atoms)
    assert incoming.tolist() == outgoing.tolist() == [0, 1]


def test_a_graph_without_edges_has_no_triplets(zoo: CrystalBatch) -> None:
    incoming, outgoing = triplets(neighbor_list(zoo, 0.01), zoo.num_atoms)
    assert len(incoming) == len(outgoing) == 0
