"""The command's frame: its commands, what they have in common, and the way in."""

import logging
from typing import Annotated

import typer

from cdvae_kit import __version__
from cdvae_kit.cli.console import log_to_stderr, print_as_it_is, with_printing_options
from cdvae_kit.cli.download import download
from cdvae_kit.cli.evaluate import evaluate
from cdvae_kit.cli.info import info
from cdvae_kit.cli.interpolate import interpolate
from cdvae_kit.cli.neighbors import neighbors
from cdvae_kit.cli.optimize import optimize
from cdvae_kit.cli.outcome import ErrorReport
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
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell more of what is going on.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """What holds for every command."""
    report.with_traceback = traceback
    log_to_stderr(logging.INFO if verbose else logging.WARNING)


def main() -> None:
    """Run the command that the command line names."""
    app()


if __name__ == "__main__":
    main()
