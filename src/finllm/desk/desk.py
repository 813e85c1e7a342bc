"""The desk: what all runs of a process share — ledger, broker with its backends, knowledge base — opened once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from pydantic import JsonValue

from finllm.agents.agent import Caller, prompt_version
from finllm.agents.roles import AGENTS
from finllm.desk.channels import ReadsChannels
from finllm.desk.escalating import escalating
from finllm.desk.executor import executor_of
from finllm.desk.queue import LaterHere, open_dispatch
from finllm.desk.request import RunRequest
from finllm.desk.spending import budget_of, carried, open_costing, tenant_account
from finllm.desk.telemetry import watched
from finllm.events import EventBus, Noted
from finllm.guardrails.audit.recorder import open_recorder
from finllm.interrupts import closing_undisturbed
from finllm.memory.knowledge import KnowledgeBase
from finllm.memory.ledger import Ledger
from finllm.memory.remembered import RememberedEmbedder, RememberedSecond
from finllm.memory.values import ValueFile
from finllm.memory.vectors import Forgetful, Vectors
from finllm.models.cards import AdapterCard, adapter_for
from finllm.models.channel_reader import ChannelReader
from finllm.models.embedding import Embedder
from finllm.models.injection import INJECTIONS, InjectionJudge
from finllm.models.ladder import PRUNED
from finllm.models.registry import default_source
from finllm.models.second_opinion import SecondOpinion
from finllm.scheduler.backends import Backend, Offer
from finllm.scheduler.backends.kind import Opening
from finllm.scheduler.backends.offer import uncarded
from finllm.scheduler.backends.registry import open_backends
from finllm.scheduler.broker import Broker
from finllm.scheduler.executors import Executor
from finllm.scheduler.health.breaker import Patience
from finllm.scheduler.health.services import Services
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.task import PRECISIONS, meets_floor
from finllm.settings import Settings
from finllm.tools.data.market import MarketStore
from finllm.tools.forecasts.calibrations import Calibrations
from finllm.tools.pnl.engine import Engine


@dataclass(frozen=True)
class Cards:
    """How the shipped adapters' scores are calibrated: at full depth, and on the pruned rung."""

    full: AdapterCard | None = None
    pruned: AdapterCard | None = None


NO_CARDS = Cards()


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
    card: AdapterCard | None = None
    """The card of the shipped adapter: of all weights that have it in them but those of the pruned rung."""
    pruned: AdapterCard | None = None
    """The card of the pruned rung's adapter, where a backend runs that."""
    second: SecondOpinion | None = None
    injections: InjectionJudge | None = None
    """What finds instructions to a machine where the rules see none; None: the rules alone."""
    channels: ReadsChannels | None = None
    """What reads transmission channels; None: events are read by the language model alone."""
    tenant: Account | None = None
    """The account that all runs spend from beside their own."""
    escalating: frozenset[str] = frozenset()
    """Roles whose doubtful answers are asked for again on a finer backend."""
    values: ValueFile | None = None
    """What each agent's answers turned out to be worth; None: nothing is learned here."""
    remembers: Vectors = field(default_factory=Forgetful)
    """What slow tools made of content before; without it they make it again."""

    @property
    def stronger(self) -> bool:
        """Whether a model of the deep tier is known to be stronger than the default one."""
        return any(offer.stronger for offer in self.broker.offers if offer.tier == "deep")

    @property
    def deep_floors(self) -> tuple[str, ...]:
        """Precisions of the deep tier, finest first: what a task that wants the best there is asks for, in turn."""
        asked = self.settings.deep_precision
        found = {offer.precision for offer in self.broker.offers if offer.tier == "deep"}
        finer = {precision for precision in found if meets_floor(precision, asked)} | {asked}
        return tuple(sorted(finer, key=PRECISIONS.index, reverse=True))


def forgetful(desk: Desk) -> Desk:
    """The desk as a replay has it: encoders read every text again, the knowledge base searches again, tools compute."""
    embedder = desk.embedder.afresh()
    return replace(desk, remembers=Forgetful(), embedder=embedder, knowledge=desk.knowledge.afresh(embedder),
                   second=None if desk.second is None else desk.second.afresh(embedder),
                   injections=None if desk.injections is None
                   else InjectionJudge(desk.injections.reader.afresh(embedder)))  # fmt: skip


class StateWatch(Protocol):
    """Sees the state before and after each node, as JSON-able data."""

    def __call__(self, node: str, before: dict[str, JsonValue], after: dict[str, JsonValue]) -> None: ...


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
    engines: list[Engine] = field(default_factory=list[Engine], repr=False, compare=False)
    """The P&L engine that was made last for this run: nodes after the first use it again."""

    def caller(self, node: str, kind: str | None = None, critical: Collection[str] = ()) -> Caller:
        """On whose behalf a node asks; `kind` of run, once the event is read, tells what answers are worth.

        `critical`: roles whose calls run in two domains, unless the scenario says which do.
        """
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
            critical=frozenset(critical if (own := self.request.scenario.critical) is None else own),
        )


@contextlib.contextmanager
def open_desk(settings: Settings, bus: EventBus, runs: int = 1) -> Generator[Desk]:
    """Open the desk on the default models: the ladder's edge and deep rungs are derived if they are not there.

    `runs`: how many will go on side by side, for which engines then have several workers.
    Errors: InputError for a model file that cannot be used, RecordError for a ledger or audit log that cannot be.
    """
    with closing_undisturbed() as closing:
        ledger = open_recorder(settings, lambda line: bus.emit(Noted(level="warning", message=line)))
        closing.callback(ledger.close)
        executor = executor_of(settings, ledger.told, open_backends)
        backends = executor.open(Opening(settings, bus, closing, runs))
        offers, cards = [backend.offer for backend in backends], cards_of(settings)
        cards = Cards(usable_card(cards.full, offers, bus), usable_card(cards.pruned, offers, bus))
        desk = assemble(settings, bus, ledger, backends, cards, executor)
        with watched(settings, bus, desk.broker, lambda: asdict(desk.broker.dispatch.policy.prices)):
            yield desk


def cards_of(settings: Settings) -> Cards:
    """The cards of the adapters in the rungs. Errors: InputError for a model or adapter that cannot be used."""
    source, precisions = default_source(settings), {settings.edge_precision, settings.deep_precision}
    found = {precision: adapter_for(source, settings, precision)[1] for precision in sorted(precisions)}
    pruned = found.pop(PRUNED, None)
    return Cards(next(iter(found.values()), None), pruned)


def usable_card(card: AdapterCard | None, offers: Sequence[Offer], bus: EventBus) -> AdapterCard | None:
    """The card, where it holds for some backend; which ones it does not hold for is noted, see `uncarded`."""
    if card is None:
        return None
    if not any(offer.carded for offer in offers):
        told = f"the calibration of {card.name!r} is not used: none of the backends has its weights"
        bus.emit(Noted(level="info", message=told))
        return None
    foreign = uncarded(offers)
    others = [offer.name for offer in offers if offer.weights_sha256 in foreign]
    if others:
        told = f"the calibration of {card.name!r} is not used for answers of {', '.join(others)}: other weights"
        bus.emit(Noted(level="info", message=told))
    changed = [a.role for a in AGENTS if a.role in card.prompts and card.prompts[a.role] != prompt_version(a)]
    if changed:
        told = f"{card.name!r} was trained on other prompts of {', '.join(changed)}; their calibration is not used"
        bus.emit(Noted(level="warning", message=f"{told}; train it again with 'make train'"))
    return card


def assemble(
    settings: Settings, bus: EventBus, ledger: Ledger, backends: Sequence[Backend], cards: Cards = NO_CARDS,
    executor: Executor | None = None,
) -> Desk:  # fmt: skip
    """A desk from its parts; tests pass other backends. `executor`: what opened them, where more may join."""
    vectors = Vectors(settings.vectors_path)
    embedder = RememberedEmbedder(vectors)
    costing = open_costing(settings, [backend.offer for backend in backends], bus)
    services = Services(backends, patience=Patience(stall=settings.stall, first=settings.call_timeout))
    dispatch = open_dispatch(settings, backends, services)
    return Desk(
        settings=settings,
        bus=bus,
        ledger=ledger,
        broker=Broker(backends, ledger, bus, call_timeout=settings.call_timeout, costing=costing, services=services,
                      dispatch=dispatch, joining=None if executor is None else LaterHere(settings, executor)),
        knowledge=KnowledgeBase(settings.knowledge_dir, embedder, vectors=vectors),
        embedder=embedder,
        calibrations=Calibrations(settings.calibrations_dir),
        card=cards.full,
        pruned=cards.pruned,
        second=RememberedSecond(embedder, vectors),
        injections=InjectionJudge(RememberedSecond(embedder, vectors, INJECTIONS)),
        channels=ChannelReader(settings.encoder_dir, embedder),
        tenant=tenant_account(settings, ledger),
        escalating=escalating(settings, backends),
        values=ValueFile(settings.values_path),
        remembers=vectors,
    )  # fmt: skip


def open_run(desk: Desk, run_id: str, request: RunRequest) -> RunContext:
    """A run's context: its market (price files unchanged) and its account, with what earlier processes spent.

    Errors: InputError for a budget in a dimension that nothing here is counted in.
    """
    market = request.market(desk.settings.data_dir)
    budget = budget_of(request.budget)
    desk.broker.costing.check(budget, desk.broker.offers)
    account = Account(budget, time.monotonic, carried(desk.ledger, run_id), above=desk.tenant)
    desk.bus.emit(Noted(level="info", message=f"money is in {request.currency}"))
    return RunContext(desk, run_id, request, market, account)


def adhoc_caller(desk: Desk, name: str) -> Caller:
    """A caller outside any run, without a budget; its calls are on record under `name`."""
    account = Account(Budget(), time.monotonic, above=desk.tenant)
    return Caller(desk.broker, account, desk.bus, name, name, desk.settings.seed, desk.settings.call_timeout,
                  desk.card, desk.settings.tenant, pruned=desk.pruned)  # fmt: skip
