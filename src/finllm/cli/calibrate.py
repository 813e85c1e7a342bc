"""`finllm calibrate`: measures each precision of the model on this machine; the broker places by what it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import DeferOption, JsonFlag, QuietFlag, examples, wait_for_cleaner
from finllm.files import check_folder
from finllm.settings import load_settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.evaluation.calibrate import CalibratedRung

MIB = 1 << 20
TAKES = 600.0
"""s that measuring a ladder takes about."""


def add_to(app: typer.Typer) -> None:
    app.command("calibrate", epilog=examples(
        "finllm calibrate", "finllm calibrate --rung Q4_0 --rung BF16", "finllm calibrate --force --json",
    ))(calibrate)  # fmt: skip


def calibrate(
    rung: Annotated[
        list[str] | None, typer.Option("--rung", metavar="PRECISION", help="May be repeated.  \\[default: the ladder]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Measure again even where nothing has changed.")] = False,
    defer: DeferOption = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure speed, memory, energy and each agent's quality for every rung, on this machine.

    What was measured is used again until the weights, the build, the CPU, the threads or the probes change. Measure on
    a machine that does nothing else.
    """
    from finllm.cli.display.events import open_display
    from finllm.evaluation.calibrate import LADDER
    from finllm.evaluation.calibrate import calibrate as take
    from finllm.events import EventBus

    settings = load_settings().settings
    check_folder(settings.home, "FINLLM_HOME")
    wait_for_cleaner(defer, settings, TAKES)
    bus = EventBus()
    with open_display(as_json=as_json, quiet=quiet) as display:
        bus.subscribe(display)
        done = take(settings, bus, tuple(rung) if rung else LADDER, force=force)
    path = settings.engine_calibration_path
    if as_json:
        rows = [one.calibration.model_dump(mode="json") | {"fresh": one.fresh} for one in done]
        print_json({"file": str(path), "calibrations": rows})
        return
    console = out_console()
    for part in _tables(done):
        console.print(part)
    seconds = sum(one.calibration.seconds for one in done if one.fresh)
    reused = sum(not one.fresh for one in done)
    again = f"; {reused} of {len(done)} as measured before" if reused else ""
    console.print(f"measured in {seconds:.0f} s{again}; kept in {path}")


def _tables(done: list[CalibratedRung]) -> list[RenderableType]:
    from finllm.cli.display.report import table, text

    rungs = [one.calibration for one in done]
    batches = [rate.batch for rate in rungs[0].speed.decode]
    speed = table(
        ("rung", "prefill tok/s", *(f"decode {batch}" for batch in batches), "MiB", "J/token 1",
         f"J/token {batches[-1]}", "energy"),
        [(r.precision, f"{r.speed.prefill_tokens_per_second:.0f}",
          *(f"{rate.tokens_per_second:.0f}" for rate in r.speed.decode), f"{r.speed.memory_bytes / MIB:.0f}",
          f"{r.speed.decode[0].joules_per_token:.3f}", f"{r.speed.decode[-1].joules_per_token:.3f}", r.speed.energy)
         for r in rungs],
        right=tuple(range(1, len(batches) + 5)),
    )  # fmt: skip
    agents = list(rungs[0].quality)
    quality = table(
        ("agent's probes", "items", "chance", *(r.precision for r in rungs)),
        [(agent, str(rungs[0].quality[agent].items), f"{rungs[0].quality[agent].chance:.2f}",
          *(f"{r.quality[agent].score:.2f} (≥ {r.quality[agent].lower:.2f})" for r in rungs)) for agent in agents],
        right=(1, 2),
    )  # fmt: skip
    first = rungs[0]
    return [
        text(f"{first.model} on {first.key.cpu}, {first.key.threads} threads, {first.key.build}"),
        text("decode: tokens/s of all sequences together, by batch"),
        speed,
        text(f"energy {first.speed.energy}: {first.speed.energy_basis}"),
        text("share of labelled fields that were right, with its lower 95 % bound"),
        quality,
    ]
