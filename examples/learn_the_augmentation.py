"""Let a model choose its own augmentation, for samples that will come in another state than the training samples.

Run `python learn_the_augmentation.py`: a small network learns upright digits and is served digits that lean. It prints
the weight that each operation ends with and the accuracy without augmentation, with every operation alike and with the
learnt policy, and draws the weights over training. Put your own encoder and operations (any `Transform`s, `Identity`
among them) in their place, and a few labelled samples of the kind that is to come.
"""

import torch
from torch import Tensor, nn

from cdvae_kit.datasets import load_digits
from cdvae_kit.representation.curriculum import (
    AdaptiveAugmentation,
    AugmentationPolicy,
    CurriculumSettings,
    FixedPolicy,
    average_records,
)
from cdvae_kit.representation.encoder import MLPEncoder, embed
from cdvae_kit.representation.fitting import FitSettings, fit
from cdvae_kit.representation.panels import Curve, Lines
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms import Identity
from cdvae_kit.transforms.images import Erase, Invert, Noise, Rotate, Translate
from cdvae_kit.visualization.experiments import plot_experiment

OPERATIONS = {
    "identity": Identity(),
    "rotate": Rotate(90.0),
    "shift": Translate(0.2),
    "noise": Noise(1.0),
    "invert": Invert(1.0),
    "blank": Erase(1.0, share=1.0),
}
SETTINGS = CurriculumSettings(timescale=200.0, policy_learning_rate=0.02, policy_weight_decay=1e-4)
SPEED = FitSettings(150, batch_size=75, learning_rate=0.05, optimizer="sgd", schedule="constant")


def main() -> None:
    images, labels = load_digits()
    order = torch.randperm(len(images), generator=make_generator(0))
    train, few, test = order.split([300, 300, len(images) - 600])
    # served: turned by up to 60 degrees
    leaning = Rotate(60.0)(images, generator=make_generator(1))
    width, num_operations = 64, len(OPERATIONS)
    policies = {
        "no change": FixedPolicy([float(name == "identity") for name in OPERATIONS]),
        "all alike": FixedPolicy([1.0] * num_operations),
        "learnt": AugmentationPolicy(width, num_operations),
    }
    accuracies: dict[str, Curve] = {}
    for name, policy in policies.items():
        with seeded_weights(0):
            model = AdaptiveAugmentation(
                MLPEncoder([64, 128, width]),
                nn.Linear(width, 10),
                list(OPERATIONS.values()),
                policy,
                SETTINGS,
                validation=(leaning[few], labels[few]),
            )

        def accuracy(model: nn.Module = model) -> float:
            guesses: Tensor = embed(model, leaning[test]).argmax(1)
            return float((guesses == labels[test]).double().mean())

        points: list[tuple[float, float]] = []

        def look(share: float, points: list[tuple[float, float]] = points) -> None:
            if share * 15 >= len(points) + 1:
                points.append((600 * share, accuracy()))

        fit(model, (images[train], labels[train]), SPEED, seed=0, progress=look)
        accuracies[name] = Curve(*zip(*points, strict=True))
        print(f"{name}: accuracy {accuracy():.3f} on leaning digits")
    history = average_records(model.history, 30)
    steps = [record.step for record in history]
    weights = {name: Curve(steps, [record.probabilities[k] for record in history]) for k, name in enumerate(OPERATIONS)}
    print("weights:", ", ".join(f"{name} {curve.y[-1]:.2f}" for name, curve in weights.items()))
    share = Curve(steps, [record.share for record in history])
    panels = [
        Lines("what: weights of the operations", "step", "share", {**weights, "samples augmented": share}),
        Lines("accuracy on leaning digits", "step", "accuracy", accuracies),
    ]
    plot_experiment(panels).savefig("curriculum.png", dpi=150)


if __name__ == "__main__":
    main()
