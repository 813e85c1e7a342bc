"""What a person, a pipe and a program see of a run while it goes on."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from finllm.cli.display.events import JsonLines, LiveDisplay, Plain, open_when_noticed
from finllm.events import (
    Abstained,
    CallFinished,
    CallStarted,
    Event,
    EventBus,
    Judged,
    NodeFinished,
    NodeStarted,
    Noted,
    Placed,
    Progress,
    RunFinished,
    RunStarted,
)

STORY: list[Event] = [
    RunStarted(run_id="r1", title="Hormuz\x1b[31m", as_of="2022-06-30", resumed=True),
    NodeStarted(node="narrative"),
    Placed(agent="narrative", node="narrative", chosen="edge", refused={"deep": "below its price"}),
    CallStarted(key="k", agent="narrative", backend="edge"),
    CallFinished(key="k", agent="narrative", backend="edge", reused=False, seconds=1.25, tokens=311),
    CallFinished(key="k", agent="narrative", backend="edge", reused=True, seconds=0.0, tokens=0),
    Judged(agent="narrative", judgement={"event": "blockade"}),
    Abstained(agent="compliance", reason="invalid twice"),
    NodeFinished(node="narrative", seconds=1.3),
    Noted(level="warning", message="VIX is stale"),
    RunFinished(run_id="r1", status="finished"),
]


class Flushed(io.StringIO):
    """A stream that remembers how much of it was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = ""

    def flush(self) -> None:
        self.flushed = self.getvalue()


def test_json_lines_carry_every_event_and_are_flushed_at_once() -> None:
    stream = Flushed()
    renderer = JsonLines(stream)
    for at, event in enumerate(STORY, start=1):
        renderer(event)
        assert len(stream.flushed.splitlines()) == at
    found = [json.loads(line) for line in stream.flushed.splitlines()]
    assert [one["kind"] for one in found] == [event.model_dump()["kind"] for event in STORY]
    assert found[0] == STORY[0].model_dump(mode="json")
    assert stream.flushed.isascii()


def test_plain_tells_the_story_in_lines() -> None:
    stream = io.StringIO()
    renderer = Plain(stream)
    for event in STORY:
        renderer(event)
    assert stream.getvalue().splitlines() == [
        "run r1: Hormuz [31m, as of 2022-06-30 (resumed)",
        "narrative: started",
        "narrative: narrative placed on edge; deep refused: below its price",
        "narrative: edge answered in 1.2 s, 311 tokens",
        "narrative: answered from the ledger (edge)",
        "compliance abstained: invalid twice",
        "narrative: done in 1.3 s",
        "warning: VIX is stale",
        "run r1: finished",
    ]


def test_plain_reports_a_wait_at_most_every_two_seconds() -> None:
    stream, now = io.StringIO(), [0.0]
    renderer = Plain(stream, clock=lambda: now[0])
    for step in range(1, 101):
        now[0] = step / 16
        renderer(Progress(what="deriving Q4_0", done=step, total=100))
    assert stream.getvalue().splitlines() == [
        f"deriving Q4_0: {step} of 100" for step in (1, 33, 65, 97)]  # fmt: skip


def test_a_wait_that_is_over_within_two_seconds_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with open_when_noticed(as_json=False, clock=lambda: now[0]) as show:
        show(Progress(what="seeking", done=0, total=9))
        assert capsys.readouterr().err == ""
        now[0] = 2.5
        show(Progress(what="seeking", done=4, total=9))
        assert capsys.readouterr().err == "seeking: 4 of 9\n"


def test_live_keeps_what_lasts_and_cleans_up_after_itself() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, markup=False, emoji=False, highlight=False)
    with LiveDisplay(console) as live:
        bus = EventBus(live)
        for event in STORY:
            bus.emit(event)
        with live.pause():
            stream.write("ASKED")
    text = stream.getvalue()
    assert "VIX is stale" in text
    assert "compliance abstained: invalid twice" in text
    assert "Hormuz\x1b[31m" not in text
    assert "ASKED" in text
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in text.split("ASKED")[1]  # the cursor is back


@pytest.mark.parametrize("event", STORY, ids=lambda event: event.kind)
def test_live_draws_after_any_event(event: Event) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with LiveDisplay(console) as live:
        live(event)
        live(Progress(what="deriving F16", done=3, total=9))
        console.print(live._draw())  # pyright: ignore[reportPrivateUsage]
    assert isinstance(console.file, io.StringIO)
    assert "deriving F16: 3 of 9" in console.file.getvalue()
