"""Symmetric templates: what is left of a crystal once its elements and coordinates are taken away.

A template is the space group and, for each element, which kinds of sites it holds: multiplicity and site symmetry, with
how many of each. Which element it is does not count, nor which of several equivalent letters a site is given. Models of
symmetric crystals are judged by the templates that they find (Kazeev et al., ICML 2025, arXiv 2503.02407).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cdvae_kit.io.results.named_arrays import decode_arrays, encode_arrays
from cdvae_kit.metrics.computing.parallel import Memory, crystal_key, map_crystals
from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.metrics.metric import COUNT, Columns, Family, Measured, Metric, Need, number
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore
    from cdvae_kit.metrics.evidence import Evidence

Template: TypeAlias = str
"""`221: 1 m-3m | 1 m-3m | 3 4/mmm`: sites by multiplicity in the conventional cell and symmetry, elements by `|`."""

_KAZEEV = "Kazeev et al., ICML 2025, arXiv:2503.02407"


def template(crystal: CrystalArrays, symprec: float = 0.1) -> Template | None:
    """The template of one crystal; None where it cannot be used or no space group is found.

    >>> salt = CrystalArrays(4.1 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([55, 17]))
    >>> template(salt)
    '221: 1 m-3m | 1 m-3m'
    """
    if crystal.fault is not None:
        return None
    # it loads torch, which not every process that a metric starts should pay for
    from cdvae_kit.crystal.symmetry import symmetry_of

    found = symmetry_of(
        crystal.lattice.tolist(), crystal.frac_coords.tolist(), crystal.atomic_numbers.tolist(), symprec
    )
    if found is None:
        return None
    orbits = np.array(found.orbits)
    # atoms of the conventional cell to one of the given cell
    ratio = len(found.std_cell.numbers) / len(orbits)
    sites: dict[int, list[str]] = {}
    for first, size in Counter(orbits.tolist()).items():
        symmetry = found.site_symmetry_symbols[first]
        sites.setdefault(int(crystal.atomic_numbers[first]), []).append(f"{round(size * ratio)} {symmetry}")
    return f"{found.number}: " + " | ".join(sorted(", ".join(sorted(kinds)) for kinds in sites.values()))


def templates_of(
    crystals: Sequence[CrystalArrays],
    symprec: float,
    *,
    num_workers: int = 1,
    progress: Progress | None = None,
    store: ResultStore | None = None,
) -> list[Template | None]:
    """`template` of each crystal; what `store` knows is not computed again."""
    memory = Memory(store, f"template 1 {symprec:g}", crystal_key, _encode, _decode)
    items = list(crystals)
    return map_crystals(_At(symprec), items, num_workers=num_workers, progress=progress, memory=memory)


class _At:
    """`template` at one tolerance, in a form that goes to other processes."""

    def __init__(self, symprec: float) -> None:
        self.symprec = symprec

    def __call__(self, crystal: CrystalArrays) -> Template | None:
        return template(crystal, self.symprec)


def _encode(found: Template | None) -> bytes:
    return encode_arrays({"there": np.array([found is not None])}, found or "")


def _decode(content: bytes) -> Template | None:
    arrays, text = decode_arrays(content)
    return text if bool(arrays["there"][0]) else None


# The numbers of an evaluation


def _ours(evidence: Evidence) -> list[Template | None]:
    return _of(evidence, evidence.ours, "generated")


def _known(evidence: Evidence) -> set[Template | None]:
    index = evidence.training_index
    assert index is not None
    return set(_of(evidence, [index.crystal(i) for i in range(len(index))], "training"))


def _of(evidence: Evidence, crystals: Sequence[CrystalArrays], whose: str) -> list[Template | None]:
    with evidence.report(f"Templates, {whose}", "crystals") as tell:
        return templates_of(
            crystals,
            evidence.settings.symprec,
            num_workers=evidence.num_workers,
            progress=tell,
            store=evidence.store,
        )


def _unique_templates(evidence: Evidence) -> Measured:
    found = {one for one in evidence.once(_ours) if one is not None}
    return number(len(found), len(evidence.ours), note=f"distinct, at symprec {evidence.settings.symprec:g} A")


def _novel_templates(evidence: Evidence) -> Measured:
    found = {one for one in evidence.once(_ours) if one is not None} - evidence.once(_known)
    return number(len(found), len(evidence.ours), note="distinct, and of no training crystal")


def _columns(evidence: Evidence) -> Columns:
    if not evidence.has(_NEEDS):
        return Columns()
    known = evidence.once(_known)
    return Columns({"novel_template": [None if one is None else one not in known for one in evidence.once(_ours)]})


_NEEDS: tuple[Need, ...] = ("extended", "train")

FAMILY = Family(
    "templates",
    (
        Metric(
            "unique_templates",
            "unique templates",
            "symmetry",
            "higher",
            COUNT,
            _KAZEEV,
            ("extended",),
            _unique_templates,
        ),
        Metric(
            "novel_unique_templates",
            "novel unique templates",
            "symmetry",
            "higher",
            COUNT,
            _KAZEEV,
            _NEEDS,
            _novel_templates,
        ),
    ),
    columns=_columns,
)
