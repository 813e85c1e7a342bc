"""A process of its own that resumes runs on scripted agents, one for each line of stdin: `python -m … HOME LEASE`.

Where a run is under way it says so, `{"at": node}`, and goes on only at the next line; then it says how that ended.
So a test decides who is in the middle of what, and waits for no clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from finllm.desk.desk import Desk, assemble
from finllm.errors import FinllmError
from finllm.events import Event, EventBus, NodeStarted, Noted
from finllm.graphs.flow import resume
from finllm.guardrails.audit.recorder import open_recorder
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from finllm.tools.data.scenario import BudgetEntry
from finllm.tools.forecasts.forecast import MEMORY
from tests.graphs.test_flow import READS_WELL

ENOUGH = BudgetEntry(seconds=None, tokens=1_000_000, deep_tokens=None)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def scripted(settings: Settings, bus: EventBus) -> Desk:
    """A desk on an audited ledger, whose backends answer from a script."""
    backends = [ScriptedBackend([READS_WELL], name="edge"),
                ScriptedBackend([READS_WELL], name="deep", tier="deep", precision="F16")]  # fmt: skip
    return replace(assemble(settings, bus, open_recorder(settings), backends), calibrations=MEMORY)


def main() -> None:
    settings = Settings(home=Path(sys.argv[1]), lease=float(sys.argv[2]))
    bus, begun = EventBus(), False

    def halt(event: Event) -> None:
        nonlocal begun
        if isinstance(event, Noted) and "taken over" in event.message:
            say(noted=event.message)
        if isinstance(event, NodeStarted) and not begun:
            begun = True
            say(at=event.node)
            sys.stdin.readline()  # the event loop stands still meanwhile, and the heartbeat must not

    bus.subscribe(halt)
    desk = scripted(settings, bus)
    say(ready=True)
    for line in iter(sys.stdin.readline, ""):
        begun = False
        try:
            outcome = asyncio.run(resume(line.strip(), desk, budget=ENOUGH))
        except FinllmError as error:
            say(**error.to_json())
        else:
            say(report=None if outcome.report is None else outcome.report.model_dump(mode="json"))


if __name__ == "__main__":
    main()
