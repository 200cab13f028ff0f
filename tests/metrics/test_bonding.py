"""Hashes of bonds: the same for one crystal however it is described, different for different crystals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from cdvae_kit.io.results.store import ResultStore
from cdvae_kit.metrics import EvaluationSettings, evaluate
from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.metrics.fingerprints.bonding import bond_hash, bond_hashes, graph_hash

ROCK = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]


def cubic(group: str, length: float, symbols: list[str], sites: list[list[float]]) -> Structure:
    return Structure.from_spacegroup(group, Lattice.cubic(length), symbols, sites)


SALT = cubic("Fm-3m", 5.64, ["Na", "Cl"], ROCK)
CESIUM = cubic("Pm-3m", 4.12, ["Cs", "Cl"], ROCK)
PEROVSKITE = cubic("Pm-3m", 3.9, ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]])


def word(structure: Structure) -> str | None:
    return bond_hash(as_arrays([structure])[0])


def described_anew(structure: Structure, seed: int) -> Structure:
    """The same crystal in a supercell, shifted, turned, with its atoms in another order."""
    from pymatgen.core.operations import SymmOp

    rng = np.random.default_rng(seed)
    other = structure.copy() * tuple(int(n) for n in rng.integers(1, 3, 3))
    other.translate_sites(range(len(other)), rng.random(3))
    other.apply_operation(SymmOp.from_axis_angle_and_translation(rng.normal(size=3), float(rng.uniform(0, 180))))
    return Structure.from_sites([other[int(i)] for i in rng.permutation(len(other))])


@pytest.mark.parametrize("structure", [SALT, CESIUM, PEROVSKITE], ids=["rock salt", "CsCl", "perovskite"])
@pytest.mark.parametrize("seed", range(3))
def test_the_word_does_not_depend_on_the_description(structure: Structure, seed: int) -> None:
    assert word(described_anew(structure, seed)) == word(structure) is not None


def test_bonds_group_and_formula_all_tell_crystals_apart() -> None:
    words = {
        "rock salt": word(SALT),
        "NaCl as CsCl": word(cubic("Pm-3m", 3.4, ["Na", "Cl"], ROCK)),
        "zinc blende": word(cubic("F-43m", 5.4, ["Na", "Cl"], [[0, 0, 0], [0.25, 0.25, 0.25]])),
        "KCl": word(cubic("Fm-3m", 6.29, ["K", "Cl"], ROCK)),
    }
    assert len(set(words.values())) == 4
    # a strain of all directions alike changes no bond
    assert word(cubic("Fm-3m", 5.5, ["Na", "Cl"], ROCK)) == words["rock salt"]
    squeezed = SALT.copy()
    squeezed.apply_strain([0.0, 0.0, 0.03])
    assert word(squeezed) != words["rock salt"]


def test_coordination_is_in_the_graph() -> None:
    six, eight = graph_hash([11, 17], [(0, 1)] * 6), graph_hash([11, 17], [(0, 1)] * 8)
    assert six != eight
    assert six == graph_hash([17, 11], [(1, 0)] * 6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 7), st.integers(0, 2**31), st.integers(1, 3))
def test_a_graph_and_copies_of_it_in_any_order_have_one_word(num_nodes: int, seed: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 4, num_nodes).tolist()
    bonds = [tuple(int(i) for i in rng.integers(0, num_nodes, 2)) for _ in range(2 * num_nodes)]
    order = rng.permutation(num_nodes * copies)
    place = {int(node): new for new, node in enumerate(order)}
    many = [labels[int(node) % num_nodes] for node in order]
    moved = [(place[a + k * num_nodes], place[b + k * num_nodes]) for k in range(copies) for a, b in bonds]
    assert graph_hash(many, moved) == graph_hash(labels, bonds)


def test_what_cannot_be_used_has_no_word() -> None:
    assert bond_hashes(as_arrays([None])) == [None]


def test_words_are_kept(tmp_path) -> None:
    crystals = as_arrays([SALT, CESIUM, None])
    with ResultStore(tmp_path / "store") as store:
        first = bond_hashes(crystals, store=store)
        assert bond_hashes(crystals, store=store) == first == bond_hashes(crystals)


def test_unique_and_novel_by_bonds() -> None:
    crystals = [SALT, described_anew(SALT, 1), PEROVSKITE, None]
    found = evaluate(crystals, train=[CESIUM, SALT], settings=EvaluationSettings(fingerprints=False, extended=True))
    assert found.metrics["unique_by_bonds"].value == 0.5
    assert found.metrics["novel_by_bonds"].value == 0.25
    assert [row.verdicts["novel_by_bonds"] for row in found.crystals] == [False, False, True, None]
