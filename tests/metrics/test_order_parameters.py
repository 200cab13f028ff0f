"""Order parameters: one for an ideal motif, pymatgen's for any other, alike for every orientation."""

import numpy as np
import pytest
from pymatgen.core.local_env import LocalStructOrderParams

from cdvae_kit.metrics.fingerprints.crystal_nn_by_pymatgen import _Point
from cdvae_kit.metrics.fingerprints.order_parameters import (
    ORDER_PARAMETERS,
    OrderParameters,
    angles,
    directions,
    order_parameters,
)

ANGLED = (*range(3, 9), 12)


def evaluate(vectors: np.ndarray, weights: np.ndarray | None = None) -> OrderParameters:
    """Of (sites, n, 3) vectors, nearest first."""
    units = directions(vectors)
    n = vectors.shape[1]
    if weights is None:
        weights = np.broadcast_to(-np.arange(n, dtype=float), vectors.shape[:2])
    return order_parameters(n, units, angles(units) if n in ANGLED else None, weights)


def by_pymatgen(vectors: np.ndarray) -> list[float]:
    around = [_Point(np.zeros(3)), *map(_Point, vectors)]
    neighbors = list(range(1, len(around)))
    return [
        LocalStructOrderParams([kind], parameters=[p or None]).get_order_parameters(
            around, 0, indices_neighs=neighbors
        )[0]
        or 0.0
        for kind, p in ORDER_PARAMETERS[len(vectors)]
    ]


def ring(number: int, polar: float = np.pi / 2) -> list[list[float]]:
    azimuth = 2 * np.pi * np.arange(number) / number
    return np.column_stack(
        (np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.full(number, np.cos(polar)))
    ).tolist()


POLES = [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]
CUBE = [[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
MOTIFS = {
    "sgl_bd": POLES[:1],
    "bent": POLES,
    "tri_plan_max": ring(3),
    "T": [*ring(2), POLES[0]],
    "sq_plan_max": ring(4),
    "tet_max": [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]],
    "tri_bipyr": [*POLES, *ring(3)],
    "tri_pyr": [POLES[0], *ring(3)],
    "pent_plan_max": ring(5),
    "sq_pyr": [POLES[0], *ring(4)],
    "hex_plan_max": ring(6),
    "oct_max": [*POLES, *ring(4)],
    "pent_pyr": [POLES[0], *ring(5)],
    "hex_pyr": [POLES[0], *ring(6)],
    "pent_bipyr": [*POLES, *ring(5)],
    "hex_bipyr": [*POLES, *ring(6)],
    "bcc": CUBE,
}


@pytest.mark.parametrize("kind", MOTIFS)
def test_an_ideal_motif_has_its_parameter_at_one(kind: str) -> None:
    vectors = np.array(MOTIFS[kind], dtype=float)
    kinds = [name for name, _ in ORDER_PARAMETERS[len(vectors)]]
    # of the five that bend, the last one is straight
    column = len(kinds) - 1 - kinds[::-1].index(kind)
    # the published widths of bcc leave a percent
    assert evaluate(vectors[None]).values[0, column] == pytest.approx(1.0, abs=2e-2 if kind == "bcc" else 1e-6)


def test_steinhardts_parameters_of_a_cuboctahedron() -> None:
    faces = [[x, y, 0.0] for x in (-1, 1) for y in (-1, 1)]
    vectors = np.array([np.roll(v, k) for v in faces for k in range(3)], dtype=float)
    _, q2, q4, q6 = evaluate(vectors[None]).values[0]
    # Steinhardt et al. 1983, table I: face-centred cubic
    np.testing.assert_allclose([q2, q4, q6], [0.0, 0.190941, 0.574524], atol=1e-6)


@pytest.mark.parametrize("n", range(1, 13))
def test_any_neighbours_have_pymatgens_parameters(n: int) -> None:
    rng = np.random.default_rng(n)
    sites = rng.normal(size=(3, n, 3))
    found = evaluate(sites)
    assert not (found.on_jump.any() or found.by_order.any())
    np.testing.assert_allclose(found.values, [by_pymatgen(vectors) for vectors in sites], atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in MOTIFS if kind not in ("sgl_bd",)])
def test_nearly_ideal_motifs_have_pymatgens_parameters(kind: str) -> None:
    rng = np.random.default_rng(5)
    vectors = np.array(MOTIFS[kind], dtype=float)
    vectors += rng.normal(scale=0.03, size=vectors.shape)
    np.testing.assert_allclose(evaluate(vectors[None]).values[0], by_pymatgen(vectors), atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", range(2, 13))
def test_a_turned_site_has_the_same_parameters(n: int) -> None:
    rng = np.random.default_rng(n)
    vectors = rng.normal(size=(4, n, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    np.testing.assert_allclose(evaluate(vectors @ turn).values, evaluate(vectors).values, atol=1e-10)


@pytest.mark.parametrize("n", [n for n in range(2, 13) if n != 8])
def test_the_order_of_neighbours_does_not_matter(n: int) -> None:
    rng = np.random.default_rng(n)
    vectors = rng.normal(size=(4, n, 3))
    np.testing.assert_allclose(evaluate(vectors[:, ::-1]).values, evaluate(vectors).values, atol=1e-10)


def test_the_order_of_eight_matters_and_is_told_where_they_are_alike() -> None:
    vectors = np.random.default_rng(8).normal(size=(1, 8, 3))
    first, second = evaluate(vectors), evaluate(vectors[:, ::-1])
    assert abs(first.values[0, 0] - second.values[0, 0]) > 1e-3
    assert not first.by_order[0]
    assert evaluate(vectors, np.ones((1, 8))).by_order[0]


def test_the_order_of_a_cube_does_not_matter() -> None:
    assert not evaluate(np.array([CUBE]), np.ones((1, 8))).by_order[0]


def test_an_angle_on_a_jump_is_told() -> None:
    # 135 degrees is where the south begins
    on_jump = np.array([[[0, 0, 1], [1, 0, -1], [0, 1, 0], [-1, -2, 0.3]]], dtype=float)
    assert evaluate(on_jump).on_jump[0]
    assert not evaluate(on_jump + np.random.default_rng(0).normal(scale=1e-4, size=on_jump.shape)).on_jump[0]


def test_a_meridian_that_rounding_turns_is_told() -> None:
    bent = np.array([[[0, 0, 1], [1e-10, 0, -1], [0, 1, 0.1], [1, 0.2, 0]]])
    straight = np.array([[[0, 0, 1], [0, 0, -1], [0, 1, 0.1], [1, 0.2, 0]]])
    assert evaluate(bent).on_jump[0] and not evaluate(straight).on_jump[0]


def test_rows_of_zeros_change_nothing() -> None:
    units = directions(np.random.default_rng(4).normal(size=(2, 5, 3)))
    padded = np.concatenate((units, np.zeros((2, 3, 3))), axis=1)
    whole, part = angles(units), angles(padded).of(np.arange(2), 5)
    np.testing.assert_array_equal(whole.theta, part.theta)
    np.testing.assert_array_equal(whole.cos_phi, part.cos_phi)
    assert not part.doubtful.any()
