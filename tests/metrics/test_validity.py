"""Verdicts on crystals: parity with the published ones, and an oracle of explicit periodic images."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.metrics import composition_validity, structure_validity, validity
from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.metrics.validity import MIN_DISTANCE, Validity


def random_structure(seed: int, *, scale: float = 1.0) -> Structure:
    generator = np.random.default_rng(seed)
    lengths = generator.uniform(0.8, 4.0, 3) * scale
    angles = generator.uniform(70, 110, 3)
    num_atoms = int(generator.integers(1, 7))
    return Structure(
        Lattice.from_parameters(*lengths, *angles),
        generator.choice(["Ti", "O", "Ba"], num_atoms).tolist(),
        generator.uniform(-2, 2, (num_atoms, 3)),
    )


def shortest_by_images(structure: Structure, *, own_images: bool) -> float:
    """Over 9 x 9 x 9 cells, one by one."""
    frac_coords, matrix = structure.frac_coords % 1, structure.lattice.matrix
    shifts = np.array(list(np.ndindex(9, 9, 9))) - 4
    vectors = (frac_coords[:, None, None] - frac_coords[None, :, None] + shifts) @ matrix
    distances = np.linalg.norm(vectors, axis=-1)
    i, j = np.diag_indices(len(frac_coords))
    own = distances[i, j]
    distances[i, j] = np.inf
    own[:, (shifts == 0).all(-1)] = np.inf
    return float(min(distances.min(), own.min() if own_images else np.inf))


def test_every_verdict_of_the_parity_sets_is_the_published_one(parity_set):
    verdicts = validity(parity_set.generated)
    expected = parity_set.expected["per_structure"]
    assert [v.structure for v in verdicts] == [row["struct_valid"] for row in expected]
    assert [v.composition for v in verdicts] == [row["comp_valid"] for row in expected]
    assert [v.valid for v in verdicts] == [row["valid"] for row in expected]


def test_a_spoiled_parity_set_disagrees(parity_set):
    crushed = [Structure(Lattice(s.lattice.matrix * 0.15), s.species, s.frac_coords) for s in parity_set.generated]
    expected = [row["struct_valid"] for row in parity_set.expected["per_structure"]]
    assert [v.valid for v in structure_validity(crushed)] != expected


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("strict", [False, True])
def test_distances_are_those_over_explicit_images(scale, strict):
    verdicts = []
    for seed in range(150):
        structure = random_structure(seed, scale=scale)
        expected = shortest_by_images(structure, own_images=strict) >= MIN_DISTANCE and structure.volume >= 0.1
        assert structure_validity([structure], strict=strict)[0].valid == expected, f"seed {seed}"
        verdicts.append(expected)
    assert 0 < sum(verdicts) < len(verdicts)


def test_verdicts_do_not_depend_on_the_company():
    structures = [random_structure(seed) for seed in range(60)]
    alone = [validity([structure])[0] for structure in structures]
    assert validity(structures) == alone


def test_a_batch_and_its_structures_get_the_same_verdicts(zoo):
    assert validity(zoo) == validity(
        [Structure(Lattice(c.lattice), c.atomic_numbers.tolist(), c.frac_coords) for c in as_arrays(zoo)]
    )


def test_atoms_given_as_far_images_get_the_same_verdict():
    structure = random_structure(4)
    shifted = Structure(structure.lattice, structure.species, structure.frac_coords + np.array([5, -7, 12]))
    assert validity([shifted]) == validity([structure])


def test_the_reason_names_the_two_atoms_and_their_distance():
    crystal = Structure(Lattice.cubic(4), ["Ti", "O", "O"], [[0, 0, 0], [0.5, 0.5, 0], [0, 0, 0.08]])
    assert structure_validity([crystal])[0].reason == "Ti and O 0.32 A apart"


def test_a_distance_just_under_the_limit_does_not_read_as_the_limit():
    crystal = Structure(Lattice.cubic(4), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.1249]])
    assert structure_validity([crystal])[0].reason == "Ti and O 0.49 A apart"


def test_the_shortest_distance_allowed_is_valid():
    crystal = Structure(Lattice.cubic(4), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.125]])
    assert structure_validity([crystal])[0].valid


def test_only_the_strict_rule_sees_an_atom_too_near_its_own_image():
    needle = Structure(Lattice.orthorhombic(0.399, 3, 3), ["Na"], [[0, 0, 0]])
    assert structure_validity([needle])[0].valid
    assert structure_validity([needle], strict=True)[0].reason == "every atom 0.39 A from its own periodic image"


def test_strict_finds_a_short_vector_that_no_edge_shows():
    skewed = Lattice([[3, 0, 0], [3, 0.3, 0], [0, 0, 3]])
    assert min(skewed.abc) > MIN_DISTANCE
    assert not structure_validity([Structure(skewed, ["Na"], [[0, 0, 0]])], strict=True)[0].valid


def test_a_cell_without_volume_is_invalid():
    flat = Structure(Lattice([[3, 0, 0], [0, 3, 0], [0, 0, 0.001]]), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0]])
    assert "cubic angstrom, under 0.1" in structure_validity([flat])[0].reason


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["frac_coords", "lattice"])
def test_numbers_that_are_not_finite_are_a_reason_and_stop_nothing(bad, where):
    coords, lattice = np.zeros((1, 3)), np.eye(3) * 3
    (coords if where == "frac_coords" else lattice)[0, 0] = bad
    verdicts = validity([Structure(Lattice(lattice), ["Na"], coords), random_structure(1)])
    assert verdicts[0].structure is False and verdicts[0].composition is True
    assert "NaN or infinite" in verdicts[0].reason
    assert verdicts[1] == validity([random_structure(1)])[0]


def test_a_crystal_that_was_not_made_counts_as_invalid():
    assert validity([None]) == [Validity(False, False, "there is no crystal: it could not be built")]


def test_disordered_and_dummy_sites_are_reasons():
    disordered = Structure(Lattice.cubic(3), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    dummy = Structure(Lattice.cubic(3), ["Xx"], [[0, 0, 0]])
    reasons = [verdict.reason for verdict in composition_validity([disordered, dummy])]
    assert reasons == ["a site is shared by several elements or partly filled", "Xx0+ is not an element"]


def test_absurdly_large_and_thin_cells_are_judged():
    huge = Structure(Lattice(np.eye(3) * 1e120), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    thin = Structure(Lattice.orthorhombic(1e4, 1e4, 1e-3), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    verdicts = structure_validity([huge, thin], strict=True)
    assert verdicts[0].reason == "the cell is too large to have a volume"
    assert verdicts[1].reason == "every atom 0.00 A from its own periodic image"


def test_a_thousand_atoms_are_judged_in_blocks():
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(12) / 12] * 3), axis=-1).reshape(-1, 3)
    far = Structure(Lattice.cubic(36), ["O"] * len(grid), grid + generator.uniform(-0.01, 0.01, grid.shape))
    near = far.copy()
    near.replace(1700, "Ti", coords=far.frac_coords[3] + np.array([0.005, 0, 0]))
    reasons = [verdict.reason for verdict in structure_validity([far, near])]
    assert reasons == [None, "O and Ti 0.17 A apart"]


def test_no_crystals_give_no_verdicts():
    empty = CrystalBatch(torch.zeros(0, 3), torch.zeros(0, 3, 3), torch.zeros(0).long(), torch.zeros(0).long())
    assert validity([]) == [] and validity(empty) == []
