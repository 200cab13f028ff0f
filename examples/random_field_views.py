"""Train any image encoder on views made by random fields, and shake crystals along waves that fit their cells.

Run `python random_field_views.py`: it prints what a probe on ten labels a class makes of the features, how many pixels
the views fold, and how far the atoms of a supercell of rock salt move. Put your own images (b, c, h, w) in [0, 1] and
your own module in the place of the digits and of the small network.
"""

import torch
from torch import nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.periodic_images import shortest_distances
from cdvae_kit.datasets import load_digits
from cdvae_kit.representation.methods.contrastive import SimCLR
from cdvae_kit.representation.methods.encoder import as_encoder, embed
from cdvae_kit.representation.methods.fitting import FitSettings, fit
from cdvae_kit.representation.methods.probing import ProbeScore, linear_probe, over_label_draws, split_samples
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms import Compose, FieldDistribution, RandomFieldColor, RandomFieldDisplacement, RandomFieldWarp


def learn_digits() -> None:
    images, labels = load_digits(side=20)
    warp = RandomFieldWarp(translation=FieldDistribution(local=0.03), rotation=FieldDistribution(most=10.0))
    views = Compose([warp, RandomFieldColor(brightness=FieldDistribution(local=0.2))])
    with seeded_weights(0):
        module = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU(), nn.AvgPool2d(2)),
        )
        encoder = as_encoder(module, images[:2])
        objective = SimCLR(encoder, views)
    train, test = split_samples(len(images), test_share=0.3, seed=0)

    def score() -> ProbeScore:
        features = embed(encoder, images)
        return over_label_draws(
            linear_probe, features[train], labels[train], features[test], labels[test], labels_per_class=10
        )

    before = score()
    fit(objective, images[train], FitSettings(num_epochs=10), seed=0)
    after = score()
    folded = warp.folding_fraction(warp.sample(images, generator=make_generator(0))).mean()
    print(f"accuracy {before.mean:.3f} untrained, {after.mean:.3f} ± {after.standard_error:.3f} trained")
    print(f"folded pixels {folded:.2%}")


def shake_rock_salt() -> None:
    corners = torch.cartesian_prod(*[torch.arange(4)] * 3)
    salt = CrystalBatch(
        corners / 4.0, 11.28 * torch.eye(3)[None], torch.where(corners.sum(1) % 2 == 0, 11, 17), torch.tensor([64])
    )
    for exponent in (0.0, 2.0, 4.0):
        shake = RandomFieldDisplacement(rms=0.1, exponent=exponent, strain=0.01)
        params = shake.sample(salt, generator=make_generator(0))
        moved = shake.displacement(salt, params).square().sum(1).mean().sqrt()
        nearest = shortest_distances(shake.apply(salt, params))[0]
        print(f"exponent {exponent:g}: atoms move {moved:.3f} A rms, the closest are {nearest:.2f} A apart")


if __name__ == "__main__":
    learn_digits()
    shake_rock_salt()
