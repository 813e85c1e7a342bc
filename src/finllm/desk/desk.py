"""The desk: what all runs of a process share — ledger, broker with its backends, knowledge base — opened once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from finllm.agents.agent import Caller, prompt_version
from finllm.agents.roles import AGENTS
from finllm.desk.escalating import escalating
from finllm.desk.queue import open_dispatch
from finllm.desk.request import RunRequest
from finllm.desk.spending import budget_of, carried, open_costing, tenant_account
from finllm.desk.telemetry import watched
from finllm.errors import BackendError
from finllm.events import EventBus, Noted, Progress
from finllm.guardrails.audit.recorder import open_recorder
from finllm.memory.knowledge import KnowledgeBase
from finllm.memory.ledger import Ledger
from finllm.memory.values import ValueFile
from finllm.models.cards import Card, adapter_for
from finllm.models.embedding import Embedder
from finllm.models.ladder import PRUNED, ensure_rung
from finllm.models.registry import default_source
from finllm.models.second_opinion import SecondOpinion
from finllm.scheduler.backends import Backend, Offer
from finllm.scheduler.backends.llama_cpp import LlamaCppBackend, llama_build
from finllm.scheduler.backends.vllm import VllmBackend, connect
from finllm.scheduler.backends.vllm_inprocess import InProcessBackend, open_in_process
from finllm.scheduler.broker import Broker
from finllm.scheduler.engine.engine import EngineConfig
from finllm.scheduler.engine.process import EngineProcess
from finllm.scheduler.health.breaker import Patience
from finllm.scheduler.health.services import Services
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.task import PRECISIONS, Tier, meets_floor
from finllm.settings import Settings
from finllm.tools.data.market import MarketStore
from finllm.tools.forecasts.calibrations import Calibrations

MOST_WORKERS = 4
"""Contexts that an engine has at most: each takes memory, and no more compute at once than there are cores."""


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
    card: Card | None = None
    """The card of the adapter that is in the weights of every backend but those of the pruned rung."""
    pruned: Card | None = None
    """The card of the pruned rung's adapter, where a backend runs that."""
    second: SecondOpinion | None = None
    tenant: Account | None = None
    """The account that all runs spend from beside their own."""
    escalating: frozenset[str] = frozenset()
    """Roles whose doubtful answers are asked for again on a finer backend."""
    values: ValueFile | None = None
    """What each agent's answers turned out to be worth; None: nothing is learned here."""

    @property
    def deep_floors(self) -> tuple[str, ...]:
        """Precisions of the deep tier, finest first: what a task that wants the best there is asks for, in turn."""
        asked = self.settings.deep_precision
        found = {offer.precision for offer in self.broker.offers if offer.tier == "deep"}
        finer = {precision for precision in found if meets_floor(precision, asked)} | {asked}
        return tuple(sorted(finer, key=PRECISIONS.index, reverse=True))


class StateWatch(Protocol):
    """Sees the state before and after each node, as JSON-able data."""

    def __call__(self, node: str, before: dict[str, Any], after: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class RunContext:
    """One run at the desk: handed to every node. `watch` is told the state around each. `background`: its calls give
    way to those of all other runs."""

    desk: Desk
    run_id: str
    request: RunRequest
    market: MarketStore
    account: Account
    watch: StateWatch | None = None
    background: bool = False

    def caller(self, node: str, kind: str | None = None) -> Caller:
        """On whose behalf a node asks; `kind` of run, once the event is read, tells what answers are worth."""
        desk = self.desk
        return Caller(
            desk.broker,
            self.account,
            desk.bus,
            self.run_id,
            node,
            self.request.seed,
            desk.settings.call_timeout,
            desk.card,
            desk.settings.tenant,
            escalate=desk.escalating,
            values=None if desk.values is None else {a.role: desk.values.value(a.role, a.value, kind) for a in AGENTS},
            floor=self.request.floor,
            background=self.background,
            pruned=desk.pruned,
        )


@contextlib.contextmanager
def open_desk(settings: Settings, bus: EventBus, runs: int = 1) -> Iterator[Desk]:
    """Open the desk on the default models: the ladder's edge and deep rungs are derived if they are not there.

    `runs`: how many will go on side by side, for which engines then have several workers.
    Errors: InputError for a model file that cannot be used, RecordError for a ledger or audit log that cannot be.
    """
    with contextlib.ExitStack() as closing:
        ledger = open_recorder(settings)
        closing.callback(ledger.close)
        process = EngineProcess()
        closing.callback(process.close)
        served = vllm_backends(settings, bus)
        for backend in served:
            closing.callback(backend.close)
        backends = [*llama_backends(settings, bus, process, runs), *served]
        card, pruned = (_usable(one, backends, bus) for one in cards_of(settings))
        desk = assemble(settings, bus, ledger, backends, card, pruned, workers=workers_for(runs, settings))
        with watched(settings, bus, desk.broker, lambda: asdict(desk.broker.dispatch.policy.prices)):
            yield desk


def cards_of(settings: Settings) -> tuple[Card | None, Card | None]:
    """The cards of the adapters in the local backends: that of the full depth, and that of the pruned rung if it runs.

    Errors: InputError for a model or adapter that cannot be used.
    """
    source, precisions = default_source(settings), {precision for _tier, precision in local_tiers(settings)}
    found = {precision: adapter_for(source, settings, precision)[1] for precision in sorted(precisions)}
    pruned = found.pop(PRUNED, None)
    return next(iter(found.values()), None), pruned


def local_tiers(settings: Settings) -> tuple[tuple[Tier, str], ...]:
    """The local backends: each one's tier and precision."""
    return ("edge", settings.edge_precision), ("deep", settings.deep_precision)


def _usable(card: Card | None, backends: Sequence[Backend], bus: EventBus) -> Card | None:
    """The card, where it holds for whatever backend answers; what it does not hold for is noted."""
    if card is None:
        return None
    if not all(isinstance(backend, LlamaCppBackend) for backend in backends):
        bus.emit(Noted(level="info", message=f"the calibration of {card.name!r} is not used beside a vLLM backend"))
        return None
    changed = [a.role for a in AGENTS if a.role in card.prompts and card.prompts[a.role] != prompt_version(a)]
    if changed:
        told = f"{card.name!r} was trained on other prompts of {', '.join(changed)}; their calibration is not used"
        bus.emit(Noted(level="warning", message=f"{told}; train it again with 'make train'"))
    return card


def assemble(
    settings: Settings, bus: EventBus, ledger: Ledger, backends: Sequence[Backend], card: Card | None = None,
    pruned: Card | None = None, *, workers: int = 1,
) -> Desk:  # fmt: skip
    """A desk from its parts; tests pass other backends. `workers`: engines behind each local backend."""
    embedder = Embedder()
    offers = [backend.offer for backend in backends]
    costing = open_costing(settings, offers, bus)
    services = Services(backends, patience=Patience(stall=settings.stall, first=settings.call_timeout))
    dispatch = open_dispatch(settings, backends, services, workers)
    broker = Broker(backends, ledger, bus, call_timeout=settings.call_timeout, costing=costing, services=services,
                    dispatch=dispatch)  # fmt: skip
    knowledge = KnowledgeBase(settings.knowledge_dir, embedder)
    weights = {backend.offer.name: backend.path for backend in backends if isinstance(backend, LlamaCppBackend)}
    calibrations = Calibrations(settings.calibrations_dir)
    second = SecondOpinion(embedder)
    tenant = tenant_account(settings, ledger)
    values = ValueFile(settings.values_path)
    return Desk(settings, bus, ledger, broker, knowledge, embedder, calibrations, weights, card, pruned, second, tenant,
                escalating(settings, backends), values)  # fmt: skip


def llama_backends(settings: Settings, bus: EventBus, process: EngineProcess, runs: int = 1) -> list[LlamaCppBackend]:
    """The edge and the deep backend of the default model, with the adapter of the settings merged into it.

    Both are derived from one file. Deep is deeper where the edge runs the pruned rung, and else of more bits only.
    """
    source = default_source(settings)

    def progress(what: str, done: int, total: int) -> None:
        bus.emit(Progress(what=what, done=done, total=total))

    backends: list[LlamaCppBackend] = []
    for tier, precision in local_tiers(settings):
        adapter, _card = adapter_for(source, settings, precision)
        model = source.name if adapter is None else f"{source.name}+{adapter.path.stem}"
        rung = ensure_rung(source, precision, settings, progress, adapter=adapter)
        name = backend_name(tier, model, precision)
        offer = Offer(name, tier, precision, rung.sha256, llama_build(), settings.context)
        config = engine_config(rung.path, settings, workers=workers_for(runs, settings))
        backends.append(LlamaCppBackend(process.open(name, config), offer, rung.path))
    return backends


def workers_for(runs: int, settings: Settings) -> int:
    """How many engines a local backend has for so many runs side by side."""
    return min(runs, settings.threads, MOST_WORKERS)


def backend_name(tier: str, model: str, precision: str) -> str:
    """What a local backend is called."""
    return f"{tier}:{model}:{precision}"


def engine_config(path: Path, settings: Settings, workers: int = 1) -> EngineConfig:
    """How an engine of the desk runs a file: room for two requests of full length, which many short ones share.

    Several workers have room for one each, and their part of the saved prompts.
    """
    return EngineConfig(
        path,
        threads=settings.threads,
        slots=settings.slots,
        context=settings.context,
        cells=settings.context * (min(settings.slots, 2) if workers == 1 else 1),
        store=(settings.prefix_cache << 20) // workers,
        workers=workers,
    )


def vllm_backends(settings: Settings, bus: EventBus) -> list[VllmBackend | InProcessBackend]:
    """The vLLM engines that answer; one that does not is noted, and the desk does without it."""
    key = settings.vllm_api_key.get_secret_value() if settings.vllm_api_key else None
    precision, folder = settings.vllm_precision, settings.vllm_folder
    ways: dict[str, Callable[[], VllmBackend | InProcessBackend]] = {
        url: partial(connect, url, model=settings.vllm_model, api_key=key, precision=precision)
        for url in settings.vllm_urls
    }
    if folder is not None:
        ways[str(folder)] = partial(open_in_process, folder, precision=precision)
    backends: list[VllmBackend | InProcessBackend] = []
    for where, way in ways.items():
        try:
            backends.append(way())
        except BackendError as error:
            bus.emit(Noted(level="warning", message=f"without the deep tier at {where}: {error.message}; {error.fix}"))
    return backends


def open_run(desk: Desk, run_id: str, request: RunRequest) -> RunContext:
    """A run's context: its market (price files unchanged) and its account, with what earlier processes spent.

    Errors: InputError for a budget in a dimension that nothing here is counted in.
    """
    market = MarketStore([file.unchanged() for file in request.prices])
    budget = budget_of(request.budget)
    desk.broker.costing.check(budget, desk.broker.offers)
    account = Account(budget, time.monotonic, carried(desk.ledger, run_id), above=desk.tenant)
    if request.portfolio.positions and any(p.currency == "USD" for p in request.portfolio.positions):
        desk.bus.emit(Noted(level="info", message="money is in USD: no FX series are given"))
    return RunContext(desk, run_id, request, market, account)


def adhoc_caller(desk: Desk, name: str) -> Caller:
    """A caller outside any run, without a budget; its calls are on record under `name`."""
    account = Account(Budget(), time.monotonic, above=desk.tenant)
    return Caller(desk.broker, account, desk.bus, name, name, desk.settings.seed, desk.settings.call_timeout,
                  desk.card, desk.settings.tenant, pruned=desk.pruned)  # fmt: skip
