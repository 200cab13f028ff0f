"""Progress on a terminal and without one."""

import os
import subprocess
import sys

import pytest

from cdvae_kit.cli.console import download_bars, print_error, print_note, print_result, progress_bar


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar("Sampling", "crystals") as progress:
        progress(3, 8)
    printed = capsys.readouterr()
    assert "━" in printed.err
    assert "3/8" in printed.err
    assert printed.out == ""


def test_on_a_terminal_each_file_has_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with download_bars() as progress:
        progress("val.csv", 500_000, 1_000_000)
        progress("test.csv", 500_000, None)
    printed = capsys.readouterr().err
    assert "━" in printed
    assert "val.csv" in printed
    assert "test.csv" in printed


def test_without_a_terminal_lines_come_at_most_four_times(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Sampling", "crystals") as progress:
        for done in range(1001):
            progress(done, 1000)
    assert capsys.readouterr().err.count("\n") == 4


@pytest.mark.parametrize("total", [None, 0])
def test_without_a_known_total_nothing_is_printed_and_nothing_fails(
    capsys: pytest.CaptureFixture[str], total: int | None
) -> None:
    with progress_bar("Reading", "crystals") as progress:
        progress(5, total)
    assert (capsys.readouterr().err, progress.num_done) == ("", 5)


def test_control_characters_in_names_are_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    name = "gold\x1b[2J\x1b]0;title\x07\r\x9b"
    print_result(name)
    print_error(name)
    print_note(name)
    found = capsys.readouterr()
    for text in (found.out, found.err):
        assert "\x1b" not in text and "\\x1b[2J" in text and "\x07" not in text and "\x9b" not in text


_MAIN = "import sys; from cdvae_kit.cli.main import main; sys.argv[1:] = ['info', '--help']; main()"


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}])
def test_any_locale_shows_the_help(locale: dict[str, str]) -> None:
    code = _MAIN.replace("'info'", "'evaluate'")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, **locale}, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Usage" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_an_output_that_is_full_or_closed_is_told_in_a_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", _MAIN], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1 and done.stderr == "error: standard output: No space left on device\n"
    closed = subprocess.run(
        f'{sys.executable} -c "{_MAIN}" >&-', shell=True, stderr=subprocess.PIPE, text=True, check=False
    )
    assert closed.returncode == 0 and "Traceback" not in closed.stderr
