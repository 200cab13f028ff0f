"""CPU seconds to group Carbon-24's validation crystals, beside pymatgen's `group_structures`, in one run.

OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/test_uniqueness_speed.py -n 0 -s

All have one composition, the hard case: 2,032 crystals are 2,063,496 pairs. Some minutes, most of them pymatgen's.
"""

import time
from pathlib import Path

import pytest

from cdvae_kit.io import read_crystals
from cdvae_kit.metrics import MATCHERS, uniqueness
from cdvae_kit.metrics.crystals import as_arrays
from tests.metrics.same_crystals import group_structures


@pytest.mark.parametrize("name", ["mattergen", "cdvae"])
def test_time_of_grouping_beside_pymatgen(shared_dir: Path, name: str) -> None:
    crystals = as_arrays(read_crystals(shared_dir / "data" / "carbon_24" / "val.csv.gz").crystals)
    start = time.process_time()
    found = uniqueness(crystals, matcher=name)  # type: ignore[arg-type]
    ours = time.process_time() - start
    structures = [crystal.structure() for crystal in crystals]
    start = time.process_time()
    expected = group_structures(structures, MATCHERS[name])
    theirs = time.process_time() - start
    # components of matches join the groups that pymatgen makes in the order of the set, and cut none
    assert all(found.groups[i] == found.groups[first] for i, first in enumerate(expected))
    print(f"\n{name}: {found.num_unique} different of {found.num_crystals}, {len(set(expected))} by pymatgen's rule")
    print(f"{ours:.1f} s of CPU, pymatgen's groups took {theirs:.1f} s: {theirs / ours:.1f} times as fast;")
    print(f"the matcher was asked {found.num_comparisons} times")
