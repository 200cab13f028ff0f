"""Codes that are blurred: what the decoder is told, and that a code as it is stays what it was."""

import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import volume
from cdvae_kit.models import CDVAE, decoding
from cdvae_kit.models.config import CDVAEConfig, ScoreNetworkConfig
from cdvae_kit.seeding import make_generator
from tests.models.test_decoding import assert_same_crystals
from tests.models.tiny import LATENT_DIM, seed_weights, some_crystals, tiny_model

KNOWING = ScoreNetworkConfig(width=12, num_layers=2, num_frequencies=3, knows_blur=True)


def spread_codes(num: int = 400) -> Tensor:
    """Codes whose numbers depend on each other, about a centre that is not 0."""
    mixing = torch.randn(LATENT_DIM, LATENT_DIM, generator=make_generator(3))
    return torch.randn(num, LATENT_DIM, generator=make_generator(4)) @ mixing + 2.0


@pytest.fixture(scope="module")
def knowing() -> CDVAE:
    model = tiny_model(score_network=KNOWING, blur=0.5)
    assert model.prior is not None
    model.prior.set_statistics(spread_codes())
    return model


def test_a_code_is_blurred_along_the_way_from_itself_to_noise_that_is_spread_as_codes_are(knowing: CDVAE) -> None:
    assert knowing.prior is not None
    codes = spread_codes()
    normal = torch.randn(codes.shape, generator=make_generator(5))
    sharp, half, gone = (knowing.prior.blurred(codes, torch.full((400,), s), normal) for s in (0.0, 0.5, 1.0))
    torch.testing.assert_close(sharp, codes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(half, 0.5 * (sharp + gone), atol=1e-4, rtol=1e-4)
    # noise alone has mean and covariance of the codes, and nothing of them
    torch.testing.assert_close(gone.T.cov(), codes.T.cov(), atol=1.5, rtol=0.3)
    correlation = torch.corrcoef(torch.stack([gone[:, 0], codes[:, 0]]))[0, 1]
    assert abs(float(correlation)) < 0.2


def test_a_network_that_knows_of_blur_says_of_sharp_codes_what_it_said_before(knowing: CDVAE) -> None:
    plain = tiny_model()
    with torch.no_grad():
        knowing_too = tiny_model(score_network=KNOWING)
        knowing_too.load_state_dict(knowing_too.state_dict() | plain.state_dict())
    z = spread_codes(7)
    assert_same_crystals(knowing_too.decode(z, seed=1), plain.decode(z, seed=1))


def test_what_is_blurred_changes_the_crystal_and_not_its_contents(knowing: CDVAE) -> None:
    z = spread_codes(9)
    sharp, blurred, again = (decoding.decode(knowing, z, seed=1, blur=blur) for blur in (0.0, 0.7, 0.7))
    assert torch.equal(sharp.orbits.position, blurred.orbits.position)
    assert torch.equal(sharp.elements, blurred.elements)
    assert float((sharp.lattice - blurred.lattice).abs().max()) > 1e-3
    assert_same_crystals(blurred, again)
    assert_same_crystals(decoding.decode(knowing, z, seed=1, blur=0.7, batch_size=2), blurred)


def test_new_crystals_are_blurred_as_the_model_says(knowing: CDVAE) -> None:
    found = decoding.sample(knowing, 5, seed=2, max_tries=1)
    z = decoding.sample_codes(knowing, torch.arange(5), seed=2, tries=1)
    assert_same_crystals(found, decoding.decode(knowing, z, seed=2, blur=0.5))
    other = decoding.decode(knowing, z, seed=2)
    assert float((found.lattice - other.lattice).abs().max()) > 1e-3


def test_crystals_of_blurred_codes_have_the_volume_that_is_read_from_codes_as_they_are(knowing: CDVAE) -> None:
    z = spread_codes(9)
    found = decoding.decode(knowing, z, seed=1, blur=0.7)
    coding = knowing.lattice_coding
    with torch.no_grad():
        read = coding.primitive(coding.project(knowing.lattice_head(z), found.orbits), found.orbits)
    torch.testing.assert_close(volume(found.lattice), volume(read), rtol=1e-4, atol=1e-4)
    assert float((found.lattice - read).abs().max()) > 1e-2, "the shape is the score network's"


def test_the_decoder_learns_alone_and_from_blurred_codes_too(knowing: CDVAE) -> None:
    seed_weights(knowing, 7)
    crystals = knowing.prepare(some_crystals(12))
    graph = knowing.graph(crystals)
    terms = knowing.decoder_loss(crystals, graph, generator=make_generator(1))
    assert set(terms) == {"coordinates", "lattice"}
    knowing.zero_grad()
    knowing.total_loss(terms).backward()
    trained = {name for name, weight in knowing.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert trained and all(name.startswith("score_network.") for name in trained)
    assert "score_network.conditioning.blur.weight" in trained


def test_without_blur_the_decoder_is_told_codes_as_they_are() -> None:
    model = tiny_model()
    crystals = model.prepare(some_crystals(12))
    told: list[Tensor] = []
    model.score_network.register_forward_pre_hook(lambda module, args: told.append(args[1]))
    model.decoder_loss(crystals, model.graph(crystals), generator=make_generator(1))
    (z,) = told
    assert len(z) == 2 * len(crystals)
    torch.testing.assert_close(z[: len(crystals)], z[len(crystals) :])


@pytest.mark.parametrize("blur", [-0.1, 1.5, float("nan")])
def test_blur_out_of_range_is_refused(knowing: CDVAE, blur: float) -> None:
    with pytest.raises(ValueError, match="by 0 to 1"):
        decoding.decode(knowing, spread_codes(2), blur=blur)


def test_blur_needs_a_network_that_knows_of_it_and_a_prior() -> None:
    with pytest.raises(ValueError, match="knows of it"):
        decoding.decode(tiny_model(), spread_codes(2), blur=0.5)
    with pytest.raises(ValueError, match="codes=kept"):
        CDVAEConfig(blur=0.5)
    with pytest.raises(ValueError, match="learned prior"):
        CDVAEConfig(blur=0.5, score_network=KNOWING, prior=None)
    with pytest.raises(ValueError, match="'fractional'"):
        CDVAEConfig(score_network=ScoreNetworkConfig(kind="painn", knows_blur=True))
