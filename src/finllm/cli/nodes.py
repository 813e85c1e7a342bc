"""`finllm nodes`: the backends here, whether their calibration holds, and what each process that works is at."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm.cli import nodes_joining, nodes_plan
from finllm.cli.display.terminal import LISTED_WIDTH, out_console, print_json
from finllm.cli.options import JsonFlag, examples
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Group

EVERY = 1.0
"""Seconds between two looks with --watch."""


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        epilog=examples("finllm nodes", "finllm nodes --watch --json", "finllm nodes add http://localhost:8080",
                        "finllm nodes remove mine")
    )  # fmt: skip
    group.callback(invoke_without_command=True)(nodes)
    nodes_joining.add_to(group)
    nodes_plan.add_to(group)
    app.add_typer(group, name="nodes")


def nodes(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every second, until Ctrl-C.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the backends, their queues, batches and circuits, the broker's prices, and the last calibration.

    Queues are those of the finllm processes that work now with this FINLLM_HOME. Loads no model, asks no server. With
    --watch --json, one object a line.
    """
    if context.invoked_subcommand is not None:
        return
    settings = load_settings().settings
    if not watch:
        found = look(settings)
        if as_json:
            print_json(found)
        else:
            out_console(LISTED_WIDTH).print(view(found), crop=False)
        return
    if as_json:
        _json_lines(settings)
    elif sys.stdout.isatty():
        _redrawn(settings)
    else:
        while True:
            out_console(LISTED_WIDTH).print(view(look(settings)), crop=False)
            sys.stdout.flush()
            time.sleep(EVERY)


def look(settings: Settings) -> dict[str, Any]:
    """What there is to show, as JSON-able data."""
    from finllm.desk.inventory import configured
    from finllm.scheduler.health.status import live_processes

    return {"backends": configured(settings), "processes": live_processes(settings.status_dir)}


def view(found: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.text import Text

    from finllm.cli.display.report import listing, table, text

    backends = listing(
        (one["name"], [f"{one['tier']}, {one['precision']}, {_where(one)}",
                       text(f"calibrated: {one['calibrated']}", "" if one["calibration_holds"] else "yellow")])
        for one in found["backends"]
    )  # fmt: skip
    live = [
        (f"process {process['pid']} at {one['name']}", [
            f"{one['running']} of {one['slots']} running, {one['waiting']} waiting, batch {one['batch']}",
            f"{one['answered']} answered, {one['failed']} failed, {one['tokens']} tokens",
            text(f"circuit {one['breaker']}" + (f": {one['why']}" if one["why"] else ""),
                 "green" if one["breaker"] == "closed" else "bold red"),
        ]) for process in found["processes"] for one in process["backends"]
    ]  # fmt: skip
    prices = [
        (str(process["pid"]), name, f"{price:.4g}")
        for process in found["processes"]
        for name, price in process.get("prices", {}).items()
    ]
    parts = [Text("Backends", style="bold cyan"), backends, Text(), Text("At work", style="bold cyan")]
    parts.append(listing(live) if live else Text("No process is at work."))
    if prices:
        parts += [Text(), Text("Prices", style="bold cyan"), table(("process", "of", "price"), prices, right=(2,))]
    return Group(*parts)


def _where(row: dict[str, Any]) -> str:
    """Where a backend is; of a server also how it is spoken to, and whether its probabilities are counted."""
    if row["runs"] == "local":
        return row["where"]
    counted = "" if row["probabilities"] == "its own" else f"; probabilities are {row['probabilities']}"
    return f"{row['where']} ({row['kind']}){counted}"


def _json_lines(settings: Settings) -> None:
    while True:
        print(json.dumps(look(settings), allow_nan=False), flush=True)
        time.sleep(EVERY)


def _redrawn(settings: Settings) -> None:
    from rich.live import Live

    with Live(view(look(settings)), console=out_console(LISTED_WIDTH), auto_refresh=False) as live:
        while True:
            time.sleep(EVERY)
            live.update(view(look(settings)), refresh=True)
