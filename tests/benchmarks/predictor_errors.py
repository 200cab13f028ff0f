"""Errors of the predictors that the package carries, on crystals that they have not seen.

`python -m tests.benchmarks.predictor_errors perov_5 heat_ref perov_5/test.csv.gz` prints, for the judge on the crystals
as they are and with their atoms moved at random, and for the predictor from codes, at the posterior's mean and at a
draw from it: the mean absolute error of all, of the crystals at or below a percentile, and the share of values that lie
in the interval. Several properties are given with commas, as in `heat_ref,dir_gap`; the judge is left out for what it
does not know.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets import load_dataset, split_crystals
from cdvae_kit.models import CDVAE, LatentPredictor, PropertyPrediction, PropertyPredictor
from cdvae_kit.seeding import make_generator


def moved(crystals: CrystalBatch, std: float, seed: int) -> CrystalBatch:
    """Each coordinate moved by a normal of standard deviation `std`, angstrom."""
    step = std * torch.randn(crystals.frac_coords.shape, generator=make_generator(seed))
    fractions = torch.linalg.inv(crystals.lattice)[crystals.batch]
    return crystals.replace(frac_coords=crystals.frac_coords + torch.einsum("ni,nij->nj", step, fractions))


def line(about: str, found: PropertyPrediction, truth: torch.Tensor, percentile: float) -> str:
    """One row of the table."""
    error = (found.mean.cpu() - truth).abs()
    there = error.isfinite()
    low = there & (truth <= torch.quantile(truth[truth.isfinite()], percentile / 100.0))
    inside = (error <= found.half_width.cpu())[there].float().mean()
    bias = (found.mean.cpu() - truth)[low].mean()
    return (
        f"{about:40} {int(there.sum()):6} of {len(truth)}  MAE {error[there].mean():.4f}  "
        f"lowest {percentile:g} %: MAE {error[low].mean():.4f}, bias {bias:+.4f}  "
        f"inside {100 * inside:.1f} % (asked {100 * found.coverage:g} %)"
    )


def rows(arguments: argparse.Namespace, crystals: CrystalBatch) -> Iterator[str]:
    """The table, row by row."""
    truths = {name: crystals.properties[name].float() for name in arguments.properties.split(",")}
    if not arguments.latent_only:
        yield from _judged(arguments, crystals, truths)
    if arguments.judge_only:
        return
    autoencoder = CDVAE.from_pretrained(arguments.name, device="cpu")
    latent = LatentPredictor.from_pretrained(arguments.latent or arguments.name, device="cpu")
    latent.check_autoencoder(autoencoder)
    for about, seed in (("from z, the posterior's mean", None), ("from z, a draw", arguments.seed)):
        codes = autoencoder.encode(crystals, seed=seed, allow_outside=True)
        predicted = latent.predict(codes)
        for name, truth in truths.items():
            yield line(f"{name} {about}", predicted[name], truth, arguments.percentile)


def _judged(arguments: argparse.Namespace, crystals: CrystalBatch, truths: dict[str, torch.Tensor]) -> Iterator[str]:
    predictor = PropertyPredictor.from_pretrained(arguments.judge or arguments.name, device="cpu")
    started = time.perf_counter()
    found = predictor.predict(crystals)
    seconds = time.perf_counter() - started
    known = {name: truth for name, truth in truths.items() if name in found}
    for name, truth in known.items():
        yield line(f"{name} by the judge", found[name], truth, arguments.percentile)
        yield f"{'':40} interval +- {found[name].half_width.nanmedian():.4f}"
    yield f"{'':40} {1000 * seconds / len(crystals):.2f} ms a crystal"
    for std in arguments.noise:
        noisy = predictor.predict(moved(crystals, std, arguments.seed))
        for name, truth in known.items():
            yield line(f"{name}, moved by {std:g} angstrom", noisy[name], truth, arguments.percentile)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the weights")
    parser.add_argument("properties", help="one, or several with commas")
    parser.add_argument("data", help="a file of crystals")
    parser.add_argument("--judge", help="a folder in place of the package's own judge")
    parser.add_argument("--latent", help="a folder in place of the package's own predictor from codes")
    parser.add_argument("--judge-only", action="store_true")
    parser.add_argument("--latent-only", action="store_true")
    parser.add_argument("--num", type=int, help="the first so many crystals; all unless given")
    parser.add_argument("--part", nargs=2, type=float, metavar=("LOW", "HIGH"), help="of the ranking by names")
    parser.add_argument("--percentile", type=float, default=15.0)
    parser.add_argument("--noise", type=float, nargs="*", default=[0.025, 0.05])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    crystals = load_dataset(arguments.data).crystals
    if arguments.part:
        low, high = arguments.part
        shares = [share for share in (low, high - low, 1.0 - high) if share > 0.0]
        crystals = split_crystals(crystals, shares, seed=0)[int(low > 0.0)]
    if arguments.num is not None:
        crystals = crystals.select(range(min(arguments.num, len(crystals))))
    for row in rows(arguments, crystals):
        print(row, flush=True)


if __name__ == "__main__":
    main()
