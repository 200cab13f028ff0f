"""Voronoi cells: closed forms, space that is filled, faces that two sites share, pymatgen as the oracle."""

import numpy as np
import pytest
from pymatgen.core.local_env import VoronoiNN

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.metrics.crystals import CrystalArrays, as_arrays
from cdvae_kit.metrics.fingerprints.voronoi_neighbors import (
    CoincidentSitesError,
    OpenCellError,
    VoronoiFaces,
    _solid_angle,
    voronoi_faces,
)


def crystal(lattice: np.ndarray, coords: list[list[float]]) -> CrystalArrays:
    return CrystalArrays(lattice, np.array(coords), np.full(len(coords), 6))


def random_crystal(seed: int, *, num_sites: int = 12, length: float = 6.0) -> CrystalArrays:
    rng = np.random.default_rng(seed)
    lattice = length * np.eye(3) + rng.normal(scale=0.8, size=(3, 3))
    return CrystalArrays(lattice, rng.random((num_sites, 3)), np.full(num_sites, 6))


def volumes(faces: VoronoiFaces) -> np.ndarray:
    """Of the cells, from the pyramids over their faces."""
    heights = np.linalg.norm(faces.vectors, axis=-1) / 2
    return np.bincount(faces.site, faces.areas * heights / 3)


@pytest.mark.parametrize("number", range(6))
def test_faces_are_pymatgens(zoo: CrystalBatch, number: int) -> None:
    structure = zoo.structures()[number]
    faces = voronoi_faces(as_arrays([structure])[0])
    for site in range(len(structure)):
        theirs = VoronoiNN(cutoff=7.0).get_voronoi_polyhedra(structure, site).values()
        ours = np.column_stack((faces.solid_angles, faces.areas))[faces.site == site]
        wanted = np.array([[face["solid_angle"], face["area"]] for face in theirs])
        np.testing.assert_allclose(by_size(ours), by_size(wanted), atol=1e-9, rtol=1e-7)


def by_size(faces: np.ndarray) -> np.ndarray:
    """In order, without those that are there by rounding alone."""
    faces = faces[faces[:, 0] > 1e-7]
    return faces[np.lexsort(faces.T[::-1])]


@pytest.mark.parametrize("seed", range(5))
def test_the_cells_fill_space(seed: int) -> None:
    cell = random_crystal(seed)
    assert volumes(voronoi_faces(cell)).sum() == pytest.approx(cell.volume, rel=1e-10), seed


def test_a_cell_beyond_half_the_cutoff_overlaps_others_as_published() -> None:
    """The cluster of 7 A lacks points that would cut off corners farther than 3.5 A from the site."""
    cell = random_crystal(3, num_sites=7)
    assert volumes(voronoi_faces(cell)).sum() / cell.volume == pytest.approx(1.0000269, abs=1e-7)


def test_a_lost_site_would_leave_a_hole() -> None:
    cell = random_crystal(0)
    faces = voronoi_faces(cell)
    assert volumes(faces)[:-1].sum() < 0.99 * cell.volume


@pytest.mark.parametrize("seed", range(5))
def test_a_closed_cell_has_the_whole_sphere_around_it(seed: int) -> None:
    faces = voronoi_faces(random_crystal(seed))
    np.testing.assert_allclose(np.bincount(faces.site, faces.solid_angles), 4 * np.pi, atol=1e-10)


def test_two_sites_share_a_face_of_one_size() -> None:
    faces = voronoi_faces(random_crystal(1))
    sizes = {
        (i, j, *np.round(vector, 6)): (area, angle)
        for i, j, vector, area, angle in zip(
            faces.site, faces.other, faces.vectors, faces.areas, faces.solid_angles, strict=True
        )
        if area > 1e-6
    }
    for (i, j, *vector), size in sizes.items():
        assert sizes[(j, i, *-np.array(vector))] == pytest.approx(size, rel=1e-9)


def test_the_cell_of_a_body_centred_lattice_is_a_truncated_octahedron() -> None:
    faces = voronoi_faces(crystal(2.0 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]]))
    areas = np.sort(faces.areas[faces.site == 0])
    # eight hexagons and six squares with edges of sqrt(2)/2
    np.testing.assert_allclose(areas, [0.5] * 6 + [0.75 * np.sqrt(3)] * 8, atol=1e-12)


def test_one_corner_of_a_cube_sees_an_eighth_of_the_sphere() -> None:
    axes = np.eye(3)[:, None]
    assert _solid_angle(*axes)[0] == pytest.approx(np.pi / 2, abs=1e-15)


@pytest.mark.parametrize("change", ["turned", "translated", "another basis"])
def test_another_description_has_the_same_cells(change: str) -> None:
    cell = random_crystal(3)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    basis = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]])
    other = {
        "turned": CrystalArrays(cell.lattice @ turn, cell.frac_coords, cell.atomic_numbers),
        "translated": CrystalArrays(cell.lattice, cell.frac_coords + np.array([0.3, -1.7, 5]), cell.atomic_numbers),
        "another basis": CrystalArrays(
            basis @ cell.lattice, cell.frac_coords @ np.linalg.inv(basis), cell.atomic_numbers
        ),
    }[change]
    np.testing.assert_allclose(volumes(voronoi_faces(other)), volumes(voronoi_faces(cell)), rtol=1e-9)


def test_a_cell_that_is_open_in_the_first_cluster_grows_until_it_closes() -> None:
    faces = voronoi_faces(crystal(np.diag([2.5, 2.5, 40.0]), [[0, 0, 0]]))
    assert np.bincount(faces.site, faces.solid_angles)[0] == pytest.approx(4 * np.pi)
    assert np.abs(faces.vectors[:, 2]).max() == pytest.approx(40.0)


def test_sites_at_one_point_have_no_cells_of_their_own() -> None:
    with pytest.raises(CoincidentSitesError, match="0 A apart"):
        voronoi_faces(crystal(4.0 * np.eye(3), [[0, 0, 0], [1, 0, 0]]))


def test_a_cell_that_would_need_millions_of_points_is_an_error() -> None:
    with pytest.raises(OpenCellError, match="too many points within"):
        voronoi_faces(crystal(np.diag([1.0, 1.0, 5000.0]), [[0, 0, 0]]))


def test_a_thousand_sites_are_looked_at_in_blocks() -> None:
    cell = random_crystal(2, num_sites=1000, length=24.0)
    assert volumes(voronoi_faces(cell)).sum() == pytest.approx(cell.volume, rel=1e-9)
