"""The faces of the Voronoi cell of every site of a crystal: whose they are, their solid angles and their areas.

A cell is that of the finite cluster within a cutoff of its site, grown while the cell is open, as pymatgen's
`VoronoiNN` builds it: parity of the metrics rests on that. It is found by its polar dual: the plane halfway to a point
p becomes the point 2p/|p|², and the convex hull of those has a vertex for every face of the cell and a facet for every
corner of it (Preparata and Shamos, Computational Geometry, 1985, section 7.3). One hull in three dimensions costs
0.1 ms, a whole Voronoi diagram of the cluster ten times that. What is made of the faces is in `crystal_nn_features`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from cdvae_kit.metrics.crystals import CrystalArrays

SEARCH_CUTOFF = 7.0
"""Angstrom; the cluster that CrystalNN begins with."""

# pymatgen counts points so little beyond the cutoff as within it
_CUTOFF_TOLERANCE = 1e-8
# a plane of the dual hull so near the site stands for a corner 10^9 A away: open but for rounding
_OPEN = 1e-9
# angstrom; between nearer points the hull has no digits left for the far ones
_COINCIDENT = 1e-3
_LARGEST_CLUSTER = 400_000
_PAIRS_AT_ONCE = 1_000_000


class OpenCellError(RuntimeError):
    """A site whose Voronoi cell does not close, so that nothing can be said of its neighbours."""


class CoincidentSitesError(ValueError):
    """Two sites at one point, around which there is no cell of their own."""


@dataclass(frozen=True)
class VoronoiFaces:
    """The faces of all cells, those of the first site first.

    Attributes:
        site: (num_faces,) whose cell.
        other: (num_faces,) the site whose image is on the far side.
        vectors: (num_faces, 3) from the site to that image, angstrom.
        solid_angles: (num_faces,) steradian.
        areas: (num_faces,) square angstrom.
        near_cutoff: (num_sites,) whether rounding decided that a point was in the cluster and the point has a face.
    """

    site: np.ndarray
    other: np.ndarray
    vectors: np.ndarray
    solid_angles: np.ndarray
    areas: np.ndarray
    near_cutoff: np.ndarray


@dataclass(frozen=True)
class _Cell:
    """One cell as its hull says it, before anything is measured; positions count from the cell's own first face."""

    others: np.ndarray  # (faces,)
    vectors: np.ndarray  # (faces, 3)
    corners: np.ndarray  # (corners, 3), relative to the site
    edges: np.ndarray  # (edges, 4): the two corners, the two faces
    near_cutoff: bool


def voronoi_faces(crystal: CrystalArrays) -> VoronoiFaces:
    """Every site's faces.

    Raises `OpenCellError` where a cell does not close within the longest diagonal of the crystal, and
    `CoincidentSitesError` where two sites are at one point.

    >>> cube = CrystalArrays(3.0 * np.eye(3), np.zeros((1, 3)), np.array([84]))
    >>> faces = voronoi_faces(cube)
    >>> faces.areas.round(6).tolist(), round(float(faces.solid_angles.sum() / np.pi), 6)
    ([9.0, 9.0, 9.0, 9.0, 9.0, 9.0], 4.0)
    """
    cells = []
    for first, clusters in _clusters(crystal, SEARCH_CUTOFF):
        for site, (others, vectors) in enumerate(clusters, start=first):
            cell = _closed_cell(others, vectors, SEARCH_CUTOFF)
            cells.append(cell if cell is not None else _grown_cell(crystal, site))
    return _measured(cells)


def _clusters(crystal: CrystalArrays, cutoff: float) -> list[tuple[int, list[tuple[np.ndarray, np.ndarray]]]]:
    """Of blocks of sites, the first one and for each the points around it: sites and vectors, nearest first."""
    num_sites = len(crystal.atomic_numbers)
    steps = _lattice_steps(crystal, cutoff)
    block = max(1, _PAIRS_AT_ONCE // (num_sites * len(steps)))
    return [
        (first, _clusters_of(crystal, np.arange(first, min(first + block, num_sites)), steps, cutoff))
        for first in range(0, num_sites, block)
    ]


def _lattice_steps(crystal: CrystalArrays, cutoff: float) -> np.ndarray:
    """(steps, 3) lattice vectors, angstrom, that can bring a point of the cell nearest to a site within `cutoff`."""
    spacings = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    reach = np.floor((cutoff + _CUTOFF_TOLERANCE) / spacings + 0.5)
    if np.prod(2 * reach + 1) * len(crystal.atomic_numbers) > _LARGEST_CLUSTER * 10:
        raise OpenCellError(f"too many points within {cutoff:.4g} A to look for neighbours")
    axes = [np.arange(-int(r), int(r) + 1) for r in reach]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3) @ crystal.lattice


def _clusters_of(
    crystal: CrystalArrays, sites: np.ndarray, steps: np.ndarray, cutoff: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    separations = crystal.frac_coords[None] - crystal.frac_coords[sites][:, None]
    separations -= np.round(separations)
    vectors = (separations @ crystal.lattice)[:, :, None] + steps
    squares = np.einsum("ijsc,ijsc->ijs", vectors, vectors)
    # the point itself is the one step of nothing
    squares[np.arange(len(sites)), sites, len(steps) // 2] = np.inf
    row, other, step = np.nonzero(squares < (cutoff + _CUTOFF_TOLERANCE) ** 2)
    order = np.lexsort((squares[row, other, step], row))
    row, other, step = row[order], other[order], step[order]
    if len(row) > _LARGEST_CLUSTER * len(sites):
        raise OpenCellError(f"too many points within {cutoff:.4g} A to look for neighbours")
    found = vectors[row, other, step]
    bounds = np.searchsorted(row, np.arange(len(sites) + 1)).tolist()
    return [(other[start:end], found[start:end]) for start, end in itertools.pairwise(bounds)]


def _grown_cell(crystal: CrystalArrays, site: int) -> _Cell:
    """The cell of a site that is open at `SEARCH_CUTOFF`: twice the cutoff until it closes, as `VoronoiNN` does."""
    corners = np.array([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]]) @ crystal.lattice
    largest = float(np.linalg.norm(corners, axis=-1).max()) + 0.01
    cutoff = SEARCH_CUTOFF
    while cutoff < largest:
        cutoff = min(2 * cutoff, largest + 0.001)
        steps = _lattice_steps(crystal, cutoff)
        others, vectors = _clusters_of(crystal, np.array([site]), steps, cutoff)[0]
        cell = _closed_cell(others, vectors, cutoff)
        if cell is not None:
            return cell
    raise OpenCellError(f"the Voronoi cell of site {site} does not close within {cutoff:.4g} A")


def _closed_cell(others: np.ndarray, vectors: np.ndarray, cutoff: float) -> _Cell | None:
    """The cell around the origin that the points cut out; None where it is open."""
    from scipy.spatial import ConvexHull, QhullError

    if len(vectors) < 4:
        return None
    squares = np.einsum("ic,ic->i", vectors, vectors)
    if squares[0] < _COINCIDENT**2:
        raise CoincidentSitesError(f"two sites {np.sqrt(squares[0]):.2g} A apart")
    try:
        hull = ConvexHull(vectors * (2 / squares)[:, None])
    except QhullError:
        # no volume: the points are all in one plane
        return None
    depths = -hull.equations[:, 3]
    if depths.min() < _OPEN:
        return None
    facets = hull.simplices
    present = np.zeros(len(vectors), dtype=np.intp)
    present[facets] = 1
    (faces,) = np.nonzero(present)
    present[faces] = np.arange(len(faces))
    first, second = np.nonzero(hull.neighbors > np.arange(len(facets))[:, None])
    # facet `first` shares with that neighbour all of its points but the one at `second`
    shared = facets[first[:, None], _OTHER_TWO[second]]
    edges = np.column_stack((first, hull.neighbors[first, second], present[shared]))
    near_cutoff = bool(squares[faces[-1]] > (cutoff - 1e-6) ** 2)
    return _Cell(others[faces], vectors[faces], hull.equations[:, :3] / depths[:, None], edges, near_cutoff)


_OTHER_TWO = np.array([[1, 2], [0, 2], [0, 1]])


def _measured(cells: list[_Cell]) -> VoronoiFaces:
    """Solid angles and areas, of all cells at once.

    A face is cut into triangles from the foot of the site on it. An edge of the cell belongs to two faces; in each its
    triangle counts as negative where the foot lies beyond the other face's plane.
    """
    num_faces = np.array([len(cell.others) for cell in cells])
    face_start = np.concatenate(([0], np.cumsum(num_faces)[:-1]))
    corner_start = np.concatenate(([0], np.cumsum([len(cell.corners) for cell in cells])[:-1]))
    corners = np.concatenate([cell.corners for cell in cells])
    vectors = np.concatenate([cell.vectors for cell in cells])
    edges = np.concatenate(
        [cell.edges + np.array([c, c, f, f]) for cell, c, f in zip(cells, corner_start, face_start, strict=True)]
    )
    start, end = corners[edges[:, 0]], corners[edges[:, 1]]
    squares = np.einsum("ic,ic->i", vectors, vectors)
    solid_angles, areas = np.zeros(len(vectors)), np.zeros(len(vectors))
    for own, across in ((edges[:, 2], edges[:, 3]), (edges[:, 3], edges[:, 2])):
        foot = vectors[own] / 2
        sign = np.sign(squares[across] - np.einsum("ic,ic->i", vectors[own], vectors[across]))
        normal = _cross(start - foot, end - foot)
        areas += np.bincount(own, sign * np.linalg.norm(normal, axis=-1) / 2, minlength=len(areas))
        angle = _solid_angle(foot, start, end)
        solid_angles += np.bincount(own, sign * angle, minlength=len(areas))
    return VoronoiFaces(
        site=np.repeat(np.arange(len(cells)), num_faces),
        other=np.concatenate([cell.others for cell in cells]),
        vectors=vectors,
        solid_angles=solid_angles,
        areas=areas,
        near_cutoff=np.array([cell.near_cutoff for cell in cells]),
    )


def _solid_angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """(n,) of triangles seen from the origin (van Oosterom and Strackee 1983, IEEE Trans. Biomed. Eng. 30, 125)."""
    length_a, length_b, length_c = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    volume = np.abs(np.einsum("ic,ic->i", a, _cross(b, c)))
    return 2 * np.arctan2(
        volume,
        length_a * length_b * length_c
        + np.einsum("ic,ic->i", a, b) * length_c
        + np.einsum("ic,ic->i", a, c) * length_b
        + np.einsum("ic,ic->i", b, c) * length_a,
    )


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """numpy's `cross` spends most of its time on axes."""
    return a[:, [1, 2, 0]] * b[:, [2, 0, 1]] - a[:, [2, 0, 1]] * b[:, [1, 2, 0]]
