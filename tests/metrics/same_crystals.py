"""Crystals that are the same in other words, crystals that are not, and what pymatgen alone says of them."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from cdvae_kit.metrics.matching.matcher import Matcher


def perovskite(a: float = 3.9) -> Structure:
    return Structure(
        Lattice.tetragonal(a, a * 1.05),
        ["Ba", "Ti", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.52], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    )


def caesium_chloride(cation: str = "Cs", anion: str = "Cl", a: float = 4.1) -> Structure:
    return Structure(Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def rock_salt(cation: str = "Cs", anion: str = "Cl", a: float = 6.9) -> Structure:
    face_centred = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    coords = np.concatenate([face_centred, (face_centred + 0.5) % 1])
    return Structure(Lattice.cubic(a), [cation] * 4 + [anion] * 4, coords)


def permuted(structure: Structure) -> Structure:
    order = np.random.default_rng(1).permutation(len(structure))
    return Structure.from_sites([structure[i] for i in order])


def shifted(structure: Structure) -> Structure:
    return Structure(structure.lattice, structure.species, structure.frac_coords + np.array([0.3, -0.7, 1.1]))


def turned(structure: Structure) -> Structure:
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    return Structure(Lattice(structure.lattice.matrix @ turn), structure.species, structure.frac_coords)


def supercell(structure: Structure) -> Structure:
    """In a skewed cell of three times the volume."""
    return structure * [[1, 1, 0], [0, 1, 2], [1, 0, 1]]


def swapped(structure: Structure) -> Structure:
    """The first two elements trade places."""
    first, second = list(dict.fromkeys(structure.species))[:2]
    trade = {first: second, second: first}
    return Structure(structure.lattice, [trade.get(s, s) for s in structure.species], structure.frac_coords)


DESCRIPTIONS: tuple[Callable[[Structure], Structure], ...] = (permuted, shifted, turned, supercell)


def stop_matching(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Lets every comparison end in an error, of many pairs at once and of pymatgen's own."""
    from cdvae_kit.metrics.matching import matcher as module

    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, "smallest_displacements", stop)
    monkeypatch.setattr(StructureMatcher, "fit", stop)


def plain(matcher: Matcher) -> StructureMatcher:
    """pymatgen's own, with nothing in front of it."""
    return StructureMatcher(
        ltol=matcher.ltol,
        stol=matcher.stol,
        angle_tol=matcher.angle_tol,
        scale=matcher.scale,
        primitive_cell=matcher.primitive,
    )


def group_structures(structures: Sequence[Structure], matcher: Matcher) -> list[int]:
    """The first of its group for each structure, by pymatgen's `group_structures`."""
    place = {id(structure): i for i, structure in enumerate(structures)}
    firsts = list(range(len(structures)))
    for group in plain(matcher).group_structures(list(structures)):
        members = sorted(place[id(structure)] for structure in group)
        for member in members:
            firsts[member] = members[0]
    return firsts


def firsts_of(groups: np.ndarray) -> list[int]:
    """The first of its group for each crystal."""
    return [int(np.flatnonzero(groups == group)[0]) for group in groups]
