"""How a command ends: exceptions become one line on standard error and an exit code.

0 done, 1 failed, 2 wrong use, 130 interrupted, 143 ended by SIGTERM. SIGTERM ends a command as Ctrl-C does, and what is
done is kept.
"""

import functools
import inspect
import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, get_args

import typer

from cdvae_kit.cli.console import errors, print_error, print_note
from cdvae_kit.cli.options import long_words
from cdvae_kit.io.carried import WrongKindError, carried_names, home_of

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130
TERMINATED = 143

_NOT_AN_AUTOENCODER = {
    "PropertyPredictor": "`predict` takes it: generate-crystals predict CRYSTALS -c FOLDER",
    "LatentPredictor": "`optimize` takes it: generate-crystals optimize --predictor FOLDER",
}
_NOT_A_PREDICTOR = {
    "CDVAE": "`sample`, `reconstruct` and `optimize` take it; predictors are made by `train-predictor`, and the "
    f"package carries {', '.join(carried_names(home_of('PropertyPredictor')))}",
}

UNEXPECTED = "This should not happen. For the whole story: generate-crystals --traceback COMMAND ..."

# whose errors are written for users; pydantic checks the settings for the package
_SPEAKS_TO_USERS = ("cdvae_kit", "pydantic", "pydantic_core")

P = ParamSpec("P")


class CommandError(Exception):
    """What a command itself has to say, with the exit code that goes with it."""

    def __init__(self, message: str, *, code: int = FAILED, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


class ErrorReport:
    """Tells the user of what a command raises; `with_traceback` shows where it came from, too."""

    def __init__(self) -> None:
        self.with_traceback = False

    def guard(self, command: Callable[P, None]) -> Callable[P, None]:
        """The command, with whatever it raises told to the user, in the words of its options."""
        options = options_of(command)

        @functools.wraps(command)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                with _terminable():
                    command(*args, **kwargs)
            except (typer.Exit, typer.Abort, typer.BadParameter):
                raise
            except KeyboardInterrupt as interrupt:
                is_asked = signal.SIGTERM in interrupt.args
                self._tell(interrupt, "ended by SIGTERM" if is_asked else "interrupted")
                raise typer.Exit(TERMINATED if is_asked else INTERRUPTED) from None
            except Exception as error:  # noqa: BLE001 - the one place where every error ends
                code, message, hint = describe(error)
                self._tell(error, in_words_of(options, message), hint)
                raise typer.Exit(code) from None

        return guarded

    def _tell(self, error: BaseException, message: str, hint: str | None = None) -> None:
        if self.with_traceback:
            errors().print("".join(traceback.format_exception(error)), markup=False, end="")
        print_error(message)
        for line in (*getattr(error, "__notes__", ()), *([hint] if hint else [])):
            print_note(line)


def options_of(command: Callable[..., None]) -> dict[str, str]:
    """The option of each parameter of a command: `{"num_atoms": "--num-atoms"}`; arguments have none."""
    found = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        for info in get_args(parameter.annotation)[1:]:
            if type(info).__name__ == "OptionInfo":
                long = long_words(info)
                found[name] = (long[0] if long else f"--{name.replace('_', '-')}").partition("/")[0]
    return found


def in_words_of(options: Mapping[str, str], message: str) -> str:
    """The library's message with the command's options in place of Python's arguments.

    >>> in_words_of({"num_atoms": "--num-atoms", "resume": "--resume"}, "num_atoms is 50; go on (resume=True)")
    '--num-atoms is 50; go on (--resume)'
    """
    for name, option in options.items():
        message = re.sub(rf"(?<![\w.-]){name}=(True\b|\.\.\.)", option, message)
        message = re.sub(rf"(?<![\w.-]){name}=(?=[\w'\"])", f"{option} ", message)
        if "_" in name:
            message = re.sub(rf"(?<![\w.-]){name}(?![\w=(])", option, message)
    return message


@contextmanager
def tell_what_is_kept(folder: Path, *, go_on: str = "with --resume ") -> Iterator[None]:
    """Lets an interrupt in the block say what the folder of a run holds, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if folder.is_dir():
            interrupt.add_note(f"{folder} holds what is done; the same command {go_on}goes on from there")
        raise


@contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM raise `KeyboardInterrupt` with its number while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def describe(error: Exception) -> tuple[int, str, str | None]:
    """The exit code, the line for the user and the hint that go with an exception.

    What the package raises on purpose and what the system says are told by their message alone. Anything else is a
    fault in the program, and told as one.

    >>> describe(FileExistsError("a.cif exists already; choose another path or allow overwriting"))
    (2, 'a.cif exists already; choose another path or allow overwriting', 'Here that is --overwrite.')
    >>> describe(FileExistsError("a.cif exists already; allow overwriting (--overwrite)"))
    (2, 'a.cif exists already; allow overwriting (--overwrite)', None)
    """
    message = str(error)
    match error:
        case CommandError():
            return error.code, message, error.hint
        case WrongKindError():
            hints = _NOT_A_PREDICTOR if error.expected != "CDVAE" else _NOT_AN_AUTOENCODER
            return WRONG_USE, message, hints.get(error.found)
        case FileExistsError():
            is_named = "overwriting" not in message or "--overwrite" in message
            return WRONG_USE, _system_message(error), None if is_named else "Here that is --overwrite."
        case FileNotFoundError() | IsADirectoryError() | NotADirectoryError():
            return WRONG_USE, _system_message(error), None
        case OSError():
            return FAILED, _system_message(error), None
    if not message or not _is_meant_for_users(error):
        return FAILED, f"{type(error).__name__}: {message}" if message else type(error).__name__, UNEXPECTED
    if isinstance(error, ValueError):
        return WRONG_USE, _settings_message(error) or message, None
    return FAILED, message, None


def _system_message(error: OSError) -> str:
    """`[Errno 28] No space left on device: 'a'` without the number."""
    if error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


def _is_meant_for_users(error: Exception) -> bool:
    """Whether the package raised it on purpose: one of its own classes, or a built-in one raised in its own code."""
    if _package(type(error).__module__) in _SPEAKS_TO_USERS:
        return True
    frame = error.__traceback__
    if not isinstance(error, ValueError | RuntimeError | ImportError) or frame is None:
        return False
    while frame.tb_next is not None:
        frame = frame.tb_next
    return _package(frame.tb_frame.f_globals.get("__name__")) in _SPEAKS_TO_USERS


def _package(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _settings_message(error: Any) -> str | None:
    """pydantic's list of wrong settings in one line, None for another error."""
    if _package(type(error).__module__) not in ("pydantic", "pydantic_core"):
        return None
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
