"""A headless Chromium that opens files, for tests that ask what a page really does."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    # crystals are drawn by WebGL in software, where there is no card
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    "--enable-logging=stderr",
)


class Opened(NamedTuple):
    """What came of a page: its elements after its scripts ran, and the errors on its console."""

    dom: str
    errors: list[str]


def browser() -> str:
    """The path of a browser, or a test that is skipped."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no browser is installed (looked for {', '.join(NAMES)})")


def open_page(
    page: Path,
    *,
    size: tuple[int, int] = (1280, 900),
    save: tuple[str, ...] = ("--dump-dom",),
    dark: bool = False,
) -> Opened:
    """Opens a file, lets its scripts run for some seconds of its own time, and says what came of it.

    Args:
        page: an HTML file.
        size: of the window, pixels.
        save: what the browser is to do at the end.
        dark: whether its user likes pages dark.
    """
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser(),
            *FLAGS,
            f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}",
            "--virtual-time-budget=20000",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            *save,
            page.resolve().as_uri(),
        ]
        # a group of its own, so that a browser that hangs ends with its children
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True
        )
        try:
            dom, log = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            pytest.fail(f"the browser did not finish {page.name} in 120 s")
    assert process.returncode == 0, log[-2000:]
    return Opened(dom, console_errors(log))


def console_errors(log: str) -> list[str]:
    """Lines of the page's console that tell of an error; what Chromium says of itself is not the page's."""
    return [
        line
        for line in log.splitlines()
        if (found := re.search(r"(\w+):CONSOLE", line))
        and (found.group(1) in ("ERROR", "WARNING") or "Uncaught" in line or "Refused" in line or "violates" in line)
    ]


def screenshot(page: Path, picture: Path, *, size: tuple[int, int]) -> Opened:
    return open_page(page, size=size, save=(f"--screenshot={picture}",))
