"""Series from files: what is read, and what is said of files that are damaged."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from cdvae_kit.io.series import LabelledSeries, SeriesReadError, class_labels, read_series

TS = """# made for a test
@problemName Toy
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength true
@seriesLength 3
@classLabel true up down
@data
1,2,3:4,5,6:up
3,2,1:6,5,4:down
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(SeriesReadError) as caught:
        read_series(path, **options)  # type: ignore[arg-type]
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_ts_file_gives_channels_and_labels(tmp_path: Path) -> None:
    found = read_series(written(tmp_path, "toy.ts", TS))
    assert found.values.tolist() == [[[1, 2, 3], [4, 5, 6]], [[3, 2, 1], [6, 5, 4]]]
    assert found.labels == ("up", "down") and found.values.dtype == torch.float32


def test_a_packed_file_reads_as_the_plain_one(tmp_path: Path) -> None:
    packed = tmp_path / "toy.ts.gz"
    packed.write_bytes(gzip.compress(TS.encode()))
    assert torch.equal(read_series(packed).values, read_series(written(tmp_path, "toy.ts", TS)).values)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a,1,2,3\nb,4,5,6\n", {}),
        ("a\t1\t2\t3\nb\t4\t5\t6\n", {}),
        ("a;1;2;3\r\nb;4;5;6\r\n", {}),
        ("  a  1.0   2.0  3.0\n  b  4 5 6\n", {}),
        ("kind,t0,t1,t2\na,1,2,3\nb,4,5,6\n", {}),
        ("t0,t1,t2,kind\n1,2,3,a\n4,5,6,b\n", {"label_column": "kind"}),
        ("1,2,3,a\n4,5,6,b\n", {"label_column": -1}),
        ('"a",1,2,3\n\n"b",4,5,6', {}),
    ],
)
def test_tables_of_many_forms_hold_the_same_series(tmp_path: Path, text: str, options: dict[str, object]) -> None:
    found = read_series(written(tmp_path, "toy.csv", text), **options)  # type: ignore[arg-type]
    assert found.values.tolist() == [[[1, 2, 3]], [[4, 5, 6]]] and found.labels == ("a", "b")


def test_a_table_without_labels_has_none(tmp_path: Path) -> None:
    found = read_series(written(tmp_path, "toy.csv", "1,2\n3,4\n"), label_column=None)
    assert found.values.shape == (2, 1, 2) and found.labels == ()
    with pytest.raises(ValueError, match="no labels in"):
        class_labels(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("4,5,6:up", "4,x,6:up"), "line 11, channel 2: value 2 is no finite number: 'x'"),
        (("4,5,6:up", "4,inf,6:up"), "line 11, channel 2: value 2 is no finite number"),
        (("1,2,3:4,5,6:up", "1,2,3:up"), "line 11: 1 channels, the head says 2"),
        ((":up\n", "\n"), "line 11: the label '4,5,6' is none of those of the head, up, down"),
        ((":down", ":sideways"), "line 12: the label 'sideways' is none"),
        (("@data\n", ""), "stands before @data"),
        (("@data\n1,2,3:4,5,6:up\n3,2,1:6,5,4:down\n", ""), "no line @data"),
        (("1,2,3:4,5,6:up\n3,2,1:6,5,4:down\n", ""), "holds no series"),
        (("@timeStamps false", "@timeStamps true"), "time stamps"),
        (("6,5,4:down", "6,5:down"), "series of 2 to 3 points (line 12 are shorter"),
        (("6,5,4:down", "6,?,4:down"), "1 missing values (line 12)"),
        (("@dimensions 2", "@dimensions " + "9" * 5000), "line 11: 2 channels, the head says 999"),
    ],
)
def test_a_damaged_ts_file_is_refused_with_the_line(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert change[0] in TS
    assert words in refusal(written(tmp_path, "toy.ts", TS.replace(*change)))


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, "is empty"),
        ("kind,t0,t1\n", {}, "holds no series"),
        ("a,1,2\nb,3,oops\n", {}, "line 2: value 2 is no finite number: 'oops'"),
        ("a,1,oops,3\nb,4,5,6\n", {}, "line 1: value 2"),
        ("a,1,2\n,3,4\n", {}, "line 2: its label is missing"),
        ("a,1,2,3\nb,4,5\n", {}, "series of 2 to 3 points (line 2 are shorter"),
        ("a,1,2,3\nb,4,,6\n", {}, "1 missing values (line 2)"),
        ("k,t0,t1\na,1,2\nb,3,4,5\n", {"label_column": "k"}, "4 cells under 3 names"),
        ("k,t0,t1\na,1,2\n", {"label_column": "kind"}, "no column 'kind'; its columns are 'k', 't0', 't1'"),
        ("a,1,2\n", {"label_column": 7}, "no column 7"),
        ("a,1\nb,2\n", {}, "a series of 1 points; 2 at least"),
    ],
)
def test_a_damaged_table_is_refused_with_the_line(
    tmp_path: Path, text: str, options: dict[str, object], words: str
) -> None:
    assert words in refusal(written(tmp_path, "toy.csv", text), **options)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "nowhere.ts")


def test_what_is_refused_can_be_mended_on_request(tmp_path: Path) -> None:
    text = "a,1,2,3,4\nb,?,5,,9\nc,4,5,6,\n"
    path = written(tmp_path, "toy.csv", text)
    refusal(path, unequal="shortest")
    refusal(path, missing="interpolate")
    found = read_series(path, unequal="shortest", missing="interpolate")
    # a gap at the start takes the nearest value; that in the middle is found before the 9 is cut off
    assert found.values[:, 0].tolist() == [[1, 2, 3], [5, 5, 7], [4, 5, 6]]
    assert "has no value at all at line 3" in refusal(
        written(tmp_path, "empty.ts", "@classLabel false\n@data\n?,?\n"), missing="interpolate"
    )


def test_classes_are_shared_by_the_sets_and_numbers_sort_as_numbers() -> None:
    train, test = (LabelledSeries(torch.zeros(len(labels), 1, 2), labels, "") for labels in (("10", "2"), ("2", "1")))
    classes, (first, second) = class_labels(train, test)
    assert classes == ("1", "2", "10") and first.tolist() == [2, 1] and second.tolist() == [1, 0]
    assert class_labels(LabelledSeries(torch.zeros(2, 1, 2), ("b", "10"), ""))[0] == ("10", "b")
