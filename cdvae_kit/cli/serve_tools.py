"""`generate-crystals serve-tools`: the package as a tool server of the Model Context Protocol, for agents."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdvae_kit import __version__
from cdvae_kit.cli.console import print_note
from cdvae_kit.cli.evaluate import evaluate
from cdvae_kit.cli.predict_structure import predict_structure
from cdvae_kit.cli.relax import relax
from cdvae_kit.cli.sample import sample
from cdvae_kit.cli.tools import ToolError, call, input_schema

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

TOOLS: dict[str, tuple[str, Callable[..., None]]] = {
    "sample": ("sample", sample),
    "predict_structure": ("predict-structure", predict_structure),
    "evaluate": ("evaluate", evaluate),
    "relax": ("relax", relax),
}
"""Each tool's command, its name on the command line first."""

_INSTRUCTIONS = (
    "Generates crystals and judges them. Files are read from and written to one folder; give paths relative to it. "
    "sample makes new crystals, of a formula, of elements or of a space group if asked; predict_structure makes "
    "candidate structures of formulas; evaluate judges a file of crystals; relax relaxes one. What they answer is what "
    "the command line prints with --json."
)


def serve_tools(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Option("--folder", metavar="DIR", exists=True, file_okay=False, help="Where files are read and written."),
    ] = Path(),
) -> None:
    """Offer sample, predict-structure, evaluate and relax to agents, as tools of the Model Context Protocol.

    Speaks on standard input and output: an agent's program starts it. Needs the extra `mcp`.
    """
    frame = context.find_root().command
    server = make_server(folder.resolve(), lambda words: frame.main(words, standalone_mode=False))

    import anyio
    from mcp.server.stdio import stdio_server

    os.chdir(folder)

    async def speak() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    print_note(f"serving {', '.join(TOOLS)} in {folder.resolve()}")
    anyio.run(speak)


def make_server(folder: Path, run: Callable[[list[str]], Any]) -> Server:
    """A server of the tools, not yet running.

    Args:
        folder: where its process works.
        run: see `cdvae_kit.cli.tools.call`.
    """
    try:
        from mcp import types
        from mcp.server.lowlevel import Server
    except ImportError as error:
        raise ImportError("the tool server needs the package mcp: pip install 'cdvae-kit[mcp]'") from error

    import anyio.to_thread

    async def list_tools(context: object, params: object) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(name=name, description=_description(command), input_schema=input_schema(command))
                for name, (_, command) in TOOLS.items()
            ]
        )

    async def call_tool(context: object, params: types.CallToolRequestParams) -> types.CallToolResult:
        if params.name not in TOOLS:
            return _answer(f"there is no tool {params.name!r}; there are {', '.join(TOOLS)}", is_error=True)
        word, command = TOOLS[params.name]
        try:
            found = await anyio.to_thread.run_sync(lambda: call(word, command, params.arguments or {}, folder, run=run))
        except ToolError as error:
            return _answer(str(error), is_error=True)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=json.dumps(found, ensure_ascii=False))],
            structured_content=found,
        )

    def _answer(text: str, *, is_error: bool) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=is_error)

    return Server(
        "cdvae-kit",
        version=__version__,
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _description(command: Callable[..., None]) -> str:
    """The first paragraph of what the command says of itself."""
    return " ".join((command.__doc__ or "").strip().partition("\n\n")[0].split())
