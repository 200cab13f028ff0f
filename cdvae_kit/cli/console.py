"""Where the command line prints: results on standard output, progress and errors on standard error."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


def print_result(line: str) -> None:
    """A line on standard output, as it is."""
    output().print(line, markup=False, soft_wrap=True)


def print_error(message: str) -> None:
    errors().print(f"[bold red]error:[/] {escape(message)}")


def print_note(message: str) -> None:
    """A line that is no result: on standard error."""
    errors().print(f"[dim]{escape(message)}[/]")


def log_to_stderr() -> None:
    """What the library logs, from the level of information, as lines on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_VisibleFormatter("%(message)s"))
    logger = logging.getLogger("cdvae_kit")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


class ProgressReport:
    """Shows how far the work is, and knows it afterwards.

    Attributes:
        num_done: what the last call said.
    """

    def __init__(self, show: Callable[[int, int | None], None]) -> None:
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
