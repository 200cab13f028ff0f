"""The table of an evaluation on terminals of several widths."""

import io

import pytest
from rich.console import Console

from cdvae_kit.cli.evaluation_table import WIDE, evaluation_table
from cdvae_kit.metrics.evaluation_result import Evaluation, MetricValue

VALUES = (
    MetricValue(
        "n_gen", 12_000, None, None, 12_000, "validity", "3 could not be read", "generated crystals", "crystals"
    ),
    MetricValue("valid", 0.4, 0.3, 0.5, 5, "validity", "both " * 40, "valid", "share", "higher"),
    MetricValue("wdist_density", 1.25, None, None, 5, "distribution", "", "Wasserstein distance", "g/cm³", "lower"),
    MetricValue("match_rate_unfiltered", 1.0, 1.0, 1.0, 12_000, "reconstruction", "", "match", "share", "higher"),
    MetricValue("vendi_composition_reference", 345.6789, None, None, 2000, "distribution", "", "Vendi score", ""),
    MetricValue("mean_edge", None, None, None, 0, "other", "nothing to see", "mean edge", "Å"),
)


def printed(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    evaluation = Evaluation({value.name: value for value in VALUES}, [], {}, [], [], {})
    console.print(evaluation_table(evaluation, width=width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, WIDE, 200])
def test_no_line_is_longer_than_the_terminal_and_no_number_is_cut(width: int) -> None:
    lines = printed(width)
    assert max(map(len, lines)) <= width
    row = next(line for line in lines if line.strip().startswith("valid ↑"))
    assert "40.00 %" in row and "30.00 to 50.00" in row
    text = "\n".join(lines)
    assert "match_rate_unfiltered ↑" in text and "100.00 to 100.00" in text and "vendi_composition_reference" in text


def test_units_directions_and_headings_are_those_of_the_metrics() -> None:
    text = "\n".join(printed(80))
    for words in ("12,000", "wdist_density ↓", "1.2500 g/cm³", "Distributions and diversity", "Others"):
        assert words in text, words


def test_what_a_number_means_stands_beside_it_or_below() -> None:
    wide, narrow = printed(WIDE), printed(80)
    assert "3 could not be read" in next(line for line in wide if "n_gen" in line)
    assert any(line.strip().startswith("n_gen") and "3 could not be read" in line for line in narrow)
    assert "nothing to see" in "\n".join(narrow)
