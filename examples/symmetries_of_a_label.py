"""Ask which transforms leave a label as it is: one multiplier a transform, to nought or up without end.

Run `python symmetries_of_a_label.py`: it trains a small network once without a constraint and once for each transform,
prints what the multipliers say, and draws them into `multipliers.png`. The label is made up, so that the answer is
known: it knows how far the first two numbers lie from the origin, and the sign of the third. Put your own samples and
labels, network and transforms in their place, any that follow `cdvae_kit.transforms.Transform`.
"""

from torch import nn

from cdvae_kit.representation.constrained_on_gaussians import class_losses, gaussian_classes
from cdvae_kit.representation.fitting import FitSettings
from cdvae_kit.representation.invariance_discovery import discover_invariances
from cdvae_kit.representation.panels import Curve, Lines
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.vectors import CoordinateScale, CoordinateShift, PlaneRotation, SignFlip
from cdvae_kit.visualization.experiments import plot_experiment


def main() -> None:
    transforms = {
        "rotate (true)": PlaneRotation(0, 1),
        "shift (true)": CoordinateShift(3, 2.0),
        "flip (false)": SignFlip(2),
        "scale (false)": CoordinateScale((0, 1), 1.0),
    }
    train, validation = (gaussian_classes(size, generator=make_generator(0, size)) for size in (1000, 2000))
    found = discover_invariances(
        lambda: nn.Sequential(nn.Linear(5, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 4)),
        train,
        validation,
        transforms,
        loss_fn=class_losses,
        settings=FitSettings(80, learning_rate=4e-3, schedule="constant"),
        dual_lr=0.02,
        tolerances=(1.5,),
    )
    print(f"validation loss without a constraint {found.validation_loss:.3f}")
    readings = found.at(1.5)
    for name, reading in readings.items():
        print(f"{name:14s} multiplier {reading.dual:6.2f}, slack {reading.slack:6.3f}: {reading.verdict}")
    every = 20
    curves = {
        name: Curve(range(0, len(reading.duals), every), reading.duals[::every]) for name, reading in readings.items()
    }
    figure = plot_experiment([Lines("what each constraint costs", "step", "multiplier γ", curves)])
    figure.savefig("multipliers.png", dpi=150)


if __name__ == "__main__":
    main()
