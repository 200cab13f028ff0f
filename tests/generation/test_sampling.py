"""Sampling into files: nothing lost, nothing repeated, nothing overwritten."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cdvae_kit.crystal.lattice import wrap_displacement
from cdvae_kit.generation import sample_to_file
from cdvae_kit.io import read_crystals, read_journal
from cdvae_kit.models import CDVAE, decoding
from tests.generation.toys import Stop
from tests.models.tiny import MAX_ATOMS, tiny_model


@pytest.fixture(scope="module")
def model() -> CDVAE:
    return tiny_model()


def content(path: Path) -> bytes | list[bytes]:
    return path.read_bytes() if path.is_file() else [file.read_bytes() for file in sorted(path.iterdir())]


def test_the_file_holds_the_crystals_that_are_returned(model: CDVAE, tmp_path: Path) -> None:
    path = tmp_path / "crystals.parquet"
    returned = sample_to_file(model, path, num_crystals=7, seed=3)
    held = read_crystals(path, min_distance=None).crystals
    assert held.material_ids == returned.material_ids == [f"sample_3_{i}" for i in range(7)]
    assert torch.equal(held.atomic_numbers, returned.atomic_numbers)
    torch.testing.assert_close(held.frac_coords.float(), returned.frac_coords)
    assert torch.equal(returned.frac_coords, model.sample(7, seed=3).frac_coords)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_the_batch_size_changes_no_crystal_of_the_file(model: CDVAE, tmp_path: Path, batch_size) -> None:
    expected = model.sample(7, seed=3)
    found = sample_to_file(model, tmp_path / "crystals.parquet", num_crystals=7, seed=3, batch_size=batch_size)
    assert torch.equal(found.atomic_numbers, expected.atomic_numbers)
    assert float(wrap_displacement(found.frac_coords - expected.frac_coords).abs().max()) < 1e-3
    torch.testing.assert_close(found.lattice, expected.lattice, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("suffix", [".extxyz", ".cif", ".parquet", ".json.gz", ".csv", ""])
def test_a_run_that_was_interrupted_and_resumed_ends_in_the_same_file(
    model: CDVAE, tmp_path: Path, suffix: str
) -> None:
    whole, broken = tmp_path / f"whole{suffix}", tmp_path / f"broken{suffix}"
    sample_to_file(model, whole, num_crystals=7, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        sample_to_file(model, broken, num_crystals=7, batch_size=2, progress=Stop(4))
    assert not broken.with_name(broken.name + ".partial.jsonl").exists()
    assert len(read_crystals(broken, min_distance=None).crystals) == 4
    again = sample_to_file(model, broken, num_crystals=7, batch_size=2, resume=True)
    assert again.material_ids == [f"sample_0_{i}" for i in range(7)]
    assert content(broken) == content(whole)


_KILLED = """
import os, signal, sys
from cdvae_kit.generation import sample_to_file
from tests.generation.toys import Stop
from tests.models.tiny import tiny_model

def progress(done, total):
    if done >= 4:
        os.kill(os.getpid(), signal.SIGKILL)

sample_to_file(tiny_model(), sys.argv[1], num_crystals=7, batch_size=2, progress=progress)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_run_that_was_killed_and_resumed_ends_in_the_same_file(model: CDVAE, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    whole, broken = tmp_path / "whole.extxyz", tmp_path / "broken.extxyz"
    sample_to_file(model, whole, num_crystals=7, batch_size=2)
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(broken)],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    journal = tmp_path / "broken.extxyz.partial.jsonl"
    assert not broken.exists() and len(read_journal(journal)) == 4
    # half a line, as a kill within a write leaves it
    with journal.open("a") as file:
        file.write('{"material_id": "sample_0_4", "frac_co')
    with pytest.raises(FileExistsError, match="resume=True"):
        sample_to_file(model, broken, num_crystals=7)
    sample_to_file(model, broken, num_crystals=7, batch_size=2, resume=True)
    assert content(broken) == content(whole)
    assert not journal.exists()


def test_resuming_where_nothing_was_begun_makes_the_whole_file(model: CDVAE, tmp_path: Path) -> None:
    assert len(sample_to_file(model, tmp_path / "new.csv", num_crystals=3, resume=True)) == 3


def test_resuming_a_finished_run_makes_nothing_new(
    model: CDVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "crystals.parquet"
    sample_to_file(model, path, num_crystals=3)
    before = path.read_bytes()
    monkeypatch.setattr(decoding, "sample", lambda *args, **kwargs: pytest.fail("sampled again"))
    assert len(sample_to_file(model, path, num_crystals=3, resume=True)) == 3
    assert path.read_bytes() == before


def test_a_finished_run_can_be_made_longer(model: CDVAE, tmp_path: Path) -> None:
    sample_to_file(model, tmp_path / "long.parquet", num_crystals=8, batch_size=4)
    sample_to_file(model, tmp_path / "short.parquet", num_crystals=4, batch_size=4)
    sample_to_file(model, tmp_path / "short.parquet", num_crystals=8, batch_size=4, resume=True)
    assert content(tmp_path / "short.parquet") == content(tmp_path / "long.parquet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "cannot be resumed with seed 1: its crystal 0 is 'sample_0_0'"),
        ({"num_crystals": 2}, "holds 4 crystals already, more than the 2"),
        ({"num_atoms": MAX_ATOMS}, f"cannot be resumed with num_atoms {MAX_ATOMS}"),
    ],
)
@pytest.mark.parametrize("killed", [False, True])
def test_a_file_of_another_run_is_refused_and_left_as_it_is(
    model: CDVAE, tmp_path: Path, options: dict[str, int], message: str, killed: bool
) -> None:
    path = tmp_path / "crystals.extxyz"
    sample_to_file(model, path, num_crystals=4, batch_size=4)
    if killed:
        journal = tmp_path / "crystals.extxyz.partial.jsonl"
        with pytest.raises(KeyboardInterrupt):
            sample_to_file(model, tmp_path / "b.extxyz", num_crystals=9, batch_size=4, progress=_Copy(journal))
        path.unlink()
        (tmp_path / "b.extxyz").unlink()
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        sample_to_file(model, path, resume=True, **{"num_crystals": 7, **options})
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


class _Copy:
    """Progress that copies the journal after the first crystals, then interrupts."""

    def __init__(self, to: Path) -> None:
        self.to = to

    def __call__(self, done: int, total: int) -> None:
        if done:
            self.to.write_bytes((self.to.parent / "b.extxyz.partial.jsonl").read_bytes())
            raise KeyboardInterrupt


def test_a_file_of_somebody_else_is_refused_and_left_as_it_is(model: CDVAE, tmp_path: Path) -> None:
    path = tmp_path / "theirs.extxyz"
    path.write_text(
        '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3:forces:R:3 pbc="T T T"\nPo 0 0 0 0.1 0.2 0.3\n'
    )
    before = path.read_bytes()
    with pytest.raises(ValueError, match="cannot be resumed"):
        sample_to_file(model, path, num_crystals=3, resume=True)
    assert path.read_bytes() == before


def test_an_existing_file_is_refused_before_any_work(
    model: CDVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "crystals.extxyz"
    path.write_text("mine")
    monkeypatch.setattr(decoding, "sample", lambda *args, **kwargs: pytest.fail("sampled"))
    with pytest.raises(FileExistsError):
        sample_to_file(model, path, num_crystals=3)
    assert path.read_text() == "mine"


def test_an_existing_file_is_replaced_when_told_so(model: CDVAE, tmp_path: Path) -> None:
    path = tmp_path / "crystals.extxyz"
    path.write_text("mine")
    sample_to_file(model, path, num_crystals=3, overwrite=True)
    assert len(read_crystals(path, min_distance=None).crystals) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_crystals": 0}, "num_crystals must be at least 1"),
        ({"batch_size": 0}, "batch_size must be 'auto' or at least 1"),
        ({"sampler": "ddim"}, "unknown sampler 'ddim'"),
        ({"steps": 0}, "num_steps must be at least 1"),
        ({"temperature": -1.0}, "temperature must not be negative"),
        ({"num_atoms": MAX_ATOMS + 1}, "num_atoms must lie in"),
        ({"sampler": "langevin"}, "trained on straight paths"),
    ],
)
def test_wrong_use_leaves_no_file(model: CDVAE, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_to_file(model, tmp_path / "crystals.extxyz", **{"num_crystals": 3, **options})
    assert list(tmp_path.iterdir()) == []


def test_options_reach_the_model(model: CDVAE, tmp_path: Path) -> None:
    size = int(model.sample(1).num_atoms[0])
    crystals = sample_to_file(model, tmp_path / "a.parquet", num_crystals=3, num_atoms=size, temperature=0.5, steps=2)
    expected = model.sample(3, num_atoms=size, temperature=0.5, num_steps=2)
    assert crystals.num_atoms.tolist() == [size] * 3
    assert torch.equal(crystals.frac_coords, expected.frac_coords)
    by_name = sample_to_file(model, tmp_path / "b.parquet", num_crystals=3, sampler="heun", steps=2)
    assert len(by_name) == 3


def test_progress_counts_from_what_is_there_to_all(model: CDVAE, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    sample_to_file(model, tmp_path / "a.parquet", num_crystals=2, batch_size=2)
    sample_to_file(model, tmp_path / "a.parquet", num_crystals=5, batch_size=2, resume=True, progress=progress)
    assert told == [(2, 5), (4, 5), (5, 5)]
