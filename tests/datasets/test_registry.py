from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cdvae_kit.datasets import DATASETS, dataset_info, default_data_dir, describe_dataset, download_dataset
from cdvae_kit.datasets.registry import SPLITS
from cdvae_kit.io.download import DownloadError

PUBLIC = [name for name, info in DATASETS.items() if info.url is not None]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_split_is_pinned_by_a_blob_id_and_a_revision(name: str) -> None:
    info = DATASETS[name]
    assert list(info.blob_ids) == list(info.num_crystals) == list(SPLITS)
    assert all(re.fullmatch("[0-9a-f]{40}", blob_id) for blob_id in info.blob_ids.values())
    assert info.url is not None and re.search(r"/[0-9a-f]{40}/data/", info.url) and info.url.endswith(name)


def test_no_two_files_share_a_blob_id() -> None:
    blob_ids = [blob_id for info in DATASETS.values() for blob_id in info.blob_ids.values()]
    assert len(set(blob_ids)) == len(blob_ids) == 12


@pytest.mark.parametrize("name", DATASETS)
def test_the_description_tells_target_unit_licence_and_source(name: str) -> None:
    info = DATASETS[name]
    text = describe_dataset(name)
    assert re.search(rf"property: {info.target}, eV/atom: .*\(the target\)", text)
    assert info.licence in text and all(citation in text for citation in info.citations)
    assert info.target in {item.name for item in info.properties}


def test_registered_files_are_those_of_the_list(shared_dir: Path) -> None:
    listed = dict(re.findall(r"`(\w+/\w+)\.csv`[^|]*\| ([0-9a-f]{40})", (shared_dir / "data/README.md").read_text()))
    ours = {f"{name}/{split}": DATASETS[name].blob_ids[split] for name in PUBLIC for split in SPLITS}
    assert ours == listed


@pytest.mark.parametrize("name", ["perov-5", "Perov5", "perov"])
def test_an_unknown_name_is_answered_with_the_nearest_and_all_known(name: str) -> None:
    with pytest.raises(ValueError, match=r"did you mean 'perov_5'\?.*perov_5, carbon_24, mp_20, mpts_52"):
        dataset_info(name)


def test_a_name_like_no_other_is_answered_with_all_known() -> None:
    with pytest.raises(ValueError, match=r"no data set 'zzz'\. Known are: perov_5"):
        download_dataset("zzz")


def test_the_built_in_set_needs_no_download() -> None:
    with pytest.raises(ValueError, match="nothing to download"):
        download_dataset("ionic_prototypes")


def test_an_unknown_split_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no split 'valid'; it has train, val, test"):
        download_dataset("perov_5", tmp_path, splits=["train", "valid"])
    assert list(tmp_path.iterdir()) == []


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("form", ["path", "file", "http"])
def test_a_mirror_serves_a_public_data_set(
    shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    mirror = shared_dir / "data"
    seen: dict[str, int] = {}
    with served(mirror) if form == "http" else nullcontext(mirror if form == "path" else mirror.as_uri()) as source:
        paths = download_dataset(
            "carbon_24",
            tmp_path,
            source=source,
            splits=["val"],
            progress=lambda name, done, total: seen.update({name: done}),
        )
    assert paths == {"val": tmp_path / "carbon_24" / "val.csv"}
    assert paths["val"].read_bytes() == gzip.decompress((mirror / "carbon_24/val.csv.gz").read_bytes())
    assert list(seen) == ["carbon_24/val.csv"]


def test_a_mirror_with_other_content_is_refused(shared_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mirror/carbon_24").mkdir(parents=True)
    shutil.copy(shared_dir / "data/carbon_24/test.csv.gz", tmp_path / "mirror/carbon_24/val.csv.gz")
    with pytest.raises(DownloadError, match=r"git blob id [0-9a-f]{40}, expected b3e29b92"):
        download_dataset("carbon_24", tmp_path / "out", source=tmp_path / "mirror", splits=["val"])
    assert not (tmp_path / "out/carbon_24/val.csv").exists()


def test_the_cache_of_the_user_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "cdvae_kit" / "datasets"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_data_dir() == Path.home() / ".cache" / "cdvae_kit" / "datasets"


def test_the_registry_costs_no_heavy_import() -> None:
    code = "import sys, cdvae_kit.datasets.registry; print({'torch', 'pymatgen'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
