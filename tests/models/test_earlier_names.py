"""Weights that were stored under earlier names: the package's own, and those of users."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from cdvae_kit import CDVAE
from cdvae_kit.crystal.symmetric import describe
from cdvae_kit.io.checkpoint import CheckpointError, save_checkpoint
from cdvae_kit.models import pretrained
from cdvae_kit.models.config import NoiseConfig
from cdvae_kit.models.latent_predictor import LatentPredictor
from cdvae_kit.models.networks import build_score_network
from cdvae_kit.models.property_predictor import PropertyPredictor
from tests.models.crystals import cast, codes, noisy, ordinary_crystals, small_config
from tests.models.tiny import tiny_model

SCORE = "score_network."
CONDITIONING = ("sites.", "count.", "group.", "condition.")
HEADS = ("norm.", "gain.", "types_out.", "lattice_out.")
STATISTICS = {"property_deviation": "property_std", "code_deviation": "code_std", "deviation": "std"}


def name_now(name: str) -> str:
    """What was called so in version 0.1.0 before its release, with the fractional score network."""
    if name.startswith(SCORE):
        rest = name.removeprefix(SCORE)
        if rest.startswith(CONDITIONING):
            return f"{SCORE}conditioning.{rest}"
        return f"{SCORE}heads.{rest}" if rest.startswith(HEADS) else name
    front, dot, last = name.rpartition(".")
    return front + dot + STATISTICS.get(last, last)


def as_stored_before(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    before = {}
    for name, value in tensors.items():
        front, dot, last = name.rpartition(".")
        if name.startswith((SCORE + "conditioning.", SCORE + "heads.")):
            before[SCORE + name.split(".", 2)[2]] = value
        else:
            before[front + dot + {now: then for then, now in STATISTICS.items()}.get(last, last)] = value
    assert {name_now(name) for name in before} == set(tensors)
    return before


@pytest.mark.parametrize(
    ("kind", "folder"),
    [
        *((CDVAE, f"weights/{name}") for name in pretrained.pretrained_names()),
        *((LatentPredictor, f"latent_predictors/{name}") for name in ("carbon_24", "perov_5")),
        *((PropertyPredictor, f"property_predictors/{name}") for name in ("carbon_24", "perov_5")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_carried_tensor_is_where_it_belongs(
    kind: type[CDVAE] | type[LatentPredictor] | type[PropertyPredictor], folder: str
) -> None:
    place = Path(pretrained.__file__).parent / folder
    stored = safetensors.torch.load_file(place / "model.safetensors")
    loaded = kind.from_pretrained(place, device="cpu").state_dict()
    assert {name_now(name) for name in stored} == set(loaded)
    for name, tensor in stored.items():
        there = loaded[name_now(name)]
        assert torch.equal(there, tensor.to(there.dtype)), name


@pytest.mark.parametrize("numbered", [True, False])
def test_the_fractional_network_says_the_same_with_weights_under_their_earlier_names(numbered: bool) -> None:
    config = small_config(numbered_orbits=numbered)
    assert config.has_numbers == numbered
    network, other = build_score_network(config), build_score_network(config)
    crystals = noisy(describe(cast(ordinary_crystals(), torch.float32)))
    z, level = codes(crystals.num_crystals, crystals.lattice.dtype)
    with torch.no_grad():
        first = network(crystals, z, level)
        assert not torch.equal(first.free, other(crystals, z, level).free)
        before = as_stored_before({SCORE + name: value for name, value in network.state_dict().items()})
        assert SCORE + "types_out.weight" in before and SCORE + "sites.element.weight" in before
        other.load_state_dict({name.removeprefix(SCORE): value for name, value in before.items()})
        second = other(crystals, z, level)
    for one, two in ((first.free, second.free), (first.type_logits, second.type_logits)):
        assert torch.equal(one, two)
    assert torch.equal(first.lattice, second.lattice)


def test_a_model_that_was_saved_before_is_loaded_and_saved_under_the_names_of_now(tmp_path: Path) -> None:
    model = CDVAE.from_pretrained("perov_5", device="cpu")
    before = as_stored_before(model.state_dict())
    save_checkpoint(tmp_path / "old", before, {"config": model.config.model_dump(mode="json"), "card": {}})
    loaded = CDVAE.from_pretrained(tmp_path / "old", device="cpu")
    loaded.save_pretrained(tmp_path / "new")
    stored = safetensors.torch.load_file(tmp_path / "new" / "model.safetensors")
    assert set(stored) == set(model.state_dict())
    assert torch.equal(stored["property_std"], model.property_std)


@pytest.mark.parametrize("name", pretrained.pretrained_names())
def test_a_carried_configuration_is_read_in_the_words_of_now(name: str) -> None:
    stored = json.loads((Path(pretrained.__file__).parent / "weights" / name / "config.json").read_text())
    assert stored["metadata"]["config"]["noise"]["types"] in ("held", "fixed")
    assert pretrained.load(name)[0].noise.types == "fixed"


def test_a_setting_in_an_earlier_word_is_the_same_setting_and_is_saved_in_the_word_of_now(tmp_path: Path) -> None:
    model = tiny_model(noise=NoiseConfig(lattice="fixed"))
    config = model.config.model_dump(mode="json")
    assert (config["noise"]["types"], config["noise"]["lattice"]) == ("fixed", "fixed")
    config["noise"] |= {"types": "held", "lattice": "held"}
    save_checkpoint(tmp_path / "old", model.state_dict(), {"config": config, "card": {}})
    loaded = CDVAE.from_pretrained(tmp_path / "old", device="cpu")
    assert loaded.config == model.config
    first, second = model.sample(3, seed=1, num_steps=2), loaded.sample(3, seed=1, num_steps=2)
    assert torch.equal(first.frac_coords, second.frac_coords) and torch.equal(first.lattice, second.lattice)
    loaded.save_pretrained(tmp_path / "new")
    assert "held" not in (tmp_path / "new" / "config.json").read_text()


def test_a_word_that_never_was_a_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="'fixed', 'exchanged', 'absorbing' or 'published'"):
        NoiseConfig.model_validate({"types": "kept"})
    with pytest.raises(ValidationError, match="path"):
        NoiseConfig.model_validate({"lattice": ["held"]})


def test_an_earlier_name_with_another_shape_is_told(tmp_path: Path) -> None:
    model = CDVAE.from_pretrained("perov_5", device="cpu")
    before = as_stored_before(model.state_dict()) | {"lattice_coding.deviation": torch.ones(5)}
    save_checkpoint(tmp_path / "old", before, {"config": model.config.model_dump(mode="json"), "card": {}})
    with pytest.raises(CheckpointError, match=r"lattice_coding\.std"):
        CDVAE.from_pretrained(tmp_path / "old", device="cpu")
