"""Options that several commands share, so that they are called and explained alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cdvae_kit.diffusion.sampler_names import SamplerName
from cdvae_kit.io.carried import ModelKind, carried_names, home_of
from cdvae_kit.io.crystals.formats import WriteFormat, query_of

DEFAULT_CHECKPOINT = "mp_20"
"""The weights that the package carries and that every command uses unless told otherwise."""

FormatName = WriteFormat
"""What a command can write: the formats of `cdvae_kit.io.crystals.formats`."""


def _completed(kind: ModelKind) -> Callable[[str], list[str]]:
    """What the shell completes the name of a model to."""
    return lambda incomplete: [name for name in carried_names(home_of(kind)) if name.startswith(incomplete)]


Checkpoint = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        "-c",
        metavar="NAME|PATH",
        help=f"Weights: {', '.join(carried_names(home_of('CDVAE')))}, the folder of a checkpoint or of a run, or "
        "hf:owner/name of the Hugging Face Hub.",
        autocompletion=_completed("CDVAE"),
    ),
]
PredictorCheckpoint = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        "-c",
        metavar="NAME|PATH",
        help=f"A predictor: {', '.join(carried_names(home_of('PropertyPredictor')))}, the folder of a checkpoint or of "
        "a run of train-predictor, or hf:owner/name of the Hugging Face Hub.",
        autocompletion=_completed("PropertyPredictor"),
    ),
]
Sampler = Annotated[
    SamplerName | None,
    typer.Option(
        help="The way to denoise; the model's own unless given. Every model takes flow and heun, one trained with "
        "noise.coordinates=wrapped_normal or gaussian the others too (`info` lists which)."
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute; auto takes the fastest there is.")
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same crystals.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Denoising steps: fewer are faster, more are better.")]
BatchSize = Annotated[
    str,
    typer.Option(metavar="auto|N", help="Crystals at a time: speed and memory; of a result the last digits alone."),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="By suffix: .extxyz, .cif, .db (ASE), .parquet, .csv, .json (also with .gz); none: a folder of CIFs.",
    ),
]
Format = Annotated[FormatName, typer.Option("--format", help="What to write; auto goes by the suffix of the output.")]
AllowOutside = Annotated[
    bool,
    typer.Option(
        "--allow-outside",
        help="Take crystals that the model has never seen the like of (elements, size, group), and say which they are.",
    ),
]
Lenient = Annotated[
    bool,
    typer.Option("--lenient", help="Take files that contradict themselves as their atoms stand, and say so."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output where it exists.")]


def crystals_there(path: Path | None) -> Path | None:
    """A path of crystals that exists, or a question to a provider, as it is; anything else is wrong use."""
    if path is not None and not query_of(path) and not path.exists():
        raise typer.BadParameter(f"Path {str(path)!r} does not exist.")
    return path


def long_words(info: Any) -> list[str]:
    """The long words that an option was declared with, as `--cell/--no-cell`; none where typer makes them of its name.

    Args:
        info: what `typer.Option` gave, within `Annotated`.
    """
    # the first word comes in the place of a default
    declared = (info.default, *(info.param_decls or ()))
    return [word for word in declared if isinstance(word, str) and word.startswith("--")]


def parse_batch_size(value: str) -> int | Literal["auto"]:
    """A positive number or `auto`; anything else is wrong use.

    >>> parse_batch_size("auto"), parse_batch_size("64")
    ('auto', 64)
    """
    if value == "auto":
        return "auto"
    if not value.isdecimal() or int(value) < 1:
        raise typer.BadParameter(f"expected auto or an integer from 1, got {value!r}", param_hint="--batch-size")
    return int(value)
