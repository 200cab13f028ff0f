"""Every kind of file that the package opens: sound ones, and how they are opened."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets.cache import load_crystals
from cdvae_kit.generation.optimization.run_files import RunFiles
from cdvae_kit.generation.optimization.trials import Trials
from cdvae_kit.io import ReadError, read_crystals, read_journal, write_crystals
from cdvae_kit.io.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from cdvae_kit.io.connections import Answer
from cdvae_kit.io.crystals.encoding import journal_header, journal_lines
from cdvae_kit.io.crystals.phases import read_phases
from cdvae_kit.io.result_folder import ResumeError
from cdvae_kit.io.results.files import DamagedResultError, sealed, write_json
from cdvae_kit.io.results.store import ResultStore
from cdvae_kit.io.series import SeriesReadError, read_series
from cdvae_kit.representation.experiments.running import as_json, read_results
from cdvae_kit.representation.protocol import Claim, ExperimentResult
from cdvae_kit.seeding import make_generator
from cdvae_kit.training import SettingsError, apply_overrides, load_preset
from cdvae_kit.training.log import MetricsLog, read_metrics
from cdvae_kit.training.state import load_state, save_state
from tests.campaign.sound_cifs import CIFS
from tests.models.tiny import some_crystals

FOREIGN = re.compile(
    r"NoneType|index out of range|has no attribute|not subscriptable|not iterable|unhashable"
    r"|invalid literal(?!/length)"
    r"|could not convert|unsupported operand|division|modulo|expected str|must be (?:str|real)|takes \d"
    r"|positional argument|keyword arg"
    r"|broadcast|size of tensor|shape '|to unpack|cannot unpack|KeyError|TypeError|IndexError"
    r"|AttributeError|AssertionError|<class"
)
"""Words of Python and its libraries about their own insides, which tell nobody what is wrong with a file."""


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Attributes:
        name: of the kind.
        files: the sound ones.
        place: where a file goes in an empty folder.
        read: opens the folder in which the file lies at `place`; returns what it says.
        refusals: what it may raise, and then with the name of the file or of its folder.
        truth: what it says of each sound file, where a file knows that it is damaged: anything else is a silent fault.
            None where a changed file may be another one.
        beside: other files of the folder.
    """

    name: str
    files: list[bytes]
    place: str
    read: Callable[[Path], Any]
    refusals: tuple[type[Exception], ...] = (ReadError,)
    truth: list[Any] | None = None
    beside: dict[str, bytes] = field(default_factory=dict)


def _read_all(folder: Path, place: str) -> list[str]:
    """The reasons of the records that failed."""
    result = read_crystals(folder / place)
    return [failure.reason for failure in result.failures]


def crystal_targets(folder: Path) -> list[Target]:
    """All formats of crystals, as the package writes them, and some that others write."""
    # few, since what is sound of a file takes most of the time
    plain = some_crystals(2, properties={"energy": torch.tensor([0.5, -1.0])})
    large = some_crystals(5)
    written: dict[str, list[bytes]] = {}
    for ending in (".cif", ".extxyz", ".csv", ".json", ".db", ".parquet", ".cif.gz", ".csv.gz"):
        written[ending] = []
        for number, crystals in enumerate((plain, large)):
            if ending.endswith(".gz") and crystals is large:
                continue
            path = folder / f"sound-{number}{ending}"
            write_crystals(crystals, path)
            written[ending].append(path.read_bytes())
    written[".cif"] += [text.encode() for text in CIFS]
    written[".extxyz"] += [_XYZ.encode()]
    written[".vasp"] = [text.encode() for text in _POSCARS]
    structures = json.loads(written[".json"][0])
    rows = [{"material_id": f"m{i}", "structure": s, "gap": 1.5} for i, s in enumerate(structures)]
    columns = {key: {str(i): row[key] for i, row in enumerate(rows)} for key in rows[0]}
    matbench = {"index": [0, 1], "columns": ["structure", "gap pbe"], "data": [[s, 1.0] for s in structures[:2]]}
    written[".json"] += [json.dumps(tree).encode() for tree in (rows, columns, matbench, _JARVIS, _OPTIMADE)]
    written[".jsonl"] = ["\n".join(json.dumps(row) for row in rows).encode()]
    written[".partial.jsonl"] = [journal_header() + journal_lines(plain)]
    archive = folder / "sound.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for number, text in enumerate(CIFS[1:]):
            file.writestr(f"in/{number}.cif", text)
    written[".zip"] = [archive.read_bytes()]
    saved = folder / "sound.pt"
    cell = {"lengths": torch.full((1, 2, 3), 4.2), "angles": torch.full((1, 2, 3), 90.0)}
    numbers = {"num_atoms": torch.tensor([[2, 2]]), "atom_types": torch.tensor([[55, 17, 55, 17]])}
    torch.save({"frac_coords": torch.rand(1, 4, 3, generator=make_generator(0)), **numbers, **cell}, saved)
    written[".pt"] = [saved.read_bytes()]
    return [
        Target(f"crystals{ending}", files, f"in{ending}", partial(_read_all, place=f"in{ending}"))
        for ending, files in written.items()
    ]


def other_targets() -> list[Target]:
    """Series, the phases of a hull, and what a provider answers."""
    ts = "@univariate false\n@dimensions 2\n@classLabel true up down\n@data\n1,2,3:4,5,6:up\n3,2,1:6,5,4:down\n"
    table = "kind,t0,t1,t2\nsine,0,1,0\nflat,2,2,2\n"
    phases = [{"composition": {"Li": 1, "F": 1}, "energy_per_atom": -4.9, "name": "salt"}]
    return [
        Target(
            "series .ts",
            [ts.encode()],
            "in.ts",
            lambda folder: read_series(folder / "in.ts") and [],
            (SeriesReadError,),
        ),
        Target(
            "series .csv",
            [table.encode(), gzip.compress(table.encode())],
            "in.csv",
            lambda folder: read_series(folder / "in.csv", label_column="kind") and [],
            (SeriesReadError,),
        ),
        Target(
            "page of a provider",
            [json.dumps({**_OPTIMADE, "links": {"next": None}, "meta": {"data_returned": 1}}).encode()],
            "page.json",
            _ask_provider,
        ),
        Target(
            "phases .json",
            [json.dumps(phases).encode()],
            "in.json",
            lambda folder: read_phases(folder / "in.json") and [],
        ),
        Target(
            "phases .csv",
            [b"composition,energy\nLiF,-9.8\nLi2,-3.8\n"],
            "in.csv",
            lambda folder: read_phases(folder / "in.csv") and [],
        ),
    ]


def _ask_provider(folder: Path) -> list[str]:
    """The reasons of the structures that failed, of a provider whose every answer is the page."""
    page = (folder / "page.json").read_bytes()
    with mock.patch("cdvae_kit.io.crystals.optimade.fetch", lambda url, **_: Answer(page, url)):
        result = read_crystals(f"optimade://example.org{folder}?nelements=2")
    return [failure.reason for failure in result.failures]


def own_targets(folder: Path) -> list[Target]:
    """What the package writes for itself."""
    return [
        *_optimization_targets(folder / "optimization"),
        *_training_targets(folder / "training"),
        *_result_targets(folder / "results"),
    ]


_SETTINGS = {"goals": [{"name": "energy", "target": 1.5}], "seed": 3, "model": "abc"}


def _optimization_targets(folder: Path) -> list[Target]:
    crystals = some_crystals(3).replace(material_ids=None)
    codes = torch.rand(3, 5, generator=make_generator(1))
    numbers = {"start": np.arange(3.0), "valid": np.array([1.0, 0.0, np.nan])}
    with RunFiles(folder, _SETTINGS) as files:
        files.keep("batch_0000", Trials(crystals, codes, codes, numbers, (None, "too dense", None)))

    def resume(place: Path) -> Any:
        with RunFiles(place, _SETTINGS, resume=True) as files:
            trials = files.load("batch_0000")
        return None if trials is None else json.dumps(trials.as_table())

    run, trials = (folder / "run.json").read_bytes(), (folder / "trials" / "batch_0000.json").read_bytes()
    good = resume(folder)
    refusals = (DamagedResultError, ResumeError)
    return [
        Target("optimize run.json", [run], "run.json", resume, refusals, [good], {"trials/batch_0000.json": trials}),
        # None: they are made anew
        Target(
            "optimize trials", [trials], "trials/batch_0000.json", resume, refusals, [good, None], {"run.json": run}
        ),
    ]


def _training_targets(folder: Path) -> list[Target]:
    state = {
        "steps": 7, "loss": float("nan"), "pair": (1, 2.5), "weights": {"w": torch.arange(6.0).reshape(2, 3)},
    }  # fmt: skip
    save_state(folder / "state", state)
    log = MetricsLog(folder / "metrics.csv")
    for step in (1, 2):
        log.add({"step": step, "split": "train", "epoch": 0, "seconds": 0.5, "loss": 1.25, "learning_rate": 0.1})
    config, weights = ((folder / "state" / name).read_bytes() for name in ("config.json", "model.safetensors"))
    metrics = (folder / "metrics.csv").read_bytes()

    def again(place: Path) -> Any:
        found = load_state(place)
        return repr({key: value for key, value in found.items() if key != "weights"}), found["weights"]["w"].tolist()

    def preset(place: Path) -> Any:
        path = str(place / "in.toml")
        apply_overrides(load_preset(path), [], model_schema=_cdvae_config(), source=path)
        return []

    def resumed(place: Path) -> Any:
        MetricsLog(place / "metrics.csv", last_step=2)
        return read_metrics(place / "metrics.csv") and [] if (place / "metrics.csv").exists() else []

    save_checkpoint(folder / "model", {"w": torch.arange(6.0)}, {"config": {"width": 3}, "card": {}})
    model = [(folder / "model" / name).read_bytes() for name in ("config.json", "model.safetensors")]
    presets = [path.read_bytes() for path in _preset_files()]
    good = again(folder / "state")
    return [
        Target("state config.json", [config], "config.json", again, (CheckpointError, DamagedResultError), [good],
               {"model.safetensors": weights}),
        Target("state weights", [weights], "model.safetensors", again, (CheckpointError, DamagedResultError), [good],
               {"config.json": config}),
        Target("checkpoint config.json", model[:1], "config.json", lambda place: load_checkpoint(place) and [],
               (CheckpointError,), None, {"model.safetensors": model[1]}),
        Target("metrics.csv", [metrics], "metrics.csv", resumed, (DamagedResultError,)),
        Target("preset", presets, "in.toml", preset, (SettingsError,)),
    ]  # fmt: skip


def _result_targets(folder: Path) -> list[Target]:
    folder.mkdir(parents=True)
    result = ExperimentResult(
        "toy", "a paper", False, (0, 1, 2), {"arm": (0.5, 0.25, 0.125)}, {"part": ({}, {}, {})}, 1.5
    )
    write_json(sealed(as_json(result, [Claim("it helps", (0.5, 0.25, 0.5), 0.25)])), folder / "results.json")

    def results(place: Path) -> Any:
        found, claims = read_results(place)
        return repr((dict(found.arms), found.seeds, claims))

    keys = [bytes([i]) * 32 for i in range(40)]
    values = {key: key * (i + 1) for i, key in enumerate(keys)}
    with ResultStore(folder / "store") as store:
        store.put(values)
    database = next((folder / "store").glob("*.sqlite"))

    def use_store(place: Path) -> Any:
        with ResultStore(place, required=False) as store:
            found = store.get(keys)
            store.put({keys[0]: b"new"})
            again = store.get(keys[:1])
            len(store)
        wrong = [key for key, value in found.items() if value != values[key]]
        # a store that keeps nothing is one way out
        return "wrong" if wrong or again not in ({keys[0]: b"new"}, {}) else "right"

    crystals = folder / "in.csv"
    write_crystals(some_crystals(2), crystals)
    load_crystals(crystals, cache_dir=folder / "cache")
    entry = next((folder / "cache").glob("*.safetensors"))

    def cached(place: Path) -> Any:
        found = load_crystals(place / "in.csv", cache_dir=place / "cache")
        return repr(found.crystals.frac_coords.tolist()), len(found.failures)

    shutil.copytree(folder / "cache", folder / "cache-again")
    crystals_bytes = crystals.read_bytes()
    journal = journal_header() + journal_lines(some_crystals(3))

    def journal_again(place: Path) -> Any:
        return _rows(read_journal(place / "in.partial.jsonl"))

    (folder / "in.partial.jsonl").write_bytes(journal)
    whole = journal_again(folder)
    shorter = [whole[:1], whole[:2], []]
    return [
        Target("results.json", [(folder / "results.json").read_bytes()], "results.json", results,
               (DamagedResultError, ValueError), [results(folder)]),
        Target("result store", [database.read_bytes()], database.name, use_store, (), ["right"]),
        Target("crystals cache", [entry.read_bytes()], f"cache/{entry.name}", cached, (), [cached(folder)],
               {"in.csv": crystals_bytes}),
        # a last line that is cut short is left out
        Target("resumed journal", [journal], "in.partial.jsonl", journal_again, (ReadError,), [whole, *shorter]),
    ]  # fmt: skip


def _rows(crystals: CrystalBatch | None) -> list[Any]:
    if crystals is None:
        return []
    parts = [crystals.select([i]) for i in range(len(crystals))]
    return [[one.frac_coords.tolist(), one.lattice.tolist(), one.atomic_numbers.tolist()] for one in parts]


def _cdvae_config() -> Any:
    from cdvae_kit.models import CDVAEConfig

    return CDVAEConfig


def _preset_files() -> list[Path]:
    import cdvae_kit.training

    return sorted((Path(os.fspath(cdvae_kit.training.__path__[0])) / "presets").glob("*.toml"))


_POSCARS = (
    "salt\n1.0\n3.9 0 0\n0 3.9 0\n0 0 3.9\nCs Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n",
    "salt\n-54\n3 0 0\n0 3 0\n0 0 3\nCs Cl\n1 1\nSelective dynamics\nCartesian\n0 0 0 T T F\n1.5 1.5 1.5 F F F\n",
)
_XYZ = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 energy=-1.5 pbc="T T T"\nCs 0 0 0\nCl 2 2 2\n'
_JARVIS = [
    {"jid": "JVASP-1", "gap": 1.0, "atoms": {"lattice_mat": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "cartesian": False,
     "coords": [[0, 0, 0], [0.5, 0.5, 0.5]], "elements": ["Cs", "Cl"]}}
]  # fmt: skip
_OPTIMADE = {
    "data": [
        {"id": "1", "type": "structures", "attributes": {
            "lattice_vectors": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "cartesian_site_positions": [[0, 0, 0], [2, 2, 2]],
            "species_at_sites": ["Cs", "Cl"],
            "species": [{"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in ("Cs", "Cl")]}}
    ],
    "meta": {},
}  # fmt: skip
