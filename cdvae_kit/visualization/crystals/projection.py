"""A scene as the eye sees it: where atoms and lines come to lie, what hides what, and how much of it a frame holds.

Plain arrays, for every picture that does not turn; `canvas` and `vector_picture` draw them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cdvae_kit.visualization.crystals.scene import Scene

_PIECES = 24
"""Pieces of a line, each of which is before or behind an atom."""


def camera(view: tuple[float, float]) -> np.ndarray:
    """(3, 3) rows: to the right, up, towards the eye; `view` is elevation and azimuth in degrees."""
    elevation, azimuth = np.deg2rad(view)
    towards = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    return np.stack([right, np.cross(towards, right), towards])


def frame_of(scenes: Sequence[Scene], view: tuple[float, float], atom_scale: float) -> float:
    """Half the side, in angstrom, of the square that each of the scenes fits into, its cell in the middle."""
    half = 0.0
    for scene in scenes:
        corners = scene.edges.reshape(-1, 3)
        points = np.concatenate([scene.positions, corners])
        radii = np.concatenate([scene.radii(atom_scale), np.zeros(len(corners))])
        seen = (points - scene.lattice.sum(0) / 2) @ camera(view)[:2].T
        half = max(half, float((np.abs(seen) + radii[:, None]).max()))
    return 1.04 * half


class Projection(NamedTuple):
    """A scene seen from one side; angstrom, to the right, up and towards the eye from the middle of the cell.

    Attributes:
        basis: (3, 3), see `camera`.
        middle: (3,), of the cell, in the scene's own axes.
        positions: (num_drawn, 3) from the middle, in the scene's own axes.
        radii: (num_drawn,) of the spheres.
        atoms: (num_drawn, 3) centres of the spheres, as seen.
        order: (num_drawn,) the atoms, the farthest first.
    """

    basis: np.ndarray
    middle: np.ndarray
    positions: np.ndarray
    radii: np.ndarray
    atoms: np.ndarray
    order: np.ndarray

    def pieces(self, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lines (num_lines, 2, 3) of the scene in short pieces, as seen, without those inside a sphere.

        With each piece comes the number of atoms in `order` that are painted before it.
        """
        seen = visible_pieces(lines - self.middle, self.positions, self.radii) @ self.basis.T
        return seen, np.searchsorted(self.atoms[self.order, 2], seen[..., 2].mean(-1))


def project(scene: Scene, view: tuple[float, float], atom_scale: float) -> Projection:
    """The scene from `view`, its spheres `atom_scale` times as large as the covalent radii."""
    basis = camera(view)
    middle = scene.lattice.sum(0) / 2
    positions = scene.positions - middle
    atoms = positions @ basis.T
    order = np.argsort(atoms[:, 2], kind="stable")
    return Projection(basis, middle, positions, scene.radii(atom_scale), atoms, order)


def visible_pieces(lines: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """(num_pieces, 2, 3): the lines in short pieces, without those inside a sphere.

    What is left is before or behind a sphere's centre as it is before or behind the whole sphere.
    """
    share = np.linspace(0.0, 1.0, _PIECES + 1)[None, :, None]
    points = lines[:, :1] + share * (lines[:, 1:] - lines[:, :1])
    pieces = np.stack([points[:, :-1], points[:, 1:]], axis=2).reshape(-1, 2, 3)
    distances = np.linalg.norm(pieces.mean(1)[:, None] - centres[None], axis=-1)
    return pieces[(distances >= radii[None]).all(-1)]
