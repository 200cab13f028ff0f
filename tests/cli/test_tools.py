"""Commands as tools of agents: the schema says what the command takes, a call is the command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from cdvae_kit.cli import tools
from cdvae_kit.cli.evaluate import evaluate
from cdvae_kit.cli.main import app
from cdvae_kit.cli.relax import relax
from cdvae_kit.cli.sample import sample
from cdvae_kit.cli.serve_tools import TOOLS, make_server
from cdvae_kit.cli.tools import ToolError, command_line, input_schema
from tests.cli.conftest import Engine

Run = Callable[..., Result]


def call(name: str, command: Callable[..., None], arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    return tools.call(name, command, arguments, folder, run=in_this_process)


def in_this_process(words: list[str]) -> Any:
    return app(words, standalone_mode=False)


def test_the_schema_is_that_of_the_options() -> None:
    schema = input_schema(sample)
    assert schema["properties"]["num_crystals"] == {
        "type": "integer",
        "minimum": 1,
        "description": "How many to make.",
        "default": 32,
    }
    assert schema["properties"]["sampler"]["enum"] == ["flow", "heun", "langevin", "predictor-corrector"]
    assert schema["properties"]["output"]["default"] == "crystals.extxyz" and schema["required"] == []
    assert set(input_schema(relax)["required"]) == {"crystals", "calculator"}


def test_arguments_become_the_words_of_a_command_line(tmp_path: Path) -> None:
    arguments = {"crystals": "-odd.cif", "calculator": "lj", "cell": False, "max_steps": 3, "strict": False}
    words = ["--calculator=lj", "--no-cell", "--max-steps=3", "--json", "--", "-odd.cif"]
    assert command_line(relax, arguments, tmp_path) == words


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        (sample, {"nonsense": 1}, "no argument nonsense"),
        (sample, {"output": "../out.cif"}, "outside the folder"),
        (sample, {"checkpoint": "/etc"}, "outside the folder"),
        (relax, {"crystals": "a.cif", "calculator": "os:system"}, "calculator of one's own"),
        (evaluate, {"generated": "a.cif", "metric": ["os:system"]}, "no argument metric"),
    ],
)
def test_what_leaves_the_folder_or_runs_code_is_refused(
    tmp_path: Path, command: Callable[..., None], arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ToolError, match=told):
        command_line(command, arguments, tmp_path)


def test_a_call_is_the_command_and_answers_what_it_found(
    run: Run, engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = call("sample", sample, {"num_crystals": 4, "seed": 3, "output": "a.cif"}, tmp_path)
    asked = engine.calls["sample_to_file"]
    assert (asked["num_crystals"], asked["seed"], asked["path"]) == (4, 3, Path("a.cif"))
    assert found["crystals"][0]["formula"] == "NaCl" and found["written"] == ["a.cif"]
    # the protocol speaks there
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"num_crystals": 0}, "greater than or equal to 1"),
        ({"sampler": "langevin"}, "not with langevin"),
        ({"output": "a.pdf"}, "cannot tell what to write"),
        ({"overwrite": True, "checkpoint": "mp_21"}, "no checkpoint at 'mp_21'"),
    ],
)
def test_a_call_is_checked_as_the_command_is(
    run: Run, engine: Engine, tmp_path: Path, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ToolError, match=told):
        call("sample", sample, arguments, tmp_path)
    assert engine.calls == {}


def test_an_agent_lists_the_tools_and_calls_one(run: Run, engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("mcp", reason="mcp is not installed (extra mcp)")
    import anyio
    from mcp import Client

    async def talk() -> tuple[Any, Any, Any]:
        async with Client(make_server(tmp_path, in_this_process)) as client:
            listed = await client.list_tools()
            good = await client.call_tool("sample", {"num_crystals": 2, "output": "b.cif"})
            bad = await client.call_tool("sample", {"output": "b.pdf"})
            return listed, good, bad

    listed, good, bad = anyio.run(talk)
    assert {tool.name for tool in listed.tools} == set(TOOLS)
    assert all(tool.description for tool in listed.tools)
    assert not good.is_error and json.loads(good.content[0].text)["written"] == ["b.cif"]
    assert bad.is_error and "cannot tell what to write" in bad.content[0].text
