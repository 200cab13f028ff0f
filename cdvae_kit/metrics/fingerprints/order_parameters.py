"""How near the neighbours of a site stand to the corners of a known motif: CrystalNN's order parameters ("ops").

Definitions: Zimmermann et al. 2017 (Front. Mater. 4, 34, doi 10.3389/fmats.2017.00034), Zimmermann and Jain 2020 (RSC
Adv. 10, 6063, doi 10.1039/C9RA07755C), Peters 2009 (J. Chem. Phys. 131, 244103), Steinhardt et al. 1983 (Phys. Rev. B
28, 784). Widths and angles are those of pymatgen's tables, on which the published fingerprints rest.

All parameters of one coordination number are worked out for many sites at once. Neighbour j is put at the north pole,
neighbour k gives the prime meridian; theta[j, m] is the polar angle of m, phi[j, k, m] its azimuth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Parameters: TypeAlias = "dict[str | int, float]"

LARGEST_COORDINATION = 24
"""Of more neighbours nothing is said, and from 13 on only how likely they are."""

# under the names that pymatgen gives to types and parameters, so that it can be asked for the same ones: targets TA in
# parts of 180 degrees, inverse widths IGW, factors of the azimuth, the polar angle from which on is south (min_SPP)
_RING: Parameters = {"exp_cos_AA": 2}
_AXIS: Parameters = {"exp_cos_AA": 2, "min_SPP": 2.356194490192345, "w_SPP": 1}
_STEINHARDT: tuple[tuple[str, Parameters], ...] = (("q2", {}), ("q4", {}), ("q6", {}))

ORDER_PARAMETERS: dict[int, tuple[tuple[str, Parameters], ...]] = {
    1: (("sgl_bd", {}),),
    2: (
        ("bent", {"TA": 0.5, "IGW_TA": 15.15}),
        ("bent", {"TA": 0.5802777777777778, "IGW_TA": 13.95}),
        ("bent", {"TA": 0.666666666667, "IGW_TA": 13.25}),
        ("bent", {"TA": 0.833333333333333, "IGW_TA": 12.45}),
        ("bent", {"TA": 1, "IGW_TA": 8.667}),
    ),
    3: (
        ("tri_plan_max", _RING | {"TA": 0.66666666667, "IGW_TA": 17.5, "fac_AA": 1}),
        ("tet_max", _RING | {"TA": 0.6081734479693927, "IGW_TA": 18.33, "fac_AA": 1.5}),
        ("T", _RING | {"IGW_EP": 15.5, "fac_AA": 1}),
    ),
    4: (
        ("sq_plan_max", _AXIS | {"IGW_SPP": 13.5, "IGW_EP": 17.7, "fac_AA": 1}),
        ("tet_max", _RING | {"TA": 0.6081734479693927, "IGW_TA": 18.5, "fac_AA": 1.5}),
        ("see_saw_rect", _RING | {"min_SPP": 2.356194490192345, "IGW_SPP": 11.5, "IGW_EP": 27, "fac_AA": 2}),
        ("tri_bipyr", _AXIS | {"IGW_SPP": 12.75, "IGW_EP": 15.75, "fac_AA": 1.5}),
        ("tri_pyr", _RING | {"IGW_EP": 15.5, "fac_AA": 1.5}),
    ),
    5: (
        ("pent_plan_max", {"TA": 0.6, "IGW_TA": 19.333}),
        ("sq_pyr", _RING | {"IGW_EP": 14.9, "fac_AA": 2}),
        ("tri_bipyr", _AXIS | {"IGW_SPP": 12, "IGW_EP": 16.6, "fac_AA": 1.5}),
    ),
    6: (
        (
            "hex_plan_max",
            _AXIS | {"min_SPP": 2.6179938779914944, "IGW_SPP": 7.5, "TA": 0.16666667, "IGW_TA": 25, "fac_AA": 1},
        ),
        ("oct_max", _AXIS | {"IGW_SPP": 15, "IGW_EP": 18, "fac_AA": 2}),
        ("pent_pyr", _RING | {"IGW_EP": 13.8, "fac_AA": 2.5}),
    ),
    7: (
        ("hex_pyr", _RING | {"IGW_EP": 12.5, "fac_AA": 3}),
        ("pent_bipyr", _AXIS | {"IGW_SPP": 12.5, "IGW_EP": 14.75, "fac_AA": 2.5}),
    ),
    8: (
        ("bcc", {"min_SPP": 2.5261129449194057, "IGW_SPP": 15, "w_SPP": 6}),
        ("hex_bipyr", _AXIS | {"IGW_SPP": 14.1, "IGW_EP": 13.6, "fac_AA": 3}),
    ),
    9: _STEINHARDT,
    10: _STEINHARDT,
    11: _STEINHARDT,
    12: (
        (
            "cuboct_max",
            {"min_SPP": 2.792526803190927, "IGW_SPP": 28.75, "w_SPP": 1.8}
            # the polar angles between which is the equator, and the widths there and beside it
            | {2: 1.8325957145940461, 4: 1.3089969389957472, 5: 25.5, 6: 31.25},
        ),
        *_STEINHARDT,
    ),
}

# pymatgen takes two directions for one where they differ by less
_COLLINEAR = 1e-12
# two directions that differ by less than this span a plane that rounding turns
_SLIGHT = 3e-9
# an angle this near to one where a definition jumps falls on either side of it by rounding
_JUMP = 1e-8


@dataclass(frozen=True)
class Angles:
    """Angles among the neighbours of sites that have the same number of them.

    Attributes:
        theta: (sites, n, n), radian.
        cos_phi: (sites, n, n, n).
        meridian: (sites, n, n) whether j and k span a plane: never for j = k, nor for k opposite to j.
        doubtful: (sites,) whether rounding decides where a meridian runs.
    """

    theta: np.ndarray
    cos_phi: np.ndarray
    meridian: np.ndarray
    doubtful: np.ndarray

    def of(self, sites: np.ndarray, n: int) -> Angles:
        """Those among the first `n` neighbours of some sites."""
        return Angles(
            self.theta[sites, :n, :n],
            self.cos_phi[sites, :n, :n, :n],
            self.meridian[sites, :n, :n],
            self.doubtful[sites],
        )


def directions(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors; where there is no vector, zeros."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def angles(units: np.ndarray) -> Angles:
    """Angles among (sites, n, 3) directions; a row of zeros is no neighbour, and nothing is said of it."""
    cosines = np.clip(units @ units.swapaxes(1, 2), -1.0, 1.0)
    across = units[:, None] - cosines[..., None] * units[:, :, None]
    own = np.arange(units.shape[1])
    across[:, own, own] = 0.0
    length = np.linalg.norm(across, axis=-1)
    meridian = length >= _COLLINEAR
    across /= np.where(meridian, length, 1.0)[..., None]
    present = np.any(units, axis=-1)
    slight = (length > 0.9 * _COLLINEAR) & (length < _SLIGHT) & present[:, :, None] & present[:, None]
    return Angles(
        np.arccos(cosines),
        np.clip(across @ across.swapaxes(-1, -2), -1.0, 1.0),
        meridian,
        slight.any(axis=(1, 2)),
    )


@dataclass(frozen=True)
class OrderParameters:
    """All parameters of one coordination number.

    Attributes:
        values: (sites, parameters) in the order of `ORDER_PARAMETERS`.
        on_jump: (sites,) whether an angle is so near to a jump of a definition that rounding decides on the side.
        by_order: (sites,) whether one depends on the order of neighbours that have the same weight.
    """

    values: np.ndarray
    on_jump: np.ndarray
    by_order: np.ndarray


def order_parameters(n: int, units: np.ndarray, found: Angles | None, weights: np.ndarray) -> OrderParameters:
    """The order parameters of coordination number `n`.

    Args:
        n: the number of neighbours.
        units: (sites, n, 3) directions of the neighbours, those of largest weight first.
        found: what `angles` says of them; needed for 3 to 8 and 12 neighbours.
        weights: (sites, n) by which the neighbours are ordered.
    """
    columns = []
    on_jump = np.zeros(len(units), dtype=bool) if found is None else found.doubtful.copy()
    by_order = np.zeros(len(units), dtype=bool)
    for kind, p in ORDER_PARAMETERS[n]:
        if kind == "sgl_bd":
            columns.append(np.ones(len(units)))
        elif kind in ("q2", "q4", "q6"):
            columns.append(_bond_orientation(units, int(kind[1])))
        elif kind == "bent":
            columns.append(_bent(units, p))
        elif found is None:
            raise ValueError(f"{n} neighbours need the angles among them")
        elif kind == "bcc":
            terms = _bcc_terms(found, p)
            columns.append(_bcc(terms))
            # the sign turns where k is on the equator
            turning = (np.abs(found.theta - np.pi / 2) < _JUMP) & (np.abs(terms) > _JUMP)
            on_jump |= _on_a_jump(kind, p, found) | np.any(turning, axis=(1, 2))
            by_order |= _depends_on_order(terms, weights)
        else:
            columns.append(_best(kind, p, found))
            on_jump |= _on_a_jump(kind, p, found)
    return OrderParameters(np.stack(columns, axis=-1), on_jump, by_order)


def _gauss(deviation: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * deviation * deviation)


def _bent(units: np.ndarray, p: Parameters) -> np.ndarray:
    """(sites,) how near the angle between two neighbours is to the target."""
    theta = np.arccos(np.clip(np.einsum("sc,sc->s", units[:, 0], units[:, 1]), -1.0, 1.0))
    return _gauss(p["IGW_TA"] * (theta / np.pi - p["TA"]))


def _bond_orientation(units: np.ndarray, degree: int) -> np.ndarray:
    """(sites,) Steinhardt's q_l, its sum over m done by the addition theorem."""
    c = np.clip(units @ units.swapaxes(1, 2), -1.0, 1.0)
    square = c * c
    if degree == 2:
        legendre = (3 * square - 1) / 2
    elif degree == 4:
        legendre = ((35 * square - 30) * square + 3) / 8
    else:
        legendre = (((231 * square - 315) * square + 105) * square - 5) / 16
    return np.sqrt(np.maximum(legendre.sum(axis=(1, 2)), 0.0)) / units.shape[1]


def _best(kind: str, p: Parameters, found: Angles) -> np.ndarray:
    """(sites,) the best over all choices of pole and meridian."""
    if kind == "cuboct_max":
        value, count = _cuboctahedron(found, p)
    elif "min_SPP" in p:
        value, count = _bipyramid(kind, found, p)
    else:
        value, count = _pyramid(kind, found, p)
    own = np.arange(found.theta.shape[1])
    ratio = np.where(count > 1e-12, value / np.where(count > 1e-12, count, 1.0), 0.0)
    ratio[:, own, own] = -np.inf
    return ratio.max(axis=(1, 2))


def _cos_squared(factor: float, cos_phi: np.ndarray) -> np.ndarray:
    """cos²(factor phi) by Chebyshev's polynomial of degree 2 factor, and zero where k = m."""
    x, square = cos_phi, cos_phi * cos_phi
    cosine_of_twice = {
        2: lambda: 2 * square - 1,
        3: lambda: (4 * square - 3) * x,
        4: lambda: 8 * (square - 1) * square + 1,
        5: lambda: ((16 * square - 20) * square + 5) * x,
        6: lambda: ((32 * square - 48) * square + 18) * square - 1,
    }[round(2 * factor)]()
    result = (1 + cosine_of_twice) / 2
    own = np.arange(cos_phi.shape[-1])
    result[..., own, own] = 0.0
    return result


def _over_third(weight: np.ndarray, of_phi: np.ndarray) -> np.ndarray:
    """(sites, j, k) sums over m of what depends on theta[j, m] times what depends on phi[j, k, m]."""
    return np.einsum("sjkm,sjm->sjk", of_phi, weight)


def _count_third(allowed: np.ndarray) -> np.ndarray:
    """(sites, j, k) how many m other than k are allowed."""
    allowed = allowed.astype(np.float64)
    return allowed.sum(-1, keepdims=True) - allowed


def _pyramid(kind: str, found: Angles, p: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Motifs in which all neighbours but the pole stand at one polar angle, or at one of two."""
    fraction = found.theta / np.pi
    if kind == "pent_plan_max":
        near = _gauss(p["IGW_TA"] * (fraction - np.where(found.theta <= p["TA"] * np.pi, 0.4, 0.8)))
    elif "TA" in p:
        near = _gauss(p["IGW_TA"] * (fraction - p["TA"]))
    else:
        near = _gauss(p["IGW_EP"] * (fraction - 0.5))
    third = _over_third(near * found.meridian, _cos_squared(p.get("fac_AA", 1), found.cos_phi))
    return near + third * found.meridian, 1 + _count_third(found.meridian) * found.meridian


def _bipyramid(kind: str, found: Angles, p: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Motifs with a neighbour at the south pole; the others stand on the equator, for a hexagon beside it too."""
    fraction = found.theta / np.pi
    if kind == "hex_plan_max":
        near = _gauss(p["IGW_TA"] * (np.abs(fraction - 0.5) - p["TA"]))
    else:
        near = _gauss(p["IGW_EP"] * (fraction - 0.5))
    # a neighbour is no third one to itself; its angle of zero is none either
    other = ~np.eye(found.theta.shape[1], dtype=bool)
    south = (found.theta >= p["min_SPP"]) & other
    north = (found.theta < p["min_SPP"]) & other
    at_south = _gauss(p["IGW_SPP"] * (fraction - 1)) * south
    both = north & found.meridian
    of_phi = _cos_squared(p["fac_AA"], found.cos_phi)
    if kind == "see_saw_rect":
        within = found.cos_phi > np.cos(0.75 * np.pi)
        own = np.arange(within.shape[-1])
        within[..., own, own] = False
        third = _over_third(near * both, of_phi * within)
        third_count = _over_third(both.astype(np.float64), within.astype(np.float64))
    else:
        third = _over_third(near * both, of_phi)
        third_count = _count_third(both)
    value = near * north + found.meridian * (at_south.sum(-1, keepdims=True) - at_south) + both * third
    return value, north + found.meridian * _count_third(south) + both * third_count


def _cuboctahedron(found: Angles, p: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Twelve neighbours: the pole, its opposite, four each at 60, 90 and 120 degrees but for two of them."""
    theta, fraction = found.theta, found.theta / np.pi
    other = ~np.eye(theta.shape[1], dtype=bool)
    south = (theta >= p["min_SPP"]) & other
    value = p["w_SPP"] * _gauss(p["IGW_SPP"] * (fraction - 1)) * south
    count = p["w_SPP"] * south
    equator = (p[4] < theta) & (theta < p[2])
    allowed = found.meridian & (theta < p["min_SPP"])
    above, below = allowed & (theta < p[4]), allowed & (theta > p[2])
    tilted = _gauss(p[6] * (fraction - 1 / 3)) * above + _gauss(p[6] * (fraction - 2 / 3)) * below
    level = _gauss(p[5] * (fraction - 0.5)) * (allowed & equator)
    # cos(phi - pi/2)
    sin_phi = np.sqrt(1 - found.cos_phi * found.cos_phi)
    of_phi = _gauss(0.0556 * (sin_phi - 0.81649658))
    own = np.arange(theta.shape[1])
    of_phi[..., own, own] = 0.0
    third = _over_third(level, _cos_squared(1, found.cos_phi)) + _over_third(tilted, of_phi)
    meridian = found.meridian & equator
    return value + meridian * third, count + meridian * _count_third((allowed & equator) | above | below)


def _bcc_terms(found: Angles, p: Parameters) -> np.ndarray:
    """(sites, j, k) Peters's terms; not the same for (k, j), so that the sum over pairs knows an order."""
    theta = found.theta
    opposite = theta >= p["min_SPP"]
    deviation = (theta - np.pi / 2) / np.arcsin(1 / 3)
    third = deviation * _gauss(deviation) * np.exp(0.5) * found.meridian
    cos_of_three = (4 * found.cos_phi * found.cos_phi - 3) * found.cos_phi
    own = np.arange(theta.shape[1])
    cos_of_three[..., own, own] = 0.0
    sign = np.where(theta > np.pi / 2, 1.0, -1.0)
    return np.where(
        opposite,
        p["w_SPP"] * _gauss(p["IGW_SPP"] * (theta / np.pi - 1)),
        sign * found.meridian * _over_third(third, cos_of_three),
    )


def _bcc(terms: np.ndarray) -> np.ndarray:
    """(sites,) their mean over pairs, the first of which is the nearer one."""
    n = terms.shape[1]
    first, second = np.triu_indices(n, 1)
    total: np.ndarray = terms[:, first, second].sum(axis=-1)
    return total / (0.5 * n * (6 + (n - 2) * (n - 3)))


def _depends_on_order(terms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(sites,) whether exchanging two neighbours of the same weight changes the sum over pairs."""
    tied = np.abs(weights[:, :, None] - weights[:, None]) <= 1e-9
    return np.any(tied & (np.abs(terms - terms.swapaxes(1, 2)) > _JUMP), axis=(1, 2))


def _on_a_jump(kind: str, p: Parameters, found: Angles) -> np.ndarray:
    """(sites,) whether an angle is within rounding of one where the definition is not continuous."""
    jumps = [p[key] for key in ("min_SPP", 2, 4) if key in p]
    if kind == "pent_plan_max":
        jumps.append(p["TA"] * np.pi)
    near: np.ndarray = np.zeros(found.theta.shape, dtype=bool)
    for jump in jumps:
        near |= np.abs(found.theta - jump) < _JUMP
    if kind == "see_saw_rect":
        near |= np.any(np.abs(found.cos_phi - np.cos(0.75 * np.pi)) < _JUMP, axis=-1)
    return np.any(near, axis=(1, 2))
