"""Train a classifier twice, exchange the heads, and see the two spaces that they read: absolute, then relative.

Run `python stitch_two_encoders.py`. It takes some seconds, downloads nothing, prints how often encoder and head of
two trainings agree with the label, and draws the spaces into `spaces_absolute.png` and
`spaces_relative.png` in the folder where it runs.

For one's own work, put `RelativeEncoder(encoder, anchors)` around any network that maps a batch to rows, with the same
anchors for every encoder, and train a `relative_head` on it.
"""

import torch
from torch import Tensor, nn

from cdvae_kit.datasets import load_digits
from cdvae_kit.representation.methods.anchors import select_anchors
from cdvae_kit.representation.methods.encoder import as_encoder, embed
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, fit
from cdvae_kit.representation.methods.probing import split_samples
from cdvae_kit.representation.methods.relative import RelativeEncoder, compare_spaces, relative_head, stitching_matrix
from cdvae_kit.representation.panels import Points
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.visualization.experiments import plot_experiment

NUM_ANCHORS = 200
WIDTH = 64


def train(images: Tensor, labels: Tensor, anchors: Tensor | None, seed: int) -> Supervision:
    """An encoder with a head for ten classes, on relative coordinates if there are anchors."""
    with seeded_weights(seed):
        layers = nn.Sequential(nn.Linear(64, 128), nn.Tanh() if seed else nn.ReLU(), nn.Linear(128, WIDTH))
        encoder = as_encoder(layers if anchors is None else RelativeEncoder(layers, anchors), images[:1])
        classifier = Supervision(encoder, 10, head=relative_head(encoder.out_features, 10))
    fit(classifier, (images, labels), FitSettings(num_epochs=60), seed=seed)
    return classifier


def on_a_plane(title: str, features: Tensor, of: Tensor, labels: Tensor) -> Points:
    """Features on the two main directions of the space `of`."""
    directions = torch.linalg.svd(of - of.mean(0), full_matrices=False).Vh[:2]
    x, y = ((features - of.mean(0)) @ directions.T).T
    groups = {str(i): (x[labels == i].tolist(), y[labels == i].tolist()) for i in range(10)}
    return Points(title, groups)


def main() -> None:
    images, labels = load_digits()
    images = images.flatten(1)
    learn, test = split_samples(len(images), test_share=1 / 3, seed=0)
    anchors = images[learn][select_anchors(len(learn), NUM_ANCHORS, generator=make_generator(0))]

    def accuracy(logits: Tensor) -> float:
        return float((logits.argmax(1) == labels[test]).double().mean())

    panels = []
    for name, points in (("absolute", None), ("relative", anchors)):
        trained = [train(images[learn], labels[learn], points, seed) for seed in (0, 1)]
        matrix = stitching_matrix([c.encoder for c in trained], [c.head for c in trained], images[test], accuracy)
        first, second = (embed(c.encoder, images[test]) for c in trained)
        similarity = compare_spaces(first, second)
        print(
            f"{name}: own heads {matrix.diagonal().mean():.3f}, exchanged {matrix[0, 1]:.3f} and {matrix[1, 0]:.3f}; "
            f"cosine of a sample in both {similarity.cosine:.2f}, reciprocal rank {similarity.reciprocal_rank:.2f}"
        )
        for i, features in enumerate((first, second)):
            panels.append(on_a_plane(f"{name}, training {i + 1}", features, first, labels[test]))
    # each pair on two directions of its first space
    for name, pair in (("absolute", panels[:2]), ("relative", panels[2:])):
        plot_experiment(pair).savefig(f"spaces_{name}.png", dpi=150)


if __name__ == "__main__":
    main()
