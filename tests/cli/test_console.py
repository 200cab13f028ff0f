"""Progress on a terminal and without one."""

import pytest

from cdvae_kit.cli.console import download_bars, progress_bar


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
