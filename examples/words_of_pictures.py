"""Teach a network without labels: from a crop, tell which visual words occur in the whole picture.

Run `python words_of_pictures.py`. It takes some seconds, downloads nothing, prints what a probe on twenty labels a
class makes of the features and how many words are in use, and draws both, with the patches that the words stand for,
into `words_of_pictures.png` in the folder where it runs. An experiment of minutes: `generate-crystals represent obow`.

For one's own work, put the parts of any image network into `StagedEncoder`, or give any other network `local_features`,
and hand in the transforms that make views of your samples.
"""

import torch
from torch import nn

from cdvae_kit.datasets.composed_images import ComposedImages
from cdvae_kit.representation.encoder import embed
from cdvae_kit.representation.fitting import FitSettings, fit
from cdvae_kit.representation.local_features import StagedEncoder
from cdvae_kit.representation.obow import OnlineBagOfWords, StudentView, perplexity
from cdvae_kit.representation.obow_on_images import patches_of_words
from cdvae_kit.representation.panels import Bars, Curve, Lines, Pictures
from cdvae_kit.representation.probing import linear_probe, over_label_draws
from cdvae_kit.seeding import seeded_weights
from cdvae_kit.transforms import Compose, Identity
from cdvae_kit.transforms.images import Brightness, Crop, Hue
from cdvae_kit.visualization.experiments import plot_experiment

NUM_WORDS = 448


def network() -> StagedEncoder:
    """Its local features see eight pixels: a word can only be a part of a picture."""
    first = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(32), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
    return StagedEncoder([first, second], widths=(32, 64))


def main() -> None:
    # ten coloured shapes on smooth noise, each time in another hue
    images, labels = ComposedImages(range(10), ["hue"], 896, seed=0, image_size=16).tensors()
    test, test_labels = ComposedImages(range(10), ["hue"], 500, seed=1, image_size=16).tensors()
    views = [StudentView(Compose([Crop(0.35, 0.8, size=(12, 12)), Hue(), Brightness(0.7, 1.3)]), count=2)]
    accuracies, curves, patches = {}, {}, torch.empty(0)
    for arm, num_epochs, options in (
        ("untrained", 0, {}),
        ("frozen teacher and words", 10, {"decay": 1.0, "update_words": False}),
        ("online words", 10, {"decay": 0.8}),
    ):
        with seeded_weights(0):
            method = OnlineBagOfWords(network(), Identity(), views, num_words=NUM_WORDS, **options)
        in_use = []
        if num_epochs:

            def watch(share: float, method: OnlineBagOfWords = method, in_use: list[float] = in_use) -> None:
                in_use.append(float(perplexity(method.bags(test[:200])[-1].mean(0))))

            fit(method, images, FitSettings(num_epochs, batch_size=56), seed=0, progress=watch)
            curves[arm] = Curve(range(1, num_epochs + 1), in_use)
            patches = torch.tensor(patches_of_words(method, test)) / 255.0
        score = over_label_draws(
            linear_probe, embed(method.encoder, images), labels, embed(method.encoder, test), test_labels,
            labels_per_class=20,
        )  # fmt: skip
        accuracies[arm] = score.per_draw
        words = f", {in_use[-1]:.0f} of {NUM_WORDS} words in use" if in_use else ""
        print(f"{arm}: accuracy {score.mean:.3f} ± {score.standard_error:.3f}{words}")
    panels = [
        Bars("20 labels a class", "accuracy", accuracies, ("chance", 0.1)),
        Lines("words in use", "epoch", "perplexity of the mean bag", curves),
        Pictures("a row a word: the patches closest to it", patches),
    ]
    plot_experiment(panels).savefig("words_of_pictures.png", dpi=150)


if __name__ == "__main__":
    main()
