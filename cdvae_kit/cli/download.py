"""`generate-crystals download`: a public data set, checked byte for byte."""

from pathlib import Path
from typing import Annotated

import typer

from cdvae_kit.cli.console import download_bars, print_result
from cdvae_kit.cli.options import Overwrite


def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="perov_5, carbon_24, mp_20 or mpts_52.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Of all data sets; the user's cache unless given."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="DIR|URL", help="A mirror, in place of the public address.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fetch a public data set and check it byte for byte.

    What is there already and whole is not fetched again; what was interrupted goes on where it stopped.
    """
    from cdvae_kit.datasets import download_dataset

    with download_bars() as progress:
        paths = download_dataset(name, output, source=source, overwrite=overwrite, progress=progress)
    for path in paths.values():
        print_result(str(path))
