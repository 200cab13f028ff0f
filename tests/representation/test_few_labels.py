"""The experiment on few labels: parts that share their draw, claims that can fail, and what is said without data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets.ionic_prototypes import EWALD_ENERGY, load_ionic_prototypes
from cdvae_kit.representation.experiments.few_labels import (
    ARMS,
    AUGMENTED,
    CONSTRAINED,
    FALSE,
    FOR_RELAXED,
    INVARIANCES,
    MORE,
    MORE_RIGHT,
    NONE,
    PLAIN,
    POLICY,
    QUICK,
    RELAXED,
    TARGET,
    TRUE,
    TURNED,
    UNIFORM,
    UNRELAXED,
    FewLabels,
    draw,
    operations,
    run_part,
    unrelaxed,
)
from cdvae_kit.representation.experiments.running import judged, run_experiment
from cdvae_kit.representation.protocol import ExperimentResult
from cdvae_kit.visualization.experiments import plot_experiment


@pytest.fixture(scope="module")
def crystals() -> CrystalBatch:
    found = load_ionic_prototypes(num_crystals=150, seed=0, split="train")
    energies = found.properties[EWALD_ENERGY].clone()
    energies[0] = torch.nan
    return found.replace(properties={TARGET: energies})


def made_up(**errors: float) -> ExperimentResult:
    arms = {f"{arm}: {kind}": 0.5 for arm in ARMS for kind in (RELAXED, UNRELAXED)}
    arms |= {
        f"{INVARIANCES}, {arm}: {kind}": 0.5 for arm in (PLAIN, AUGMENTED, CONSTRAINED) for kind in (RELAXED, TURNED)
    }
    for name in (*TRUE, FALSE):
        arms |= {
            f"{INVARIANCES}: multiplier of {name}": 0.0,
            f"{INVARIANCES}: {name} costs nothing": float(name in TRUE),
        }
    arms |= errors
    return ExperimentResult("few-labels", "", False, (0, 1, 2), {name: (v,) * 3 for name, v in arms.items()}, {}, 0.0)


def test_every_part_gives_an_error_of_each_kind_and_the_figure_is_drawn(crystals: CrystalBatch) -> None:
    experiment = FewLabels()
    parts = {part: run_part(part, crystals, QUICK, 0) for part in experiment.parts(quick=True)}
    values = {name: (value,) for found in parts.values() for name, value in found.values.items()}
    assert set(values) >= {f"{arm}: {kind}" for arm in ARMS for kind in (RELAXED, UNRELAXED)}
    assert all(0.0 <= value[0] < 100.0 for value in values.values())
    assert sum(parts[POLICY].details["weights"].values()) == pytest.approx(1.0)
    assert set(parts[INVARIANCES].details) == {*TRUE, "displacement", "strain", FALSE}
    panels = experiment.panels(ExperimentResult("few-labels", "", False, (0,), values, {}, 0.0))
    assert sum(axes.axison for axes in plot_experiment(panels).axes) == len(panels) == 4
    again = run_part(POLICY, crystals, QUICK, 0)
    assert again == parts[POLICY] and run_part(POLICY, crystals, QUICK, 1) != again


def test_crystals_of_a_seed_fall_into_parts_that_share_none(crystals: CrystalBatch) -> None:
    energies = torch.arange(150.0)
    found = draw(crystals.replace(properties={}), energies, (40, 20, 60), seed=3)
    back = [found.spread * labels for _, labels in (found.train, found.validation, found.test)]
    assert len({round(value) for part in back for value in (part - back[0].min()).tolist()}) == 120
    assert found.train[1].mean().abs() < 1e-5 and found.train[1].std() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="200 crystals are asked for, there are 150"):
        draw(crystals, energies, (100, 50, 50), seed=0)


def test_what_is_unrelaxed_is_another_crystal_of_the_same_elements(crystals: CrystalBatch) -> None:
    changed = unrelaxed(crystals, seed=0)
    assert torch.equal(changed.atomic_numbers, crystals.atomic_numbers)
    assert float((changed.lattice - crystals.lattice).abs().max()) > 0.01
    assert next(iter(operations())) == "identity"


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        ({f"{POLICY}: {UNRELAXED}": 0.4}, "policy less that of uniform"),
        ({f"{FOR_RELAXED}: {RELAXED}": 0.4}, "policy less that of no change"),
        ({f"{INVARIANCES}, {CONSTRAINED}: {TURNED}": 0.4}, "constrained network less that of one trained on turned"),
    ],
)
def test_a_smaller_error_holds_and_a_larger_one_fails(errors: dict[str, float], text: str) -> None:
    def verdicts(sign: float) -> set[str]:
        moved = {name: 0.5 + sign * (value - 0.5) for name, value in errors.items()}
        return {claim.verdict for claim in FewLabels().claims(made_up(**moved)) if text in claim.text}

    assert verdicts(1.0) >= {"holds"} and verdicts(-1.0) >= {"fails"} and verdicts(0.0) == {"undecided"}


def test_a_false_symmetry_that_costs_nothing_is_seen() -> None:
    named = {
        value: FewLabels().claims(made_up(**{f"{INVARIANCES}: {FALSE} costs nothing": value}))[-1]
        for value in (0.0, 1.0)
    }
    assert named[0.0].value == 1.0 and named[1.0].value == 0.75 and named[1.0].verdict == "fails"
    assert {NONE, UNIFORM, MORE, MORE_RIGHT} <= set(ARMS)


def test_without_the_data_set_it_says_so_and_claims_nothing(tmp_path: Path) -> None:
    experiment = FewLabels(tmp_path)
    result = run_experiment(experiment, seeds=[0, 1, 2])
    assert result.arms == {} and judged(experiment, result) == [] and list(experiment.panels(result)) == []
    assert all("perov_5" in found["skipped"] for details in result.details.values() for found in details)
    with pytest.raises(FileNotFoundError, match="no folder"):
        FewLabels().with_data(tmp_path / "nowhere")
