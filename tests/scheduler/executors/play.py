"""A process that asks a cluster for calls, as a run does, and prints what came of them as one JSON object a line.

`python -m tests.scheduler.executors.play TASKS [SECONDS [critical]]`: tasks, spread over so many seconds in bursts of
twenty; critical ones run in two domains.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finllm.desk.executor import executor_of
from finllm.desk.queue import LaterHere, spec_here
from finllm.events import CallFailed, Event, EventBus
from finllm.memory.ledger import Ledger
from finllm.scheduler.backends import Backend
from finllm.scheduler.backends.kind import Opening
from finllm.scheduler.backends.registry import open_backends
from finllm.scheduler.broker import Answer, Broker
from finllm.scheduler.decoding.template import Write
from finllm.scheduler.health.breaker import Patience
from finllm.scheduler.health.services import Services
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.dispatch import Dispatch
from finllm.settings import Settings, load_settings
from tests.scheduler.brokers import TASK

BURST = 20
"""Tasks asked at once."""


class Play:
    """A broker on this home's cluster, with a ledger of its own. `told` keeps what was put on record, with its time."""

    def __init__(self, settings: Settings, closing: contextlib.ExitStack, *, cluster: bool = True) -> None:
        self.told = list[tuple[float, str, dict[str, Any]]]()
        self.failed = list[float]()
        chosen = settings.model_copy(update={"cluster": "here" if cluster else None})
        executor = executor_of(chosen, self._tell, open_backends)
        started = time.monotonic()
        backends: Sequence[Backend] = executor.open(Opening(chosen, EventBus(), closing))
        self.opened_in = time.monotonic() - started
        folder = closing.enter_context(tempfile.TemporaryDirectory())
        self.ledger = Ledger(Path(folder) / "ledger.sqlite")
        closing.callback(self.ledger.close)
        services = Services(backends, patience=Patience())
        dispatch = Dispatch([spec_here(chosen, one) for one in backends], services.shut)
        self.broker = Broker(backends, self.ledger, EventBus(self._watch), call_timeout=120.0, services=services,
                             dispatch=dispatch, joining=LaterHere(chosen, executor))  # fmt: skip
        self.account = Account(Budget(), time.monotonic)

    def _tell(self, what: str, about: Any) -> None:
        self.told.append((time.monotonic(), what, dict(about)))

    def _watch(self, event: Event) -> None:
        if isinstance(event, CallFailed):
            self.failed.append(time.monotonic())

    async def ask(self, seed: int, tokens: int = 0, *, critical: bool = False) -> Answer:
        """One call that nobody has made before; with `tokens`, one that writes so many."""
        task = replace(TASK, seed=seed, node=f"n{seed}", critical=critical)
        if tokens:
            task = replace(task, template=(Write("text", tokens, None),))
        return await self.broker.run(task, self.account, run_id="run")

    def sums(self, answers: Sequence[Answer | BaseException]) -> dict[str, Any]:
        """What came of tasks: how many were lost, answered twice, and answered where."""
        uses = [use for use in self.ledger.uses("run", "call") if not use.reused]
        twice = sum(n - 1 for n in Counter(use.key for use in uses).values())
        twice += sum(n - 1 for n in Counter(use.node for use in uses).values())
        good = [one for one in answers if isinstance(one, Answer)]
        return {"tasks": len(answers), "lost": len(answers) - len(good), "twice": twice,
                "why": sorted({str(one) for one in answers if not isinstance(one, Answer)}),
                "twins": sum(bool(use.entry.response["twin"]) for use in self.ledger.uses("run", "placement")),
                "copies_charged": len(self.ledger.uses("run", "charge")),
                "by": dict(Counter(one.offer.name.rpartition("@")[2] for one in good))}  # fmt: skip


async def spread(play: Play, tasks: int, seconds: float, *, critical: bool = False) -> dict[str, Any]:
    waits = dict[int, float]()

    async def later(at: int) -> Answer:
        await asyncio.sleep(seconds * (at - at % BURST) / tasks)
        asked = time.monotonic()
        answer = await play.ask(at, critical=critical)
        waits[at // BURST] = max(waits.get(at // BURST, 0.0), time.monotonic() - asked)
        if at % 10 == 0:
            print(json.dumps({"answered": at}), flush=True)
        return answer

    answers = await asyncio.gather(*(later(at) for at in range(tasks)), return_exceptions=True)
    return play.sums(answers) | {"longest": [waits[burst] for burst in sorted(waits)]}


def main() -> None:
    tasks, seconds = int(sys.argv[1]), float((sys.argv[2:] or ["0"])[0])
    with contextlib.ExitStack() as closing:
        play = Play(load_settings().settings, closing)
        found = asyncio.run(spread(play, tasks, seconds, critical="critical" in sys.argv))
    print(json.dumps(found | {"told": [[what, about] for _, what, about in play.told]}))


if __name__ == "__main__":
    main()
