"""Forty scenarios in one command: eight at a time against one after another, and whether they say the same.

Each side has a home of its own, in which the ladder, the knowledge base and the forecasts' calibrations are ready.
What counts as a near-tie is measured apart, after both sides: see `benchmarks/batch/noise.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.batch.noise import Noise, batch_noise, lead
from benchmarks.batch.scenarios import write_scenarios
from benchmarks.page import write_section
from finllm.desk.desk import assemble, cards_of
from finllm.errors import InputError
from finllm.events import EventBus
from finllm.memory.ledger import Ledger
from finllm.scheduler.backends.llama_cpp import llama_backends
from finllm.scheduler.engine.process import EngineProcess
from finllm.scheduler.placement.task import key_of
from finllm.settings import Settings
from finllm.tools.data.factors import FACTOR_IDS, FACTORS
from finllm.tools.data.market import MarketStore
from finllm.tools.data.scenario import load_scenario
from finllm.tools.forecasts.forecast import forecast

BAR = 1.5
READY = ("models", "knowledge", "calibrations")
LONGEST = 1800
ASKED_AGAIN = 400
"""Calls on which the noise of batching is measured."""


@dataclass(frozen=True)
class Side:
    """A batch that was run: its wall-clock s, the CPU s of it and its children, and its home.

    `others`: CPU s that everything else on the machine took meanwhile; much of it, and the wall-clock means little.
    """

    jobs: int
    seconds: float
    cpu: float
    others: float
    home: Path
    summary: dict[str, Any]


@dataclass(frozen=True)
class Flip:
    """A field that came out differently. `lead`: by how many nats the side that was surer preferred its own value."""

    what: str
    one: str
    other: str
    lead: float


@dataclass(frozen=True)
class Compared:
    """`fields` were asked alike on both sides; `unasked` calls were not, as an earlier answer differed."""

    calls: int
    fields: int
    unasked: int
    flips: tuple[Flip, ...]
    same_totals: int
    runs: int


def ready_home(home: Path, paths: list[Path]) -> None:
    """Derive the ladder, fill the knowledge base and calibrate the forecasts that the scenarios need."""
    settings = Settings(home=home)
    home.mkdir(parents=True, exist_ok=True)
    with closing(Ledger(home / "unused.sqlite")) as ledger, closing(EngineProcess()) as process:
        backends = llama_backends(settings, process)
        desk = assemble(settings, EventBus(), ledger, backends, cards_of(settings))
        desk.knowledge.open()
        market = MarketStore()
        for as_of, horizon in sorted({(one.as_of, one.horizon) for one in map(load_scenario, paths)}):
            for factor in FACTOR_IDS:
                series = FACTORS[factor].series
                if series is None or series not in market:
                    continue
                with contextlib.suppress(InputError):  # too little history by then: a run does without it, too
                    if not (seen := market.read(series, as_of)).stale:
                        forecast(seen, horizon, calibrations=desk.calibrations)
        desk.knowledge.close()


def run_side(jobs: int, ready: Path, home: Path, paths: list[Path]) -> Side:
    """Run the batch in a process of its own, on a home that knows no call."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for name in READY:
        shutil.copytree(ready / name, home / name)
    summary = home / "summary.json"
    command = [sys.executable, "-m", "finllm.cli.main", "run", *map(str, paths), "--jobs", str(jobs), "--quiet",
               "--summary", str(summary)]  # fmt: skip
    before, busy, started = os.times(), _busy(), time.monotonic()
    child = subprocess.run(command, env={**os.environ, "FINLLM_HOME": str(home)}, capture_output=True, text=True,
                           timeout=LONGEST, check=False)  # fmt: skip
    seconds, after = time.monotonic() - started, os.times()
    if child.returncode != 0:
        sys.exit(f"--jobs {jobs} failed:\n{child.stdout[-3000:]}\n{child.stderr[-3000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    timed = {"seconds": seconds, "cpu": cpu, "others": _busy() - busy - cpu}
    (home / "side.json").write_text(json.dumps(timed), encoding="utf-8")
    return kept_side(jobs, home)


def _busy() -> float:
    """CPU s that the whole machine has spent since it started, from the first line of /proc/stat (see proc(5))."""
    user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text("ascii").split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def kept_side(jobs: int, home: Path) -> Side:
    """A side that was run, by this command or another."""
    timed = json.loads((home / "side.json").read_text("utf-8"))
    return Side(jobs, **timed, home=home, summary=json.loads((home / "summary.json").read_text("utf-8")))


def compare(one: Side, other: Side) -> Compared:
    """Field by field, every call of every scenario; and the totals of the reports."""
    left, right = _calls(one), _calls(other)
    flips: list[Flip] = []
    calls = fields = unasked = 0
    for scenario, asked in left.items():
        for key, choices in asked.items():
            if key not in right[scenario]:
                unasked += 1
                continue
            calls += 1
            for field, found in choices.items():
                if len(found) < 2:
                    continue
                fields += 1
                flip = _flip(f"{scenario}: {field}", found, right[scenario][key][field])
                if flip is not None:
                    flips.append(flip)
        unasked += sum(key not in asked for key in right[scenario])
    totals = [{row["scenario"]: row["total"] for row in side.summary["runs"]} for side in (one, other)]
    same = sum(total == totals[1][name] for name, total in totals[0].items())
    return Compared(calls, fields, unasked, tuple(flips), same, len(totals[0]))


def _flip(what: str, one: dict[str, float], other: dict[str, float]) -> Flip | None:
    first, second = max(one, key=lambda v: one[v]), max(other, key=lambda v: other[v])
    if first == second:
        return None
    return Flip(what, first, second, max(lead(one, first, second), lead(other, second, first)))


def noise_of(settings: Settings, side: Side, count: int) -> Noise:
    """How far batching moves the choices of calls of this side, asked again in two ways that no run asks them in."""
    asked: dict[str, dict[str, Any]] = {}
    with closing(Ledger(side.home / "ledger.sqlite")) as ledger:
        for row in side.summary["runs"]:
            asked |= {use.key: use.entry.request for use in ledger.uses(row["run_id"], "call")}
    return batch_noise(settings, list(asked.values()), count)


def _calls(side: Side) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """By scenario, by what was asked (without the priors, which are another call's answer): the choices."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    with closing(Ledger(side.home / "ledger.sqlite")) as ledger:
        for row in side.summary["runs"]:
            of = found.setdefault(row["scenario"], {})
            for use in ledger.uses(row["run_id"], "call"):
                asked = {name: use.entry.request[name] for name in ("prompt", "template", "precision")}
                asked["neutral"] = use.entry.request["priors"] is None
                of[key_of("asked", asked)] = use.entry.response["choices"]
    return found


def report(one: Side, eight: Side, found: Compared, noise: Noise) -> tuple[str, bool]:
    """The section's text, and whether the bars are met: speed, and no flip beyond the noise of batching."""
    count = len(one.summary["runs"])
    ratio = one.seconds / eight.seconds
    widest = max((flip.lead for flip in found.flips), default=0.0)
    near = [flip for flip in found.flips if flip.lead <= noise.widest]
    lines = [
        f"{count} scenarios, caches on in both, each side on a fresh home; the whole command, opening included.",
        "",
        "| | wall-clock | scenarios a minute | CPU time | CPU time of other processes meanwhile |",
        "| --- | --- | --- | --- | --- |",
        *(f"| `--jobs {side.jobs}` | {side.seconds:.0f} s | {60 * count / side.seconds:.2f} | {side.cpu:.0f} s | "
          f"{side.others:.0f} s |" for side in (one, eight)),
        "",
        "| what | measured | bar | |",
        "| --- | --- | --- | --- |",
        f"| throughput, `--jobs {eight.jobs}` / `--jobs {one.jobs}` | {ratio:.2f} | ≥ {BAR} |"
        f" {'met' if ratio >= BAR else 'MISSED'} |",
        f"| fields that differ beyond a near-tie | {len(found.flips) - len(near)} of {found.fields} | 0 |"
        f" {'met' if len(near) == len(found.flips) else 'MISSED'} |",
        "",
        f"{found.calls} calls were asked alike on both sides, with {found.fields} fields. {len(found.flips)} came out "
        f"differently, {len(near)} of them near-ties: the lead of the best value over the other side's was at most "
        f"{widest:.3f} nat, and batching moves a lead by up to {noise.widest:.3f} nat. That is measured apart, after "
        f"both sides: {noise.calls} of the calls, with {noise.fields} fields, asked alone and in a crowd. "
        f"{found.unasked} calls were asked on one side only, since an earlier answer differed. The book's P&L is the "
        f"same in {found.same_totals} of {found.runs} runs.",
    ]  # fmt: skip
    return "\n".join(lines), ratio >= BAR and len(near) == len(found.flips)


def main() -> int:
    """Run both sides, compare them and write the page. Exit code 1 where a bar is missed."""
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.home or Path(temporary)
        paths = write_scenarios(folder / "scenarios", options.count)
        ready = folder / "ready"
        if not (ready / "done").exists():
            ready_home(ready, paths)
            (ready / "done").touch()
        homes = {jobs: folder / f"jobs-{jobs}" for jobs in (options.jobs, 1)}
        for jobs, home in homes.items():
            if options.side in (None, jobs):
                side = run_side(jobs, ready, home, paths)
                print(
                    f"--jobs {jobs}: {side.seconds:.1f} s, {side.cpu:.1f} s of CPU time, others {side.others:.1f} s",
                    flush=True,
                )
        if not all((home / "side.json").exists() for home in homes.values()):
            return 0
        one, eight = kept_side(1, homes[1]), kept_side(options.jobs, homes[options.jobs])
        found = compare(one, eight)
        noise = noise_of(Settings(home=ready), one, ASKED_AGAIN)
        text, met = report(one, eight, found, noise)
        print(text)
        for flip in _widest_first(found):
            print(f"  {flip.what}: {flip.one} or {flip.other}, lead {flip.lead:.3f} nat")
        if options.count >= 40:
            write_section("Batches", "make bench-batch", text)
    return 0 if met else 1


def _widest_first(found: Compared) -> Iterator[Flip]:
    yield from sorted(found.flips, key=lambda flip: -flip.lead)


def _options() -> argparse.Namespace:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--count", type=int, default=40, help="scenarios; the page is written from forty on")
    parse.add_argument("--jobs", type=int, default=8)
    parse.add_argument("--side", type=int, help="run only the side with so many jobs; the other is taken from --home")
    parse.add_argument("--home", type=Path, help="keep both homes here  [default: a temporary folder]")
    return parse.parse_args()


if __name__ == "__main__":
    sys.exit(main())
