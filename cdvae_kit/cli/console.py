"""Where the command line prints: results on standard output, progress and errors on standard error.

Every command has `--json` and `--quiet` (`with_printing_options`), and prints through `print_table`, `print_written`
and `print_result`, which heed them: what it has found is shown, or goes into one JSON document, or is kept quiet.
"""

import functools
import inspect
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.segment import Segment

from cdvae_kit.typing import OpenProgress

PIPE_WIDTH = 160
"""Columns of a table that goes to a file or another program, which have no width of their own."""


_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


def visible(text: str) -> str:
    r"""The text with control characters spelled out: names in files may hold commands to a terminal.

    >>> visible("gold\x1b[2J")
    'gold\\x1b[2J'
    """
    return text.translate(_VISIBLE)


class SafeConsole(Console):
    """A console whose text can move no cursor and set no colour but by its styles."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def output() -> Console:
    """The console for results, on what standard output is now."""
    return SafeConsole(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def errors() -> Console:
    """The console for progress and errors, on what standard error is now."""
    return SafeConsole(stderr=True, soft_wrap=True, highlight=False)


AsJson = Annotated[
    bool, typer.Option("--json", is_eager=True, help="Print what was found as JSON, whole, in place of tables.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", is_eager=True, help="Print neither tables nor progress.")]


@dataclass
class _Printing:
    """How the command that runs prints, and what it has found so far."""

    as_json: bool = False
    quiet: bool = False
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def is_shown(self) -> bool:
        return not (self.as_json or self.quiet)


_PRINTING: ContextVar[_Printing] = ContextVar("printing")


def _printing() -> _Printing:
    return _PRINTING.get(_Printing())


@contextmanager
def printing_as(*, as_json: bool, quiet: bool) -> Iterator[None]:
    """Lets what is printed in the block be a document, which is printed at its end, or nothing."""
    mode = _Printing(as_json, quiet)
    token = _PRINTING.set(mode)
    try:
        yield
        if as_json:
            from cdvae_kit.io.results.files import plain

            print_as_it_is(json.dumps(plain(mode.found), indent=2, ensure_ascii=False, allow_nan=False))
    finally:
        _PRINTING.reset(token)


def with_printing_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with `--json` and `--quiet`."""
    signature = inspect.signature(command, eval_str=True)
    new = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("as_json", AsJson), ("quiet", Quiet))
    ]

    @functools.wraps(command)
    def printing(*args: Any, **kwargs: Any) -> None:
        with printing_as(as_json=bool(kwargs.pop("as_json")), quiet=bool(kwargs.pop("quiet"))):
            command(*args, **kwargs)

    # typer reads the one and the other
    printing.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *new])  # type: ignore[attr-defined]
    printing.__annotations__ = {
        name: parameter.annotation
        for name, parameter in printing.__signature__.parameters.items()  # type: ignore[attr-defined]
    }
    return printing


def print_as_it_is(text: str) -> None:
    """Text on standard output, whatever the options say."""
    output().print(text, markup=False, emoji=False, soft_wrap=True)


def print_result(line: str, **found: Any) -> None:
    """A line on standard output, as it is.

    Args:
        line: for people.
        found: the same for JSON, by name.
    """
    printing = _printing()
    printing.found.update(found)
    if printing.is_shown:
        print_as_it_is(line)


def print_table(table: RenderableType, **found: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> None:
    """A table on standard output.

    Args:
        table: for people.
        found: its rows for JSON, all of them, by name.
    """
    printing = _printing()
    printing.found.update(found)
    if printing.is_shown:
        output().print(table)


def print_written(path: Path) -> None:
    """Says where something has been written to."""
    printing = _printing()
    printing.found.setdefault("written", []).append(str(path))
    if printing.is_shown:
        print_as_it_is(f"written to {path}")


def print_error(message: str) -> None:
    errors().print(f"[bold red]error:[/] {escape(message)}")


def print_note(message: str) -> None:
    """A line that is no result: on standard error."""
    errors().print(f"[dim]{escape(message)}[/]")


def log_to_stderr(level: int = logging.INFO) -> None:
    """What the library logs, from a level, as lines on standard error: each once, however often this is called."""
    logger = logging.getLogger("cdvae_kit")
    for handler in [handler for handler in logger.handlers if isinstance(handler, _Lines)]:
        logger.removeHandler(handler)
    logger.addHandler(_Lines())
    logger.setLevel(logging.ERROR if _printing().quiet else level)


class _Lines(logging.StreamHandler[Any]):
    """Plain lines; a warning or worse says what it is."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(_VisibleFormatter("%(message)s"))

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


class ProgressReport:
    """Shows how far the work is, and knows it afterwards.

    Attributes:
        num_done: what the last call said.
    """

    def __init__(self, show: OpenProgress) -> None:
        self._show = show
        self.num_done = 0

    def __call__(self, done: int, total: int | None) -> None:
        self.num_done = done
        self._show(done, total)


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[ProgressReport]:
    """A function of (done, total) that moves a bar; where there is no terminal, it prints a line each quarter.

    Args:
        title: what is being done, for instance "Sampling".
        unit: what is counted, in the plural.
    """
    console = errors()
    if _printing().quiet:
        yield ProgressReport(lambda done, total: None)
        return
    if not console.is_terminal:
        yield ProgressReport(_QuarterLines(title, unit))
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("[bold]{task.description}"), *columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield ProgressReport(lambda done, total: bar.update(task, completed=done, total=total))


@contextmanager
def download_bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """A function of (file, bytes, bytes in all) with a bar for each file, or lines where there is no terminal."""
    console = errors()
    if _printing().quiet:
        yield lambda name, done, total: None
        return
    if not console.is_terminal:
        lines: dict[str, _QuarterLines] = {}
        yield lambda name, done, total: lines.setdefault(name, _QuarterLines(name, "bytes"))(done, total)
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console
    ) as bar:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=None)
            bar.update(tasks[name], completed=done, total=total)

        yield show


class _QuarterLines:
    def __init__(self, title: str, unit: str) -> None:
        self._title = title
        self._unit = unit
        self._start = time.monotonic()
        self._quarters = 0

    def __call__(self, done: int, total: int | None) -> None:
        if not total:
            return
        quarters = 4 * done // total
        if quarters > self._quarters:
            self._quarters = quarters
            seconds = time.monotonic() - self._start
            print_note(f"{self._title}: {done} of {total} {self._unit}, {seconds:.0f} s")
