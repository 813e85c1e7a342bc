"""`finllm simulate`: what placement policies would do with a trace of tasks on a set of nodes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, examples
from finllm.settings import load_settings

if TYPE_CHECKING:
    from finllm.scheduler.simulation.achieved import Metrics


def add_to(app: typer.Typer) -> None:
    app.command("simulate", epilog=examples(
        "finllm simulate trading-day.csv --nodes scenarios/nodes/four-mixed.yaml --policy weighted --policy edf",
        "finllm simulate AzureLLMInferenceTrace_conv.csv --nodes scenarios/nodes/edge-deep.yaml --tasks 400 --load 0.9",
        "finllm simulate trading-day.csv --nodes scenarios/nodes/four-mixed.yaml --gantt day.svg --json",
    ))(simulate)  # fmt: skip


def simulate(
    trace: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE",
            help="CSV with time,prompt,output,agent,deadline,tenant; or an Azure LLM inference trace of 2023.",
        ),
    ],
    nodes: Annotated[Path, typer.Option("--nodes", metavar="FILE", help="Machines and backends, in YAML.")],
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="NAME", help="May be repeated; 'all' for each.  \\[default: weighted]"),
    ] = None,
    load: Annotated[
        float | None, typer.Option("--load", metavar="SHARE", help="Stretch time to this share of capacity.")
    ] = None,
    tasks: Annotated[int | None, typer.Option("--tasks", metavar="N", help="Only so many of the trace.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Chooses the part, the tenants and the deadlines.")] = 0,
    gantt: Annotated[
        Path | None, typer.Option("--gantt", metavar="FILE", help="Draw the last policy's placements: .svg or .png.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Play a trace through placement policies: the code that places live, on backends as they were calibrated.

    An Azure trace has neither agents nor deadlines: they are given by a seeded rule, at --load 0.9 unless it is said.
    """
    from finllm.scheduler.calibration.measured import read_calibrations
    from finllm.scheduler.placement.nodes_file import grid_of, read_nodes, specs_of
    from finllm.scheduler.placement.policies.registry import POLICIES, policy_named
    from finllm.scheduler.simulation.achieved import metrics
    from finllm.scheduler.simulation.gantt import write_gantt
    from finllm.scheduler.simulation.prepared import at_load, read_any
    from finllm.scheduler.simulation.run import Setup
    from finllm.scheduler.simulation.run import simulate as play

    chosen = list(POLICIES) if policy and "all" in policy else policy or ["weighted"]
    factories = {name: policy_named(name) for name in chosen}
    file = read_nodes(nodes)
    specs = specs_of(file, read_calibrations(load_settings().settings.engine_calibration_path))
    arrivals, bare = read_any(trace, specs, tasks, seed)
    if bare or load is not None:
        arrivals = at_load(arrivals, specs, 0.9 if load is None else load, seed)
    found: dict[str, Metrics] = {}
    for name, factory in factories.items():
        out = play(arrivals, specs, factory, Setup(grams_per_kwh=grid_of(file, specs)))
        found[name] = metrics(out)
        if gantt is not None and name == chosen[-1]:
            write_gantt(gantt, out)
    if as_json:
        print_json({"tasks": len(arrivals), "policies": {name: _finite(asdict(one)) for name, one in found.items()}})
        return
    _show(found)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value if value == value else None for name, value in values.items()}  # noqa: PLR0124  NaN


def _show(found: dict[str, Metrics]) -> None:
    from finllm.cli.display.report import table

    rows = [
        (name, f"{one.goodput:.1%}", f"{one.refused:.1%}", f"{one.latency_p50:.1f}", f"{one.latency_p99:.1f}",
         f"{one.late_p99:.1f}", f"{one.deep_share:.1%}", f"{one.joules:.0f}", f"{one.grams:.2f}", f"{one.makespan:.0f}")
        for name, one in found.items()
    ]  # fmt: skip
    console = out_console()
    console.print(
        table(
            ("policy", "in time", "refused", "p50 s", "p99 s", "late p99", "deep tokens", "J", "g CO₂e", "all done s"),
            rows, right=tuple(range(1, 10)),
        )
    )  # fmt: skip
    console.print("in time: of all tasks; p99 late: beyond the deadline, of those answered; joules are modelled")
