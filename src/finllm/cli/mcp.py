"""`finllm mcp`: the catalogue and the instruments for other assistants and programs, by the Model Context Protocol."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated

import typer

from finllm.cli.display.terminal import print_json
from finllm.cli.options import examples
from finllm.errors import InputError
from finllm.settings import load_settings


class Transport(StrEnum):
    stdio = "stdio"
    http = "http"


def add_to(app: typer.Typer) -> None:
    app.command(epilog=examples("finllm mcp", "finllm mcp --transport http --port 8765", "finllm mcp --allow-runs"))(
        mcp
    )


def mcp(
    transport: Annotated[
        Transport, typer.Option("--transport", help="Over stdin and stdout, or streamable HTTP on this machine alone.")
    ] = Transport.stdio,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Of http, on 127.0.0.1.")] = 8765,
    allow_runs: Annotated[
        bool, typer.Option("--allow-runs", help="Offer the tools that run and edit. Without it all only read.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout: the tools with their schemas. Serves nothing.")
    ] = False,
) -> None:  # fmt: skip
    """Serve the chat's catalogue and the stress test as tools of the Model Context Protocol, runs as resources.

    Results carry their rows of evidence. It reads only, unless runs are allowed; http listens on the loopback alone.
    """
    try:
        from finllm.chat.serving import open_server
    except ImportError as error:
        raise InputError(f"the Model Context Protocol's package is not here: {error}",
                         fix="pip install 'finllm[programs]'") from error  # fmt: skip
    server = open_server(load_settings().settings, allow_runs=allow_runs)
    if as_json:
        print_json({"tools": [one.model_dump(mode="json", exclude_none=True)
                              for one in asyncio.run(server.list_tools())]})  # fmt: skip
    elif transport is Transport.stdio:
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=port)
