"""What a person and a pipe see of a batch: every event in the name of its run."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from finllm.cli.display.batch import LiveBatch, PlainBatch, RunLines
from finllm.events import (
    RUN,
    Abstained,
    BatchStarted,
    CallFinished,
    MemberEnded,
    NodeStarted,
    Noted,
    Progress,
    Renderer,
    RunStarted,
)

STARTED = BatchStarted(batch_id="b-1", runs={"r-1": "hormuz", "r-2": "gilt"}, done=0)
FAILED = MemberEnded(run_id="r-2", status="failed", number=1, total=2, seconds=3.2,
                     error={"kind": "backend_failed", "message": "the engine is down", "fix": "start it"})  # fmt: skip


@contextmanager
def of(run_id: str) -> Iterator[None]:
    token = RUN.set(run_id)
    try:
        yield
    finally:
        RUN.reset(token)


def tell(show: Renderer) -> None:
    show(STARTED)
    for run_id in ("r-1", "r-2"):
        with of(run_id):
            show(RunStarted(run_id=run_id, title="A title", as_of="2022-06-30"))
            show(NodeStarted(node="intake"))
            show(Noted(level="info", message="money is in USD"))
            show(CallFinished(key="k", agent="narrative", backend="edge", reused=False, seconds=1.0, tokens=9))
    with of("r-1"):
        show(Noted(level="warning", message="excluded 'XYZ'\x1b[2J"))
        show(Abstained(agent="narrative", reason="it failed"))
    with of("r-2"):
        show(FAILED)


def test_plain_lines_name_the_run_and_say_a_shared_note_once() -> None:
    stream = io.StringIO()
    show = PlainBatch(stream, clock=lambda: 0.0)
    tell(show)
    assert stream.getvalue().splitlines() == [
        "batch b-1: 2 runs",
        "note: money is in USD",
        "hormuz: warning: excluded 'XYZ' [2J",
        "hormuz: narrative abstained: it failed",
        "1 of 2: gilt: failed after 3.2 s: the engine is down; start it",
    ]


def test_a_wait_is_told_at_most_every_two_seconds() -> None:
    stream, now = io.StringIO(), [0.0]
    show = PlainBatch(stream, clock=lambda: now[0])
    for done in range(6):
        now[0] = float(done)
        show(Progress(what="deriving Q4_0", done=done, total=6))
    assert len(stream.getvalue().splitlines()) == 3


def test_json_lines_carry_the_run() -> None:
    stream = io.StringIO()
    tell(RunLines(stream))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["run"] for line in lines if line["kind"] == "node_started"] == ["r-1", "r-2"]
    assert lines[0]["run"] is None
    assert lines[-1]["error"]["kind"] == "backend_failed"


def test_a_terminal_shows_a_line_for_each_run_under_way_and_the_counts() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with LiveBatch(console, clock=lambda: 0.0) as live:
        tell(live)
        drawn = Console(file=io.StringIO(), width=100, color_system=None)
        drawn.print(live._draw())
    shown = drawn.file.getvalue()  # type: ignore[attr-defined]
    assert "hormuz: intake 0 s" in shown
    assert "gilt: intake" not in shown
    assert "1 of 2 runs done · 1 failed · 2 calls, 0 from the ledger" in shown
    assert "gilt: failed after 3.2 s" in console.file.getvalue()  # type: ignore[attr-defined]
