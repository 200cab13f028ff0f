"""CrystalNN's description of the sites of a crystal: likelihood of each coordination number, and order parameters.

The numbers are those of pymatgen's `CrystalNN` with its defaults and of matminer's `CrystalNNFingerprint` of the preset
"ops" (Zimmermann and Jain 2020, RSC Adv. 10, 6063, doi 10.1039/C9RA07755C; Ward et al. 2018, Comput. Mater. Sci. 152,
60), worked out for all sites at once from `voronoi_neighbors` and `order_parameters`. The definition jumps in places; a
site at which rounding alone decides is handed to pymatgen itself, so that both decide alike. Vectors of whole crystals
are in `vectors`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from cdvae_kit.metrics.crystals import CrystalArrays, symbol
from cdvae_kit.metrics.fingerprints.order_parameters import (
    LARGEST_COORDINATION,
    ORDER_PARAMETERS,
    angles,
    directions,
    order_parameters,
)
from cdvae_kit.metrics.fingerprints.voronoi_neighbors import (
    CoincidentSitesError,
    OpenCellError,
    VoronoiFaces,
    voronoi_faces,
)

logger = logging.getLogger(__name__)

FEATURE_LABELS: tuple[str, ...] = tuple(
    f"{label} CN_{n}"
    for n in range(1, LARGEST_COORDINATION + 1)
    for label in ("wt", *(kind for kind, _ in ORDER_PARAMETERS.get(n, ())))
)
"""What the features are, by rising coordination number; the five of the type "bent" differ in their angle."""

_FIRST_FEATURE = {n: FEATURE_LABELS.index(f"wt CN_{n}") for n in range(1, LARGEST_COORDINATION + 1)}

# angstrom beyond the sum of the radii: full weight up to the first, none from the second
_DISTANCE_CUTOFFS = (0.5, 1.0)
_ELECTRONEGATIVITY_WEIGHT = 3.0
_LARGEST_ELECTRONEGATIVITY_DIFFERENCE = 3.3
_NO_FACE = 1e-9
_SITES_AT_ONCE = 256


class NoFingerprintError(ValueError):
    """A crystal with a site that CrystalNN cannot describe."""


@dataclass(frozen=True)
class SiteDescription:
    """What CrystalNN says of the sites of one crystal.

    Attributes:
        features: (num_sites, 61) as in `FEATURE_LABELS`; None where only the numbers were asked for.
        coordination_numbers: (num_sites,) the most likely one; 0 for a site without neighbours.
        by_pymatgen: (num_sites,) whether rounding decides on something there, so that pymatgen was asked.
    """

    features: np.ndarray | None
    coordination_numbers: np.ndarray
    by_pymatgen: np.ndarray


@dataclass(frozen=True)
class _Shells:
    """The neighbours that count, the likeliest first; rows end with zeros.

    Attributes:
        exact: (num_sites, most + 1) weights, before CrystalNN rounds them to three digits.
        others: (num_sites, most + 1) of which site they are images.
        vectors: (num_sites, most + 1, 3) to them, angstrom.
        likelihoods: (num_sites, most + 1) of having the first 1, 2, ... neighbours.
        doubtful: (num_sites,) whether rounding decides on a weight.
    """

    exact: np.ndarray
    others: np.ndarray
    vectors: np.ndarray
    likelihoods: np.ndarray
    doubtful: np.ndarray


def site_features(crystal: CrystalArrays) -> np.ndarray:
    """(num_sites, 61) of a crystal without fault; raises `NoFingerprintError` where a site has none."""
    features = describe_sites(crystal).features
    assert features is not None
    return features


def coordination_numbers(crystal: CrystalArrays) -> np.ndarray:
    """(num_sites,) most likely numbers of neighbours, pymatgen's `CrystalNN().get_cn`; some 0.3 ms a site.

    >>> salt = CrystalArrays(4.12 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([55, 17]))
    >>> coordination_numbers(salt).tolist()
    [8, 8]
    """
    return describe_sites(crystal, features=False).coordination_numbers


def describe_sites(crystal: CrystalArrays, *, features: bool = True) -> SiteDescription:
    """Features and coordination numbers at once; raises `NoFingerprintError` where a site cannot be described."""
    _require_radii(crystal.atomic_numbers)
    num_sites = len(crystal.atomic_numbers)
    found = np.zeros((num_sites, len(FEATURE_LABELS))) if features else None
    by_pymatgen = np.zeros(num_sites, dtype=bool)
    try:
        shells = _shells(voronoi_faces(crystal), crystal.atomic_numbers)
    except OpenCellError as error:
        raise NoFingerprintError(str(error)) from error
    except CoincidentSitesError:
        # which of two points the cells are built around is qhull's choice
        numbers, unclear = np.zeros(num_sites, dtype=np.int64), np.ones(num_sites, dtype=bool)
    else:
        numbers, tied = _most_likely(shells.likelihoods)
        unclear = shells.doubtful | tied
        if found is not None:
            for start in range(0, num_sites, _SITES_AT_ONCE):
                block = np.arange(start, min(start + _SITES_AT_ONCE, num_sites))
                found[block], by_pymatgen[block] = _features(crystal, shells, block)
    if unclear.any():
        _ask_pymatgen(crystal, np.flatnonzero(unclear), found, numbers)
    if found is not None and not np.isfinite(found).all():
        raise NoFingerprintError("a feature is not finite")
    return SiteDescription(found, numbers, by_pymatgen | unclear)


def _ask_pymatgen(crystal: CrystalArrays, sites: np.ndarray, found: np.ndarray | None, numbers: np.ndarray) -> None:
    """Write what pymatgen says of some sites in the place of what was found."""
    from cdvae_kit.metrics.fingerprints.crystal_nn_by_pymatgen import describe_by_pymatgen

    logger.debug("pymatgen describes %d of %d sites, where rounding decides", len(sites), len(numbers))
    with _told_as_no_fingerprint():
        theirs, numbers[sites] = describe_by_pymatgen(crystal, sites, features=found is not None)
    if found is not None:
        found[sites] = theirs


@contextmanager
def _told_as_no_fingerprint() -> Iterator[None]:
    """What pymatgen raises for a site that it cannot make out; scipy's QhullError is a RuntimeError."""
    try:
        yield
    except (ArithmeticError, LookupError, RuntimeError, ValueError) as error:
        raise NoFingerprintError(f"{type(error).__name__}: {error}") from error


def _shells(faces: VoronoiFaces, atomic_numbers: np.ndarray) -> _Shells:
    """Weights of CrystalNN: solid angle times its share of the face, electronegativity, distance."""
    num_sites = len(atomic_numbers)
    starts = np.searchsorted(faces.site, np.arange(num_sites))
    # a face that is there by rounding alone has a solid angle, but no area to speak of
    real = faces.solid_angles > _NO_FACE
    weights = np.where(real, faces.solid_angles**2 / np.where(real, faces.areas, 1.0), 0.0)
    radii, electronegativities = element_table()
    here, there = atomic_numbers[faces.site], atomic_numbers[faces.other]
    difference = np.abs(electronegativities[here] - electronegativities[there])
    chemical = 1 + _ELECTRONEGATIVITY_WEIGHT * np.sqrt(difference / _LARGEST_ELECTRONEGATIVITY_DIFFERENCE)
    weights = weights * np.where(np.isnan(chemical), 1.0, chemical)
    weights = weights / np.maximum.reduceat(weights, starts)[faces.site]
    low, high = _DISTANCE_CUTOFFS
    beyond = np.linalg.norm(faces.vectors, axis=-1) - radii[here] - radii[there] - low
    weights = weights * (np.cos(np.clip(beyond / (high - low), 0.0, 1.0) * np.pi) + 1) * 0.5
    return _sorted_shells(faces, weights, starts, num_sites)


def _sorted_shells(faces: VoronoiFaces, exact: np.ndarray, starts: np.ndarray, num_sites: int) -> _Shells:
    thousandths = exact * 1000
    undecided = np.abs(thousandths - np.floor(thousandths) - 0.5) < 1e-7
    doubtful = faces.near_cutoff.copy()
    doubtful[faces.site[undecided]] = True
    order = np.lexsort((-exact, faces.site))
    rank = np.arange(len(order)) - starts[faces.site]
    rounded = np.round(exact[order], 3)
    kept = rounded > 0
    row, column, order = faces.site[kept], rank[kept], order[kept]
    # one more, which has no weight: after it comes no neighbour
    shape = (num_sites, int(column.max(initial=0)) + 2)
    weights, all_exact, vectors = np.zeros(shape), np.zeros(shape), np.zeros((*shape, 3))
    others = np.zeros(shape, dtype=np.int64)
    weights[row, column] = rounded[kept]
    all_exact[row, column] = exact[order]
    vectors[row, column] = faces.vectors[order]
    others[row, column] = faces.other[order]
    below = _quarter_disc(weights)
    likelihoods = below - np.column_stack((below[:, 1:], np.zeros(num_sites)))
    return _Shells(all_exact, others, vectors, likelihoods, doubtful)


def _quarter_disc(x: np.ndarray) -> np.ndarray:
    """Share of the quarter of the unit disc that lies below `x`."""
    return (x * np.sqrt(1 - x * x) + np.arcsin(x)) * (2 / np.pi)


def _most_likely(likelihoods: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(num_sites,) coordination numbers; the smallest of equally likely ones, and zero last."""
    none = 1 - likelihoods.sum(axis=1, keepdims=True)
    ranked = np.column_stack((likelihoods, none))
    best = ranked.argmax(axis=1)
    ordered = np.sort(ranked, axis=1)
    unclear = ordered[:, -1] - ordered[:, -2] < 1e-9
    return np.where(best == likelihoods.shape[1], 0, best + 1), unclear


def _features(crystal: CrystalArrays, shells: _Shells, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sites, 61) of some sites, and whether pymatgen was asked for some of the numbers."""
    likelihoods = shells.likelihoods[block]
    units = directions(shells.vectors[block])
    found = np.zeros((len(block), len(FEATURE_LABELS)))
    asked = np.zeros(len(block), dtype=bool)
    few = angles(units[:, :8]) if units.shape[1] > 3 else None
    for n in range(1, min(LARGEST_COORDINATION, likelihoods.shape[1]) + 1):
        (sites,) = np.nonzero(likelihoods[:, n - 1])
        if len(sites) == 0:
            continue
        first = _FIRST_FEATURE[n]
        likely = likelihoods[sites, n - 1]
        found[sites, first] = likely
        if n not in ORDER_PARAMETERS:
            continue
        these = units[sites, :n]
        between = angles(these) if n == 12 else few.of(sites, n) if few is not None and 3 <= n <= 8 else None
        order = order_parameters(n, these, between, shells.exact[block[sites], :n])
        for k in np.flatnonzero(order.on_jump | order.by_order):
            order.values[k] = _decided(crystal, shells, int(block[sites[k]]), n, by_order=bool(order.by_order[k]))
            asked[sites[k]] = True
        found[sites, first + 1 : first + 1 + order.values.shape[1]] = likely[:, None] * order.values
    return found, asked


def _decided(crystal: CrystalArrays, shells: _Shells, site: int, n: int, *, by_order: bool) -> list[float]:
    """The order parameters of one site on which rounding decides."""
    from cdvae_kit.metrics.fingerprints.crystal_nn_by_pymatgen import order_parameters_in_order, order_parameters_of

    with _told_as_no_fingerprint():
        if by_order:
            return order_parameters_in_order(crystal, site, n)
        others = shells.others[site, :n]
        separations = crystal.frac_coords[others] - crystal.frac_coords[site]
        images = np.round(shells.vectors[site, :n] @ np.linalg.inv(crystal.lattice) - separations)
        return order_parameters_of(crystal, site, others, images)


@cache
def element_table() -> tuple[np.ndarray, np.ndarray]:
    """Covalent radii (angstrom) and Pauling electronegativities by atomic number, (119,); NaN where there is none."""
    text = files("cdvae_kit.metrics.fingerprints").joinpath("crystal_nn_elements.json").read_text(encoding="utf-8")
    content = json.loads(text)
    radii, electronegativities = (
        np.array([np.nan, *(np.nan if value is None else value for value in content[name])])
        for name in ("covalent_radius", "electronegativity")
    )
    return radii, electronegativities


def _require_radii(atomic_numbers: np.ndarray) -> None:
    radii, _ = element_table()
    missing = sorted(set(atomic_numbers[np.isnan(radii[atomic_numbers])].tolist()))
    if missing:
        raise NoFingerprintError(f"no covalent radius is known of {', '.join(symbol(number) for number in missing)}")
