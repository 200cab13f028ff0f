"""How commands end: the exit code and the words for each kind of error."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel, ConfigDict
from typer.testing import CliRunner, Result

from cdvae_kit import seeding
from cdvae_kit.cli.outcome import CommandError, ErrorReport
from cdvae_kit.crystal.errors import MissingCellError

Raise = Callable[[], object]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = 1


class OwnError(Exception):
    __module__ = "cdvae_kit.io.checkpoint"


def raise_(error: BaseException) -> None:
    raise error


def outcome_of(action: Raise, *, with_traceback: bool = False) -> Result:
    report = ErrorReport()
    report.with_traceback = with_traceback
    app = typer.Typer(pretty_exceptions_enable=False)

    def command() -> None:
        action()

    app.command()(report.guard(command))
    return CliRunner().invoke(app, [])


@pytest.mark.parametrize(
    ("action", "code", "words"),
    [
        pytest.param(lambda: None, 0, "", id="nothing wrong"),
        pytest.param(
            lambda: seeding.CrystalNoise(0, __import__("torch").arange(2)).uniform_per_row(1, stream=0),
            2,
            "error: noise per row needs num_rows",
            id="a value that the library refuses",
        ),
        pytest.param(lambda: raise_(MissingCellError("no cell")), 2, "error: no cell", id="a bad crystal"),
        pytest.param(lambda: raise_(OwnError("cut off")), 1, "error: cut off", id="an error class of the library"),
        pytest.param(lambda: raise_(CommandError("nothing to do")), 1, "error: nothing to do", id="a failed command"),
        pytest.param(lambda: raise_(CommandError("no", code=2)), 2, "error: no", id="a command used wrongly"),
        pytest.param(lambda: Settings.model_validate({"width": "x"}), 2, "width: ", id="a wrong setting"),
        pytest.param(lambda: Settings.model_validate({"widht": 1}), 2, "widht: ", id="an unknown setting"),
        pytest.param(lambda: Path("no such file").read_text(), 2, "no such file: No such file", id="no such file"),
        pytest.param(
            lambda: raise_(FileExistsError("there; allow overwriting")), 2, "--overwrite", id="a file in the way"
        ),
        pytest.param(lambda: raise_(OSError(28, "No space left on device")), 1, "error: No space", id="a full disk"),
        pytest.param(lambda: raise_(ConnectionError("refused")), 1, "error: refused", id="no connection"),
        pytest.param(lambda: json.loads("{"), 1, "error: JSONDecodeError: ", id="a value error from elsewhere"),
        pytest.param(lambda: raise_(RuntimeError("shape")), 1, "error: RuntimeError: shape", id="a fault"),
        pytest.param(lambda: raise_(KeyError("lattice")), 1, "error: KeyError: 'lattice'", id="another fault"),
        pytest.param(lambda: raise_(AssertionError()), 1, "error: AssertionError", id="a fault without words"),
        pytest.param(lambda: raise_(KeyboardInterrupt()), 130, "error: interrupted", id="ctrl-c"),
        pytest.param(lambda: os.kill(os.getpid(), signal.SIGTERM), 143, "error: ended by SIGTERM", id="sigterm"),
        pytest.param(lambda: raise_(typer.Exit(7)), 7, "", id="an exit"),
        pytest.param(lambda: raise_(typer.BadParameter("no such")), 2, "no such", id="a bad option"),
    ],
)
def test_each_kind_of_error_has_its_exit_code_and_words(action: Raise, code: int, words: str) -> None:
    result = outcome_of(action)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_only_a_fault_of_the_program_points_to_the_traceback() -> None:
    assert "--traceback" in outcome_of(lambda: raise_(RuntimeError("shape"))).stderr
    assert "--traceback" not in outcome_of(lambda: raise_(CommandError("nothing"))).stderr


def test_what_was_noted_on_the_error_is_told_too() -> None:
    error = OSError(28, "No space left on device")
    error.add_note("the crystals are safe in [journal]")
    assert outcome_of(lambda: raise_(error)).stderr.splitlines()[1] == "the crystals are safe in [journal]"


def test_a_message_with_brackets_is_printed_as_it_is() -> None:
    assert (
        "cdvae-kit[logging] [/] [red]"
        in outcome_of(lambda: raise_(CommandError("cdvae-kit[logging] [/] [red]"))).stderr
    )


def test_the_traceback_is_shown_when_asked_for() -> None:
    result = outcome_of(lambda: raise_(RuntimeError("shape [3]")), with_traceback=True)
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback")
    assert "in raise_" in result.stderr
