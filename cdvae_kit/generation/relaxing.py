"""Crystals relaxed by a potential, into a file: what `generate-crystals relax` does, and what may follow sampling."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.symmetry import find_space_group
from cdvae_kit.io import write_crystals
from cdvae_kit.io.atomic import refuse_several, several_files
from cdvae_kit.io.results.files import write_csv
from cdvae_kit.metrics.crystals import as_arrays, formula
from cdvae_kit.metrics.relaxing import StabilityRequest, relax_and_keep
from cdvae_kit.relaxation import Relaxation, RelaxationSettings, describe_calculator

if TYPE_CHECKING:
    from cdvae_kit.io.crystals.writing import WriteFormat
    from cdvae_kit.io.results.store import ResultStore
    from cdvae_kit.relaxation.relax import AnyCalculator
    from cdvae_kit.typing import Progress

_COLUMNS = (
    *("index", "material_id", "formula", "num_atoms", "outcome", "energy_per_atom", "initial_energy_per_atom"),
    *("max_force", "steps", "volume_change", "space_group_before", "space_group_after", "reason"),
)


@dataclass(frozen=True)
class RelaxedCrystals:
    """What became of a set of crystals.

    Attributes:
        relaxations: one a crystal that was given, in order.
        indices: of those that have an energy.
        crystals: these, relaxed, with their names and with `energy_per_atom` (eV/atom); None where there is none.
        calculator: what relaxed them, and how, in words.
    """

    relaxations: Sequence[Relaxation] = field(repr=False)
    indices: Sequence[int] = field(repr=False)
    crystals: CrystalBatch | None = field(repr=False)
    calculator: str

    @property
    def num_converged(self) -> int:
        return sum(relaxation.converged for relaxation in self.relaxations)

    @property
    def num_failed(self) -> int:
        return sum(relaxation.failed for relaxation in self.relaxations)

    @property
    def reasons(self) -> dict[str, int]:
        """How many crystals did not converge for each reason, the most frequent first; numbers after a colon go."""
        found = Counter(r.reason.split(":")[0] for r in self.relaxations if r.reason is not None)
        return dict(found.most_common())


def relax_crystals(
    crystals: CrystalBatch,
    calculator: AnyCalculator,
    *,
    settings: RelaxationSettings | None = None,
    device: str = "auto",
    num_workers: int = 1,
    store: ResultStore | None = None,
    progress: Progress | None = None,
) -> RelaxedCrystals:
    """The crystals relaxed; one that fails is left out of the batch and has its reason among the relaxations.

    Args:
        crystals: of any sizes.
        calculator: a name that `cdvae_kit.relaxation.make_calculator` knows, an ASE calculator or a batched potential.
        settings: how far, and whether within the space group.
        device: of a calculator that is given by name.
        num_workers: processes; -1 takes every core. Potentials that take batches run in this one.
        store: keeps each crystal as it is done, so that a run that was stopped goes on from there.
        progress: told after every crystal.

    >>> from ase.build import bulk
    >>> from cdvae_kit.crystal.conversion import atoms_to_batch
    >>> found = relax_crystals(atoms_to_batch([bulk("Cu", "fcc", a=3.4), bulk("Pu", "fcc", a=4.6)]), "emt")
    >>> len(found.crystals), found.num_failed, list(found.reasons)
    (1, 1, ['the calculator failed'])
    """
    settings = settings or RelaxationSettings()
    kind = f"{describe_calculator(calculator)} ({settings})"
    relaxations = relax_and_keep(
        as_arrays(crystals),
        StabilityRequest(calculator, device=device),
        settings,
        kind=kind,
        num_workers=num_workers,
        store=store,
        progress=progress,
    )
    indices = [i for i, relaxation in enumerate(relaxations) if not relaxation.failed]
    return RelaxedCrystals(relaxations, indices, _batch(crystals, relaxations, indices), kind)


def relax_to_file(
    crystals: CrystalBatch,
    output: str | os.PathLike[str],
    calculator: AnyCalculator,
    *,
    settings: RelaxationSettings | None = None,
    device: str = "auto",
    num_workers: int = 1,
    store: ResultStore | None = None,
    format: WriteFormat = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[RelaxedCrystals, list[Path]]:
    """`relax_crystals` into a file, and beside it a table with one line a crystal, those that failed among them.

    Args:
        crystals: as the other arguments that are not below, see `relax_crystals`.
        output: of the relaxed crystals.
        format: where the output does not say so.
        overwrite: replace both files.
    """
    paths = [Path(output), table_path(output)]
    refuse_several(paths, overwrite=overwrite)
    found = relax_crystals(
        crystals,
        calculator,
        settings=settings,
        device=device,
        num_workers=num_workers,
        store=store,
        progress=progress,
    )
    if found.crystals is None:
        reason = next((r.reason for r in found.relaxations if r.reason), "no crystal was given")
        raise ValueError(
            f"none of {len(found.relaxations)} crystals could be relaxed by {found.calculator}; the first: {reason}"
        )
    names = crystals.material_ids or [""] * len(crystals)
    symprec = (settings or RelaxationSettings()).symprec
    with several_files(paths, overwrite=overwrite):
        write_crystals(found.crystals, paths[0], format=format, overwrite=True)
        write_csv(_rows(found, names, symprec), _COLUMNS, paths[1], overwrite=True)
    return found, paths


def relaxed_path(sampled: str | os.PathLike[str]) -> Path:
    """Where the relaxed crystals of a file stand beside it.

    >>> relaxed_path("out/crystals.cif.gz").name
    'crystals.relaxed.cif.gz'
    """
    path = Path(sampled)
    stem, dot, rest = path.name.partition(".")
    return path.with_name(f"{stem}.relaxed{dot}{rest}")


def table_path(output: str | os.PathLike[str]) -> Path:
    """Where the table stands beside the crystals.

    >>> table_path("out/relaxed.extxyz.gz").name
    'relaxed.relaxation.csv'
    """
    path = Path(output)
    return path.with_name(f"{path.name.split('.')[0]}.relaxation.csv")


def _batch(given: CrystalBatch, relaxations: Sequence[Relaxation], indices: Sequence[int]) -> CrystalBatch | None:
    if not indices:
        return None
    done = [relaxations[i] for i in indices]
    kept = {name: values[list(indices)] for name, values in given.properties.items()}
    names = given.material_ids
    return CrystalBatch(
        torch.cat([torch.from_numpy(one.frac_coords) for one in done]).float(),
        torch.stack([torch.from_numpy(one.lattice) for one in done]).float(),
        torch.cat([torch.from_numpy(one.atomic_numbers) for one in done]).long(),
        torch.tensor([one.num_atoms for one in done]),
        properties=kept | {"energy_per_atom": torch.tensor([one.energy_per_atom for one in done]).float()},
        material_ids=None if names is None else [names[i] for i in indices],
    )


def _rows(found: RelaxedCrystals, names: Sequence[str], symprec: float) -> Iterator[dict[str, Any]]:
    for i, (one, name) in enumerate(zip(found.relaxations, names, strict=True)):
        before, after = (_group(one, symprec, at_the_end=end) for end in (False, True))
        first = None if one.initial_energy is None else one.initial_energy / one.num_atoms
        fields = (
            *(i, name, _formula(one), one.num_atoms, _outcome(one), one.energy_per_atom, first),
            *(one.max_force, one.steps, _volume_change(one), before, after, one.reason),
        )
        yield dict(zip(_COLUMNS, fields, strict=True))


def _outcome(one: Relaxation) -> str:
    return "failed" if one.failed else "converged" if one.converged else "out of steps"


def _formula(one: Relaxation) -> str:
    from cdvae_kit.metrics.crystals import reduce_composition

    return formula(reduce_composition(one.composition)) if one.num_atoms else ""


def _volume_change(one: Relaxation) -> float | None:
    if one.failed:
        return None
    first, last = (abs(float(torch.linalg.det(torch.from_numpy(c)))) for c in (one.initial_lattice, one.lattice))
    return last / first


def _group(one: Relaxation, symprec: float, *, at_the_end: bool) -> int | None:
    if one.failed:
        return None
    lattice = one.lattice if at_the_end else one.initial_lattice
    coords = one.frac_coords if at_the_end else one.initial_frac_coords
    return find_space_group(lattice.tolist(), coords.tolist(), one.atomic_numbers.tolist(), symprec).number
