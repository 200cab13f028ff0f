"""Writes `claims.md`: every claim of every experiment on representations, from the results of full runs.

python -m tests.benchmarks.claims RESULTS

RESULTS holds one folder an experiment, as `generate-crystals represent all --output RESULTS` or single runs leave them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cdvae_kit.representation.experiments.registry import experiment_names, load_experiment
from cdvae_kit.representation.experiments.running import RESULTS, read_results
from cdvae_kit.representation.protocol import SEEDS_OF_A_CLAIM
from cdvae_kit.visualization.report.experiment_page import claims_as_markdown

OUTPUT = Path(__file__).with_name("claims.md")
HEAD = """# Claims of the experiments on representations

Made by `python -m tests.benchmarks.claims RESULTS` from full runs on one CPU thread of a machine shared with other work
(seconds are wall clock). Settings were chosen on other seeds. A mean stands with its standard error over seeds; a claim
holds or fails two of them away from what is asked for, and is undecided otherwise.
"""


def table_of(folder: Path, name: str) -> str:
    """The section of one experiment; `ValueError` where its results support no claim."""
    result, _ = read_results(folder / name)
    if result.quick or len(result.seeds) < SEEDS_OF_A_CLAIM:
        raise ValueError(f"{folder / name / RESULTS} is a trial or has fewer than {SEEDS_OF_A_CLAIM} seeds")
    experiment = load_experiment(name)
    data = " --data DATA" * experiment.reads_data
    command = f"generate-crystals represent {name} --seeds {len(result.seeds)} --first-seed {result.seeds[0]}{data}"
    rows = claims_as_markdown(experiment.claims(result))
    return f"\n## {name}\n\n{result.paper}. `{command}`, {result.seconds:.0f} s.\n\n{rows}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    folder = parser.parse_args().results
    there = [name for name in experiment_names() if (folder / name / RESULTS).exists()]
    OUTPUT.write_text(HEAD + "".join(table_of(folder, name) for name in there), encoding="utf-8")
    missing = [name for name in experiment_names() if name not in there]
    print(f"written to {OUTPUT}, {len(there)} experiments" + f"; without {', '.join(missing)}" * bool(missing))


if __name__ == "__main__":
    main()
