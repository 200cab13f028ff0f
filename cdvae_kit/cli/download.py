"""`generate-crystals download`: a public data set, checked byte for byte."""

from pathlib import Path
from typing import Annotated

import typer

from cdvae_kit.cli.console import download_bars, print_result
from cdvae_kit.cli.options import Overwrite


def _completed(incomplete: str) -> list[str]:
    return [name for name in ("perov_5", "carbon_24", "mp_20", "mpts_52") if name.startswith(incomplete)]


def download(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="perov_5, carbon_24, mp_20 or mpts_52.", autocompletion=_completed)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Of all data sets; the user's cache unless given."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="DIR|URL", help="A mirror, in place of the public address.")
    ] = None,
    splits: Annotated[
        list[str] | None,
        typer.Option("--split", metavar="train|val|test", help="Which files; can be repeated; all three unless given."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fetch a public data set and check it byte for byte.

    What is there already and whole is not fetched again; what was interrupted goes on where it stopped.
    """
    from cdvae_kit.datasets import download_dataset

    wanted = list(dict.fromkeys(splits)) if splits else ["train", "val", "test"]

    with download_bars() as progress:
        paths = download_dataset(name, output, source=source, splits=wanted, overwrite=overwrite, progress=progress)
    print_result("\n".join(map(str, paths.values())), files={split: str(path) for split, path in paths.items()})
