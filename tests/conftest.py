"""Fixtures that more than one folder of tests uses."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.lattice import lattice_from_parameters
from cdvae_kit.seeding import make_generator

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder of real crystals that developers have beside the repository; users do not."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "data").is_dir():
        pytest.skip("the developers' folder of real crystals (../shared) is not here")
    return path


def make_crystal(lengths: list[float], angles: list[float], numbers: list[int], seed: int) -> CrystalBatch:
    """One crystal with random coordinates."""
    return CrystalBatch(
        torch.rand(len(numbers), 3, generator=make_generator(seed), dtype=torch.float64),
        lattice_from_parameters(
            torch.tensor([lengths], dtype=torch.float64), torch.tensor([angles], dtype=torch.float64)
        ),
        torch.tensor(numbers),
        torch.tensor([len(numbers)]),
    )


@pytest.fixture(scope="session")
def zoo() -> CrystalBatch:
    """Awkward float64 crystals: one atom, needle, skewed cell shorter than a cutoff, plate, 24 atoms, He beside Pu."""
    return concatenate(
        [
            make_crystal([2.5, 2.5, 2.5], [60.0, 60.0, 60.0], [29], seed=1),
            make_crystal([2.2, 2.3, 21.0], [90.0, 90.0, 90.0], [6, 8], seed=2),
            make_crystal([3.0, 3.4, 3.9], [42.0, 51.0, 63.0], [14, 8, 8], seed=3),
            make_crystal([15.0, 14.0, 2.1], [88.0, 95.0, 119.0], [22, 8, 8, 56], seed=4),
            make_crystal([7.1, 7.9, 8.3], [80.0, 100.0, 111.0], [6] * 24, seed=5),
            make_crystal([3.1, 3.2, 4.1], [90.0, 90.0, 120.0], [2, 94], seed=6),
        ]
    )


@pytest.fixture
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder that nobody may write to, root neither."""
    folder = tmp_path_factory.mktemp("read-only")
    if os.geteuid():
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    # modes say nothing to root
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("root may write everywhere, and nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def dask_cluster() -> Iterator[Any]:
    """Two worker processes of one thread each."""
    distributed = pytest.importorskip("dask.distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster
