"""Structure prediction: one sample for each composition of a split; match rate, RMSE, METRe and cRMSE.

OMP_NUM_THREADS=1 python -m tests.benchmarks.structure_prediction mp_20 DATA --split val --num 1000 --json OUT.json

The protocol is the published one (Jiao et al., DiffCSP, NeurIPS 2023, arXiv 2309.04475): the model is given the
composition of each crystal's primitive cell, number of atoms included, and nothing else, and draws once; pymatgen's
matcher at stol 0.5, ltol 0.3, angle_tol 10. The filtered rate counts a pair where both crystals are valid by distance
and composition (CrystalNN fingerprints are not asked), the unfiltered one every pair. METRe and cRMSE (Martirossyan et
al., arXiv 2509.12178) let any sample of a composition find a reference of it.

The sample is the first candidate of `predict-structure`: the space group and Wyckoff positions that most of K draws and
of the known compounds vote for (`--draws K`, `--known-share`), decoded from the prior's most probable code. Test
crystals are not in the training set, so that what training crystals of the very same composition have is mostly wrong;
--new leaves it out, as somebody does who asks for polymorphs that are not known yet.

DATA is a folder with train, val and test, or the name of a data set. Models are chosen on val; test is for the last
measurement. Seconds are those of this machine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from cdvae_kit import CDVAE
from cdvae_kit.datasets import load_dataset
from cdvae_kit.generation.templates import KNOWN_SHARE, crystals_of, vote
from cdvae_kit.generation.wishes import wishes_of
from cdvae_kit.metrics import polymorphs, reconstruction
from tests.benchmarks.measure import FILTER, about_machine, percent, print_numbers


def measure(
    name_or_path: str,
    data: str,
    *,
    split: str = "val",
    num: int | None = None,
    draws: int = 8,
    seed: int = 0,
    guidance: float = 1.0,
    known_share: float = KNOWN_SHARE,
    new: bool = False,
    with_metre: bool = True,
    steps: int | None = None,
    device: str = "auto",
    num_workers: int = 1,
) -> dict[str, Any]:
    """All numbers of one model on one split, ready for JSON."""
    model = CDVAE.from_pretrained(name_or_path, device=device)
    truth = load_dataset(data, split=split, max_atoms=model.config.max_atoms).crystals
    whole = len(truth)
    if num is not None and num < whole:
        # spread over the split, which may be sorted
        truth = truth.select(torch.arange(num) * whole // num)
    start = time.perf_counter()
    wishes = wishes_of(truth, model)
    known = set(model.known_elements.tolist())
    possible = [i for i, wish in enumerate(wishes) if set(wish.composition or {}) <= known]
    # what the model cannot make is lost
    impossible = len(wishes) - len(possible)
    asked, wishes, truth = len(wishes), [wishes[i] for i in possible], truth.select(possible)
    told = time.perf_counter() - start
    start = time.perf_counter()
    ids = torch.arange(len(wishes), device=model.device)
    votes = vote(model, wishes, draws=draws, ids=ids, seed=seed, guidance=guidance, known_share=known_share, new=new)
    first = [templates[0] for templates in votes]
    predicted, _ = crystals_of(model, wishes, first, ids=ids, seed=seed, guidance=guidance, num_steps=steps)
    seconds = time.perf_counter() - start
    pairs = reconstruction(predicted.plain(), truth, num_workers=num_workers)
    sets = polymorphs(predicted.plain(), truth, num_workers=num_workers) if with_metre else None
    right = (predicted.space_group.cpu() == model.prepare(truth).space_group.cpu()).float().mean()
    return {
        "model": Path(name_or_path).name,
        "data": Path(data).name,
        "split": split,
        "num_crystals": asked,
        "num_with_unknown_elements": impossible,
        "num_in_split": whole,
        "draws": draws,
        "steps": steps if steps is not None else model.config.num_steps,
        "seed": seed,
        "guidance": guidance,
        "known_share": known_share,
        "new": new,
        "match_percent": percent(pairs.num_matches, asked),
        "rmse": pairs.rmse,
        "match_percent_unfiltered": percent(pairs.num_matches_unfiltered, asked),
        "rmse_unfiltered": pairs.rmse_unfiltered,
        "metre_percent": None if sets is None else percent(sets.num_found, sets.num_references + impossible),
        "crmse": None if sets is None else sets.crmse,
        "space_group_percent": round(100.0 * float(right), 2),
        "filter": FILTER,
        "lost": pairs.reasons,
        "seconds": round(seconds, 1),
        "seconds_of_preparation": round(told, 1),
        "machine": about_machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.structure_prediction", description=__doc__)
    parser.add_argument("model", help="a model of the package's own, or the folder of a checkpoint")
    parser.add_argument("data", help="a folder with the splits, or the name of a data set")
    parser.add_argument("--split", default="val", help="val unless given; test is for the last measurement")
    parser.add_argument("--num", type=int, help="so many of them, spread over the split; all unless given")
    parser.add_argument("--draws", type=int, default=8, help="of a composition, which vote")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--known-share", type=float, default=KNOWN_SHARE, help="of known compounds in the votes")
    parser.add_argument("--new", action="store_true", help="leave out what training crystals of the composition have")
    parser.add_argument(
        "--no-metre",
        action="store_true",
        help="leave METRe out: of one element it compares every crystal with all others",
    )
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1, help="processes for the matcher, which is not timed")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    numbers = measure(
        options.model,
        options.data,
        split=options.split,
        num=options.num,
        draws=options.draws,
        seed=options.seed,
        guidance=options.guidance,
        known_share=options.known_share,
        new=options.new,
        with_metre=not options.no_metre,
        steps=options.steps,
        device=options.device,
        num_workers=options.workers,
    )
    print_numbers(numbers, options.json)


if __name__ == "__main__":
    main()
