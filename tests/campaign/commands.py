"""Every command that writes, on inputs of a few kilobytes, and what it leaves when nothing happens to it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from ctypes import c_long
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ase.build import bulk

from cdvae_kit.crystal.conversion import atoms_to_batch
from cdvae_kit.datasets import registry
from cdvae_kit.io import read_crystals, write_crystals
from cdvae_kit.io.checkpoint import load_checkpoint
from cdvae_kit.io.download import git_blob_id
from cdvae_kit.models import CDVAE
from cdvae_kit.training.log import plot_losses, read_metrics
from tests.models.predictors import known_crystals, ready_predictor
from tests.models.tiny import tiny_model

SECONDS = 300.0
KILLED = -9
_CHANGES_FILES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "sqlite3.connect",
}
_TINY = (
    *("model.max_atoms=6", "model.latent_dim=4", "model.hidden_dim=8", "model.encoder.channels=2"),
    *("model.encoder.lmax=1", "model.encoder.num_convolutions=1", "model.encoder.width=6"),
    *("model.encoder.num_frame_layers=1", "model.score_network.width=6", "model.score_network.num_layers=1"),
    *("model.prior.width=8", "model.prior.num_layers=1", "model.symmetry=none", "max_steps=4", "check_every=2"),
    *("prior_steps=2", "batch_size=4", "log_every=1", "warmup_steps=1"),
)


@dataclass(frozen=True)
class Command:
    """A command line and what it is to leave.

    Attributes:
        words: of the command line.
        go_on: words that are added to go on after a kill, where what is there says that it was begun.
        left: what it leaves, by name: content that does not depend on when it ran.
    """

    words: tuple[str, ...]
    go_on: tuple[str, ...]
    left: Callable[[Path], Any]

    @property
    def name(self) -> str:
        return " ".join(self.words[:2]) if self.words[0] == "train-predictor" else self.words[0]


class Run(NamedTuple):
    """How a command ended: its exit code (-9 killed), what it said, how often it changed a file."""

    code: int
    said: str
    num_changes: int


def preload() -> None:
    """Imports what the commands import, so that forked processes start at once."""
    torch.set_num_threads(1)
    for name in (
        *("cdvae_kit.generation", "cdvae_kit.generation.optimization.run", "cdvae_kit.generation.predictor_training"),
        *("cdvae_kit.generation.relaxing", "cdvae_kit.generation.structure_prediction", "cdvae_kit.metrics.evaluation"),
        *(
            "cdvae_kit.visualization.report.evaluation_page",
            "cdvae_kit.visualization.experiments",
            "botorch",
            "pyarrow.parquet",
        ),
        *(
            "cdvae_kit.training.run",
            "cdvae_kit.metrics.computing.cluster",
            "cdvae_kit.cli.main",
            "ase.db",
            "tensorboard",
        ),
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        # fonts and the signs of axes are read when they are drawn first
        rows = [{"step": step, "split": split, "loss": 10.0**-step} for step in (1, 2) for split in ("train", "val")]
        plot_losses(rows, Path(folder) / "loss.png", prior=[(1, 1.0, 0.01), (2, 0.1, 0.02)])


def make_inputs(folder: Path) -> None:
    """Everything that `commands` read."""
    model = tiny_model()
    model.save_pretrained(folder / "model")
    crystals = known_crystals(20, seed=1)
    predictor = ready_predictor(crystals)
    predictor.calibrate(crystals, out_of_fold=torch.ones(3, 1))
    predictor.save_pretrained(folder / "judge")
    write_crystals(known_crystals(110, seed=2), folder / "in.csv")
    write_crystals(known_crystals(24, seed=2), folder / "short.csv")
    few = model.sample(4, seed=3)
    write_crystals(few.replace(material_ids=[f"s{i}" for i in range(4)]), folder / "few.extxyz")
    (folder / "formulas.txt").write_text(few.structures()[0].composition.formula.replace(" ", "") + "\n")
    metals = [bulk("Cu", "fcc", a=3.5), bulk("Au", "fcc", a=4.2)]
    write_crystals(atoms_to_batch(metals).replace(material_ids=["a", "b"]), folder / "metals.extxyz")
    (folder / "judges.py").write_text("def volume(structures):\n    return [s.volume / len(s) for s in structures]\n")
    (folder / "mirror" / "toy").mkdir(parents=True)
    for split in registry.SPLITS:
        (folder / "mirror" / "toy" / f"{split}.csv").write_text(
            f"{hashlib.sha256(split.encode()).hexdigest()},1\n" * 10_000
        )


def toy_dataset(folder: Path) -> registry.DatasetInfo:
    """A data set whose files are in the mirror that `make_inputs` makes."""
    files = {split: folder / "mirror" / "toy" / f"{split}.csv" for split in registry.SPLITS}
    return registry.DatasetInfo(
        *("toy", "Noise.", "http://127.0.0.1:9/none", {split: git_blob_id(path) for split, path in files.items()}),
        *(dict.fromkeys(files, 100), 5, (), "none", None, None, "none", ()),
    )


def commands(inputs: Path) -> list[Command]:
    """One of each."""
    model, judge, table = str(inputs / "model"), str(inputs / "judge"), str(inputs / "in.csv")
    few, short, device = str(inputs / "few.extxyz"), str(inputs / "short.csv"), ("--device", "cpu")
    outside = ("--allow-outside", "--steps", "2", *device)
    formulas = str(inputs / "formulas.txt")
    searched = (
        "--method",
        "bayesian",
        "--oracle",
        "judges:volume",
        "--property",
        "volume",
        "--num-starts",
        "2",
        "--batch-size",
        "1",
    )
    fitted = ("--from=z", "-c", model, "-d", table, "--property", "room", "max_steps=4", "check_every=2")
    drawn = ("-c", model, "-n", "2", "--steps", "2")
    words: list[tuple[tuple[str, ...], tuple[str, ...], Callable[[Path], Any]]] = [
        (("sample", *drawn, "-n", "6", "--batch-size", "2", "-o", "out.extxyz", *device), ("--resume",),
         _crystals("out.extxyz")),
        (("reconstruct", few, "-c", model, "-o", "out.cif", *outside), (), _crystals("out.cif")),
        (("interpolate", few, few, "-c", model, "-n", "3", "-o", "out", *outside), (), _crystals("out")),
        (("predict-structure", formulas, *drawn, "-o", "out.db", *device), (), _crystals("out.db")),
        (("predict", short, "-c", judge, "-o", "out.csv", *device), (), _bytes("out.csv")),
        (("relax", str(inputs / "metals.extxyz"), "--calculator", "emt", "-o", "out.parquet", *device), (),
         _crystals("out.parquet")),
        (("evaluate", few, "-o", "out", "--no-fingerprints", "--report", *device), (), _evaluation),
        (("optimize", "-c", model, *searched, "--output", "out", *device), ("--resume",), _optimization),
        (("train", "-d", short, "-o", "out", *_TINY, *device), ("--resume",), _training),
        (("train-predictor", *fitted, "-o", "out", *device), ("--overwrite",), _weights("out/model")),
        (("represent", "toy", "--seeds", "2", "--output", "out"), (), _arms),
        (("download", "toy", "--from", str(inputs / "mirror"), "-o", "out"), (),
         _bytes("out/toy/train.csv", "out/toy/test.csv")),
    ]  # fmt: skip
    return [Command(*parts) for parts in words]


def _crystals(name: str) -> Callable[[Path], Any]:
    def left(folder: Path) -> Any:
        # what a model of random weights makes may be any crystal
        found = read_crystals(folder / name, min_distance=None)
        crystals = found.crystals
        return crystals.material_ids, crystals.frac_coords.tolist(), crystals.lattice.tolist(), len(found.failures)

    return left


def _bytes(*names: str) -> Callable[[Path], Any]:
    return lambda folder: [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]


def _weights(name: str) -> Callable[[Path], Any]:
    def left(folder: Path) -> Any:
        tensors = load_checkpoint(folder / name).tensors
        return {key: tensor.double().round(decimals=4).tolist() for key, tensor in sorted(tensors.items())}

    return left


def _evaluation(folder: Path) -> Any:
    found = json.loads((folder / "out" / "metrics.json").read_text())
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    rows = (folder / "out" / "crystals.csv").read_text()
    return found["details"], rows, page.rstrip().endswith("</html>"), (folder / "out" / "rates_by_size.csv").read_text()


def _optimization(folder: Path) -> Any:
    summary = json.loads((folder / "out" / "summary.json").read_text())
    return summary["num_trials"], summary["num_candidates"], (folder / "out" / "history.csv").read_text()


def _training(folder: Path) -> Any:
    rows = [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in read_metrics(folder / "out" / "metrics.csv")
    ]
    CDVAE.from_pretrained(folder / "out" / "model", device="cpu")
    about = json.loads((folder / "out" / "training.json").read_text())
    return repr([{key: round(v, 5) if isinstance(v, float) else v for key, v in row.items()} for row in rows]), about[
        "steps"
    ]


def _arms(folder: Path) -> Any:
    return json.loads((folder / "out" / "results.json").read_text())["arms"]


def run(
    words: tuple[str, ...],
    folder: Path,
    *,
    kill_at: int | None = None,
    kill_after: float | None = None,
    keep_imports: bool = False,
    used: Path | None = None,
) -> Run:
    """Runs the command in a process of its own, in `folder`.

    Args:
        words: of the command line.
        folder: where it runs; its cache and all that it writes is in there.
        kill_at: kill it right before it changes a file for the time of this number, counted from 0.
        kill_after: kill it after so many seconds of the processor's time.
        keep_imports: import here what the command imported there, so that the next ones start with it.
        used: a file outside `folder` for the bytes that are taken in its file system before each change to a file.
    """
    context = multiprocessing.get_context("fork")
    count = context.Value(c_long, 0, lock=False)
    said = folder.parent / f"{folder.name}.said"
    imports = folder.parent / f"{folder.name}.imports" if keep_imports else None
    process = context.Process(target=_child, args=(words, folder, said, count, kill_at, kill_after, imports, used))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return Run(-1, f"it did not end within {SECONDS:.0f} s", count.value)
    assert process.exitcode is not None
    if imports is not None and imports.exists():
        for name in imports.read_text().split():
            # one of the user's own lies in the folder
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    code = KILLED if process.exitcode == -signal.SIGPROF else process.exitcode
    return Run(code, said.read_text(errors="replace") if said.exists() else "", count.value)


def _child(
    words: tuple[str, ...],
    folder: Path,
    said: Path,
    count: Any,
    kill_at: int | None,
    kill_after: float | None,
    imports: Path | None,
    used: Path | None,
) -> None:
    from cdvae_kit.cli.main import main

    known = set(sys.modules)
    descriptor = os.open(said, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - to the end of the process
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.chdir(folder)
    sys.argv = ["generate-crystals", *words]
    root = os.fsencode(folder) + b"/"
    taken = None if used is None else os.open(used, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not _changes(event, arguments, root):
            return
        if count.value == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count.value += 1
        if taken is not None:
            os.write(taken, b"%d\n" % shutil.disk_usage(folder).used)

    sys.addaudithook(watch)
    if kill_after is not None:
        # whose signal nobody handles: it ends the process as a kill does
        signal.setitimer(signal.ITIMER_PROF, kill_after)
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001 - a traceback is what is looked for
        traceback.print_exc()
        code = 99
    if imports is not None:
        imports.write_text("\n".join(name for name in list(sys.modules) if name not in known))
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _changes(event: str, arguments: tuple[Any, ...], root: bytes) -> bool:
    """Whether an audit event is a change to a file under `root`."""
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, int) or not (flags & (os.O_WRONLY | os.O_RDWR) or (mode and set(mode) & set("wax+"))):
            return False
    elif event in _CHANGES_FILES:
        path = arguments[0]
    else:
        return False
    try:
        return os.path.abspath(os.fsencode(path)).startswith(root)
    except (TypeError, ValueError):
        return False


def files_in(folder: Path) -> Iterator[str]:
    """Names of all files and folders but those of the cache; TensorBoard's have one for each run, with its time."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")))
    cut = (name.partition(".tfevents.")[0] for name in names)
    yield from dict.fromkeys(name for name in cut if name.split("/")[0] not in ("cache", "judges.py", "__pycache__"))
