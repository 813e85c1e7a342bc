"""Replay: a run's state at any node, rebuilt from its record, byte for byte; and the models asked again, apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

from finllm.desk.channels import OnRecord
from finllm.desk.desk import Desk, RunContext, forgetful
from finllm.desk.request import RunRequest
from finllm.errors import BackendError, BudgetExceeded, InputError, ReplayRefused
from finllm.events import EventBus
from finllm.graphs.basis import READER, Difference, Standing, differences, not_compared
from finllm.graphs.rows import Json
from finllm.graphs.state import state_hash
from finllm.guardrails.audit.reading import open_recorded
from finllm.memory.entries import Failure, RecordedCall
from finllm.memory.reading import RunRow
from finllm.memory.recorded import NotOnRecord, RecordedLedger
from finllm.review.influence import NODE
from finllm.scheduler.backends import Backend, Generation, Offer, Request
from finllm.scheduler.broker import Answer, Broker
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.task import Task, canonical
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.outcome import ENGINE

BESIDE = frozenset(("market_signal", "narrative"))
"""The nodes that run side by side: where a run stopped at one, the other is no place to rebuild it up to."""
NEAR_TIE = 0.02
"""A choice decided by less than this in probability is a near-tie, told apart from a real change."""


@dataclass(frozen=True)
class Replayed:
    """A state rebuilt. `hashes` holds (node, sha256) of every state on the way, each equal to the recorded one."""

    run_id: str
    node: str
    state: Json
    sha256: str
    hashes: tuple[tuple[str, str], ...]
    not_compared: tuple[str, ...]
    market: MarketStore
    """What it was rebuilt on: imported data is read only where the run had some."""

    @property
    def data(self) -> bytes:
        """The state's own bytes, which `sha256` is of."""
        return canonical(self.state)


@dataclass(frozen=True)
class Regenerated:
    """A recorded call and what the model says to it now. `gap`: the largest change of a probability."""

    key: str
    agent: str
    node: str
    backend: str
    matched: bool
    near_tie: bool
    gap: float
    reason: str | None = None


class _ReachedError(Exception):
    """The node that was asked for has been replayed."""


class _Recorded:
    """A backend that is only a name: what it once answered is in the record, and it answers nothing new."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer

    @property
    def offer(self) -> Offer:
        return self._offer

    async def generate(self, request: Request) -> Generation:
        del request
        raise BackendError(f"{self._offer.name!r} has no such answer on record", fix="a replay asks no model")


class _RecordBroker(Broker):
    """The broker over the record: what nobody answered then, nobody answers now, in the same words."""

    def __init__(self, backends: Sequence[Backend], ledger: RecordedLedger, bus: EventBus) -> None:
        placed = [use.entry.request.get("came", ()) for use in ledger.uses(ledger.run_id, "placement")]
        there = {backend.offer.name for backend in backends}
        came = [_Recorded(Offer.from_record(one)) for one in max(placed, key=len, default=())
                if one["name"] not in there]  # fmt: skip
        super().__init__([*backends, *came], ledger, bus, call_timeout=float("inf"))
        self._ledger, self._first = ledger, len(backends)

    def _placement_key(self, task: Task, run_id: str, failed: Mapping[str, str]) -> str:
        """As it was when the task was placed: of the backends that came in mid-run, only some were there."""
        keys = [self._placed_among(self.offers[:there], task, run_id, failed)
                for there in range(len(self.offers), self._first - 1, -1)]  # fmt: skip
        return next((key for key in keys if self._ledger.lookup(key) is not None), keys[-1])

    async def answered(self, task: Task, account: Account, about: Mapping[str, Any]) -> Answer:
        try:
            return await super().answered(task, account, about)
        except (BackendError, NotOnRecord) as error:
            failure = self._ledger.failure_of(about)
            if failure is not None:
                told = Failure.of(failure)
                if told.short is not None:
                    raise BudgetExceeded(told.message, fix=told.fix, short=told.short) from None
                raise BackendError(told.message, fix=told.fix) from None
            if isinstance(error, NotOnRecord):
                raise
            raise NotOnRecord(f"node {task.node!r}: the answer to {task.agent!r} is not on record",
                              fix="the run stopped there; 'finllm resume' goes on with it") from error  # fmt: skip


class _States:
    """The recorded states of a run: compares each that is rebuilt, and stops at the one asked for."""

    def __init__(self, ledger: RecordedLedger, at: str | None) -> None:
        uses = [use.entry for use in ledger.used_by_run if use.entry.kind == "state"]
        self._recorded = {(e.request["node"], e.request["before"]): e.response["sha256"] for e in uses}
        if not self._recorded:
            raise ReplayRefused(f"run {ledger.run_id!r} has no state on record: it is older than replays are",
                                fix="run it again")  # fmt: skip
        nodes = list(dict.fromkeys(node for node, _before in self._recorded))
        whole = [node for node, _before in self._recorded if {*nodes} >= BESIDE or node not in BESIDE]
        name, _, count = (at or whole[-1]).partition(":")
        passes = [pair for pair in self._recorded if pair[0] == name]
        if not passes or not (count or "1").isdigit() or not 0 < int(count or len(passes)) <= len(passes):
            raise InputError(f"run {ledger.run_id!r} has no state at {at!r}", fix=f"use one of {', '.join(nodes)}, or "
                             "NODE:2 for a node's second pass")  # fmt: skip
        self._target = passes[int(count or len(passes)) - 1]
        self.hashes: list[tuple[str, str]] = []
        self.state: Json | None = None

    @property
    def target(self) -> str:
        return self._target[0]

    def watch(self, node: str, before: Json, after: Json) -> None:
        started, ended = state_hash(before), state_hash(after)
        recorded = self._recorded.get((node, started))
        if recorded != ended:
            raise ReplayRefused(f"the state after {node!r} differs: it was {(recorded or 'not reached')[:12]}, it is "
                                f"{ended[:12]}", fix="inputs, prompts and weights are the same: the code or a library "
                                "has changed since, or the ledger was altered")  # fmt: skip
        self.hashes.append((node, ended))
        if (node, started) == self._target:
            self.state = after
            raise _ReachedError


async def replay(run_id: str, desk: Desk, *, at: str | None = None, afresh: bool = True) -> Replayed:
    """Rebuild the state after node `at` (`NODE` or `NODE:2` for its second pass), or the last on record.

    `afresh`: the encoders read every text again; without, what they made of it before may be remembered.

    Every node runs again; models answer from the record, and the digest of each state on the way must be the recorded
    one. Nothing is written, no model is loaded. Errors: RecordAltered for a record that is not what the audit log says;
    ReplayRefused naming the input, prompt, weights or state that differs; InputError for an unknown run or node.
    """
    with open_recorded(desk.settings, run_id) as ledger:
        row = ledger.run(run_id)
        if row is None:
            raise InputError(f"no run {run_id!r}", fix="'finllm runs list' shows those on record")
        states = _States(ledger, at)
        basis = await asyncio.to_thread(_checked, row, desk, ledger)  # reads whole files, weights among them
        await _run(basis, run_id, forgetful(desk) if afresh else desk, ledger, states)
        if states.state is None:
            raise ReplayRefused(f"the replay ended before {states.target!r}", fix="report this as a fault of finllm")
        rebuilt, result = states.state.get("report"), row.result
        if isinstance(rebuilt, dict) and result is not None and _found(rebuilt) != _found(result):
            raise ReplayRefused(f"the report of run {run_id!r} is not the one that its record leads to",
                                fix="start a new run, and compare the two with 'finllm diff'")  # fmt: skip
        return Replayed(run_id, states.target, states.state, state_hash(states.state), tuple(states.hashes),
                        basis.not_compared, basis.market)  # fmt: skip


@dataclass(frozen=True)
class _Basis:
    """What a run stood on when it last went on, found unchanged, and the market data of then."""

    request: RunRequest
    standing: Standing
    market: MarketStore
    not_compared: tuple[str, ...]


def _checked(row: RunRow, desk: Desk, ledger: RecordedLedger) -> _Basis:
    """Compare all that the run stood on with what is here. Errors: ReplayRefused."""
    standings = _standings(ledger)
    for standing in standings:
        if standing.engine != ENGINE:
            raise ReplayRefused(
                f"run {row.id!r} was made by engine {standing.engine}, and P&L is now computed by engine {ENGINE}",
                fix=f"'finllm trace {row.id}' and 'finllm audit verify' still read it; start a new run, and "
                "compare the two with 'finllm diff'",
            )
    for standing in standings:
        for difference in differences(standing, row.request, desk):
            _refuse(row.id, difference)
    last, request = standings[-1], RunRequest.model_validate(row.request)
    market = request.market(desk.settings.data_dir if last.imported else None, last.data)
    return _Basis(request, last, market, tuple(not_compared(last, row.request)))


def _found(report: Mapping[str, Any]) -> bytes:
    """A report's bytes without what it cost, which is no part of what was found."""
    return canonical({name: value for name, value in report.items() if name != "spent"})


def _standings(ledger: RecordedLedger) -> list[Standing]:
    """What the run stood on, once for each time it was started or resumed."""
    found = [use.entry.response for use in ledger.used_by_run if use.entry.kind == "inputs"]
    if not found:
        raise ReplayRefused(f"run {ledger.run_id!r} has no inputs on record: it is older than replays are",
                            fix="run it again")  # fmt: skip
    return [Standing.model_validate(one) for one in found]


def _refuse(run_id: str, difference: Difference) -> NoReturn:
    raise ReplayRefused(f"run {run_id!r} is not replayed: {difference}",
                        fix="restore it, or start a new run and compare the two with 'finllm diff'")  # fmt: skip


async def _run(basis: _Basis, run_id: str, desk: Desk, ledger: RecordedLedger, states: _States) -> None:
    from finllm.graphs.flow import walk

    standing, quiet = basis.standing, EventBus()
    broker = _RecordBroker([_Recorded(one.as_offer()) for one in standing.weights], ledger, quiet)
    settings = desk.settings.model_copy(update={"deep_precision": standing.precision})
    card = standing.card if "card" in standing.model_fields_set else desk.card  # older runs have none on record
    reader = standing.data.get(READER)
    desk = replace(desk, channels=None if reader is None else OnRecord(reader))
    table = replace(desk, settings=settings, bus=quiet, ledger=ledger, broker=broker, values=None, card=card,
                    pruned=standing.pruned, escalating=frozenset(standing.escalate))  # fmt: skip
    account = Account(Budget(), time.monotonic)
    run = RunContext(table, run_id, basis.request, basis.market, account, states.watch)
    try:
        await walk(run)
    except (_ReachedError, BudgetExceeded):  # the run stopped there, or beside
        return


async def regenerate(run_id: str, ledger: RecordedLedger, backends: Iterable[Backend]) -> list[Regenerated]:
    """Ask the models again for every call of the run but its explanation's, one by one. Nothing is written.

    Errors: ReplayRefused where no backend has the weights that answered.
    """
    by_weights = {(one.offer.weights_sha256, one.offer.precision): one for one in backends}
    found: list[Regenerated] = []
    calls = {use.key: use for use in ledger.used_by_run if use.entry.kind == "call" and use.node != NODE}
    for key, use in calls.items():
        asked = RecordedCall.of(use.entry)
        backend = by_weights.get((asked.weights_sha256, asked.precision))
        if backend is None:
            raise ReplayRefused(
                f"run {run_id!r} is not regenerated: the weights {asked.weights_sha256[:12]} of "
                f"{use.entry.actor!r} are not here",
                fix="set the model and precisions that the run had",
            )
        request = Request(asked.prompt, asked.steps(), asked.priors, asked.seed)
        try:
            said = await backend.generate(request)
        except BackendError as error:
            found.append(Regenerated(key, asked.agent, use.node, use.entry.actor, False, False, 1.0, error.message))
            continue
        gaps = [
            abs(said.choices.get(field, {}).get(value, 0.0) - p)
            for field, row in asked.choices.items()
            for value, p in row.items()
        ]
        found.append(
            Regenerated(
                key, asked.agent, use.node, use.entry.actor, said.text == asked.text, _near_tie(asked.choices),
                max(gaps, default=0.0),
            )
        )  # fmt: skip
    return found


def _near_tie(choices: Mapping[str, Mapping[str, float]]) -> bool:
    ranked = [sorted(row.values(), reverse=True) for row in choices.values() if len(row) > 1]
    return any(first - second < NEAR_TIE for first, second, *_rest in ranked)


def regenerated_json(found: Sequence[Regenerated]) -> dict[str, Any]:
    """The share that matched, with every call."""
    matched = sum(one.matched for one in found)
    return {
        "calls": len(found),
        "matched": matched,
        "share": matched / len(found) if found else None,
        "largest_gap": max((one.gap for one in found), default=0.0),
        "answers": [asdict(one) for one in found],
    }
