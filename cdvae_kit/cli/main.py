"""The command's frame: its commands, what they have in common, and the way in."""

import io
import logging
import os
import sys
from typing import Annotated

import typer

from cdvae_kit import __version__
from cdvae_kit.cli.console import log_to_stderr, print_as_it_is, print_error, with_printing_options
from cdvae_kit.cli.download import download
from cdvae_kit.cli.evaluate import evaluate
from cdvae_kit.cli.files import reading_limits
from cdvae_kit.cli.info import info
from cdvae_kit.cli.interpolate import interpolate
from cdvae_kit.cli.neighbors import neighbors
from cdvae_kit.cli.optimize import optimize
from cdvae_kit.cli.outcome import FAILED, ErrorReport
from cdvae_kit.cli.predict import predict
from cdvae_kit.cli.predict_structure import predict_structure
from cdvae_kit.cli.reconstruct import reconstruct
from cdvae_kit.cli.relax import relax
from cdvae_kit.cli.represent import represent
from cdvae_kit.cli.sample import sample
from cdvae_kit.cli.serve_tools import serve_tools
from cdvae_kit.cli.train import train
from cdvae_kit.cli.train_predictor import train_predictor

app = typer.Typer(
    name="generate-crystals",
    help="Generate crystals with the Crystal Diffusion Variational Autoencoder.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    # errors are told by ErrorReport
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
report = ErrorReport()

COMMANDS = (
    *(sample, predict_structure, train, reconstruct, interpolate, neighbors, optimize),
    *(relax, evaluate, predict, train_predictor, represent, download, info, serve_tools),
)
for command in COMMANDS:
    app.command()(report.guard(with_printing_options(command)))


def _print_version(wanted: bool) -> None:
    if wanted:
        print_as_it_is(f"cdvae_kit {__version__}")
        raise typer.Exit


@app.callback()
def frame(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell more of what is going on.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A limit of reading to raise: max_length, max_aspect (angstrom and ratio of a cell), "
            "max_volume_per_atom, min_volume, max_bytes, max_sites, max_operations, max_operation_length (of a CIF), "
            "max_listed_atoms (of a POSCAR or extxyz), max_files, max_ratio (of an archive), max_steps (of a .pt), "
            "max_records, max_seconds (of a provider), max_layers, max_width, max_cutoff, max_constants (of a "
            "checkpoint). Repeatable.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """What holds for every command."""
    report.with_traceback = traceback
    if limit:
        context.with_resource(reading_limits(limit))
    log_to_stderr(logging.INFO if verbose else logging.WARNING)


def main() -> None:
    """Run the command that the command line names."""
    _make_streams_safe()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        # what is still to be written cannot be written either, at the end of the process
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print_error(f"standard output: {error.strerror or error}")
        sys.exit(FAILED)


def _make_streams_safe() -> None:
    """Streams that take any text, whatever the locale's encoding, and that are there even if they were closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - to the end of the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
