"""The CDVAE encoder under changes of known truth: exact where it is exact, and where it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.representation.experiments.invariance_transfer.crystal_sensitivity import (
    DISPLACEMENTS,
    EXACT,
    STRAINS,
    CrystalSensitivity,
    PrimitiveCells,
    crystal_sensitivities,
    crystal_transforms,
    perovskites,
)
from cdvae_kit.representation.experiments.registry import load_experiment
from cdvae_kit.representation.experiments.running import run_experiment
from cdvae_kit.representation.methods.encoder import CrystalVAEEncoder, SetTransformer
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.crystal_motions import AtomDisplacement
from cdvae_kit.visualization.experiments import plot_experiment

ALL = crystal_transforms()
EXACT_NAMES = ("rotation", "origin", "order of atoms")


@pytest.fixture(scope="module")
def encoder() -> CrystalVAEEncoder:
    return CrystalVAEEncoder.from_pretrained("perov_5", device="cpu").double()


@pytest.fixture(scope="module")
def ideal(encoder: CrystalVAEEncoder) -> CrystalBatch:
    return perovskites(encoder.model.known_elements.tolist(), num_crystals=20, seed=0)


@pytest.fixture(scope="module")
def distorted(ideal: CrystalBatch) -> CrystalBatch:
    return AtomDisplacement(0.1)(ideal, generator=make_generator(5))


def felt(encoder: Any, crystals: CrystalBatch, *names: str, seed: int = 0) -> dict[str, float]:
    return crystal_sensitivities(encoder, crystals, {name: ALL[name] for name in names}, seed=seed)


@pytest.mark.parametrize("kind", ["ideal", "distorted"])
def test_the_encoder_does_not_feel_the_description(
    kind: str, encoder: CrystalVAEEncoder, request: pytest.FixtureRequest
) -> None:
    found = felt(encoder, request.getfixturevalue(kind), *EXACT_NAMES)
    assert max(found.values()) <= EXACT, found


def test_single_precision_keeps_the_symmetries_too(distorted: CrystalBatch) -> None:
    single = CrystalVAEEncoder.from_pretrained("perov_5", device="cpu")
    crystals = distorted.replace(frac_coords=distorted.frac_coords.float(), lattice=distorted.lattice.float())
    found = felt(single, crystals, *EXACT_NAMES)
    assert max(found.values()) <= 1e-4, found


def test_a_network_without_symmetry_fails_the_same_test(distorted: CrystalBatch) -> None:
    with seeded_weights(0):
        network = SetTransformer(width=16).double()
    found = felt(network, distorted, *EXACT_NAMES)
    assert found["order of atoms"] <= EXACT and min(found["rotation"], found["origin"]) > 0.05, found


def test_a_supercell_has_the_code_of_its_small_cell(distorted: CrystalBatch) -> None:
    # the model of mp_20 was made for up to 20 atoms, that of perov_5 for 5
    larger = CrystalVAEEncoder.from_pretrained("mp_20", device="cpu").double()
    assert felt(larger, distorted, "supercell")["supercell"] <= EXACT
    with seeded_weights(0):
        network = SetTransformer(width=16).double()
    assert felt(network, distorted, "supercell")["supercell"] > 0.01
    assert felt(PrimitiveCells(network), distorted, "supercell")["supercell"] <= EXACT


def test_primitive_cells_change_nothing_in_codes_that_know_no_cell(
    encoder: CrystalVAEEncoder, ideal: CrystalBatch, distorted: CrystalBatch
) -> None:
    reduced = PrimitiveCells(encoder)
    assert felt(reduced, ideal, "rotation")["rotation"] <= EXACT
    assert felt(reduced, distorted, "rotation")["rotation"] <= EXACT


def test_strain_is_felt_and_strong_strain_more(encoder: CrystalVAEEncoder, ideal: CrystalBatch) -> None:
    found = list(felt(encoder, ideal, *(f"strain {level:g}" for level in STRAINS)).values())
    assert min(found) > 10 * EXACT and found[-1] > 2 * found[0], found


def test_what_lies_within_the_tolerance_of_the_description_is_not_felt(
    encoder: CrystalVAEEncoder, ideal: CrystalBatch
) -> None:
    """A known limit: atoms that lie off their symmetric places by less than the tolerance are put there."""
    within, beyond = felt(encoder, ideal, "displacement 0.001", f"displacement {DISPLACEMENTS[-1]:g}").values()
    assert within <= 1e-6 and beyond > 0.1, (within, beyond)


def test_crystals_are_of_known_elements_and_chosen_by_the_seed() -> None:
    some = perovskites([38, 22, 8, 56, 20], num_crystals=2, seed=0)
    assert set(some.atomic_numbers.tolist()) <= {38, 22, 8, 56, 20} and some.num_atoms.tolist() == [5, 5]
    with pytest.raises(ValueError, match="there are 0 perovskites of known elements, 3"):
        perovskites([1], num_crystals=3, seed=0)


def test_a_trial_of_the_experiment_keeps_the_exact_symmetries_and_has_a_figure() -> None:
    experiment = load_experiment("crystal-sensitivity")
    assert isinstance(experiment, CrystalSensitivity)
    result = run_experiment(experiment, seeds=[0], quick=True)
    exact = [value[0] for arm, value in result.arms.items() if ":" in arm]
    assert len(exact) == 14 and max(exact) <= EXACT, exact
    assert torch.isfinite(torch.tensor(list(result.arms.values()))).all()
    plot_experiment(experiment.panels(result))
