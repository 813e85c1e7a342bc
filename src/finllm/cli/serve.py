"""`finllm serve`: the desk in a browser, for whoever has been added as a user."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from finllm.cli.display.terminal import print_json
from finllm.cli.failures import AfterOutput
from finllm.cli.options import JsonFlag, examples
from finllm.errors import InputError
from finllm.plain_text import clean
from finllm.settings import load_settings


def add_to(app: typer.Typer) -> None:
    app.command(epilog=examples(
        "finllm serve", "finllm serve --port 9000",
        "finllm serve --host 0.0.0.0 --port 8443 --cert desk.pem --key desk.key --name desk.example.com",
    ))(serve)  # fmt: skip


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 8080,
    cert: Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="Your own certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Its key, PEM.")] = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", metavar="HOST", help="A name that browsers may call the desk by. "
                                                                      "Repeatable.")] = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Serve the desk: queue, items, runs down to any number's source, sessions, the state of the record.

    Nobody can sign in but who was added with `finllm users add`; without a user it exits with 2. It listens on this
    machine alone, unless a certificate, its key and a name are given. `--json` says where it listens, once it does.
    """
    try:
        from finllm.web.server import Where, names_of, serve
    except ImportError as error:
        raise InputError(f"the desk needs {error.name!r}, which is not installed",
                         fix="pip install 'finllm[web]'") from error  # fmt: skip
    where, listening = Where(host, port, cert, key, names_of(name or ())), False

    def listens() -> None:
        nonlocal listening
        listening = as_json
        if as_json:
            print_json({"address": where.url})
            sys.stdout.flush()

    try:
        serve(load_settings().settings, where, lambda line: print(clean(line), file=sys.stderr, flush=True), listens)
    except (Exception, KeyboardInterrupt) as error:
        if listening:
            raise AfterOutput from error
        raise
