import pytest
import torch
from pymatgen.analysis.graphs import StructureGraph
from pymatgen.analysis.local_env import CrystalNN

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.errors import BondError
from cdvae_kit.graph import crystal_nn_graph
from tests.graph.oracles import graph_edges
from tests.graph.test_neighbor_list import rock_salt


def test_bonds_of_rock_salt_are_six_to_the_other_kind() -> None:
    crystal = rock_salt(torch.float64)
    graph = crystal_nn_graph(crystal)
    assert torch.bincount(graph.edge_index[1]).tolist() == [6] * 8
    torch.testing.assert_close(graph.distances(crystal), torch.full((48,), 2.82, dtype=torch.float64))
    assert bool((crystal.atomic_numbers[graph.edge_index[0]] != crystal.atomic_numbers[graph.edge_index[1]]).all())


def test_bonds_are_those_of_the_structure_graph_that_cdvae_builds(zoo: CrystalBatch) -> None:
    batch = zoo.select([1, 2, 5])
    finder = CrystalNN(distance_cutoffs=None, x_diff_weight=-1, porous_adjustment=False)
    expected, first = set(), 0
    for structure in batch.structures():
        for i, j, image in StructureGraph.from_local_env_strategy(structure, finder).graph.edges(data="to_jimage"):
            expected |= {
                (first + j, first + i, *map(int, image)),
                (first + i, first + j, *(-int(n) for n in image)),
            }
        first += len(structure)
    graph = crystal_nn_graph(batch)
    assert graph_edges(graph) == sorted(expected)
    assert bool((graph.edge_index[1].diff() >= 0).all())
    assert graph.num_edges.sum() == graph.edge_index.shape[1]


def test_a_crystal_that_crystal_nn_gives_up_on_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*_: object) -> None:
        raise ValueError("No Voronoi neighbors found for site")

    monkeypatch.setattr(CrystalNN, "get_all_nn_info", give_up)
    with pytest.raises(BondError, match=r"crystal 0 \(NaCl\).*No Voronoi neighbors.*neighbor_list"):
        crystal_nn_graph(rock_salt())
