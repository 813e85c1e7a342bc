"""`finllm cluster`: begin one, let nodes in, join, look at it, drain and leave; people never call Ray themselves."""

from __future__ import annotations

import datetime as dt
import json
import platform
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm.cli.display.terminal import LISTED_WIDTH, out_console, print_json
from finllm.cli.options import JsonFlag, examples, help_if_alone
from finllm.errors import BackendError, InputError
from finllm.plain_text import clean_lines
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.scheduler.cluster.place import Place

EVERY = 1.0
"""Seconds between two looks with --watch."""
DRAINING = 150.0
"""Longest wait for a node to drain, s."""

NameOption = Annotated[
    str | None, typer.Option("--name", help="What to call this node: a-z, 0-9 and -.  \\[default: the machine's name]")
]
HostOption = Annotated[str | None, typer.Option("--host", metavar="IP", help="Where this node listens, under TLS.")]
ZoneOption = Annotated[str, typer.Option("--zone", help="Zone of the node, such as a rack.")]
RegionOption = Annotated[str, typer.Option("--region", help="Grid region that it draws power from.")]
PowerOption = Annotated[str, typer.Option("--power", help="Power domain that it shares with others.")]
NetworkOption = Annotated[str, typer.Option("--network", help="Network domain that it shares with others.")]


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Nodes that answer together: calls go to their backends, every answer is signed. See docs/cluster.md.",
        epilog=examples("finllm cluster init", "finllm cluster token --out token.txt",
                        "finllm cluster join 10.0.0.1:7400 --token-file token.txt --zone rack-2",
                        "FINLLM_CLUSTER=here finllm run hormuz-blockade"),
    )  # fmt: skip
    group.callback(invoke_without_command=True)(help_if_alone)
    group.command(epilog=examples("finllm cluster init", "finllm cluster init --host 10.0.0.1 --port 7400"))(init)
    group.command(epilog=examples("finllm cluster token --out token.txt"))(token)
    group.command(epilog=examples("finllm cluster join 10.0.0.1:7400 --token-file token.txt --power b"))(join)
    group.command(epilog=examples("finllm cluster status", "finllm cluster status --watch"))(status)
    group.command(epilog=examples("finllm cluster drain rack-2"))(drain)
    group.command(epilog=examples("finllm cluster leave"))(leave)
    group.command(epilog=examples("finllm cluster revoke rack-2 --because 'its disk was stolen'"))(revoke)
    group.command(epilog=examples("finllm cluster restart"))(restart)
    group.command(epilog=examples("finllm cluster doctor"))(doctor)
    group.command(hidden=True)(serve)
    app.add_typer(group, name="cluster")


def init(
    name: NameOption = None,
    host: HostOption = None,
    port: Annotated[int, typer.Option("--port", help="Of the door for new nodes; 0: a free one.")] = 0,
    zone: ZoneOption = "",
    region: RegionOption = "",
    power: PowerOption = "",
    network: NetworkOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Begin a cluster: make its certificate authority, and start this home as its first node.

    The authority's key stays in this home. Without --host the cluster is of this machine alone.
    """
    from finllm.guardrails.audit.telling import telling
    from finllm.scheduler.executors.membership import begin, spawn

    settings = load_settings().settings
    with telling(settings) as told:
        labels = _labels(zone, region, power, network)
        place = begin(settings, told, name or _machine(), host or "127.0.0.2", port, labels)
    spawn(place)
    _show_joined(place, as_json)


def token(
    hours: Annotated[float, typer.Option("--hours", min=0.01, max=168, help="How long it may be used.")] = 1.0,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="File for it.  \\[default: stdout]")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a token that lets one node join, once. It is a secret: pass it on by a safe way."""
    from finllm.files import write_atomically
    from finllm.guardrails.audit.telling import telling
    from finllm.scheduler.cluster.authority import Authority

    settings = load_settings().settings
    place = _place(settings)
    with telling(settings) as told:
        made = Authority(place, told).token(place.state()["address"], dt.timedelta(hours=hours))
    if out is not None:
        write_atomically(out, made.text() + "\n")
    if as_json:
        print_json({"token": made.text()} if out is None else {"file": str(out)})
    elif out is None:
        print(made.text())


def join(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Of the cluster, HOST:PORT.")],
    token_file: Annotated[Path, typer.Option("--token-file", metavar="FILE", help="What 'cluster token' made.")],
    name: NameOption = None,
    host: HostOption = None,
    zone: ZoneOption = "",
    region: RegionOption = "",
    power: PowerOption = "",
    network: NetworkOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Make this home a node of a cluster: it fetches missing weights, proves what it has, measures itself, then offers.

    Runs that are under way take it in by themselves.
    """
    from finllm.scheduler.cluster.authority import Token
    from finllm.scheduler.executors.membership import end, enter, spawn

    settings = load_settings().settings
    try:
        text = token_file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {str(token_file)!r}: {error}", fix="give the file of the token") from error
    labels = _labels(zone, region, power, network)
    place = enter(settings, address, Token.read(text), name or _machine(), host or "", labels)
    try:
        spawn(place)
    except BackendError:
        end(place)
        raise
    _show_joined(place, as_json)


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every second, until Ctrl-C.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the cluster's nodes, where they stand, what they offer and what they are at. One JSON object a line."""
    from finllm.scheduler.executors.looking import Looking

    place = _place(load_settings().settings)
    with Looking(place) as looking:
        while True:
            found = looking.look()
            if as_json and watch:
                print(json.dumps(found), flush=True)
            elif as_json:
                print_json(found)
            else:
                out_console(LISTED_WIDTH).print(_view(found), crop=False)
            if not watch:
                return
            sys.stdout.flush()
            time.sleep(EVERY)


def drain(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The name that 'finllm cluster status' shows.")],
    as_json: JsonFlag = False,
) -> None:
    """Send a node no further call, and wait until those under way are answered. It stays a member."""
    from finllm.scheduler.executors.looking import Looking

    with Looking(_place(load_settings().settings)) as looking:
        looking.wish(node, "drain")
        ends = time.monotonic() + DRAINING
        while (state := looking.state_of(node)) != "drained":
            if time.monotonic() > ends:
                raise BackendError(f"{node!r} is {state} still", fix="look with 'finllm cluster status'")
            time.sleep(0.2)
    if as_json:
        print_json({"drained": node})
    else:
        print(clean_lines(f"{node}: drained\n"), end="")


def leave(as_json: JsonFlag = False) -> None:
    """End this home's node: calls under way are answered first, and its certificate is revoked.

    Where it is the first node, the cluster ends with it. Where the first node does not answer, it leaves within
    seconds, unrevoked, and says so.
    """
    from finllm.scheduler.executors.membership import end

    place = _place(load_settings().settings)
    name = place.state()["name"]
    revoked = end(place)
    if as_json:
        print_json({"left": name, "revoked": revoked})
        return
    print(clean_lines(f"{name}: left\n"), end="")
    if not revoked:
        print(clean_lines("  the first node does not answer: the certificate is not revoked and ends within 24 h;\n"
                          f"  once it is back, run 'finllm cluster revoke {name}' there\n"), end="")  # fmt: skip


def revoke(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The name that 'finllm cluster status' shows.")],
    because: Annotated[str, typer.Option("--because", help="Why; it is put on record.")],
    as_json: JsonFlag = False,
) -> None:
    """Believe a node no longer: its handshakes and answers are refused from now on. At the cluster's first node."""
    from finllm.guardrails.audit.telling import telling
    from finllm.scheduler.cluster.authority import Authority

    settings = load_settings().settings
    place = _place(settings)
    with telling(settings) as told:
        Authority(place, told).revoke(node, because)
    if as_json:
        print_json({"revoked": node})
    else:
        print(clean_lines(f"{node}: revoked\n"), end="")


def restart(as_json: JsonFlag = False) -> None:
    """Start this home's node again, with the membership that it has, after its machine or its processes died.

    At the first node the cluster's directory begins anew at the same address; the others find it by themselves.
    """
    from finllm.scheduler.executors.membership import begin_again

    place = _place(load_settings().settings)
    begin_again(place)
    _show_joined(place, as_json)


def doctor(as_json: JsonFlag = False) -> None:
    """Check this home's part of the cluster: key, certificate, processes, and what listens without TLS.

    Exits with 1 where something is wrong.
    """
    from finllm.scheduler.executors.looking import examined

    found = examined(_place(load_settings().settings))
    if as_json:
        print_json({"checks": [{"what": one.what, "ok": one.ok, "said": one.said} for one in found]})
    else:
        print(clean_lines("".join(f"{'ok ' if one.ok else 'NO '} {one.what}: {one.said}\n" for one in found)), end="")
    if not all(one.ok for one in found):
        raise typer.Exit(1)


def serve(as_json: JsonFlag = False) -> None:
    """This home's node itself, in the foreground; 'init' and 'join' start it. `--json`: a JSON object a line."""
    from finllm.guardrails.audit.telling import telling
    from finllm.scheduler.calibration.joining import calibrated_to_join
    from finllm.scheduler.executors.membership import note_process
    from finllm.scheduler.executors.node import Node

    settings, ending = load_settings().settings, threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ending.set())
    note_process(_place(settings))
    with telling(settings) as told:
        node = Node(settings, told, calibrated_to_join,
                    lambda line: print(json.dumps({"said": line}) if as_json else line, flush=True))  # fmt: skip
        try:
            node.start()
            node.run(ending)
            node.drain()
        finally:
            node.close(leaving=True)


def _place(settings: Settings) -> Place:
    """Errors: InputError where this home is in no cluster."""
    from finllm.scheduler.cluster.place import Place

    place = Place(settings.cluster_dir)
    place.state()
    return place


def _labels(zone: str, region: str, power: str, network: str) -> dict[str, str]:
    labels = {"zone": zone, "region": region, "power": power, "network": network}
    for name, value in labels.items():
        if value and not re.match(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$", value):
            raise InputError(f"--{name} {value!r} is no label", fix="use letters, digits, '-', '_' and '.'")
    return labels


def _machine() -> str:
    return re.sub(r"[^a-z0-9-]+", "-", platform.node().lower()).strip("-")[:40] or "node"


def _show_joined(place: Place, as_json: bool) -> None:
    state = place.state()
    if as_json:
        print_json({"node": state["name"], "cluster": state["address"], "host": state["host"]})
        return
    lines = [f"{state['name']}: a node of the cluster at {state['address']}",
             f"  runs of this home use it with FINLLM_CLUSTER={state['address']}"]  # fmt: skip
    if state["first"]:
        lines.append("  let others in with 'finllm cluster token'")
    print(clean_lines("\n".join(lines) + "\n"), end="")


def _view(found: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from finllm.cli.display.report import listing

    rows = [
        (f"{node['name']} at {node['address']}", [
            f"{node['state']}, {node['calls']} calls, {node['seconds'] * 1e3:.1f} ms away"
            if node["alive"] else f"does not answer ({node['state']})",
            *([f"doubted by {', '.join(node['doubted_by'])}"] if node["doubted_by"] else []),
            ", ".join(f"{name} {value}" for name, value in node["labels"].items() if value) or "no labels",
            ", ".join(node["backends"]),
        ]) for node in found["nodes"]
    ]  # fmt: skip
    head = Text(f"Cluster at {found['cluster']}", style="bold cyan")
    return Group(head, listing(rows) if rows else Text("No node has offered yet."))
