"""The desk: what all runs of a process share — ledger, broker with its backends, knowledge base — opened once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finllm.agents.agent import Caller
from finllm.events import EventBus, Noted, Progress
from finllm.graphs.request import RunRequest
from finllm.memory.knowledge import KnowledgeBase
from finllm.memory.ledger import Ledger
from finllm.models.embedding import Embedder
from finllm.models.ladder import ensure_rung
from finllm.models.registry import default_source
from finllm.scheduler.backends import Backend, Offer
from finllm.scheduler.backends.llama_cpp import LlamaCppBackend, llama_build
from finllm.scheduler.broker import Broker
from finllm.scheduler.engine.engine import EngineConfig
from finllm.scheduler.engine.process import EngineProcess
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


@dataclass(frozen=True)
class RunContext:
    """One run at the desk: handed to every node."""

    desk: Desk
    run_id: str
    request: RunRequest
    market: MarketStore
    account: Account

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
        process = EngineProcess()
        closing.callback(process.close)
        backends = llama_backends(settings, bus, process)
        yield assemble(settings, bus, ledger, backends)


def assemble(settings: Settings, bus: EventBus, ledger: Ledger, backends: Sequence[Backend]) -> Desk:
    """A desk from its parts; tests pass other backends."""
    embedder = Embedder()
    broker = Broker(backends, ledger, bus, call_timeout=settings.call_timeout)
    knowledge = KnowledgeBase(settings.knowledge_dir, embedder)
    return Desk(settings, bus, ledger, broker, knowledge, embedder, Calibrations(settings.calibrations_dir))


def llama_backends(settings: Settings, bus: EventBus, process: EngineProcess) -> list[LlamaCppBackend]:
    """The edge and the deep backend of the default model, both derived from one file: deep is no deeper than that."""
    source = default_source(settings)

    def progress(what: str, done: int, total: int) -> None:
        bus.emit(Progress(what=what, done=done, total=total))

    backends: list[LlamaCppBackend] = []
    tiers: tuple[tuple[Tier, str], ...] = (("edge", settings.edge_precision), ("deep", settings.deep_precision))
    for tier, precision in tiers:
        rung = ensure_rung(source, precision, settings, progress)
        name = f"{tier}:{source.name}:{precision}"
        config = EngineConfig(
            rung.path,
            threads=settings.threads,
            slots=settings.slots,
            context=settings.context,
            cells=settings.context * min(settings.slots, 2),
            store=settings.prefix_cache << 20,
        )
        offer = Offer(name, tier, precision, rung.sha256, llama_build(), settings.context)
        backends.append(LlamaCppBackend(process.open(name, config), offer))
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
