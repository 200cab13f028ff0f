"""Results as JSON and CSV: what is not a number, what is kept whole, what is refused."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdvae_kit.io.results.files import DamagedResultError, read_json_table, whole_content, write_csv, write_json


def test_json_knows_no_nan(tmp_path: Path) -> None:
    write_json({"a": [math.nan, 1.5, -math.inf], "b": {"c": math.nan}, 3: None}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, 1.5, None], "b": {"c": None}, "3": None}


def test_what_is_no_plain_data_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json({"a": object()}, tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_csv_keeps_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    text = 'Na, Cl "apart"\nby 0.4 Å'
    write_csv([{"reason": text, "valid": False}, {"valid": None}], ["valid", "reason"], tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{"valid": "false", "reason": text}, {"valid": "", "reason": ""}]


def test_rows_that_fail_in_the_middle_leave_nothing(tmp_path: Path) -> None:
    def rows():
        yield {"a": 1}
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_csv(rows(), ["a"], tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(FileExistsError):
        write_json({}, tmp_path / "a.json")
    write_json({}, tmp_path / "a.json", overwrite=True)
    assert (tmp_path / "a.json").read_text() == "{}\n"


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda table: table["c"], r"it lacks 'c'"),
        (lambda table: table["a"][3], "it holds other entries"),
        (lambda table: list(table["b"]), "it holds other entries"),
        (lambda table: table["b"].items(), "it holds other entries"),
        (lambda table: float(next(iter(table))), "it holds other entries"),
        (lambda table: table["a"].index(7), "ValueError: 7 is not in list"),
    ],
)
def test_damage_is_told_in_words_about_the_file(tmp_path: Path, use: Callable[[Any], Any], words: str) -> None:
    path = tmp_path / "a.json"
    write_json({"a": [1], "b": 2}, path)
    with (
        pytest.raises(DamagedResultError, match=rf"a\.json is damaged \({words}.*\); try again"),
        whole_content(path, "try again"),
    ):
        use(read_json_table(path, "try again"))
