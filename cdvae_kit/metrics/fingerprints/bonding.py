"""One word for a crystal: its bonds, its space group and its formula. Crystals with the same word count as the same.

LeMat-Bulk and LeMat-GenBench tell duplicates apart by such a hash (BAWL; Siron et al., "LeMat-Bulk", AI4Mat-ICLR 2025):
bonds by pymatgen's EconNN, the Weisfeiler-Lehman hash of the graph that they make of the atoms, the space group at 0.01
angstrom, and the composition. It needs no tolerance of a matcher, and no comparison of pairs. Ours differs where
theirs depends on the description of a crystal: bonds have no direction, and cells are made primitive first, so that the
word does not change with the order of the atoms or with the cell. The words themselves are therefore not theirs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.io.results.named_arrays import decode_arrays, encode_arrays
from cdvae_kit.metrics.computing.parallel import Memory, crystal_key, map_crystals
from cdvae_kit.metrics.crystals import CrystalArrays, formula
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from cdvae_kit.io.results.store import ResultStore

SYMPREC = 0.01
"""Angstrom, of the space group and of the primitive cell."""
_TOLERANCE, _CUTOFF = 0.2, 10.0
_KIND = "bond hash 1"
"""Raised with every change of the code that changes a word."""


def bond_hash(crystal: CrystalArrays) -> str | None:
    """The word of one crystal; None where it cannot be used, has no space group or no bonds can be found.

    >>> rock = CrystalArrays(5.6 / 2 * (1 - np.eye(3)), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([11, 17]))
    >>> bond_hash(rock).split("_")[1:]
    ['225', 'NaCl']
    """
    if crystal.fault is not None:
        return None
    # it loads torch, which not every process that a metric starts should pay for
    from cdvae_kit.crystal.symmetry import symmetry_of

    found = symmetry_of(
        crystal.lattice.tolist(), crystal.frac_coords.tolist(), crystal.atomic_numbers.tolist(), SYMPREC
    )
    if found is None:
        return None
    cell = found.prim_std_cell
    primitive = CrystalArrays(np.array(cell.basis), np.array(cell.positions) % 1.0, np.array(cell.numbers))
    bonds = _bonds(primitive.structure())
    if bonds is None:
        return None
    return (
        f"{graph_hash(primitive.atomic_numbers.tolist(), bonds)}_{found.number}_{formula(crystal.reduced_composition)}"
    )


def graph_hash(labels: Sequence[int], bonds: Sequence[tuple[int, int]]) -> str:
    """Weisfeiler-Lehman hash of a graph with labels: 16 hexadecimal digits, the same in whatever order it is given.

    Labels are refined by those of the neighbours until they no longer tell more apart. The counts of equal labels
    are divided by what they have in common, so that a graph and two copies of it give one word.

    Args:
        labels: of the nodes.
        bonds: (node, node); two bonds between the same nodes, and one from a node to itself, count.

    >>> graph_hash([11, 17], [(0, 1)] * 6) == graph_hash([17, 11, 17, 11], [(1, 0)] * 6 + [(2, 3)] * 6)
    True
    """
    neighbors: list[list[int]] = [[] for _ in labels]
    for first, second in bonds:
        neighbors[first].append(second)
        neighbors[second].append(first)
    words = [_digest(str(label)) for label in labels]
    while True:
        refined = [
            _digest(word + "".join(sorted(words[other] for other in near)))
            for word, near in zip(words, neighbors, strict=True)
        ]
        if len(set(refined)) == len(set(words)):
            break
        words = refined
    counts = Counter(refined)
    common = gcd(*counts.values())
    return _digest(" ".join(f"{word} {count // common}" for word, count in sorted(counts.items())))


def bond_hashes(
    crystals: Sequence[CrystalArrays],
    *,
    num_workers: int = 1,
    progress: Progress | None = None,
    store: ResultStore | None = None,
) -> list[str | None]:
    """`bond_hash` of each crystal; what `store` knows is not computed again."""
    memory = Memory(store, _KIND, crystal_key, _encode, _decode)
    return map_crystals(bond_hash, list(crystals), num_workers=num_workers, progress=progress, memory=memory)


def _bonds(structure: Structure) -> list[tuple[int, int]] | None:
    """Each bond once for each image of the cell that it leads to; None where EconNN finds no answer."""
    from pymatgen.analysis.local_env import EconNN

    strategy = EconNN(tol=_TOLERANCE, cutoff=_CUTOFF, use_fictive_radius=True)
    try:
        graph = strategy.get_bonded_structure(structure).graph
    except (ValueError, ZeroDivisionError, IndexError):
        # atoms on top of each other, or none within the cutoff
        return None
    return [(int(first), int(second)) for first, second in graph.edges(keys=False)]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _encode(word: str | None) -> bytes:
    return encode_arrays({"there": np.array([word is not None])}, word or "")


def _decode(content: bytes) -> str | None:
    arrays, text = decode_arrays(content)
    return text if bool(arrays["there"][0]) else None
