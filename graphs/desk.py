"""The desk: what all runs of a process share — ledger, broker with its backends, knowledge base — opened once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from finllm.agents.agent import Caller
from finllm.events import EventBus, Noted, Progress
from finllm.graphs.request import RunRequest
from finllm.graphs.state import Row
from finllm.memory.knowledge import KnowledgeBase
from finllm.memory.ledger import Ledger
from finllm.models.embedding import Embedder
from finllm.models.ladder import ensure_rung
from finllm.models.registry import default_source
from finllm.scheduler.backends import Backend
from finllm.scheduler.backends.llama_cpp import LlamaCppBackend
from finllm.scheduler.broker import Broker
from finllm.scheduler.task import Account, Budget, Spent, Tier
from finllm.settings import Settings
from finllm.tools.calibration import Calibrations
from finllm.tools.market import MarketStore


@dataclass(frozen=True)
class Desk:
    """Everything a run draws on. Nodes reach models only through `broker`."""

    settings: Settings
    bus: EventBus
    ledger: Ledger
    broker: Broker
    knowledge: KnowledgeBase
    embedder: Embedder
    calibrations: Calibrations
    weights: Mapping[str, Path] = field(default_factory=dict)
    """The weights file of each backend that has one, by the backend's name."""


class StateWatch(Protocol):
    """Sees the state before and after each node, as JSON-able data."""

    def __call__(self, node: str, before: Row, after: Row) -> None: ...


@dataclass(frozen=True)
class RunContext:
    """One run at the desk: handed to every node. `watch` is told the state around each."""

    desk: Desk
    run_id: str
    request: RunRequest
    market: MarketStore
    account: Account
    watch: StateWatch | None = None

    def caller(self, node: str) -> Caller:
        desk = self.desk
        return Caller(
            desk.broker, self.account, desk.bus, self.run_id, node, self.request.seed, desk.settings.call_timeout
        )


@contextlib.contextmanager
def open_desk(settings: Settings, bus: EventBus) -> Iterator[Desk]:
    """Open the desk on the default models: the ladder's edge and deep rungs are derived if they are not there.

    Errors: InputError for a model file that cannot be used, RecordError for a ledger that cannot be opened.
    """
    with contextlib.ExitStack() as closing:
        ledger = Ledger(settings.ledger_path)
        closing.callback(ledger.close)
        backends = llama_backends(settings, bus)
        for backend in backends:
            closing.callback(backend.close)
        yield assemble(settings, bus, ledger, backends)


def assemble(settings: Settings, bus: EventBus, ledger: Ledger, backends: Sequence[Backend]) -> Desk:
    """A desk from its parts; tests pass other backends."""
    embedder = Embedder()
    broker = Broker(backends, ledger, bus, call_timeout=settings.call_timeout)
    knowledge = KnowledgeBase(settings.knowledge_dir, embedder)
    weights = {backend.offer.name: backend.path for backend in backends if isinstance(backend, LlamaCppBackend)}
    calibrations = Calibrations(settings.calibrations_dir)
    return Desk(settings, bus, ledger, broker, knowledge, embedder, calibrations, weights)


def llama_backends(settings: Settings, bus: EventBus) -> list[LlamaCppBackend]:
    """The edge and the deep backend of the default model, both derived from one file: deep is no deeper than that."""
    source = default_source(settings)

    def progress(what: str, done: int, total: int) -> None:
        bus.emit(Progress(what=what, done=done, total=total))

    backends: list[LlamaCppBackend] = []
    tiers: tuple[tuple[Tier, str], ...] = (("edge", settings.edge_precision), ("deep", settings.deep_precision))
    for tier, precision in tiers:
        rung = ensure_rung(source, precision, settings, progress)
        backends.append(
            LlamaCppBackend(
                rung.path,
                rung.sha256,
                name=f"{tier}:{source.name}:{precision}",
                tier=tier,
                precision=precision,
                threads=settings.threads,
                context=settings.context,
            )
        )
    return backends


def open_run(desk: Desk, run_id: str, request: RunRequest) -> RunContext:
    """A run's context: its market (price files unchanged) and its account, with what earlier processes spent."""
    market = MarketStore([file.unchanged() for file in request.prices])
    budget = Budget(request.budget.seconds, request.budget.tokens, request.budget.deep_tokens)
    account = Account(budget, time.monotonic, _carried(desk.ledger, run_id))
    if request.portfolio.positions and any(p.currency == "USD" for p in request.portfolio.positions):
        desk.bus.emit(Noted(level="info", message="money is in USD: no FX series are given"))
    return RunContext(desk, run_id, request, market, account)


def adhoc_caller(desk: Desk, name: str) -> Caller:
    """A caller outside any run, without a budget; its calls are on record under `name`."""
    account = Account(Budget(), time.monotonic)
    return Caller(desk.broker, account, desk.bus, name, name, desk.settings.seed, desk.settings.call_timeout)


def _carried(ledger: Ledger, run_id: str) -> Spent:
    """What the calls that this run already made cost: model seconds and tokens of the entries it wrote itself."""
    calls = [use.entry for use in ledger.uses(run_id, "call") if not use.reused]
    tokens = [call.response["prompt_tokens"] + call.response["output_tokens"] for call in calls]
    deep = [count for call, count in zip(calls, tokens, strict=True) if call.request["offer"]["tier"] == "deep"]
    return Spent(sum(call.response["seconds"] for call in calls), sum(tokens), sum(deep))
