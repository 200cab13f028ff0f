"""Frame projections: the objective against its formula, mappers, what is refused, and that broken pairs are seen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from cdvae_kit.nn.losses import nt_xent
from cdvae_kit.representation.methods.encoder import MLPEncoder, as_encoder, embed
from cdvae_kit.representation.methods.fitting import FitSettings, fit
from cdvae_kit.representation.methods.frame_projections import (
    FeatureMapper,
    FrameProjections,
    ScalogramEncoder,
    SeriesEncoder,
    SpectrumEncoder,
)
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.frames import FourierBasis, HaarBasis, MorletFrame


def series(num: int = 64, length: int = 16) -> Tensor:
    return torch.randn(num, 1, length, generator=make_generator(num))


def small(*, frames: bool = True, **options: float) -> FrameProjections:
    with seeded_weights(0):
        encoders: dict[str, nn.Module] = {"time": MLPEncoder([16, 32, 8]), "haar": MLPEncoder([80, 32, 8])}
        if frames:
            encoders["fourier"] = SpectrumEncoder(1, 16, hidden=16, out_features=8)
        views = {"haar": HaarBasis(), "fourier": FourierBasis()}
        return FrameProjections(encoders, {name: views[name] for name in list(encoders)[1:]}, width=8, **options)


def test_the_loss_is_the_sum_over_pairs_of_views() -> None:
    model, x = small().eval(), series()
    with torch.no_grad():
        terms = model.loss(x, generator=make_generator(0))
        z = {name: model.projectors[name](model.features(x, name)) for name in ("time", "haar")}
    assert set(terms) == {"loss", "time~haar", "time~fourier", "haar~fourier"}
    assert float(terms["loss"]) == pytest.approx(sum(float(v) for k, v in terms.items() if k != "loss"), rel=1e-6)
    assert float(terms["time~haar"]) == pytest.approx(float(nt_xent(z["time"], z["haar"], temperature=0.15)))
    assert float(terms["time~haar"]) != pytest.approx(float(nt_xent(z["time"], z["haar"], temperature=0.3)))


def test_nothing_is_drawn() -> None:
    model, x = small().eval(), series()
    first, again = (model.loss(x, generator=make_generator(seed))["loss"].item() for seed in (0, 1))
    assert first == again


def test_views_of_one_sample_are_learnt_and_views_of_different_ones_are_not() -> None:
    x, chance = series(96), math.log(2 * 32 - 1)

    class Broken(FrameProjections):
        """Pairs the series with another one's Haar coefficients, drawn anew each time."""

        def loss(self, batch: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
            other = batch[torch.randperm(len(batch), generator=generator)]
            z = (self.projectors["time"](self.features(batch, "time")), self.features(other, "haar"))
            return {"loss": nt_xent(z[0], self.projectors["haar"](z[1]), temperature=self.temperature)}

    settings = FitSettings(num_epochs=40, batch_size=32, learning_rate=1e-2)
    model, broken = small(frames=False), small(frames=False)
    broken.__class__ = Broken
    assert fit(model, x, settings, seed=0)[-1] < 0.7 * chance
    assert fit(broken, x, settings, seed=0)[-1] > 0.9 * chance


def test_an_embedding_needs_the_encoder_of_the_base_alone() -> None:
    model, x = small(), series()
    whole = model.embed(x, batch_size=10)
    assert whole.shape == (64, 24) and model.out_features == 24
    assert torch.allclose(whole[:, :8], model.embed_view(x, "time"), atol=1e-6)
    for name in ("haar", "fourier"):
        model.encoders[name] = nn.Identity()
        model.views[name] = None  # type: ignore[assignment]
    assert torch.equal(model.embed(x, batch_size=10), whole)
    assert torch.allclose(embed(model, x), whole, atol=1e-6)


def test_mappers_learn_what_can_be_told_and_leave_the_encoders_alone() -> None:
    model, x = small(), series(256)
    encoders = {name: value.clone() for name, value in model.encoders.state_dict().items()}

    def error() -> float:
        return float((model.embed(x)[:, 8:16] - model.embed_view(x, "haar")).abs().mean())

    before = error()
    losses = model.fit_mappers(x, FitSettings(num_epochs=10, batch_size=32, learning_rate=2e-2), seed=0)
    scale = float((model.embed_view(x, "haar") - model.embed_view(x, "haar").mean(0)).abs().mean())
    assert losses[-1] < losses[0] and error() < 0.9 * before and error() < 1.1 * scale
    for name, value in model.encoders.state_dict().items():
        assert torch.equal(value, encoders[name]), name
    again = model.fit_mappers(x, FitSettings(num_epochs=10, batch_size=32, learning_rate=2e-2), seed=0)
    assert again == losses


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_a_mapper_keeps_the_width(width: int) -> None:
    assert FeatureMapper(width, channels=3)(torch.zeros(4, width)).shape == (4, width)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_encoders_take_the_views_they_are_for(channels: int) -> None:
    x = torch.randn(3, channels, 50, generator=make_generator(0))
    morlet = MorletFrame(num_scales=10, max_scale=25.0)
    assert SeriesEncoder(channels, num_windows=3)(x).shape == (3, 64)
    assert SpectrumEncoder(channels, 50)(FourierBasis()(x)).shape == (3, 64)
    assert ScalogramEncoder(channels, 10, num_windows=2)(morlet(x)).shape == (3, 64)
    assert ScalogramEncoder(channels, 7)(HaarBasis()(x)).shape == (3, 64)


def test_an_encoder_with_windows_knows_where_and_one_without_does_not() -> None:
    x = torch.zeros(1, 1, 128)
    x[0, 0, 40:44] = 1.0
    with seeded_weights(0):
        blind, seeing = SeriesEncoder(1).eval(), SeriesEncoder(1, num_windows=8).eval()
    difference = {e: (e(x) - e(x.roll(32, -1))).abs().max().item() for e in (blind, seeing)}
    assert difference[blind] < 1e-5 < 1e-3 < difference[seeing]


def test_what_does_not_fit_together_is_refused() -> None:
    encoder = MLPEncoder([16, 8])
    with pytest.raises(ValueError, match="at least 2 encoders"):
        FrameProjections({"time": encoder}, {})
    with pytest.raises(ValueError, match="a view for each"):
        FrameProjections({"time": encoder, "haar": MLPEncoder([80, 8])}, {"fourier": FourierBasis()})
    with pytest.raises(ValueError, match="one out_features for all"):
        FrameProjections({"time": encoder, "haar": MLPEncoder([80, 4])}, {"haar": HaarBasis()})
    with pytest.raises(ValueError, match="as_encoder"):
        FrameProjections({"time": encoder, "haar": nn.Sequential(nn.Linear(80, 8))}, {"haar": HaarBasis()})
    with pytest.raises(ValueError, match="temperature"):
        small(temperature=0.0)
    with pytest.raises(KeyError, match="no view 'morlet'"):
        small().features(series(), "morlet")
    with pytest.raises(ValueError, match="cannot be halved"):
        ScalogramEncoder(1, 3)


def test_any_module_serves_as_an_encoder() -> None:
    x = series()
    own = nn.Sequential(nn.Flatten(), nn.Linear(80, 8))
    encoders = {"time": MLPEncoder([16, 8]), "haar": as_encoder(own, HaarBasis()(x))}
    assert FrameProjections(encoders, {"haar": HaarBasis()}).embed(x).shape == (64, 16)  # type: ignore[arg-type]
