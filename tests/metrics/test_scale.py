"""What large sets cost in memory."""

import json
import subprocess
import sys

import pytest

CODE = """
import json, resource, sys, time
import numpy as np
from cdvae_kit.metrics import Cutoffs, Fingerprint, composition_diversity, coverage, structure_diversity

rng = np.random.default_rng(0)
sets = [
    [Fingerprint(a, b) for a, b in zip(rng.random((10_000, 61)), rng.normal(size=(10_000, 132)))] for _ in range(2)
]
start = time.process_time()
found = coverage(*sets, cutoffs=Cutoffs(2.6, 14.5))
diversity = [measure(vectors) for measure in (structure_diversity, composition_diversity) for vectors in sets]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([peak, time.process_time() - start, found.num_generated, found.cov_recall, min(diversity)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_ten_thousand_against_ten_thousand_fits_in_memory():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=600)
    peak, seconds, num_generated, recall, diversity = json.loads(done.stdout)
    assert num_generated == 10_000 and 0 < recall < 1 and diversity > 0
    # 230 MiB measured; every pair at once would take 1.6 GB a matrix
    assert peak < 512 * 1024**2, f"{peak / 1024**2:.0f} MiB in {seconds:.0f} s"
