# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# LangGraph's own signatures are partly unknown; nothing else here is.
"""The stress-test graph: six agents, one deep re-reading, one person asked; run and resume."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, StateSnapshot
from pydantic import ValidationError

from finllm.desk.desk import Desk, RunContext, open_run
from finllm.desk.request import RunRequest
from finllm.desk.spending import SpentRow, copies_of, left_out_of
from finllm.errors import BudgetExceeded, InputError, RecordError, RunHeld
from finllm.events import NodeFinished, NodeStarted, Noted, RunFinished, RunStarted
from finllm.graphs.basis import on_record, recorded
from finllm.graphs.checkpoints import checkpointer
from finllm.graphs.learning import learn
from finllm.graphs.nodes.compliance import compliance
from finllm.graphs.nodes.intake import intake
from finllm.graphs.nodes.reading import market_signal, narrative, reread, sanity_checker
from finllm.graphs.nodes.report import report
from finllm.graphs.nodes.stress_tester import stress_tester
from finllm.graphs.nodes.validation import ANSWERS, after_validator, human, question_of, validator
from finllm.graphs.report import Report
from finllm.graphs.rows import Json, OpinionRow, StateRow
from finllm.graphs.state import (
    AfterCompliance,
    AfterIntake,
    AfterStress,
    AfterValidator,
    Channels,
    Finished,
    Start,
    Update,
    after,
)
from finllm.memory.leases import Lease
from finllm.memory.reading import RunRow
from finllm.tools.data.scenario import BudgetEntry

Node = Callable[[Json, RunContext], Coroutine[Any, Any, Json]]
Read = TypeVar("Read", bound=StateRow)


def _node(name: str, reads: type[Read], work: Callable[[Read, RunContext], Awaitable[Update]]) -> tuple[str, Node]:
    """A node over the channels: what it reads is parsed, what it found is dumped.

    Errors: RecordError where a checkpoint does not hold what the node reads.
    """

    async def over_json(channels: Json, run: RunContext) -> Json:
        try:
            state = reads.model_validate(channels)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise RecordError(f"the checkpoint of run {run.run_id!r} does not hold the {where!r} that {name!r} reads",
                              fix="run it again: recorded calls are answered from the ledger") from error  # fmt: skip
        return (await work(state, run)).to_json()

    return name, over_json


NODES: dict[str, Node] = dict((
    _node("intake", Start, intake),
    _node("market_signal", AfterIntake, market_signal),
    _node("narrative", AfterIntake, narrative),
    _node("sanity_checker", AfterIntake, sanity_checker),
    _node("validator", AfterIntake, validator),
    _node("reread", AfterValidator, reread),
    _node("human", AfterValidator, human),
    _node("stress_tester", AfterValidator, stress_tester),
    _node("compliance", AfterStress, compliance),
    _node("report", AfterCompliance, report),
))  # fmt: skip
"""Each node with the state that it reads, which is what the nodes before it have found."""


@dataclass(frozen=True)
class Outcome:
    """How a run stands. `waiting`: a person has to answer `question`; otherwise there is a report.

    `state`: what the report was made of, where the run came to its end in this process.
    """

    run_id: str
    status: Literal["finished", "blocked", "waiting"]
    report: Report | None
    question: dict[str, Any] | None = None
    state: Finished | None = None


def new_run_id(title: str, now: dt.datetime, salt: str) -> str:
    """A readable id: UTC time, words of the title, and a salt that keeps two runs of one second apart."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].rstrip("-")
    return f"{now.astimezone(dt.UTC):%Y%m%d-%H%M%S}-{words}-{salt}"


async def run_stress_test(run_id: str, request: RunRequest, desk: Desk, *, background: bool = False) -> Outcome:
    """Run a request from start to end. Its inputs are on record before the first node starts.

    `background`: its calls give way to those of all other runs.
    Errors: BudgetExceeded, GroundingError, RecordError stop the run at a checkpoint that `resume` continues from.
    """
    run = replace(open_run(desk, run_id, request), background=background)
    with desk.ledger.start_run(run_id, request.model_dump(mode="json")) as lease:
        run = recorded(run)
        desk.bus.emit(RunStarted(run_id=run_id, title=request.scenario.title, as_of=request.as_of.isoformat()))
        return await _drive(run, {"opinions": []}, lease)


async def resume(run_id: str, desk: Desk, *, answer: str | None = None, budget: BudgetEntry | None = None) -> Outcome:
    """Continue a run from its last checkpoint; what the ledger holds is answered from it.

    A run that ended gives its report again. `answer` is a person's, `budget` replaces the one the run had.
    Errors: InputError for an unknown run or an answer that nobody asked for; RunHeld where another process is at it.
    """
    if (ended := _ended(run_id, desk, answer)) is not None:
        return ended
    with desk.ledger.hold(run_id) as lease:
        if (ended := _ended(run_id, desk, answer)) is not None:  # who held it has ended it
            return ended
        request = RunRequest.model_validate(_row(run_id, desk).request)
        if budget is not None:
            scenario = request.scenario.model_copy(update={"budget": budget})
            request = request.model_copy(update={"scenario": scenario})
        if lease.taken_from is not None:
            told = f"run {run_id!r} is taken over from {lease.taken_from.told}: that process has died or stands still"
            desk.bus.emit(Noted(level="info", message=told))
        run = recorded(open_run(desk, run_id, request))
        desk.bus.emit(
            RunStarted(run_id=run_id, title=request.scenario.title, as_of=request.as_of.isoformat(), resumed=True)
        )
        return await _drive(run, None, lease, answer)


def _row(run_id: str, desk: Desk) -> RunRow:
    row = desk.ledger.run(run_id)
    if row is None:
        raise InputError(f"no run {run_id!r}", fix="run 'finllm runs list' for those on record")
    return row


def _ended(run_id: str, desk: Desk, answer: str | None) -> Outcome | None:
    """The outcome of a run that has its report already."""
    result = _row(run_id, desk).result
    if result is None:
        return None
    if answer is not None:
        raise _asks_nothing(run_id)
    done = Report.model_validate(result)
    return Outcome(run_id, done.status, done)


async def walk(run: RunContext) -> None:
    """Run every node from the start, without a checkpoint: for a replay, which is answered from the record."""
    start: Any = {"opinions": []}
    await build_graph().compile().ainvoke(start, context=run)


async def _drive(run: RunContext, start: Json | None, lease: Lease, answer: str | None = None) -> Outcome:
    desk, run_id = run.desk, run.run_id
    async with checkpointer(desk.settings.checkpoints_path, lease.check) as saver:
        walked = _Walk(run, build_graph().compile(checkpointer=saver))
        held = await walked.held()
        if held.values and not _believed(held, run):
            told = f"the checkpoint of run {run_id!r} is not what is on record; it goes on from its start instead"
            desk.bus.emit(Noted(level="warning", message=f"{told}, answered from the ledger"))
            await saver.adelete_thread(run_id)
            held = await walked.on({"opinions": []})
        elif answer is not None and not _waits(held):
            raise _asks_nothing(run_id)
        elif start is not None or not (held.next or held.values):
            held = await walked.on(start or {"opinions": []})
        elif not _waits(held):
            held = await walked.on(None)
        if answer is not None and _waits(held):
            if answer not in ANSWERS:
                raise InputError(f"{answer!r} is no answer", fix=f"answer with one of {', '.join(ANSWERS)}")
            held = await walked.on(Command(resume=answer))
        if _waits(held):
            if walked.moved:
                desk.ledger.end_run(run_id, "waiting", None)
            return Outcome(run_id, "waiting", None, question_of(AfterValidator.model_validate(held.values)))
        done = Report.model_validate(held.values["report"])
    spent = SpentRow.of(run.account.spent(), run.account.budget, copies_of(desk.ledger, run_id),
                        left_out_of(desk.ledger, run_id))  # fmt: skip
    if spent.over:
        desk.bus.emit(Noted(level="warning", message=f"run {run_id!r} took {spent.seconds:.1f} s, {spent.over}"))
    done = done.model_copy(update={"spent": spent})
    desk.ledger.end_run(run_id, done.status, done.model_dump(mode="json"))
    state = Finished.model_validate(held.values)
    await asyncio.to_thread(learn, state, run)
    desk.bus.emit(RunFinished(run_id=run_id, status=done.status))
    return Outcome(run_id, done.status, done, state=state)


async def state_of(run: RunContext) -> Finished | None:
    """The state that a run ended in, from its checkpoint; None where that is gone, or is not what is on record."""
    async with checkpointer(run.desk.settings.checkpoints_path) as saver:
        held = await _Walk(run, build_graph().compile(checkpointer=saver)).held()
    if held.next or not held.values or not on_record(cast(Json, held.values), run.run_id, run.desk.ledger):
        return None
    return Finished.model_validate(held.values)


@dataclass
class _Walk:
    """A run on its graph. Whatever stops it, a person's Ctrl-C too, it can be resumed, and says so."""

    run: RunContext
    graph: CompiledStateGraph[Channels, RunContext, Channels, Channels]
    moved: bool = False

    @property
    def config(self) -> Any:
        return {"configurable": {"thread_id": self.run.run_id}}

    async def held(self) -> StateSnapshot:
        return await self.graph.aget_state(self.config)

    async def on(self, begin: Any) -> StateSnapshot:
        """Go on until the end or a question; how it stands then."""
        ledger, run_id, self.moved = self.run.desk.ledger, self.run.run_id, True
        try:
            await self.graph.ainvoke(begin, self.config, context=self.run, durability="sync")
        except BaseException as error:
            with contextlib.suppress(RecordError, RunHeld):
                ledger.end_run(run_id, "stopped", None)
            self.run.desk.bus.emit(RunFinished(run_id=run_id, status="stopped"))
            if isinstance(error, BudgetExceeded):
                reached = _reached(cast(Json, (await self.held()).values))
                raise BudgetExceeded(f"{error.message}; {reached}", fix=error.fix) from error
            raise
        return await self.held()


def _waits(held: StateSnapshot) -> bool:
    return any(task.interrupts for task in held.tasks)


def _believed(held: StateSnapshot, run: RunContext) -> bool:
    """Whether a checkpoint holds what the run's nodes found, and stands where that leads to."""
    results = [cast(Json, task.result) for task in held.tasks if isinstance(task.result, dict)]
    values = cast(Json, held.values)
    if not all(on_record(found, run.run_id, run.desk.ledger) for found in (values, *results)):
        return False
    routed = {"reread", "human", "stress_tester"}.intersection(held.next)
    if not routed or "answer" in held.values:
        return True
    try:
        return routed == {after_validator(AfterValidator.model_validate(held.values), run)}
    except ValidationError:
        return False


def _reached(values: Json) -> str:
    """What a run that stops has found until then, in words."""
    opinions = [OpinionRow.model_validate(one) for one in cast(list[Any], values.get("opinions") or [])]
    judged = dict.fromkeys(one.agent for one in opinions if one.status == "judged")
    return f"judged until then: {', '.join(judged)}" if judged else "nothing was judged until then"


def _asks_nothing(run_id: str) -> InputError:
    return InputError(f"run {run_id!r} asks nothing", fix="resume it without --answer")


def studio() -> CompiledStateGraph[Channels, RunContext, Channels, Channels]:
    """The graph as LangGraph's studio opens it, by `langgraph.json`: what follows what, and its channels."""
    return build_graph().compile()


def build_graph() -> StateGraph[Channels, RunContext, Channels, Channels]:
    """The nodes and who follows whom. `human` stands alone: a node that asked runs again from its top."""
    graph: StateGraph[Channels, RunContext, Channels, Channels] = StateGraph(Channels, context_schema=RunContext)
    for name, node in NODES.items():
        graph.add_node(name, cast(Any, _timed(name, node)))
    graph.add_edge(START, "intake")
    graph.add_edge("intake", "market_signal")
    graph.add_edge("intake", "narrative")
    graph.add_edge(["market_signal", "narrative"], "sanity_checker")
    graph.add_edge("sanity_checker", "validator")
    graph.add_conditional_edges("validator", _routed, ["reread", "human", "stress_tester"])
    graph.add_edge("reread", "validator")
    graph.add_edge("human", "stress_tester")
    graph.add_edge("stress_tester", "compliance")
    graph.add_edge("compliance", "report")
    graph.add_edge("report", END)
    return graph


def _routed(channels: Json, runtime: Runtime[RunContext]) -> str:
    return after_validator(AfterValidator.model_validate(channels), runtime.context)


def _timed(name: str, node: Node) -> Callable[[Json, Runtime[RunContext]], Awaitable[Json]]:
    """The node with its events around it."""

    async def wrapped(channels: Json, runtime: Runtime[RunContext]) -> Json:
        bus = runtime.context.desk.bus
        bus.emit(NodeStarted(node=name))
        started = time.monotonic()
        out = await node(channels, runtime.context)
        if runtime.context.watch is not None:
            runtime.context.watch(name, channels, after(channels, out))
        bus.emit(NodeFinished(node=name, seconds=time.monotonic() - started))
        return out

    return wrapped
