"""How much data does a table of two hops need before it says anything of what is left out?

Run `python coverage_of_a_table.py`, or with a number of tokens: `python coverage_of_a_table.py 32`. It prints the
covered share of the in-domain inputs for growing training sets and draws it into `coverage.png`. For a table of your
own hand its rows to `coverage_depth`: tokens are integers, one column a position, and every input has one label.
"""

import sys

import torch

from cdvae_kit.datasets import TwoHopTask
from cdvae_kit.representation.methods.functional_coverage import coverage_depth
from cdvae_kit.representation.panels import Curve, Lines
from cdvae_kit.visualization.experiments import plot_experiment

EVIDENCE = (1, 2, 3)


def main(num_tokens: int = 24) -> None:
    task = TwoHopTask(num_tokens, "two_hop", seed=0)
    sizes = [round(share * task.largest_training_set) for share in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]
    covered: dict[int, list[float]] = {k: [] for k in EVIDENCE}
    for size in sizes:
        split = task.split(size)
        depth = coverage_depth(
            split.train_tokens, split.train_labels, split.test_tokens, split.test_labels, evidence=EVIDENCE
        )
        inside = depth[split.unseen_facts == 0]
        for k in EVIDENCE:
            covered[k].append(float((inside >= k).to(torch.float64).mean()))
        shares = ", ".join(f"{covered[k][-1]:.3f} at k = {k}" for k in EVIDENCE)
        print(f"{size:6d} training inputs cover {shares}")
    curves = {f"k = {k}": Curve(sizes, covered[k]) for k in EVIDENCE}
    figure = plot_experiment([Lines(f"two hops, {num_tokens} tokens", "training inputs", "covered share", curves)])
    figure.savefig("coverage.png", dpi=150)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
