"""Crystals to properties: symmetries, missing labels, crystals that cannot be judged, files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase import Atoms
from pymatgen.core import Lattice, Structure
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.conversion import structures_to_batch
from cdvae_kit.io.carried import WrongKindError
from cdvae_kit.models import pretrained
from cdvae_kit.models.calibration import UnknownPropertyError, check_names
from cdvae_kit.models.predictor_config import PropertyPredictorConfig
from cdvae_kit.models.property_network import PropertyNetwork
from cdvae_kit.models.property_predictor import PropertyPredictor
from cdvae_kit.seeding import make_generator
from cdvae_kit.training import seeded_weights
from tests.models.predictors import known_crystals, predictor_config, ready_predictor
from tests.models.tiny import some_crystals


@pytest.fixture(scope="module")
def crystals() -> CrystalBatch:
    return known_crystals(12, seed=1)


@pytest.fixture(scope="module", params=["equivariant", "vector"])
def network(request: pytest.FixtureRequest, crystals: CrystalBatch, zoo: CrystalBatch) -> PropertyNetwork:
    with seeded_weights(3):
        network = PropertyNetwork(
            predictor_config(properties=("room", "oxygen"), units=("A^3", ""), kind=request.param)
        )
    network.fit_statistics(crystals)
    return network.double().eval()


def outputs(network: PropertyNetwork, crystals: CrystalBatch) -> Tensor:
    with torch.no_grad():
        return network(crystals, network.graph(crystals))


def rotation(seed: int) -> Tensor:
    matrix = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=make_generator(seed))).Q
    return matrix * torch.sign(torch.linalg.det(matrix))


# -- symmetries ------------------------------------------------------------------------------------------------------


def test_a_rotated_or_mirrored_crystal_has_the_same_properties(network: PropertyNetwork, zoo: CrystalBatch) -> None:
    for turn in (rotation(1), -rotation(2)):
        turned = zoo.replace(lattice=zoo.lattice @ turn)
        torch.testing.assert_close(outputs(network, turned), outputs(network, zoo), rtol=1e-9, atol=1e-9)


def test_a_shifted_crystal_has_the_same_properties(network: PropertyNetwork, zoo: CrystalBatch) -> None:
    shift = torch.rand(len(zoo), 3, dtype=torch.float64, generator=make_generator(5))[zoo.batch]
    shifted = zoo.replace(frac_coords=zoo.frac_coords + shift)
    torch.testing.assert_close(outputs(network, shifted), outputs(network, zoo), rtol=1e-9, atol=1e-9)


def test_atoms_in_another_order_have_the_same_properties(network: PropertyNetwork, zoo: CrystalBatch) -> None:
    order = torch.cat([torch.arange(int(a), int(b)).flip(0) for a, b in zip(zoo.ptr, zoo.ptr[1:], strict=False)])
    mixed = zoo.replace(frac_coords=zoo.frac_coords[order], atomic_numbers=zoo.atomic_numbers[order])
    torch.testing.assert_close(outputs(network, mixed), outputs(network, zoo), rtol=1e-9, atol=1e-9)


def test_a_supercell_and_another_cell_have_the_same_properties(network: PropertyNetwork, zoo: CrystalBatch) -> None:
    for i, structure in enumerate(zoo.structures()):
        before = outputs(network, zoo.select([i]))
        for scaling in ([2, 1, 1], [[1, 0, 1], [0, 1, 0], [0, 0, 1]], [[1, 1, 0], [-1, 1, 0], [0, 0, 2]]):
            other = structures_to_batch([structure.copy().make_supercell(scaling)], dtype=torch.float64)
            torch.testing.assert_close(outputs(network, other), before, rtol=1e-7, atol=1e-7, msg=f"{i}, {scaling}")


@pytest.mark.parametrize("change", ["strain", "swap", "move", "sum"])
def test_the_checks_of_symmetry_see_a_change_of_the_crystal(
    network: PropertyNetwork, zoo: CrystalBatch, change: str
) -> None:
    two = zoo.select([2])
    if change == "strain":
        other = two.replace(lattice=two.lattice * 1.02)
    elif change == "swap":
        other = two.replace(atomic_numbers=two.atomic_numbers.flip(0))
    elif change == "move":
        other = two.replace(frac_coords=two.frac_coords + torch.tensor([[0.03, 0, 0], [0, 0, 0], [0, 0, 0]]))
    else:
        # two crystals in place of one: a network that took sums would not tell a supercell from its cell
        assert not torch.allclose(2 * outputs(network, two), outputs(network, two), rtol=1e-3)
        return
    assert not torch.allclose(outputs(network, other), outputs(network, two), rtol=1e-5, atol=1e-7)


def test_the_prediction_is_smooth_where_a_neighbour_leaves(network: PropertyNetwork) -> None:
    cutoff = network.config.cutoff
    sides = torch.tensor([cutoff - 1e-5, cutoff + 1e-5], dtype=torch.float64)
    pair = CrystalBatch(
        torch.zeros(2, 3, dtype=torch.float64),
        torch.eye(3, dtype=torch.float64) * sides.view(2, 1, 1),
        torch.tensor([14, 14]),
        torch.tensor([1, 1]),
    )
    first, second = outputs(network, pair)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


# -- labels ----------------------------------------------------------------------------------------------------------


def test_a_missing_label_counts_for_nothing(network: PropertyNetwork, crystals: CrystalBatch) -> None:
    double = crystals.replace(
        frac_coords=crystals.frac_coords.double(),
        lattice=crystals.lattice.double(),
        properties={name: values.double() for name, values in crystals.properties.items()},
    )
    holes = {name: values.clone() for name, values in double.properties.items()}
    holes["oxygen"][1:] = float("nan")
    graph = network.graph(double)
    network.train()
    whole = network.loss(double.replace(properties=holes), graph)["error"]
    network.eval()
    scaled = torch.stack([double.properties[n] for n in ("room", "oxygen")], -1)
    error = (outputs(network, double) - (scaled - network.property_mean) / network.property_std).abs()
    expected = (error[:, 0].sum() + error[0, 1]) / (len(double) + 1)
    torch.testing.assert_close(whole, expected)
    (slope,) = torch.autograd.grad(whole, network.readout[-1].bias)
    assert slope.isfinite().all()


def test_a_set_without_any_label_of_a_property_is_refused(crystals: CrystalBatch) -> None:
    empty = crystals.replace(properties={"room": crystals.properties["room"] * float("nan")})
    with pytest.raises(ValueError, match="'room' has 0 values"):
        ready_predictor(empty)
    with pytest.raises(ValueError, match=r"no property 'gap'; they have oxygen, room"):
        ready_predictor(crystals, predictor_config(properties=("gap",), units=("eV",)))


def test_an_unknown_property_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UnknownPropertyError, match=r"no property 'gap'.*it predicts room, oxygen"):
        check_names(("room", "gap"), ("room", "oxygen"))


@pytest.mark.parametrize(("names", "units"), [((), ()), (("a", "a"), ("", "")), (("a", "b"), ("eV",))])
def test_settings_that_do_not_name_each_property_once_are_refused(
    names: tuple[str, ...], units: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=r"propert"):
        PropertyPredictorConfig(properties=names, units=units)


# -- what cannot be judged -------------------------------------------------------------------------------------------


def test_crystals_that_cannot_be_judged_keep_their_place_and_say_why(crystals: CrystalBatch) -> None:
    predictor = ready_predictor(crystals)
    single = Structure(Lattice.cubic(3.8), ["Si"], [[0, 0, 0]])
    good = Structure(Lattice.cubic(3.8), ["Si", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    overlapping = Structure(Lattice.cubic(3.8), ["Si", "O"], [[0, 0, 0], [0.01, 0, 0]])
    nowhere = Structure(Lattice.cubic(3.8), ["Si"], [[float("nan"), 0, 0]])
    strange = Structure(Lattice.cubic(3.8), ["Xe", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    vacuum = Structure(Lattice.cubic(80.0), ["Si"], [[0, 0, 0]])
    found = predictor.predict([overlapping, good, nowhere, strange, vacuum, single])["room"]
    reasons = ["shortest distance", None, "NaN or infinite", "holds Xe, which", "cubic angstrom an atom", None]
    for fault, reason in zip(found.faults, reasons, strict=True):
        assert (fault is None) == (reason is None) and (reason or "") in (fault or "")
    assert found.mean.isnan().tolist() == [True, False, True, True, True, False]
    assert (len(found), found.num_failed) == (6, 4)
    assert torch.equal(found.mean[[1, 5]], predictor.predict([good, single])["room"].mean)


def test_a_damaged_crystal_in_a_batch_leaves_the_others_alone(crystals: CrystalBatch) -> None:
    predictor = ready_predictor(crystals)
    lattice = crystals.lattice.clone()
    lattice[3] = float("nan")
    lattice[5, 2] = lattice[5, 1]
    found = predictor.predict(crystals.replace(lattice=lattice))["room"]
    assert [i for i, fault in enumerate(found.faults) if fault] == [3, 5]
    rest = [i for i in range(len(crystals)) if i not in (3, 5)]
    torch.testing.assert_close(found.mean[rest], predictor.predict(crystals)["room"].mean[rest])


def test_all_failing_or_no_crystals_give_empty_handed_answers(crystals: CrystalBatch) -> None:
    predictor = ready_predictor(crystals)
    seen: list[tuple[int, int]] = []
    bad = Structure(Lattice.cubic(3.8), ["Xe"], [[0, 0, 0]])
    assert predictor.predict([bad], progress=lambda *done: seen.append(done))["room"].num_failed == 1
    assert seen == [(1, 1)]
    assert len(predictor.predict([])["room"]) == 0
    with pytest.raises(TypeError, match="put it into a list"):
        predictor.predict(bad)  # type: ignore[arg-type]


def test_structures_atoms_and_batches_get_the_same_answer_whatever_the_batch_size(crystals: CrystalBatch) -> None:
    predictor = ready_predictor(crystals)
    whole = predictor.predict(crystals)["room"].mean
    for other in (
        predictor.predict(crystals, batch_size=5),
        predictor.predict(crystals.structures(), batch_size=1),
        predictor.predict(crystals.atoms()),
    ):
        torch.testing.assert_close(other["room"].mean, whole, rtol=1e-4, atol=1e-4)


def test_crowded_cells_are_judged_a_few_at_a_time(crystals: CrystalBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = ready_predictor(crystals)
    whole = predictor.predict(crystals)["room"].mean
    monkeypatch.setattr("cdvae_kit.models.property_predictor._MAX_EDGES", 10)
    torch.testing.assert_close(predictor.predict(crystals)["room"].mean, whole, rtol=1e-4, atol=1e-4)


def test_a_thousand_atoms_are_judged(crystals: CrystalBatch) -> None:
    big = Atoms("Si", cell=[3.8] * 3, pbc=True) * (10, 10, 10)
    small = Atoms("Si", cell=[3.8] * 3, pbc=True)
    found = ready_predictor(crystals).predict([big, small])["room"].mean
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_saved_predictor_says_the_same(crystals: CrystalBatch, tmp_path: Path) -> None:
    predictor = ready_predictor(crystals)
    predictor.calibrate(crystals, out_of_fold=torch.ones(4, 1))
    predictor.card = {"seed": 0}
    predictor.save_pretrained(tmp_path / "whole")
    predictor.save_pretrained(tmp_path / "half", half=True)
    again = PropertyPredictor.from_pretrained(tmp_path / "whole", device="cpu")
    first, second = predictor.predict(crystals)["room"], again.predict(crystals)["room"]
    assert torch.equal(first.mean, second.mean) and torch.equal(first.half_width, second.half_width)
    assert (again.card, again.units) == ({"seed": 0}, {"room": "A^3"})
    assert torch.equal(again.known_elements, predictor.known_elements)
    half = PropertyPredictor.from_pretrained(tmp_path / "half", device="cpu").predict(crystals)["room"]
    torch.testing.assert_close(half.mean, first.mean, rtol=1e-2, atol=0.05)


def test_an_untrained_interval_is_unknown_not_zero(crystals: CrystalBatch) -> None:
    assert ready_predictor(crystals).predict(crystals)["room"].half_width.isnan().all()


def test_another_kind_of_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(WrongKindError, match=r"is an autoencoder \(`CDVAE`\), where a predictor from crystals"):
        PropertyPredictor.from_pretrained(pretrained.locate(pretrained.pretrained_names()[0]))
    with pytest.raises(FileNotFoundError, match="no checkpoint at 'perow'"):
        PropertyPredictor.from_pretrained("perow")


def test_predictors_are_no_autoencoders_in_the_list_of_names() -> None:
    assert not [name for name in pretrained.pretrained_names() if "predictor" in name]


def test_a_crystal_of_every_element_up_to_fermium_can_be_learned_from() -> None:
    crystals = some_crystals(12, properties={"room": torch.arange(12.0)})
    assert outputs(ready_predictor(crystals).members[0], crystals).isfinite().all()  # type: ignore[arg-type]
