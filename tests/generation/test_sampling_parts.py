"""Many crystals into parts: the same ones whatever the workers, nothing lost with them, and memory that stays flat."""

import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from cdvae_kit.crystal.batch import CrystalBatch, concatenate
from cdvae_kit.generation import sample_to_file
from cdvae_kit.generation.drawing import Draws
from cdvae_kit.generation.nearby import Seeds
from cdvae_kit.generation.sampling_parts import read_parts, sample_to_parts
from cdvae_kit.io import read_crystals
from cdvae_kit.io.result_folder import InUseError
from cdvae_kit.models import CDVAE
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.portable import PortableModel
from tests.generation.toys import Stop
from tests.models.tiny import tiny_model

STEPS = 2
DRAWS = Draws(seed=3, steps=STEPS)


@pytest.fixture(scope="module")
def model() -> CDVAE:
    return tiny_model()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def same(first: CrystalBatch, second: CrystalBatch) -> bool:
    return (
        first.material_ids == second.material_ids
        and torch.equal(first.atomic_numbers, second.atomic_numbers)
        and torch.equal(first.frac_coords, second.frac_coords)
        and torch.equal(first.lattice, second.lattice)
    )


def test_parts_hold_the_crystals_of_the_file_to_the_last_bit(model: CDVAE, tmp_path: Path) -> None:
    sample_to_file(model, tmp_path / "one.parquet", num_crystals=11, seed=3, steps=STEPS, batch_size=2)
    made = sample_to_parts(model, tmp_path / "parts", DRAWS, num_crystals=11, part_size=4, batch_size=2)
    assert (made.num_crystals, made.num_parts, made.num_made) == (11, 3, 3)
    parts = list(read_parts(tmp_path / "parts"))
    assert [len(part) for part in parts] == [4, 4, 3]
    assert same(concatenate(parts), read_crystals(tmp_path / "one.parquet", min_distance=None).crystals)


def test_a_part_holds_whole_batches(model: CDVAE, tmp_path: Path) -> None:
    sample_to_parts(model, tmp_path / "parts", DRAWS, num_crystals=7, part_size=4, batch_size=3)
    assert [len(part) for part in read_parts(tmp_path / "parts")] == [6, 1]


def test_two_dask_workers_one_of_them_killed_give_the_same_parts(
    model: CDVAE, tmp_path: Path, dask_cluster: Any
) -> None:
    from dask.distributed import Client

    sample_to_parts(model, tmp_path / "here", DRAWS, num_crystals=60, part_size=2, batch_size=2)
    killed: list[int] = []

    def kill_one(done: int, total: int) -> None:
        if done >= 8 and not killed:
            # the processes of the workers, not of the nannies that watch over them
            with Client(dask_cluster.scheduler_address, set_as_default=False) as client:
                killed.extend(list(client.run(os.getpid).values())[:1])
            os.kill(killed[0], signal.SIGKILL)

    made = sample_to_parts(
        model,
        tmp_path / "there",
        DRAWS,
        num_crystals=60,
        part_size=2,
        batch_size=2,
        backend="dask",
        address=dask_cluster.scheduler_address,
        progress=kill_one,
    )
    assert made.num_made == 30 and killed and killed[0] != os.getpid()
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_gives_the_same_parts(model: CDVAE, tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_crystals": 12, "part_size": 2, "batch_size": 2}
    sample_to_parts(model, tmp_path / "here", DRAWS, **options)
    sample_to_parts(model, tmp_path / "ray", DRAWS, backend="ray", num_workers=2, **options)
    assert contents(tmp_path / "here") == contents(tmp_path / "ray")


@pytest.mark.parametrize("damaged", [b"not a table", b"PAR1" + bytes(40) + (40).to_bytes(4, "little") + b"PAR1"])
def test_a_run_that_was_stopped_makes_the_parts_that_are_missing(model: CDVAE, tmp_path: Path, damaged: bytes) -> None:
    options: dict[str, Any] = {"num_crystals": 10, "part_size": 2, "batch_size": 2}
    sample_to_parts(model, tmp_path / "whole", DRAWS, **options)
    with pytest.raises(KeyboardInterrupt):
        sample_to_parts(model, tmp_path / "broken", DRAWS, progress=Stop(4), **options)
    (tmp_path / "broken" / ".tmp-left-by-a-kill").write_text("half")
    (tmp_path / "broken" / "part-000001.parquet").write_bytes(damaged)
    told: list[int] = []
    made = sample_to_parts(
        model, tmp_path / "broken", DRAWS, resume=True, progress=lambda done, total: told.append(done), **options
    )
    assert made.num_made == 4 and told[0] == 2 and told[-1] == 10
    (tmp_path / "broken" / ".tmp-left-by-a-kill").unlink()
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_a_run_can_be_made_longer_and_not_shorter(model: CDVAE, tmp_path: Path) -> None:
    sample_to_parts(model, tmp_path / "long", DRAWS, num_crystals=9, part_size=4, batch_size=2)
    sample_to_parts(model, tmp_path / "short", DRAWS, num_crystals=5, part_size=4, batch_size=2)
    made = sample_to_parts(model, tmp_path / "short", DRAWS, num_crystals=9, part_size=4, batch_size=2, resume=True)
    assert made.num_made == 2
    assert contents(tmp_path / "short") == contents(tmp_path / "long")
    with pytest.raises(ValueError, match="more crystals already than the 3"):
        sample_to_parts(model, tmp_path / "short", DRAWS, num_crystals=3, part_size=4, batch_size=2, resume=True)


@pytest.mark.parametrize(
    ("draws", "options", "named"),
    [
        (Draws(seed=4, steps=STEPS), {}, "seed was 3 and is 4"),
        (Draws(seed=3, steps=1), {}, "steps was 2 and is 1"),
        (Draws(seed=3, steps=STEPS, conditions=Conditions(num_atoms=2)), {}, "conditions was None"),
        (Draws(seed=3, steps=STEPS, seeds=Seeds(torch.zeros(1, 5), 0.1)), {}, "like was None"),
        (DRAWS, {"part_size": 6}, "part_size was 4 and is 6"),
    ],
)
def test_a_folder_of_another_run_is_refused_and_left_as_it_is(
    model: CDVAE, tmp_path: Path, draws: Draws, options: dict[str, int], named: str
) -> None:
    sample_to_parts(model, tmp_path / "parts", DRAWS, num_crystals=4, part_size=4, batch_size=2)
    before = contents(tmp_path / "parts")
    with pytest.raises(ValueError, match=named):
        sample_to_parts(
            model,
            tmp_path / "parts",
            draws,
            num_crystals=8,
            **{"part_size": 4, "batch_size": 2, **options},  # type: ignore[arg-type]
            resume=True,
        )
    assert contents(tmp_path / "parts") == before


def test_another_model_is_refused(model: CDVAE, tmp_path: Path) -> None:
    sample_to_parts(model, tmp_path / "parts", DRAWS, num_crystals=2, batch_size=2)
    with pytest.raises(ValueError, match="cannot be resumed: model was"):
        sample_to_parts(tiny_model(1), tmp_path / "parts", DRAWS, num_crystals=2, batch_size=2, resume=True)


def test_what_is_there_is_kept_unless_it_may_be_overwritten(model: CDVAE, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    sample_to_parts(model, folder, DRAWS, num_crystals=4, part_size=2, batch_size=2)
    with pytest.raises(FileExistsError, match="holds 3 files of a run"):
        sample_to_parts(model, folder, DRAWS, num_crystals=2, batch_size=2)
    sample_to_parts(model, folder, DRAWS, num_crystals=2, part_size=2, batch_size=2, overwrite=True)
    assert sorted(contents(folder)) == ["part-000000.parquet", "run.json"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"other files \(notes.txt\)"):
        sample_to_parts(model, folder, DRAWS, num_crystals=2, batch_size=2, overwrite=True)


def test_a_second_run_in_the_folder_is_refused_while_the_first_one_works(model: CDVAE, tmp_path: Path) -> None:
    refused: list[bool] = []

    def try_another(done: int, total: int) -> None:
        with pytest.raises(InUseError, match="is in use by"):
            sample_to_parts(model, tmp_path / "parts", DRAWS, num_crystals=2, batch_size=2, resume=True)
        refused.append(True)

    sample_to_parts(model, tmp_path / "parts", DRAWS, num_crystals=2, batch_size=2, progress=try_another)
    assert refused and sorted(contents(tmp_path / "parts")) == ["part-000000.parquet", "run.json"]


def test_each_row_tells_what_was_asked_for_and_whether_it_holds(model: CDVAE, tmp_path: Path) -> None:
    draws = Draws(seed=3, steps=STEPS, conditions=Conditions(num_atoms=2), cell="conventional")
    sample_to_parts(model, tmp_path / "parts", draws, num_crystals=4, batch_size=2)
    (part,) = read_parts(tmp_path / "parts")
    assert part.properties["holds_number_of_atoms"].tolist() == [1.0] * 4
    said = json.loads((tmp_path / "parts" / "run.json").read_text())["conditions"]
    assert "num_atoms=2" in said


def test_the_caller_holds_one_part_at_a_time(model: CDVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all batches that were drawn, only those of a part are ever there at once."""
    import gc
    import weakref

    alive: set[int] = set()
    most = 0
    draw = Draws.draw

    def counted(self: Draws, *args: Any, **options: Any) -> CrystalBatch:
        nonlocal most
        gc.collect()
        batch = draw(self, *args, **options)
        number = max(alive, default=0) + 1
        alive.add(number)
        weakref.finalize(batch.lattice, alive.discard, number)
        most = max(most, len(alive))
        return batch

    monkeypatch.setattr(Draws, "draw", counted)
    sample_to_parts(model, tmp_path / "parts", DRAWS, num_crystals=40, part_size=4, batch_size=2)
    # the two of the part under way, and those of the part before, which its frame may still name
    assert most <= 4


def test_a_portable_model_makes_the_same_crystals(model: CDVAE) -> None:
    portable = PortableModel.of(model)
    again = portable.model(device="cpu")
    assert portable.model(device="cpu") is again and again is not model
    first, second = (one.sample(3, num_steps=STEPS) for one in (model, again))
    assert torch.equal(first.frac_coords, second.frac_coords) and torch.equal(first.lattice, second.lattice)
    assert PortableModel.of(again).digest == portable.digest != PortableModel.of(tiny_model(1)).digest


def test_wrong_use_is_refused(model: CDVAE, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"):
        sample_to_parts(model, file, DRAWS, num_crystals=2)
    with pytest.raises(ValueError, match="at least 1"):
        sample_to_parts(model, tmp_path / "new", DRAWS, num_crystals=0)
    with pytest.raises(FileNotFoundError, match="no parts"):
        next(read_parts(tmp_path))
    assert not (tmp_path / "new").exists()
