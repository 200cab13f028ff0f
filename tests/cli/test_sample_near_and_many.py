"""`generate-crystals sample` with a small model of its own: near given crystals, into parts, and relaxed."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from cdvae_kit.generation.sampling_parts import read_parts
from cdvae_kit.io import read_crystals, write_crystals
from cdvae_kit.models import decoding
from tests.models.tiny import some_crystals, tiny_model

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    model = tiny_model()
    model.save_pretrained(folder)
    return folder


def test_like_gives_crystals_near_those_of_a_file(run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # what the prior draws anew keeps its composition, and what is near a crystal its distance
    monkeypatch.setattr(decoding, "soundness", lambda crystals: torch.full((len(crystals),), decoding.SOUND))
    write_crystals(some_crystals(2), "mine.extxyz")
    words = ("--checkpoint", checkpoint, "--steps", 2, "--num-crystals", 4, "--like", "mine.extxyz", "--allow-outside")
    same = run("sample", *words, "--distance", 0, "--output", "same.parquet")
    assert same.exit_code == 0, same.output
    sizes = read_crystals("same.parquet", min_distance=None).crystals.num_atoms.tolist()
    # in turn
    assert sizes[:2] == sizes[2:]
    far = run("sample", *words, "--distance", 1e6, "--output", "far.parquet")
    assert far.exit_code == 0, far.output
    prior = run("sample", *words[:6], "--output", "prior.parquet")
    assert prior.exit_code == 0, prior.output
    assert Path("far.parquet").read_bytes() == Path("prior.parquet").read_bytes() != Path("same.parquet").read_bytes()


def test_like_needs_a_file_and_a_distance_from_0(run: Run, checkpoint: Path) -> None:
    assert run("sample", "--like", "nowhere.cif").exit_code == 2
    write_crystals(some_crystals(1), "mine.extxyz")
    assert run("sample", "--checkpoint", checkpoint, "--like", "mine.extxyz", "--distance", -1).exit_code == 2


def test_parts_go_into_a_folder_and_go_on(run: Run, checkpoint: Path) -> None:
    words = ("sample", "--checkpoint", checkpoint, "--steps", 2, "--batch-size", 2, "--parts", 2)
    first = run(*words, "--num-crystals", 3)
    assert first.exit_code == 0, first.output
    assert "3 crystals in 2 parts, 2 of them made now" in first.stdout and "written to crystals" in first.stdout
    assert run(*words, "--num-crystals", 5).exit_code == 2
    more = run(*words, "--num-crystals", 5, "--resume")
    assert "5 crystals in 3 parts, 2 of them made now" in more.stdout
    assert [len(part) for part in read_parts("crystals")] == [2, 2, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--parts", 4, "--output", "a.cif"), "parts go into a folder"),
        (("--workers", 2, "--format", "cif"), "Parquet"),
        (("--parts", 4, "--relax", "lj"), "one by one"),
        (("--parts", 0), "--parts"),
        (("--relax", "nothing"), "nothing"),
        (("--relax", "lj", "--output", "folder"), "beside a file"),
    ],
)
def test_wrong_use_ends_with_2_before_a_model_is_loaded(
    run: Run, words: tuple[object, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("cdvae_kit.models.CDVAE.from_pretrained", load)
    result = run("sample", "--checkpoint", "perov_5", *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_relax_writes_the_relaxed_crystals_and_a_table_beside_the_samples(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "cache"))
    words = ("sample", "--checkpoint", checkpoint, "--steps", 2, "--num-crystals", 3, "--relax", "lj")
    result = run(*words)
    assert result.exit_code == 0, result.output
    sampled = read_crystals("crystals.extxyz", min_distance=None).crystals
    relaxed = read_crystals("crystals.relaxed.extxyz", min_distance=None).crystals
    rows = list(csv.DictReader(Path("crystals.relaxation.csv").read_text().splitlines()))
    assert [row["material_id"] for row in rows] == sampled.material_ids
    done = [row["material_id"] for row in rows if row["outcome"] != "failed"]
    assert done and relaxed.material_ids == done
    assert "crystals relaxed" in result.stdout
    # neither is replaced unasked
    assert run(*words).exit_code == 2
    Path("crystals.extxyz").unlink()
    again = run(*words)
    assert again.exit_code == 2 and "crystals.relaxed.extxyz" in again.stderr
    assert not Path("crystals.extxyz").exists()


def test_wishes_are_counted_and_written(run: Run, checkpoint: Path) -> None:
    result = run(
        *("sample", "--checkpoint", checkpoint, "--steps", 2, "--num-crystals", 3, "--num-atoms", 2),
        *("--cell", "conventional", "--output", "asked.csv"),
    )
    assert result.exit_code == 0, result.output
    assert "asked for, number of atoms: 3 of 3 crystals" in result.stdout
    held = read_crystals("asked.csv", min_distance=None).crystals.properties["holds_number_of_atoms"]
    assert held.tolist() == [1.0] * 3
