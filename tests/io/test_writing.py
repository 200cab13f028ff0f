"""What is written is read back the same, opens in other programs, and is never half there."""

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.lattice import metric_tensor, wrap_displacement
from cdvae_kit.io import CrystalWriter, ReadError, read_crystals, read_journal, write_crystals
from cdvae_kit.io.result_folder import InUseError
from cdvae_kit.seeding import make_generator

ENDINGS = [
    ".extxyz",
    ".xyz",
    ".cif",
    "",
    ".db",
    ".parquet",
    ".csv",
    ".json",
    ".extxyz.gz",
    ".cif.gz",
    ".csv.gz",
    ".json.gz",
]
TURNED = {".cif", "", ".csv", ".cif.gz", ".csv.gz"}  # lengths and angles have no orientation
CUBE = torch.eye(3, dtype=torch.float64)[None] * 4.0


def salt(name: str = "salt", energy: float = -1.5) -> CrystalBatch:
    return CrystalBatch(
        torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], dtype=torch.float64),
        CUBE,
        torch.tensor([55, 17]),
        torch.tensor([2]),
        properties={"energy_per_atom": torch.tensor([energy], dtype=torch.float64)},
        material_ids=[name],
    )


@pytest.fixture(scope="module")
def named_zoo(zoo: CrystalBatch) -> CrystalBatch:
    """The zoo with awkward names and properties: ids that look like numbers, dots, blanks, quotes; missing values."""
    values = torch.arange(len(zoo), dtype=torch.float64) * 0.1 - 0.25
    values[2] = float("nan")
    return zoo.replace(
        properties={
            "heat_ref": values,
            "spacegroup.number": torch.arange(1.0, len(zoo) + 1.0).double(),
            "energy": -values,
        },
        material_ids=["007", "1e5", 'a "b" c', "mp-1/2", "é%20", "T"],
    )


def assert_same_crystals(left: CrystalBatch, right: CrystalBatch, *, turned: bool = False) -> None:
    torch.testing.assert_close(left.num_atoms, right.num_atoms)
    assert torch.equal(left.atomic_numbers, right.atomic_numbers)
    left_cell, right_cell = left.lattice.double(), right.lattice.double()
    if turned:
        root = metric_tensor(left_cell).diagonal(dim1=1, dim2=2).amax(1).sqrt()[:, None, None]
        assert float(((metric_tensor(left_cell) - metric_tensor(right_cell)) / root).abs().max()) < 1e-5
    else:
        assert float((left_cell - right_cell).abs().max()) < 1e-5
    moved = wrap_displacement(left.frac_coords.double() - right.frac_coords.double())
    shift = torch.einsum("ni,nij->nj", moved, left_cell[left.batch])
    assert float(shift.abs().max()) < 1e-4


def assert_same_properties(left: CrystalBatch, right: CrystalBatch) -> None:
    for name, values in left.properties.items():
        torch.testing.assert_close(right.properties[name], values, equal_nan=True, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read_back_the_same(named_zoo: CrystalBatch, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"crystals{ending}"
    write_crystals(named_zoo, path)
    result = read_crystals(path, dtype=torch.float64, strict=True)
    assert_same_crystals(named_zoo, result.crystals, turned=ending in TURNED)
    assert_same_properties(named_zoo, result.crystals)
    assert result.crystals.material_ids == named_zoo.material_ids
    assert set(result.crystals.properties) == set(named_zoo.properties)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parquet_keeps_every_bit(named_zoo: CrystalBatch, tmp_path: Path, dtype: torch.dtype) -> None:
    crystals = CrystalBatch(
        named_zoo.frac_coords.to(dtype), named_zoo.lattice.to(dtype), named_zoo.atomic_numbers, named_zoo.num_atoms
    )
    write_crystals(crystals, tmp_path / "c.parquet")
    again = read_crystals(tmp_path / "c.parquet", dtype=dtype).crystals
    assert torch.equal(again.frac_coords, crystals.frac_coords)
    assert torch.equal(again.lattice, crystals.lattice)


def test_poscar_folder_is_read_back_without_properties(named_zoo: CrystalBatch, tmp_path: Path) -> None:
    write_crystals(named_zoo, tmp_path / "poscars", format="poscar_folder")
    again = read_crystals(tmp_path / "poscars", dtype=torch.float64, strict=True).crystals
    assert_same_crystals(named_zoo, again)
    assert again.properties == {}


def _fracs(num_atoms: int) -> st.SearchStrategy[list[list[float]]]:
    return st.lists(
        st.lists(st.floats(0, 1, exclude_max=True, allow_subnormal=False), min_size=3, max_size=3),
        min_size=num_atoms,
        max_size=num_atoms,
    )


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frac_coords=st.integers(1, 4).flatmap(_fracs),
    lengths=st.lists(st.floats(2.0, 30.0), min_size=3, max_size=3),
    name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
        lambda t: t == t.strip()
    ),
    value=st.floats(allow_nan=False, allow_infinity=False, width=32),
)
@pytest.mark.parametrize("ending", [".extxyz", ".cif", ".json", ".csv", ".db"])
def test_any_crystal_survives(
    tmp_path: Path, ending: str, frac_coords: list[list[float]], lengths: list[float], name: str, value: float
) -> None:
    crystals = CrystalBatch(
        torch.tensor(frac_coords, dtype=torch.float64),
        torch.diag(torch.tensor(lengths, dtype=torch.float64))[None],
        torch.arange(len(frac_coords)) + 1,
        torch.tensor([len(frac_coords)]),
        properties={"value": torch.tensor([value], dtype=torch.float64)},
        material_ids=[name],
    )
    path = tmp_path / f"one{ending}"
    write_crystals(crystals, path, overwrite=True)
    again = read_crystals(path, dtype=torch.float64, strict=True, min_distance=None).crystals
    assert_same_crystals(crystals, again, turned=ending in TURNED)
    assert_same_properties(crystals, again)
    assert again.material_ids == [name]


def test_ase_opens_what_is_written(named_zoo: CrystalBatch, tmp_path: Path) -> None:
    import ase.db
    import ase.io

    for ending in (".extxyz", ".cif", ".db"):
        path = tmp_path / f"c{ending}"
        write_crystals(named_zoo, path)
        images = ase.io.read(path, index=":")
        assert [len(atoms) for atoms in images] == named_zoo.num_atoms.tolist()
        assert [z for atoms in images for z in atoms.numbers] == named_zoo.atomic_numbers.tolist()
        for atoms, lattice in zip(images, named_zoo.lattice, strict=True):
            assert abs(atoms.cell.volume - abs(float(torch.linalg.det(lattice)))) < 1e-4
    row = ase.db.connect(tmp_path / "c.db").get(id=4)
    assert row.heat_ref == pytest.approx(0.05) and row.material_id == "mp-1/2"
    assert row.data["properties"]["spacegroup.number"] == 4.0


def test_pymatgen_opens_what_is_written(named_zoo: CrystalBatch, tmp_path: Path) -> None:
    from monty.serialization import loadfn
    from pymatgen.core import Structure

    write_crystals(named_zoo, tmp_path / "c.json.gz")
    structures = loadfn(tmp_path / "c.json.gz")
    assert [type(s) for s in structures] == [Structure] * len(named_zoo)
    assert structures[0].properties["spacegroup.number"] == 1.0
    write_crystals(named_zoo, tmp_path / "cifs")
    for i, path in enumerate(sorted((tmp_path / "cifs").iterdir())):
        opened = Structure.from_file(path)
        assert sorted(opened.atomic_numbers) == sorted(named_zoo.select([i]).atomic_numbers.tolist())
        torch.testing.assert_close(opened.volume, structures[i].volume, rtol=1e-7, atol=0.0)
    write_crystals(named_zoo, tmp_path / "p", format="poscar_folder")
    assert [len(Structure.from_file(p)) for p in sorted((tmp_path / "p").iterdir())] == named_zoo.num_atoms.tolist()


def test_csv_and_parquet_open_in_pandas_in_cdvae_form(named_zoo: CrystalBatch, tmp_path: Path) -> None:
    import pandas
    from pymatgen.core import Structure

    write_crystals(named_zoo, tmp_path / "c.csv.gz")
    write_crystals(named_zoo, tmp_path / "c.parquet")
    for table in (pandas.read_csv(tmp_path / "c.csv.gz"), pandas.read_parquet(tmp_path / "c.parquet")):
        assert {"material_id", "cif", "heat_ref", "spacegroup.number"} <= set(table.columns)
        assert len(Structure.from_str(table["cif"][4], fmt="cif")) == 24


def test_equal_crystals_give_equal_files(
    named_zoo: CrystalBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_crystals(named_zoo, tmp_path / "a.json.gz")
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_crystals(named_zoo, tmp_path / "b.json.gz")
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


@pytest.mark.parametrize("ending", [".extxyz", ".db", ""])
def test_an_existing_path_is_refused_and_stays_as_it_is(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"c{ending}"
    write_crystals(salt("first"), path)
    for attempt in (lambda: write_crystals(salt("second"), path), lambda: CrystalWriter(path)):
        with pytest.raises(FileExistsError, match="exists already"):
            attempt()
    assert read_crystals(path).crystals.material_ids == ["first"]
    write_crystals(salt("second"), path, overwrite=True)
    assert read_crystals(path).crystals.material_ids == ["second"]
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def test_overwriting_a_folder_never_deletes_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for attempt in (
        lambda: write_crystals(salt(), tmp_path, overwrite=True),
        lambda: CrystalWriter(tmp_path, overwrite=True),
    ):
        with pytest.raises(FileExistsError, match=r"thesis\.tex"):
            attempt()
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_wrong_targets_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot tell what to write by the ending of 'c\.xlsx'"):
        write_crystals(salt(), tmp_path / "c.xlsx")
    with pytest.raises(ValueError, match="cannot tell"):
        write_crystals(salt(), tmp_path / "c.parquet.gz")
    with pytest.raises(FileNotFoundError, match="does not exist; create it"):
        CrystalWriter(tmp_path / "no" / "c.cif")
    with pytest.raises(ValueError, match="unknown format 'cifs'"):
        write_crystals(salt(), tmp_path / "c", format="cifs")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the batch is empty"):
        write_crystals(salt().select([]), tmp_path / "c.cif")
    with pytest.raises(ValueError, match="rename the property"):
        write_crystals(salt().replace(properties={"Lattice": torch.ones(1)}), tmp_path / "c.extxyz")
    (tmp_path / "d.cif").mkdir()
    with pytest.raises(IsADirectoryError):
        write_crystals(salt(), tmp_path / "d.cif", format="cif", overwrite=True)
    assert [child.name for child in tmp_path.iterdir()] == ["d.cif"]


def test_writer_gathers_what_is_appended(tmp_path: Path) -> None:
    with CrystalWriter(tmp_path / "c.cif") as writer:
        for i in range(3):
            writer.append(salt(f"s{i}"))
            assert read_crystals(writer.journal).crystals.material_ids == [f"s{k}" for k in range(i + 1)]
        assert writer.num_crystals == 3
        assert not (tmp_path / "c.cif").exists()
    assert read_crystals(tmp_path / "c.cif").crystals.material_ids == ["s0", "s1", "s2"]
    assert [child.name for child in tmp_path.iterdir()] == ["c.cif"]


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (RuntimeError, ".extxyz"),
        (KeyboardInterrupt, ".db"),
        (KeyboardInterrupt, ".parquet"),
        (SystemExit, ".json.gz"),
        (KeyboardInterrupt, ""),
    ],
)
def test_leaving_early_leaves_a_valid_file(tmp_path: Path, error: type[BaseException], ending: str) -> None:
    path = tmp_path / f"c{ending}"
    with pytest.raises(error):
        _append_and_raise(CrystalWriter(path), "done", error)
    assert read_crystals(path, strict=True).crystals.material_ids == ["done"]
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def test_an_append_that_breaks_off_leaves_no_half_crystal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with CrystalWriter(tmp_path / "c.cif") as writer:
        writer.append(salt("first"))
        monkeypatch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            writer.append(salt("lost"))
        monkeypatch.undo()
        writer.append(salt("second"))
        assert read_crystals(writer.journal, strict=True).crystals.material_ids == ["first", "second"]
    assert read_crystals(tmp_path / "c.cif").crystals.material_ids == ["first", "second"]


def test_a_writer_that_got_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), CrystalWriter(tmp_path / "c.cif"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_goes_on_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "c.extxyz"
    for name in ("first", "second"):
        with pytest.raises(KeyboardInterrupt):
            _append_and_raise(CrystalWriter(path, resume=True), name, KeyboardInterrupt)
    assert read_crystals(path).crystals.material_ids == ["first", "second"]


def test_a_journal_keeps_odd_crystals_bit_by_bit(tmp_path: Path, zoo: CrystalBatch) -> None:
    odd = zoo.replace(lattice=zoo.lattice * torch.tensor([1.0, 0.0, float("nan"), 1.0, 1.0, 1.0])[:, None, None])
    writer = CrystalWriter(tmp_path / "c.parquet")
    writer.__enter__()
    writer.append(odd)
    again = read_journal(writer.journal)
    assert again is not None and again.material_ids is None
    torch.testing.assert_close(again.lattice, odd.lattice, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(again.frac_coords, odd.frac_coords)
    writer.__exit__(None, None, None)
    result = read_crystals(tmp_path / "c.parquet")
    assert (len(result.crystals), len(result.failures)) == (4, 2)


def test_a_damaged_journal_is_told_and_kept(tmp_path: Path) -> None:
    with CrystalWriter(tmp_path / "c.cif") as writer:
        writer.append(salt("a"))
        writer.append(salt("b"))
        lines = writer.journal.read_bytes().splitlines(keepends=True)
    (tmp_path / "c.cif").unlink()
    assert b"0.5" in lines[1]
    for content, message in (
        (lines[0] + lines[1][:20] + b"\n" + lines[2], r"line 2 of .* is damaged"),
        (lines[0] + lines[1].replace(b"0.5", b"0.4", 1) + lines[2], r"line 2 of .*does not fit its checksum"),
        (lines[0] + lines[2] + lines[1], r"line 2 of .*lines are missing, or out of order"),
        (b'{"kind": "other"}\n', "is no journal of crystals"),
    ):
        writer.journal.write_bytes(content)
        with pytest.raises(ReadError, match=message):
            CrystalWriter(tmp_path / "c.cif", resume=True).__enter__()
        assert writer.journal.read_bytes() == content


def test_a_journal_from_before_there_were_checksums_is_read(tmp_path: Path) -> None:
    with CrystalWriter(tmp_path / "c.cif") as writer:
        writer.append(salt("a"))
        head, line = writer.journal.read_text().splitlines()
    # the checksum and the place come first
    writer.journal.write_text(f"{head}\n{{{line.split(', ', 2)[2]}\n")
    assert read_journal(writer.journal).material_ids == ["a"]
    assert read_crystals(writer.journal, strict=True).crystals.material_ids == ["a"]


def test_a_second_writer_of_the_same_file_is_refused(tmp_path: Path) -> None:
    with CrystalWriter(tmp_path / "c.cif") as writer:
        writer.append(salt("a"))
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(InUseError, match=rf"c\.cif is in use by process {os.getpid()}"):
                CrystalWriter(tmp_path / "c.cif", **options).__enter__()
    assert read_crystals(tmp_path / "c.cif").crystals.material_ids == ["a"]
    assert [child.name for child in tmp_path.iterdir()] == ["c.cif"]


SAMPLER = """
import sys, time, torch
from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.io import CrystalWriter
cell, species = 4 * torch.eye(3)[None], torch.tensor([55, 17])
salt = CrystalBatch(torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]), cell, species, torch.tensor([2]))
with CrystalWriter(sys.argv[1], resume=True) as writer:
    print("open", writer.num_crystals, flush=True)
    while writer.num_crystals < int(sys.argv[2]):
        writer.append(salt.replace(material_ids=[str(writer.num_crystals)]))
        if writer.num_crystals % 10 == 0:
            print(writer.num_crystals, flush=True)
"""


def test_a_killed_run_goes_on_with_nothing_lost_or_repeated(tmp_path: Path) -> None:
    path = tmp_path / "c.extxyz"
    process = _start(SAMPLER, str(path), "1000000")
    assert process.stdout is not None
    while "40" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not path.exists()
    journal = path.with_name("c.extxyz.partial.jsonl")
    with journal.open("ab") as file:
        file.write(b'{"material_id": "half of a li')
    with pytest.raises(FileExistsError, match="resume=True"):
        CrystalWriter(path)
    survived = len(read_crystals(journal).crystals)
    assert survived >= 40
    output = _start(SAMPLER, str(path), str(survived + 20)).communicate()[0]
    assert f"open {survived}" in output
    assert read_crystals(path).crystals.material_ids == [str(i) for i in range(survived + 20)]
    assert not journal.exists()


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.io import write_crystals
generator = torch.Generator().manual_seed(0)
frac_coords, lattice = torch.rand(4000, 3, generator=generator), 4 * torch.eye(3).expand(2000, 3, 3)
crystals = CrystalBatch(frac_coords, lattice, torch.tensor([55, 17] * 2000), torch.tensor([2] * 2000))
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for name in ("c.extxyz", "c.cif", "c.csv.gz", "c.json", "c.parquet", "c.db", "kept.extxyz"):
    try:
        write_crystals(crystals, folder / name, overwrite=True)
    except OSError as error:
        print("refused", name)
"""


def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    write_crystals(salt("kept"), tmp_path / "kept.extxyz")
    process = _start(FULL_DISK, str(tmp_path))
    output = process.communicate()[0]
    assert output.count("refused") == 7, output
    assert [child.name for child in tmp_path.iterdir()] == ["kept.extxyz"]
    assert read_crystals(tmp_path / "kept.extxyz").crystals.material_ids == ["kept"]


def test_a_failing_last_write_keeps_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cdvae_kit.io.atomic as atomic

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = CrystalWriter(tmp_path / "c.extxyz")
    writer.__enter__()
    writer.append(salt("safe"))
    monkeypatch.setattr(atomic.os, "replace", refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        writer.__exit__(None, None, None)
    monkeypatch.undo()
    assert "partial.jsonl" in caught.value.__notes__[0]
    assert read_crystals(writer.journal).crystals.material_ids == ["safe"]
    assert not (tmp_path / "c.extxyz").exists()


def test_a_truncated_file_is_told_from_a_whole_one(tmp_path: Path, named_zoo: CrystalBatch) -> None:
    write_crystals(named_zoo, tmp_path / "c.json.gz")
    whole = (tmp_path / "c.json.gz").read_bytes()
    (tmp_path / "cut.json.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError, match="truncated gzip"):
        read_crystals(tmp_path / "cut.json.gz")
    json.loads(gzip.decompress(whole))


@pytest.mark.parametrize("ending", [".extxyz", ".cif", ".db", ".parquet", ".csv", ".json"])
@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 0.0])
def test_a_crystal_gone_wrong_is_written_and_then_told(tmp_path: Path, ending: str, factor: float) -> None:
    broken = salt("broken").replace(lattice=CUBE * factor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_crystals(concatenate([salt("a"), broken, salt("b")]), tmp_path / f"c{ending}")
        result = read_crystals(tmp_path / f"c{ending}")
    assert result.crystals.material_ids == ["a", "b"]
    assert len(result.failures) == 1


def test_random_batches_keep_their_order(tmp_path: Path) -> None:
    num_crystals = 120
    crystals = CrystalBatch(
        torch.rand(num_crystals, 3, generator=make_generator(3), dtype=torch.float64),
        CUBE.expand(num_crystals, 3, 3),
        torch.arange(num_crystals) % 90 + 1,
        torch.ones(num_crystals, dtype=torch.long),
    )
    write_crystals(crystals, tmp_path / "many")
    assert_same_crystals(crystals, read_crystals(tmp_path / "many", dtype=torch.float64).crystals, turned=True)


def _append_and_raise(writer: CrystalWriter, name: str, error: type[BaseException]) -> None:
    with writer:
        writer.append(salt(name))
        raise error


def _start(program: str, *arguments: str) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )
