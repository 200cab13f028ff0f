"""Which transforms does an encoder ignore, and whom does that serve?

Run `python invariances_of_encoders.py`: networks are trained to name objects under one transform each, then frozen. It
prints how far each feels each transform, and how well a probe names *other* objects, under each transform, from its
features, and draws both tables and the objects into `invariances.png`. Put your own networks, images and transforms in
their places: `sensitivity_matrix` takes pictures and makes the views itself.
"""

import torch
from torch import Tensor, nn

from cdvae_kit.datasets import ComposedImages
from cdvae_kit.datasets.composed_images import paired_by
from cdvae_kit.representation.methods.encoder import ConvEncoder
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, fit
from cdvae_kit.representation.methods.invariance_measures import ProbeData, sensitivity_of_pairs, transfer_matrix
from cdvae_kit.representation.panels import Pictures
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.visualization.experiments import plot_experiment

TRANSFORMS = ("rotate", "hue", "translate")
SEEN, UNSEEN = range(10), range(10, 20)
SIDE = 16
"""Pixels."""


def images(classes: range, transforms: tuple[str, ...], num: int, seed: int) -> tuple[Tensor, Tensor]:
    return ComposedImages(classes, transforms, num, seed=seed, image_size=SIDE).tensors()


def train(transforms: tuple[str, ...]) -> nn.Module:
    samples, labels = images(SEEN, transforms, 6000, seed=1)
    with seeded_weights(0):
        encoder = ConvEncoder(in_channels=3, widths=(16, 32, 64))
        objective = Supervision(encoder, len(SEEN))
    fit(objective, (samples, labels), FitSettings(2, batch_size=64, learning_rate=1e-2), seed=0)
    return encoder


def target(transform: str) -> ProbeData:
    samples, labels = images(UNSEEN, (transform,), 1200, seed=2)
    return ProbeData(samples[:600], labels[:600], samples[600:], labels[600:])


def main() -> None:
    networks = {name: train((name,)) for name in TRANSFORMS} | {"none": train(())}
    # two draws of the transform alone: object, background and label stay
    pairs = {
        name: paired_by(ComposedImages(SEEN, [name], 500, seed=3, image_size=SIDE), "transform", (4, 5))
        for name in TRANSFORMS
    }
    felt = sensitivity_of_pairs(networks, pairs, generator=make_generator(0))
    served = transfer_matrix(networks, {name: target(name) for name in TRANSFORMS})
    for name in TRANSFORMS:
        print(
            f"{name:>9}: sensitivity {felt[name, name]:.2f} trained on it, {felt['none', name]:.2f} without; accuracy "
            f"on other objects under it {served[name, name]:.2f} and {served['none', name]:.2f}"
        )
    rows = [ComposedImages([0], [name], 8, seed=6, image_size=32).tensors()[0] for name in TRANSFORMS]
    panels = [
        Pictures("one object under three transforms", torch.stack(rows), TRANSFORMS),
        felt.as_matrix("sensitivity: 0 invariant", row_label="trained on", column_label="transform"),
        served.as_matrix("accuracy on other objects", row_label="trained on", column_label="target has"),
    ]
    plot_experiment(panels).savefig("invariances.png", dpi=150)


if __name__ == "__main__":
    main()
