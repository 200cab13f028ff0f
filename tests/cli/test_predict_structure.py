"""`generate-crystals predict-structure` with a small model: resumed, ranked by the model and by energy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from cdvae_kit.datasets import load_dataset
from cdvae_kit.generation import structure_prediction
from cdvae_kit.io import read_crystals
from cdvae_kit.models import CDVAE
from cdvae_kit.seeding import make_generator
from tests.models.tiny import seed_weights, tiny_config

Run = Callable[..., Result]
FORMULAS = ("MgO", "BaTiO3")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = CDVAE(tiny_config(max_atoms=14))
    seed_weights(model, 1)
    model.fit_statistics(model.prepare(load_dataset("ionic_prototypes", split="val").crystals))
    assert model.prior is not None
    model.prior.set_statistics(torch.randn(50, model.config.latent_dim, generator=make_generator(3)))
    folder = tmp_path_factory.mktemp("tiny") / "model"
    model.save_pretrained(folder)
    return folder


def options(checkpoint: Path) -> tuple[object, ...]:
    return ("--checkpoint", checkpoint, "--candidates", 3, "--steps", 1, "--output", "found.extxyz")


def test_an_interrupted_run_goes_on_to_the_same_file(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("predict-structure", *FORMULAS, *options(checkpoint))
    assert whole.exit_code == 0, whole.output
    expected = Path("found.extxyz").read_bytes()
    Path("found.extxyz").unlink()
    predict = structure_prediction._predict
    made: list[str] = []

    def stop_at_the_second(model: CDVAE, formula: str, *args: object, **options: object) -> object:
        made.append(formula)
        if len(made) == 2:
            raise KeyboardInterrupt
        return predict(model, formula, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(structure_prediction, "_predict", stop_at_the_second)
    stopped = run("predict-structure", *FORMULAS, *options(checkpoint))
    assert stopped.exit_code == 130 and "holds 1 of 2 formulas; --resume goes on" in stopped.stderr
    again = run("predict-structure", *FORMULAS, *options(checkpoint), "--resume")
    assert again.exit_code == 0, again.output
    # the first formula was not made again
    assert made == ["MgO", "BaTiO3", "BaTiO3"]
    assert Path("found.extxyz").read_bytes() == expected
    before = Path("found.extxyz").read_bytes()
    other = run("predict-structure", "CaF2", *FORMULAS, *options(checkpoint), "--resume")
    assert other.exit_code == 2 and "cannot be resumed" in other.stderr
    assert Path("found.extxyz").read_bytes() == before


def test_candidates_are_ranked_by_their_relaxed_energy(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "cache"))
    # crystals of random weights mostly fall apart; of a dozen some do not
    result = run("predict-structure", *FORMULAS, *options(checkpoint), "--candidates", 12, "--calculator", "lj")
    assert result.exit_code == 0, result.output
    assert "eV/atom" in result.stdout and "crystals relaxed" in result.stdout
    found = read_crystals("found.extxyz", min_distance=None).crystals
    numbers, energies = found.properties["formula_number"], found.properties["relaxed_energy_per_atom"]
    for number in (0, 1):
        of_formula = energies[numbers == number]
        there = of_formula[of_formula.isfinite()].tolist()
        assert there and there == sorted(there)
        # what has no energy comes last
        assert not bool(of_formula[len(there) :].isfinite().any())
    relaxed = read_crystals("found.relaxed.extxyz", min_distance=None).crystals
    assert set(relaxed.material_ids or ()) <= set(found.material_ids or ())
    assert Path("found.relaxation.csv").exists()


def test_candidates_of_a_formula_are_counted_in_integers(run: Run, checkpoint: Path) -> None:
    result = run("predict-structure", "BaTiO3", *options(checkpoint), "--json")
    assert result.exit_code == 0, result.output
    ranks = [row["rank"] for row in json.loads(result.stdout)["candidates"]]
    assert ranks == list(range(1, len(ranks) + 1)) and all(type(rank) is int for rank in ranks)


def test_wyckoff_positions_can_be_asked_for_and_hold(run: Run, checkpoint: Path) -> None:
    asked = ("--space-group", 221, "--sites", "Ba:a Ti:b O:c")
    rest = ("--checkpoint", checkpoint, "-n", 3, "--steps", 1, "--output", "made.extxyz")
    result = run("sample", *asked, *rest)
    assert result.exit_code == 0, result.output
    found = read_crystals("made.extxyz", min_distance=None).crystals
    assert found.num_atoms.tolist() == [5, 5, 5]
    assert found.properties["holds_sites"].tolist() == [1.0, 1.0, 1.0]
    assert {structure.formula for structure in found.structures()} == {"Ba1 Ti1 O3"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sites", "Ba:a"), "give that, too"),
        (("--space-group", 221, "--sites", "Ba"), "write Na:a or O:e,f"),
        (("--space-group", 221, "--sites", "Ba:z"), "has the Wyckoff letters"),
        (("--space-group", 225, "--sites", "Mg:a Mg:b"), "more symmetry"),
    ],
)
def test_wyckoff_positions_that_make_no_sense_are_refused(
    run: Run, checkpoint: Path, words: tuple[object, ...], message: str
) -> None:
    result = run("sample", *words, "--checkpoint", checkpoint, "-n", 1, "--steps", 1)
    assert result.exit_code != 0
    assert message in " ".join(result.output.replace("│", " ").split())


def test_new_leaves_out_what_is_known(run: Run, tmp_path: Path) -> None:
    model = CDVAE(tiny_config(max_atoms=14, prototypes=True))
    seed_weights(model, 2)
    crystals = load_dataset("ionic_prototypes", split="val").crystals
    model.fit_statistics(model.prepare(crystals))
    assert model.prior is not None and model.prototypes is not None
    model.prior.set_statistics(torch.randn(50, model.config.latent_dim, generator=make_generator(3)))
    model.save_pretrained(tmp_path / "knowing")
    first = crystals.select([0])
    numbers = first.atomic_numbers.tolist()
    own = {v.space_group for v in model.prototypes.of({n: numbers.count(n) for n in set(numbers)}) if v.nearest == 0}
    formula, units = first.structures()[0].composition.get_reduced_formula_and_factor()
    for extra, expected in (((), True), (("--new",), False)):
        place = ("--checkpoint", tmp_path / "knowing", "--output", "a.extxyz", "--overwrite")
        rest = ("--formula-units", int(units), "--candidates", 4, "--steps", 1)
        result = run("predict-structure", formula, *extra, *place, *rest)
        assert result.exit_code == 0, result.output
        groups = read_crystals("a.extxyz", min_distance=None).crystals.properties["space_group"].tolist()
        assert bool(own & {int(group) for group in groups}) is expected
