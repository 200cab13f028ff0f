"""CrystalNN's description of sites: matminer and pymatgen as oracles, also where rounding decides."""

import json
import warnings
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Element, Lattice, Structure
from pymatgen.core.local_env import CovalentRadius, CrystalNN

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets.ionic_prototypes import load_ionic_prototypes
from cdvae_kit.metrics.crystals import CrystalArrays, as_arrays
from cdvae_kit.metrics.fingerprints import crystal_nn_features
from cdvae_kit.metrics.fingerprints.crystal_nn_features import (
    FEATURE_LABELS,
    NoFingerprintError,
    coordination_numbers,
    describe_sites,
    site_features,
)

TURN, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
GRAPHENE = Lattice.hexagonal(2.46, 15)
SLAB = [[0, 0, 0.1], [0.5, 0.5, 0.1], [0, 0, 0.27], [0.5, 0.5, 0.27]]
AWKWARD = {
    "simple cubic": Structure(Lattice.cubic(3.36), ["Po"], [[0, 0, 0]]),
    "body-centred": Structure(Lattice.cubic(3.16), ["W", "W"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "face-centred, primitive": Structure(Lattice.from_parameters(2.55, 2.55, 2.55, 60, 60, 60), ["Cu"], [[0, 0, 0]]),
    "hexagonal close packing": Structure(
        Lattice.hexagonal(3.2, 5.2), ["Mg", "Mg"], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    ),
    "a lonely atom": Structure(Lattice.cubic(20), ["Ar"], [[0.3, 0.3, 0.3]]),
    "a chain": Structure(Lattice.tetragonal(18, 2.5), ["C", "O"], [[0.3, 0.3, 0.3], [0.33, 0.31, 0.8]]),
    "a layer": Structure(GRAPHENE, ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]),
    "a turned layer": Structure(
        Lattice(GRAPHENE.matrix @ TURN), ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]
    ),
    "a slab": Structure(Lattice.tetragonal(4, 17), ["Na", "Cl", "Cl", "Na"], SLAB),
    "a turned slab": Structure(Lattice(Lattice.tetragonal(4, 17).matrix @ TURN), ["Na", "Cl", "Cl", "Na"], SLAB),
    "a neighbour at the cutoff": Structure(Lattice.cubic(7.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "a crushed cell": Structure(Lattice.cubic(0.9), ["H"], [[0, 0, 0]]),
    "a skewed cell": Structure(
        Lattice.from_parameters(3, 4, 30, 15, 20, 12), ["C", "O"], [[0.1, 0.8, 0.4], [0.6, 0.3, 0.9]]
    ),
    "two atoms at one point": Structure(Lattice.cubic(4), ["Na", "Cl", "O"], [[0, 0, 0], [0, 0, 0], [0.5, 0.5, 0.5]]),
    "two atoms 0.4 mA apart": Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0, 0, 1e-4]]),
    "two atoms 40 mA apart": Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0, 0, 1e-2]]),
    "elements without electronegativity": Structure(Lattice.cubic(3.4), ["He", "Pu"], [[0, 0, 0], [0.5, 0.5, 0.4]]),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """pymatgen warns of every site that it has no oxidation state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def by_matminer(structure: Structure) -> np.ndarray:
    site = pytest.importorskip("matminer.featurizers.site")
    featurizer = site.CrystalNNFingerprint.from_preset("ops")
    return np.array([featurizer.featurize(structure, i) for i in range(len(structure))], dtype=np.float64)


def assert_as_matminer(structure: Structure) -> None:
    np.testing.assert_allclose(site_features(as_arrays([structure])[0]), by_matminer(structure), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_crystals_are_described_as_by_matminer(name: str) -> None:
    assert_as_matminer(AWKWARD[name])


@pytest.mark.parametrize("number", range(5))
def test_the_zoo_is_described_as_by_matminer(zoo: CrystalBatch, number: int) -> None:
    assert_as_matminer(zoo.structures()[(0, 1, 2, 3, 5)[number]])


@pytest.mark.parametrize("number", range(10))
def test_ideal_crystals_are_described_as_by_matminer(number: int) -> None:
    crystals = load_ionic_prototypes(num_crystals=10, seed=0, dtype=torch.float64)
    assert_as_matminer(crystals.select([number]).structures()[0])


def test_an_ideal_crystal_with_one_atom_moved_is_described_otherwise() -> None:
    structure = load_ionic_prototypes(num_crystals=1, dtype=torch.float64).structures()[0]
    moved = structure.copy()
    moved.translate_sites([0], [0.02, 0.01, 0])
    assert np.abs(site_features(as_arrays([moved])[0]) - by_matminer(structure)).max() > 1e-4


def test_the_features_are_named_as_matminers() -> None:
    site = pytest.importorskip("matminer.featurizers.site")
    oracle = site.CrystalNNFingerprint.from_preset("ops")
    wanted = [f"{'wt' if op == 'wt' else op._types[0]} CN_{n}" for n in range(1, 25) for op in oracle.ops[n]]
    assert list(FEATURE_LABELS) == wanted
    ours = [p for n in range(1, 13) for _, p in crystal_nn_features.ORDER_PARAMETERS[n]]
    theirs = [op._params[0] or {} for n in range(1, 13) for op in oracle.ops[n] if op != "wt"]
    assert ours == theirs


@pytest.mark.parametrize("name", AWKWARD)
def test_coordination_numbers_are_pymatgens(name: str) -> None:
    structure = AWKWARD[name]
    finder = CrystalNN()
    theirs = [finder.get_cn(structure, i) for i in range(len(structure))]
    crystal = as_arrays([structure])[0]
    assert coordination_numbers(crystal).tolist() == theirs
    assert describe_sites(crystal).coordination_numbers.tolist() == theirs


def test_where_rounding_decides_pymatgen_is_asked_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    plain = CrystalArrays(5.0 * np.eye(3), rng.random((6, 3)), np.array([3, 8, 8, 22, 8, 3]))
    assert not describe_sites(plain).by_pymatgen.any()
    assert describe_sites(as_arrays([AWKWARD["two atoms at one point"]])[0]).by_pymatgen.all()
    assert describe_sites(as_arrays([AWKWARD["a neighbour at the cutoff"]])[0]).by_pymatgen.all()


def test_asking_pymatgen_everywhere_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    crystal = CrystalArrays(5.0 * np.eye(3), rng.random((6, 3)), np.array([3, 8, 8, 22, 8, 3]))
    ours = site_features(crystal)
    decided = crystal_nn_features._decided
    shells = crystal_nn_features._shells(crystal_nn_features.voronoi_faces(crystal), crystal.atomic_numbers)
    for site, n in np.argwhere(shells.likelihoods[:, :12] > 0):
        first = FEATURE_LABELS.index(f"wt CN_{n + 1}") + 1
        for by_order in (False, True):
            values = np.array(decided(crystal, shells, int(site), int(n) + 1, by_order=by_order))
            wanted = ours[site, first : first + len(values)] / shells.likelihoods[site, n]
            np.testing.assert_allclose(values, wanted, atol=1e-9)


@pytest.mark.parametrize("change", ["permuted", "translated", "turned", "doubled"])
def test_another_description_of_a_crystal_has_the_same_sites(change: str) -> None:
    rng = np.random.default_rng(3)
    first = Structure(
        Lattice(5 * np.eye(3) + rng.normal(scale=0.4, size=(3, 3))), ["Ti", "O", "O", "Ba"], rng.random((4, 3))
    )
    order = [2, 0, 3, 1]
    other = {
        "permuted": Structure.from_sites([first[i] for i in order]),
        "translated": Structure(first.lattice, first.species, first.frac_coords + np.array([0.13, -3.4, 2.2])),
        "turned": Structure(Lattice(first.lattice.matrix @ TURN), first.species, first.frac_coords),
        "doubled": first * (1, 1, 2),
    }[change]
    wanted, found = (site_features(as_arrays([structure])[0]) for structure in (first, other))
    picked = {"permuted": wanted[order], "doubled": np.repeat(wanted, 2, axis=0)}.get(change, wanted)
    np.testing.assert_allclose(found, picked, atol=1e-7)


def test_the_likelihoods_of_all_numbers_sum_to_at_most_one() -> None:
    rng = np.random.default_rng(4)
    crystal = CrystalArrays(6.0 * np.eye(3), rng.random((12, 3)), rng.integers(1, 90, 12))
    weights = site_features(crystal)[:, [FEATURE_LABELS.index(f"wt CN_{n}") for n in range(1, 25)]]
    assert (weights >= 0).all() and (weights.sum(axis=1) <= 1 + 1e-12).all()


@pytest.mark.parametrize("symbols", [["Og"], ["Bk", "O"]])
def test_an_element_without_a_radius_is_named(symbols: list[str]) -> None:
    structure = Structure(Lattice.cubic(4), symbols, [[0, 0, 0], [0.5, 0.5, 0.5]][: len(symbols)])
    with pytest.raises(NoFingerprintError, match=f"no covalent radius is known of {symbols[0]}"):
        site_features(as_arrays([structure])[0])
    with pytest.raises(TypeError):
        by_matminer(structure)


def test_a_cell_with_too_many_points_around_a_site_is_an_error_not_an_endless_search() -> None:
    with pytest.raises(NoFingerprintError, match="too many points within"):
        site_features(CrystalArrays(np.diag([1.0, 1.0, 5000.0]), np.zeros((1, 3)), np.array([6])))


def test_a_thousand_sites_are_described() -> None:
    rng = np.random.default_rng(0)
    crystal = CrystalArrays(24.0 * np.eye(3), rng.random((1000, 3)), rng.integers(1, 90, 1000))
    assert np.isfinite(site_features(crystal)).all()


def test_the_element_table_is_that_of_the_installed_pymatgen() -> None:
    content = json.loads(
        files("cdvae_kit.metrics.fingerprints").joinpath("crystal_nn_elements.json").read_text(encoding="utf-8")
    )
    for number in range(1, 119):
        element = Element.from_Z(number)
        radius = CovalentRadius.radius.get(element.symbol, element.atomic_radius)
        assert content["covalent_radius"][number - 1] == radius, element
        assert content["electronegativity"][number - 1] == (None if np.isnan(element.X) else element.X), element


@pytest.mark.slow
def test_real_and_spoiled_crystals_are_described_as_by_matminer(shared_dir: Path) -> None:
    """A tenth of what tests/benchmarks/fingerprint_parity.py compares, with another seed."""
    pytest.importorskip("matminer")
    from tests.benchmarks.fingerprint_parity import compare, groups
    from tests.benchmarks.published_evaluation import Published

    published = Published()
    rows = [compare(group, structures, published) for group, structures in groups(shared_dir, seed=1, share=0.1)]
    assert sum(row.crystals for row in rows) > 200
    assert [row.odd for row in rows if row.odd] == []
    assert sum(row.numbers for row in rows) == 0
    assert max(row.site for row in rows) < 1e-6 and max(row.composition for row in rows) < 1e-10
