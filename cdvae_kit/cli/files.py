"""Files that a user names on the command line: what can be read of them, and whether they may be written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cdvae_kit.cli.checks import refuse_output as refuse_output
from cdvae_kit.cli.console import print_note, progress_bar

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch
    from cdvae_kit.io import ReadFailure, ReadNote
    from cdvae_kit.models import CDVAE

MAX_REASONS = 5
"""Crystals that cannot be read are told one by one up to this many, the rest by their number."""


def read_batch(
    path: Path,
    *,
    strict: bool = False,
    max_atoms: int | None = None,
    double: bool = False,
    lenient: bool = False,
    for_model: bool = False,
) -> CrystalBatch:
    """The crystals in a file or folder that can be read; the others are told on standard error.

    Args:
        path: anything that `cdvae_kit.io.read_crystals` takes.
        strict: whether one crystal that cannot be read is an error.
        max_atoms: crystals with more atoms count as unreadable.
        double: in double precision.
        for_model: whether crystals of elements that no model knows are left out.
        lenient: whether files that contradict themselves are taken, and told.
    """
    from cdvae_kit.io import read_crystals

    precision: dict[str, Any] = {}
    if double:
        import torch

        precision["dtype"] = torch.float64

    with progress_bar("Reading", "crystals") as progress:
        result = read_crystals(
            path, strict=strict, max_atoms=max_atoms, lenient=lenient, progress=progress, **precision
        )
    if for_model:
        from cdvae_kit.models.limits import NUM_ELEMENTS

        result = result.with_elements_up_to(NUM_ELEMENTS, str(path))
    print_remarks("left out", result.failures)
    print_remarks("note", result.notes)
    return result.crystals


@contextmanager
def reading_limits(words: Sequence[str]) -> Iterator[None]:
    """A block in which files are read with other limits, each as NAME=VALUE."""
    from cdvae_kit.crystal.faults import CellLimits, cell_limits
    from cdvae_kit.io.crystals.limits import (
        MAX_BYTES,
        QueryLimits,
        ReaderLimits,
        bytes_limit,
        query_limits,
        reader_limits,
    )
    from cdvae_kit.models.pretrained import CheckpointLimits, checkpoint_limits

    kinds = (CellLimits, ReaderLimits, QueryLimits, CheckpointLimits)
    names = ("max_bytes", *(name for kind in kinds for name in kind._fields))
    values: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            values[name] = float(text)
        except ValueError:
            values[name] = -1.0
        if name not in names or not values[name] > 0.0:
            raise typer.BadParameter(
                f"expected NAME=VALUE with one of {', '.join(names)} and a positive number, got {word!r}",
                param_hint="--limit",
            )

    def chosen(limits: Any) -> Any:
        # no file has more of anything than this
        given = {
            name: int(min(values[name], 2**62)) if isinstance(getattr(limits, name), int) else values[name]
            for name in limits._fields
            if name in values
        }
        return limits._replace(**given)

    max_bytes = int(min(values.get("max_bytes", MAX_BYTES), 2**62))
    with (
        cell_limits(chosen(CellLimits())),
        bytes_limit(max_bytes),
        reader_limits(chosen(ReaderLimits())),
        query_limits(chosen(QueryLimits())),
        checkpoint_limits(chosen(CheckpointLimits())),
    ):
        yield


def tell_outside(model: CDVAE, crystals: CrystalBatch) -> None:
    """Says on standard error which crystals the model has never seen the like of, for a command that takes them."""
    names = crystals.material_ids or [f"crystal {i + 1}" for i in range(len(crystals))]
    told = [f"{name} {reason}" for name, reason in zip(names, model.outside(crystals), strict=True) if reason]
    print_remarks("outside the model", told)


def print_remarks(title: str, remarks: Sequence[ReadFailure | ReadNote | str]) -> None:
    """What there is to say of some records, on standard error, up to `MAX_REASONS` of them."""
    for remark in remarks[:MAX_REASONS]:
        print_note(f"{title}: {remark}")
    if len(remarks) > MAX_REASONS:
        print_note(f"{title}: {len(remarks) - MAX_REASONS} more")
