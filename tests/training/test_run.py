"""Whole runs: resumed, interrupted, killed, poisoned, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.graph import PeriodicGraph
from cdvae_kit.io.checkpoint import load_checkpoint
from cdvae_kit.io.result_folder import InUseError, result_folder
from cdvae_kit.models import CDVAE, CDVAEConfig
from cdvae_kit.models.config import NoiseConfig
from cdvae_kit.training import FitResult, TrainingConfig, TrainingDivergedError, fit, seeded_weights
from cdvae_kit.training.errors import ResumeError
from cdvae_kit.training.log import read_metrics
from cdvae_kit.training.state import load_state, save_state
from tests.training.toy import ToyConfig, ToyModel, make_crystals, make_toy, toy_config

TRAIN, VAL = make_crystals(18, seed=1), make_crystals(7, seed=2)
ROOT = Path(__file__).resolve().parents[2]


class PoisonedModel(ToyModel):
    """Has a loss of NaN at the training steps in `poison`."""

    poison: tuple[int, ...] = ()

    def loss(
        self, crystals: CrystalBatch, graph: PeriodicGraph, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        terms = super().loss(crystals, graph, generator=generator)
        if torch.is_grad_enabled() and self.training_calls - 1 in self.poison:
            terms["reconstruction"] = terms["reconstruction"] * torch.nan
        return terms


def poisoned(*steps: int) -> ToyModel:
    class Poisoned(PoisonedModel):
        poison = steps

    return make_toy(kind=Poisoned)


class InterruptedModel(ToyModel):
    """Ctrl-C is pressed during a training step."""

    interrupt_at = 7
    number = signal.SIGINT

    def loss(
        self, crystals: CrystalBatch, graph: PeriodicGraph, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        terms = super().loss(crystals, graph, generator=generator)
        if torch.is_grad_enabled() and self.training_calls == self.interrupt_at:
            os.kill(os.getpid(), self.number)
        return terms


def run(model: ToyModel, folder: Path, config: TrainingConfig | None = None, **options: Any) -> FitResult:
    return fit(model, TRAIN, VAL, config or toy_config(), folder, device="cpu", progress=False, **options)


def curve(folder: Path) -> list[dict[str, Any]]:
    """The rows of the log without the clock."""
    return [
        {key: value for key, value in row.items() if key != "seconds"} for row in read_metrics(folder / "metrics.csv")
    ]


def assert_same_curve(first: Path, second: Path) -> None:
    assert len(curve(first)) == len(curve(second))
    for ours, theirs in zip(curve(first), curve(second), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            expected = pytest.approx(value, rel=1e-5, abs=1e-7) if isinstance(value, float) else value
            assert ours[name] == expected, (name, ours, theirs)


def assert_same_weights(first: torch.nn.Module, second: torch.nn.Module) -> None:
    for name, value in first.state_dict().items():
        assert torch.allclose(value, second.state_dict()[name], rtol=1e-5, atol=1e-6), name


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ToyModel, FitResult]:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    model = make_toy(with_prior=True)
    return folder, model, run(model, folder)


def test_a_run_lowers_the_validation_loss(straight: tuple[Path, ToyModel, FitResult]) -> None:
    losses = [row["loss"] for row in curve(straight[0]) if row["split"] == "val"]
    assert losses[-1] < losses[0]


def test_a_run_leaves_its_files(straight: tuple[Path, ToyModel, FitResult]) -> None:
    folder, _, result = straight
    assert {"model", "state", "metrics.csv", "loss.png", "training.json"} <= {path.name for path in folder.iterdir()}
    about = json.loads((folder / "training.json").read_text())
    assert (about["steps"], about["skipped_steps"], about["best_step"]) == (12, 0, result.best_step)
    assert about["config"]["batch_size"] == 4
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_in_the_folder_of_a_run_is_pickled(straight: tuple[Path, ToyModel, FitResult]) -> None:
    files = [path for path in straight[0].rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".ckpt", ".pt", ".pth", ".pkl")]
    # pickles of torch are zip files, others start with the protocol
    assert not [path for path in files if path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")]


def test_the_log_has_a_row_for_each_step_and_each_validation(straight: tuple[Path, ToyModel, FitResult]) -> None:
    rows = curve(straight[0])
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 13))
    assert [row["step"] for row in rows if row["split"] == "val"] == [5, 10, 12]


def test_the_validation_loss_is_the_total_of_all_its_terms(straight: tuple[Path, ToyModel, FitResult]) -> None:
    for row in curve(straight[0]):
        assert row["loss"] == pytest.approx(0.01 * row["kl"] + row["reconstruction"], rel=1e-5)


def test_the_learning_rate_warms_up_and_falls_to_its_end(straight: tuple[Path, ToyModel, FitResult]) -> None:
    rates = [row["learning_rate"] for row in curve(straight[0]) if row["split"] == "train"]
    assert rates[0] == pytest.approx(0.02 / 3)
    assert max(rates) == rates[2]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 0.1 * max(rates)


def test_the_model_ends_with_the_averaged_weights_that_were_saved(straight: tuple[Path, ToyModel, FitResult]) -> None:
    folder, model, _ = straight
    saved = load_checkpoint(folder / "model").tensors
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    average = load_state(folder / "state" / "last")["cdvae_kit"]["average"]
    last = load_state(folder / "state" / "last")["state_dict"]
    assert torch.equal(model.encoder.weight, average["encoder.weight"])
    assert not torch.equal(model.encoder.weight, last["model.encoder.weight"])


def test_the_first_stage_leaves_the_prior_alone_and_the_second_fits_it(
    straight: tuple[Path, ToyModel, FitResult],
) -> None:
    folder, model, result = straight
    assert model.prior is not None and result.prior is not None
    assert torch.equal(load_state(folder / "state" / "last")["state_dict"]["model.prior.mean"], torch.zeros(3))
    assert model.prior.mean.abs().sum() > 0.0
    assert all(value.requires_grad for value in model.parameters())


def test_a_run_does_not_touch_the_global_generator(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    run(make_toy(), tmp_path / "run", toy_config(max_steps=3, strain=0.05, substitution=0.5))
    assert torch.equal(before, torch.random.get_rng_state())


class WatchfulModel(ToyModel):
    """Remembers the longest edge and the longest step of a training atom."""

    def loss(
        self, crystals: CrystalBatch, graph: PeriodicGraph, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        if torch.is_grad_enabled():
            self.seen = [*getattr(self, "seen", []), (crystals, float(graph.distances(crystals).max()))]
        return super().loss(crystals, graph, generator=generator)


def test_atoms_move_in_training_if_asked_and_their_edges_follow(tmp_path: Path) -> None:
    longest = {}
    for rms in (0.0, 0.02):
        model = make_toy(kind=WatchfulModel)
        run(model, tmp_path / str(rms), toy_config(displacement=rms, strain=0.0))
        longest[rms] = max(length for _, length in model.seen)
        known = TRAIN.frac_coords.reshape(-1)
        stayed = all(bool(torch.isin(crystals.frac_coords.reshape(-1), known).all()) for crystals, _ in model.seen)
        assert stayed == (rms == 0.0)
    # an edge whose atom had left through a face would be longer by a cell
    assert longest[0.02] < longest[0.0] + 0.3


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    tmp_path: Path, straight: tuple[Path, ToyModel, FitResult]
) -> None:
    run(make_toy(with_prior=True), tmp_path / "same")
    assert_same_curve(straight[0], tmp_path / "same")
    run(make_toy(with_prior=True), tmp_path / "other", toy_config(seed=1))
    assert curve(tmp_path / "other")[0]["loss"] != pytest.approx(curve(straight[0])[0]["loss"], rel=1e-5)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals go to the main thread")
def test_an_interrupted_run_resumes_to_the_same_curve(
    tmp_path: Path, straight: tuple[Path, ToyModel, FitResult]
) -> None:
    folder = tmp_path / "run"
    # a shell that starts the tests in the background has them ignore the signal
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(make_toy(with_prior=True, kind=InterruptedModel), folder)
    assert signal.getsignal(signal.SIGINT) == before
    # at most one more step than the one under way, and no extra validation
    assert load_state(folder / "state" / "last")["cdvae_kit"]["steps_done"] in (7, 8)
    resumed = make_toy(seed=5, with_prior=True)
    result = run(resumed, folder, resume=True)
    assert_same_curve(straight[0], folder)
    assert_same_weights(straight[1], resumed)
    assert (result.steps, result.best_step) == (straight[2].steps, straight[2].best_step)


def test_rows_that_were_logged_after_the_saved_state_are_not_there_twice(
    tmp_path: Path, straight: tuple[Path, ToyModel, FitResult]
) -> None:
    class CrashingModel(InterruptedModel):
        def posterior(self, crystals: CrystalBatch, graph: PeriodicGraph) -> tuple[Tensor, Tensor]:
            if self.training_calls == 9:
                raise OSError("the disk is full")
            return super().posterior(crystals, graph)

        interrupt_at = -1

    folder = tmp_path / "run"
    with pytest.raises(OSError, match="disk is full"):
        run(make_toy(with_prior=True, kind=CrashingModel), folder)
    assert curve(folder)[-1]["step"] == 8
    assert load_state(folder / "state" / "last")["cdvae_kit"]["steps_done"] == 5
    run(make_toy(with_prior=True), folder, resume=True)
    assert_same_curve(straight[0], folder)


def test_a_killed_process_is_resumed_to_the_same_curve(
    tmp_path: Path, straight: tuple[Path, ToyModel, FitResult]
) -> None:
    folder = tmp_path / "run"
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(f"""
        import time
        from pathlib import Path
        import torch
        from tests.training.test_run import run
        from tests.training.toy import ToyModel, make_toy

        class SlowModel(ToyModel):
            def loss(self, *arguments, **options):
                if self.training_calls >= 6:
                    time.sleep(60.0)
                return super().loss(*arguments, **options)

        torch.set_num_threads(1)
        run(make_toy(with_prior=True, kind=SlowModel), Path({str(folder)!r}))
        """)
    )
    process = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        deadline = time.monotonic() + 120.0
        while not (folder / "state" / "last" / "config.json").is_file():
            assert process.poll() is None, "the training process ended by itself"
            assert time.monotonic() < deadline, "the training process never saved a state"
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    run(make_toy(seed=9, with_prior=True), folder, resume=True)
    assert_same_curve(straight[0], folder)


def test_a_finished_run_that_is_resumed_stays_as_it_is(
    tmp_path: Path, straight: tuple[Path, ToyModel, FitResult]
) -> None:
    folder = tmp_path / "run"
    first = make_toy(with_prior=True)
    run(first, folder)
    again = make_toy(seed=3, with_prior=True)
    result = run(again, folder, resume=True)
    assert result.steps == 12
    assert_same_weights(first, again)
    assert_same_curve(straight[0], folder)


def test_a_resumed_run_may_have_a_later_end(tmp_path: Path) -> None:
    run(make_toy(), tmp_path / "run", toy_config(max_steps=5))
    assert run(make_toy(), tmp_path / "run", toy_config(max_steps=9), resume=True).steps == 9


@pytest.mark.parametrize(
    ("changes", "crystals", "message"),
    [
        ({"batch_size": 5}, TRAIN, "batch_size=4"),
        ({"seed": 1}, TRAIN, "seed=0"),
        ({}, make_crystals(18, seed=77), "other crystals"),
    ],
)
def test_a_run_is_not_resumed_as_another_one(
    tmp_path: Path, changes: dict[str, Any], crystals: CrystalBatch, message: str
) -> None:
    run(make_toy(), tmp_path / "run", toy_config(max_steps=5))
    with pytest.raises(ResumeError, match=message):
        fit(make_toy(), crystals, VAL, toy_config(**changes), tmp_path / "run", resume=True, device="cpu")


class NoisyConfig(ToyConfig):
    """With a table of settings of which a value once had another name."""

    noise: NoiseConfig = NoiseConfig(lattice="fixed")


@pytest.mark.parametrize(("stored", "message"), [("held", None), ("path", "differs in noise")])
def test_a_run_whose_state_has_a_setting_in_an_earlier_word_is_resumed(
    tmp_path: Path, stored: str, message: str | None
) -> None:
    def noisy() -> ToyModel:
        model = make_toy()
        model.config = NoisyConfig()
        return model

    run(noisy(), tmp_path / "run", toy_config(max_steps=5))
    last = tmp_path / "run" / "state" / "last"
    state = load_state(last)
    assert state["cdvae_kit"]["model_config"]["noise"]["lattice"] == "fixed"
    state["cdvae_kit"]["model_config"]["noise"]["lattice"] = stored
    save_state(last, state)
    with pytest.raises(ResumeError, match=message) if message else nullcontext():
        assert run(noisy(), tmp_path / "run", resume=True).steps == 12


def test_a_run_of_a_version_with_other_parts_is_not_resumed(tmp_path: Path) -> None:
    run(make_toy(), tmp_path / "run", toy_config(max_steps=5))
    last = tmp_path / "run" / "state" / "last"
    state = load_state(last)
    averages = state["cdvae_kit"]["average"]
    averages["earlier." + next(iter(averages))] = averages.pop(next(iter(averages)))
    save_state(last, state)
    with pytest.raises(ResumeError, match="another version"):
        run(make_toy(), tmp_path / "run", resume=True)


def test_a_run_that_is_not_there_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="does not exist"):
        run(make_toy(), tmp_path / "nothing", resume=True)


def test_a_folder_in_use_is_refused_and_overwritten_only_if_it_is_a_run(tmp_path: Path) -> None:
    config = toy_config(max_steps=2)
    run(make_toy(), tmp_path / "run", config)
    with pytest.raises(FileExistsError, match="resume=True"):
        run(make_toy(), tmp_path / "run", config)
    run(make_toy(), tmp_path / "run", config, overwrite=True)
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        run(make_toy(), tmp_path / "run", config, overwrite=True)
    assert (tmp_path / "run" / "thesis.tex").is_file()


def test_a_step_with_a_loss_of_nan_is_skipped_and_counted(tmp_path: Path) -> None:
    model = poisoned(3, 8)
    result = run(model, tmp_path / "run")
    assert (result.steps, result.skipped_steps) == (12, 2)
    assert all(value.isfinite().all() for value in model.parameters())
    rows = [row for row in curve(tmp_path / "run") if row["split"] == "train"]
    assert [row["step"] for row in rows if row["loss"] is None] == [4, 9]
    assert rows[-1]["skipped_steps"] == 2


def test_a_skipped_step_changes_neither_weights_nor_average(tmp_path: Path) -> None:
    config = toy_config(max_steps=5)
    model = poisoned(0, 1, 2, 3, 4)
    run(model, tmp_path / "run", config)
    assert_same_weights(make_toy().encoder, model.encoder)


def test_too_many_skipped_steps_on_end_are_an_error(tmp_path: Path) -> None:
    model = poisoned(*(range(4, 12)))
    with pytest.raises(TrainingDivergedError, match="3 steps on end"):
        run(model, tmp_path / "run", toy_config(max_skipped_in_a_row=3))


def test_training_without_patience_left_ends(tmp_path: Path) -> None:
    # the weights run away from their start, where the validation loss is best
    config = toy_config(max_steps=60, learning_rate=3.0, warmup_steps=0, clip_norm=1e9, patience=2, ema_decay=0.0)
    result = run(make_toy(), tmp_path / "run", config)
    assert result.steps < 60
    assert result.best_step == result.steps - 10


def test_the_best_weights_are_kept_not_the_last(tmp_path: Path) -> None:
    config = toy_config(max_steps=30, learning_rate=3.0, warmup_steps=0, clip_norm=1e9, ema_decay=0.0)
    result = run(make_toy(), tmp_path / "run", config)
    losses = {row["step"]: row["loss"] for row in curve(tmp_path / "run") if row["split"] == "val"}
    assert result.best_loss == pytest.approx(min(losses.values()))
    assert losses[result.best_step] == pytest.approx(min(losses.values()))


def test_training_ends_with_its_time(tmp_path: Path) -> None:
    config = toy_config(max_steps=None, max_minutes=0.02, check_every=50)
    result = run(make_toy(), tmp_path / "run", config)
    assert result.seconds > 1.2
    assert result.steps > 0


def test_epochs_count_passes_over_the_crystals(tmp_path: Path) -> None:
    # 18 crystals in batches of about 4
    assert run(make_toy(), tmp_path / "run", toy_config(max_steps=None, epochs=2)).steps == 8


def test_crystals_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    lattice = TRAIN.lattice.clone()
    lattice[4, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="toy-4"):
        fit(make_toy(), TRAIN.replace(lattice=lattice), VAL, toy_config(), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="auto, cpu, cuda"):
        fit(make_toy(), TRAIN, VAL, toy_config(), tmp_path / "run", device="tpu")


CDVAE_SETTINGS = {
    "max_atoms": 4,
    "latent_dim": 6,
    "hidden_dim": 16,
    "draws_per_crystal": 2,
    "properties": ["energy"],
    "encoder": {"channels": 2, "width": 16, "num_convolutions": 1, "num_frame_layers": 1},
    "score_network": {"width": 16, "num_layers": 1},
    "prior": {"width": 16, "num_layers": 1},
}


def make_cdvae(kind: type[CDVAE] = CDVAE) -> CDVAE:
    with seeded_weights(0):
        return kind(CDVAEConfig.model_validate(CDVAE_SETTINGS))


class FailingCDVAE(CDVAE):
    """Fails at the fifth training step."""

    calls = 0

    def loss(
        self, crystals: CrystalBatch, graph: PeriodicGraph, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        self.calls += torch.is_grad_enabled()
        if self.calls == 5:
            raise OSError("the power is gone")
        return super().loss(crystals, graph, generator=generator)


def test_a_cdvae_that_failed_resumes_to_the_same_curve(tmp_path: Path) -> None:
    config = toy_config(max_steps=7, check_every=3, learning_rate=0.003, strain=0.02, displacement=0.02, prior_steps=5)
    straight, resumed = make_cdvae(), make_cdvae()
    fit(straight, TRAIN, VAL, config, tmp_path / "straight", device="cpu", progress=False)
    with pytest.raises(OSError, match="power"):
        fit(make_cdvae(FailingCDVAE), TRAIN, VAL, config, tmp_path / "run", device="cpu", progress=False)
    fit(resumed, TRAIN, VAL, config, tmp_path / "run", device="cpu", progress=False, resume=True)
    assert_same_curve(tmp_path / "straight", tmp_path / "run")
    assert_same_weights(straight, resumed)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_cdvae_is_trained_saved_and_loaded(tmp_path: Path, precision: str) -> None:
    model = make_cdvae()
    config = toy_config(learning_rate=0.003, strain=0.02, precision=precision)
    result = fit(model, TRAIN, VAL, config, tmp_path / "run", device="cpu", progress=False)
    again = CDVAE.from_pretrained(tmp_path / "run" / "model", device="cpu")
    assert_same_weights(model, again)
    assert again.card["training"]["validation_loss"] == pytest.approx(result.best_loss)
    assert {"kl", "composition", "lattice", "coordinates"} <= set(curve(tmp_path / "run")[0])
    assert len(again.sample(2, num_steps=1)) == 2


def test_kept_codes_leave_all_but_the_score_network_as_it_was(tmp_path: Path) -> None:
    settings = CDVAE_SETTINGS | {"score_network": {"width": 16, "num_layers": 1, "knows_blur": True}}
    with seeded_weights(0):
        model = CDVAE(CDVAEConfig.model_validate(settings))
    # other statistics than those of the crystals that it goes on with
    model.fit_statistics(model.prepare(VAL))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = toy_config(learning_rate=0.003, strain=0.02, codes="kept", prior_steps=5)
    result = fit(model, TRAIN, VAL, config, tmp_path / "run", device="cpu", progress=False)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("score_network.") for name in changed)
    assert result.prior is None and result.critic is None
    assert set(curve(tmp_path / "run")[0]) >= {"coordinates", "lattice"}


def test_codes_of_a_network_without_any_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="codes='kept'"):
        fit(make_toy(), TRAIN, VAL, toy_config(codes="kept"), tmp_path / "run", device="cpu", progress=False)


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    folder, script = tmp_path / "run", tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(f"""
        from pathlib import Path
        import torch
        from tests.training.test_run import run
        from tests.training.toy import make_toy, toy_config

        if __name__ == "__main__":
            torch.set_num_threads(1)
            config = toy_config(num_devices=2, strategy="ddp")
            model = make_toy(with_prior=True)
            result = run(model, Path({str(folder)!r}), config)
            if not result.is_main:
                Path({str(tmp_path / "other.json")!r}).write_text(str(model.encoder.weight.tolist()))
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [row for row in curve(folder) if row["split"] == "val"]
    assert [row["step"] for row in rows] == [5, 10, 12]
    assert rows[-1]["loss"] < rows[0]["loss"]
    # each saw its own crystals and noise: without shared gradients the weights would have parted
    here = load_state(folder / "state" / "last")["state_dict"]["model.encoder.weight"]
    there = torch.tensor(json.loads((tmp_path / "other.json").read_text()))
    assert torch.allclose(here, there, atol=1e-6)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        result_folder(tmp_path / "run", ours=()),
        pytest.raises(InUseError, match=f"in use by process {os.getpid()}"),
    ):
        run(make_toy(), tmp_path / "run", toy_config(max_steps=2), overwrite=True)
    run(make_toy(), tmp_path / "run", toy_config(max_steps=2))
    assert not (tmp_path / "run" / ".lock").exists()


class TerminatedModel(InterruptedModel):
    """A scheduler asks the process to end during a training step."""

    number = signal.SIGTERM


def test_sigterm_saves_the_state_as_ctrl_c_does(tmp_path: Path, straight: tuple[Path, ToyModel, FitResult]) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        run(make_toy(kind=TerminatedModel, with_prior=True), tmp_path / "run")
    assert caught.value.args == (signal.SIGTERM,)
    assert load_state(tmp_path / "run" / "state" / "last")
    resumed = make_toy(seed=5, with_prior=True)
    run(resumed, tmp_path / "run", resume=True)
    assert_same_weights(straight[1], resumed)
