"""Commands as tools of agents: what each takes, as a JSON schema, and a call of it with the command's own validation.

A tool is the command itself: its arguments become the words of a command line, which is parsed, checked and run like
any other, with `--json`. What would run code of the caller's choice, or reach files outside the folder, is left out.
"""

from __future__ import annotations

import inspect
import io
import json
import threading
import types
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from cdvae_kit.cli.options import long_words
from cdvae_kit.io.crystals.formats import query_of

LEFT_OUT = {"metric", "backend", "address", "workers", "resume", "cache"}
"""Options that are no tool's: code of one's own, clusters, and what a person at a terminal needs."""

_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""typer carries a click of its own, whose class it does not name."""

_ONE_AT_A_TIME = threading.Lock()
_JSON_TYPES: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}


class ToolError(Exception):
    """A call that cannot be made or has failed, in words for the caller."""


@dataclass(frozen=True)
class _Parameter:
    """One argument or option of a command."""

    name: str
    kind: Any
    info: Any
    default: Any

    @property
    def is_option(self) -> bool:
        return type(self.info).__name__ == "OptionInfo"

    @property
    def flags(self) -> tuple[str, str | None]:
        """The long option, and the one that says no, where there is one."""
        long = next(iter(long_words(self.info)), None)
        if long is None:
            plain = f"--{self.name.replace('_', '-')}"
            return plain, f"--no-{plain[2:]}"
        yes, _, no = long.partition("/")
        return yes, no or None


def parameters_of(command: Callable[..., None]) -> list[_Parameter]:
    """What a command takes, but for `LEFT_OUT`."""
    found = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if get_origin(parameter.annotation) is not Annotated or name in LEFT_OUT:
            continue
        kind, info = get_args(parameter.annotation)[:2]
        found.append(_Parameter(name, kind, info, parameter.default))
    return found


def input_schema(command: Callable[..., None]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments."""
    properties, required = {}, []
    for parameter in parameters_of(command):
        schema = _schema(parameter.kind)
        for key, bound in (("minimum", parameter.info.min), ("maximum", parameter.info.max)):
            if bound is not None and schema.get("type") in ("integer", "number"):
                schema[key] = bound
        if parameter.info.help:
            schema["description"] = parameter.info.help
        if parameter.default is inspect.Parameter.empty:
            required.append(parameter.name)
        elif parameter.default is not None:
            schema["default"] = str(parameter.default) if isinstance(parameter.default, Path) else parameter.default
        properties[parameter.name] = schema
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _schema(kind: Any) -> dict[str, Any]:
    """
    >>> _schema(list[int] | None)
    {'type': 'array', 'items': {'type': 'integer'}}
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _schema(next(part for part in parts if part is not type(None)))
    if origin is Literal:
        return {"type": "string", "enum": list(parts)}
    if origin is list:
        return {"type": "array", "items": _schema(parts[0])}
    return {"type": _JSON_TYPES[kind]}


def command_line(command: Callable[..., None], arguments: Mapping[str, Any], folder: Path) -> list[str]:
    """The words that a call of a tool stands for.

    Args:
        command: what is called.
        arguments: by name, as the schema has them.
        folder: files are within it.

    Raises:
        ToolError: an argument that there is not, that reaches outside the folder, or that would run code.
    """
    known = {parameter.name: parameter for parameter in parameters_of(command)}
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ToolError(f"there is no argument {', '.join(unknown)}; there are {', '.join(known)}")
    words, positional = [], []
    for name, value in arguments.items():
        parameter = known[name]
        if value is None:
            continue
        _refuse_outside(parameter, value, folder)
        if isinstance(value, bool):
            yes, no = parameter.flags
            words += [yes] if value else [no] if no is not None else []
            continue
        values = [str(one) for one in value] if isinstance(value, list) else [str(value)]
        if parameter.is_option:
            # one word, so that a value that begins with a dash is no option
            words += [f"{parameter.flags[0]}={one}" for one in values]
        else:
            positional += values
    # after the dashes nothing is an option
    return [*words, "--json", "--", *positional]


def _refuse_outside(parameter: _Parameter, value: Any, folder: Path) -> None:
    for one in value if isinstance(value, list) else [value]:
        if parameter.name == "calculator" and ":" in str(one):
            raise ToolError("a calculator of one's own is for the command line; name one of the package's")
        if isinstance(one, str) and query_of(one):
            raise ToolError("questions to a provider are for the command line; give a path within the folder")
        is_path = Path in (parameter.kind, *get_args(parameter.kind))
        may_be = isinstance(one, str) and (one.startswith(("/", "~")) or ".." in Path(one).parts)
        if (is_path or may_be) and not (folder / str(one)).resolve().is_relative_to(folder.resolve()):
            raise ToolError(f"{one} lies outside the folder of this server, {folder}; give a path within it")


def call(
    name: str,
    command: Callable[..., None],
    arguments: Mapping[str, Any],
    folder: Path,
    *,
    run: Callable[[list[str]], Any],
) -> dict[str, Any]:
    """What a command prints as JSON, run with these arguments.

    Args:
        name: of the command, its first word.
        command: what is called.
        arguments: by name, as the schema has them.
        folder: see `command_line`.
        run: runs the words of a command line and gives the exit code, None for 0; wrong use is typer's exception.

    Raises:
        ToolError: it ends with another exit code than 0; the words are those that it prints.
    """
    words = [name, *command_line(command, arguments, folder)]
    output, errors = io.StringIO(), io.StringIO()
    with _ONE_AT_A_TIME, redirect_stdout(output), redirect_stderr(errors):
        try:
            code = run(words) or 0
        except _USAGE_ERROR as error:
            raise ToolError(error.format_message()) from error  # type: ignore[attr-defined]
    if code != 0:
        raise ToolError(errors.getvalue().strip() or f"{name} ended with exit code {code}")
    found: dict[str, Any] = json.loads(output.getvalue())
    remarks = [line for line in errors.getvalue().splitlines() if line.startswith(("left out", "note", "outside"))]
    return found | ({"remarks": remarks} if remarks else {})
