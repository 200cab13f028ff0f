"""Writes `claims.md`: every claim of every experiment on representations, from the results of full runs.

python -m tests.benchmarks.claims RESULTS

RESULTS holds one folder an experiment, as `generate-crystals represent all --output RESULTS` or single runs leave them.
The sections of experiments without results there stay as they are.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

from cdvae_kit.representation.experiments.registry import experiment_names, load_experiment
from cdvae_kit.representation.experiments.running import RESULTS, judged, read_results
from cdvae_kit.representation.protocol import SEEDS_OF_A_CLAIM
from cdvae_kit.visualization.report.experiment_page import claims_as_markdown

OUTPUT = Path(__file__).with_name("claims.md")
HEAD = """# Claims of the experiments on representations

Made by `python -m tests.benchmarks.claims RESULTS` from runs on one CPU thread of a machine shared with other work
(seconds are wall clock, of all parts and seeds together). Settings were chosen on other seeds. A mean stands with its
standard error over seeds; a claim holds or fails two of them away from what is asked for, and is undecided otherwise.
Claims about parts that were not run are missing. What is not judged is from earlier runs, whose single seeds were not
kept.
"""


def table_of(folder: Path, name: str) -> str:
    """The section of one experiment; `ValueError` where its results support no claim."""
    path = folder / name / RESULTS
    result, _ = read_results(path)
    if result.quick or len(result.seeds) < SEEDS_OF_A_CLAIM:
        raise ValueError(f"{path} is a trial or has fewer than {SEEDS_OF_A_CLAIM} seeds")
    experiment = load_experiment(name)
    words = [f"generate-crystals represent {name} --seeds {len(result.seeds)} --first-seed {result.seeds[0]}"]
    words += ["--data DATA"] * experiment.reads_data
    missing = ""
    if result.left_out:
        words += [f'--part "{part}"' for part in result.details]
        missing = f" Not run: {', '.join(result.left_out)}."
    day = datetime.date.fromtimestamp(path.stat().st_mtime)
    rows = claims_as_markdown(judged(experiment, result))
    return f"## {name}\n\n{result.paper}. `{' '.join(words)}`, {day}, {result.seconds:.0f} s.{missing}\n\n{rows}"


def sections_of(text: str) -> dict[str, str]:
    """By experiment, what stands under its name.

    >>> sections_of("# Head\\n\\n## a\\n\\nb\\n\\n## c\\n\\nd\\n")
    {'a': '## a\\n\\nb\\n', 'c': '## c\\n\\nd\\n'}
    """
    found = [f"## {section.rstrip()}\n" for section in text.split("\n## ")[1:]]
    return {section.splitlines()[0].removeprefix("## ").strip(): section for section in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    folder = parser.parse_args().results
    there = [name for name in experiment_names() if (folder / name / RESULTS).exists()]
    sections = sections_of(OUTPUT.read_text(encoding="utf-8")) | {name: table_of(folder, name) for name in there}
    OUTPUT.write_text("\n".join([HEAD, *(sections[name] for name in sorted(sections))]), encoding="utf-8")
    missing = [name for name in experiment_names() if name not in there]
    print(f"written to {OUTPUT}, {len(there)} experiments" + f"; as they were {', '.join(missing)}" * bool(missing))


if __name__ == "__main__":
    main()
