"""A batch: many runs at one desk, side by side. What belongs to it is on record, so that any process can go on."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from finllm.desk.desk import Desk
from finllm.desk.request import RunRequest
from finllm.errors import RecordError
from finllm.events import RUN, BatchStarted
from finllm.graphs import flow
from finllm.graphs.basis import standing_of
from finllm.graphs.flow import Outcome, new_run_id
from finllm.memory.ledger import Ledger
from finllm.memory.reading import LedgerReader
from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import Entry, EntryKind
from finllm.tools.data.scenario import BudgetEntry

BATCH = EntryKind("batch")
"""The runs of a batch, and that they have ended."""


@dataclass(frozen=True)
class Member:
    """A run of a batch. `name`: what the user calls its scenario."""

    run_id: str
    name: str
    request: RunRequest


@dataclass(frozen=True)
class Batch:
    """Runs that belong together. `resumed`: an earlier process began it."""

    id: str
    members: tuple[Member, ...]
    resumed: bool = False


class _BegunRun(BaseModel):
    model_config = ConfigDict(frozen=True)

    run: str
    name: str
    request: RunRequest


class _Begun(BaseModel):
    """What the record says of a batch that was begun."""

    model_config = ConfigDict(frozen=True)

    id: str
    runs: tuple[_BegunRun, ...]

    @classmethod
    def of(cls, entry: Entry) -> _Begun:
        return cls.model_validate(entry.response)


@dataclass(frozen=True)
class Ended:
    """How a run of a batch stands when nothing more is done about it: with an outcome, or with what stopped it.

    `seconds`: wall-clock that it took in this process.
    """

    member: Member
    outcome: Outcome | None
    error: Exception | None
    seconds: float


Finish = Callable[[Member, Outcome], None]
"""Called on a thread with every run's report, before the run counts as ended; what it raises is the run's error."""


def open_batch(wanted: Sequence[tuple[str, RunRequest]], desk: Desk, now: dt.datetime, salt: str) -> Batch:
    """The batch of these scenarios, by name: one that was begun on the same inputs and has not ended, or a new one.

    The same inputs are the same scenarios, book, limits and prices, on the same prompts, data and weights. What a new
    one consists of is on record before this returns; `salt` keeps two of one second apart. Errors: RecordError.
    """
    standings = [standing_of(request, request.model_dump(mode="json"), desk) for _, request in wanted]
    inputs = sorted(key_of("inputs", standing.model_dump(mode="json")) for standing in standings)
    number, newest = 0, None
    while (entry := desk.ledger.lookup(_key(inputs, number))) is not None:
        newest, number = entry, number + 1
    if newest is not None and desk.ledger.lookup(_end_key(_Begun.of(newest).id)) is None:
        return _read(newest)
    id = new_run_id(f"batch of {len(wanted)}", now, salt)
    runs = [
        _BegunRun(run=new_run_id(request.scenario.title, now, f"{salt}{at:02}"), name=name, request=request)
        for at, (name, request) in enumerate(wanted)
    ]
    begun = _Begun(id=id, runs=tuple(runs)).model_dump(mode="json")
    entry = Entry(_key(inputs, number), BATCH, "finllm", {"inputs": inputs}, begun)
    desk.ledger.record(entry, run_id=id, node="start")
    kept = desk.ledger.lookup(entry.key) or entry  # another process may have been first
    return _read(kept, resumed=_Begun.of(kept).id != id)


def find_batch(batch_id: str, ledger: LedgerReader) -> Batch | None:
    """A batch on record, whether it has ended or not."""
    uses = ledger.uses(batch_id, BATCH)
    return _read(uses[0].entry) if uses else None


async def run_batch(
    batch: Batch, desk: Desk, jobs: int, finish: Finish, on_end: Callable[[Ended], None],
    budget: BudgetEntry | None = None,
) -> list[Ended]:  # fmt: skip
    """Bring every run of a batch to its end, `jobs` side by side; those that ended before give their report again.

    What stops one run stops no other. `on_end` is told of each as it ends; `budget` replaces that of the runs that are
    gone on with. Cancelled, it stops the runs under way at their checkpoints. Answers in the order of the members.
    Errors: RunHeld where another process is at it.
    """
    with desk.ledger.hold(batch.id):
        return await _run_all(batch, desk, jobs, finish, on_end, budget)


async def _run_all(
    batch: Batch, desk: Desk, jobs: int, finish: Finish, on_end: Callable[[Ended], None], budget: BudgetEntry | None
) -> list[Ended]:
    done = sum(_has_ended(member, desk.ledger) for member in batch.members)
    names = {member.run_id: member.name for member in batch.members}
    desk.bus.emit(BatchStarted(batch_id=batch.id, runs=names, done=done))
    room = asyncio.Semaphore(jobs)

    async def one(member: Member) -> Ended:
        async with room:
            RUN.set(member.run_id)
            ended = await _brought_to_its_end(member, desk, finish, budget)
            on_end(ended)
            return ended

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(member)) for member in batch.members]
    with contextlib.suppress(RecordError):  # then it counts as not ended, and is gone on with
        _record_end(batch, desk.ledger)
    return [task.result() for task in tasks]


async def _brought_to_its_end(member: Member, desk: Desk, finish: Finish, budget: BudgetEntry | None) -> Ended:
    started = time.monotonic()
    outcome, failure = None, None
    try:
        if desk.ledger.run(member.run_id) is None:
            outcome = await flow.run_stress_test(member.run_id, member.request, desk)
        else:
            outcome = await flow.resume(member.run_id, desk, budget=budget)
        if outcome.report is not None:
            await asyncio.to_thread(finish, member, outcome)
    except Exception as error:  # noqa: BLE001  whatever it is, the other runs go on; its caller says it
        failure = error
    return Ended(member, outcome, failure, time.monotonic() - started)


def _record_end(batch: Batch, ledger: Ledger) -> None:
    """A batch that has ended is not gone on with by the same command: that begins a new one."""
    key = _end_key(batch.id)
    if ledger.lookup(key) is None:
        ledger.record(Entry(key, BATCH, "finllm", {"batch": batch.id}, {}), run_id=batch.id, node="end")


def _has_ended(member: Member, ledger: LedgerReader) -> bool:
    row = ledger.run(member.run_id)
    return row is not None and row.result is not None


def _read(entry: Entry, *, resumed: bool = True) -> Batch:
    begun = _Begun.of(entry)
    return Batch(begun.id, tuple(Member(run.run, run.name, run.request) for run in begun.runs), resumed)


def _key(inputs: Sequence[str], number: int) -> str:
    """Of the batch on these inputs that was begun after `number` others."""
    return key_of("batch", {"inputs": list(inputs), "number": number})


def _end_key(batch_id: str) -> str:
    return key_of("batch-end", {"batch": batch_id})
