"""What happens during a run, as typed events: graphs and the broker emit, renderers subscribe and may lose some."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

RUN: ContextVar[str | None] = ContextVar("run", default=None)
"""Of which run of a batch the event is that is being emitted; tasks and threads of the run inherit it."""


class Event(BaseModel):
    """Base of all events; `kind` names the event in JSON lines."""

    model_config = ConfigDict(frozen=True)


class RunStarted(Event):
    kind: Literal["run_started"] = "run_started"
    run_id: str
    title: str
    as_of: str
    resumed: bool = False


class NodeStarted(Event):
    kind: Literal["node_started"] = "node_started"
    node: str


class NodeFinished(Event):
    kind: Literal["node_finished"] = "node_finished"
    node: str
    seconds: float


class Progress(Event):
    """`done` of `total` steps of a wait that a person notices (over two seconds)."""

    kind: Literal["progress"] = "progress"
    what: str
    done: int
    total: int


class Placed(Event):
    """The broker's answer to a task: the backend chosen and, for each one refused, why. `twin`, `alone`: of a critical
    task the backend in another domain, or why there is none."""

    kind: Literal["placed"] = "placed"
    agent: str
    node: str
    chosen: str
    refused: dict[str, str]
    twin: str | None = None
    alone: str | None = None


class CallStarted(Event):
    """A model is being asked: the ledger has no row for `key` yet. `provider`: the backend's kind."""

    kind: Literal["call_started"] = "call_started"
    key: str
    agent: str
    backend: str
    run_id: str = ""
    node: str = ""
    provider: str = ""


class CallFinished(Event):
    """A model call's row is durable; `reused` says that the ledger answered and no model was asked.

    `tokens` of prompt and output, of which `prompt_tokens`; J, gCO₂e and USD; `energy`: where the joules come from.
    """

    kind: Literal["call_finished"] = "call_finished"
    key: str
    agent: str
    backend: str
    reused: bool
    seconds: float
    tokens: int
    prompt_tokens: int = 0
    joules: float = 0.0
    grams: float = 0.0
    usd: float = 0.0
    energy: str | None = None


class CallFailed(Event):
    """A backend gave no answer; what it used is charged and on record. The task may be tried elsewhere."""

    kind: Literal["call_failed"] = "call_failed"
    key: str
    agent: str
    backend: str
    why: str
    tokens: int


class Judged(Event):
    kind: Literal["judged"] = "judged"
    agent: str
    judgement: dict[str, Any]


class Abstained(Event):
    kind: Literal["abstained"] = "abstained"
    agent: str
    reason: str


class Noted(Event):
    """Something a person should know: an exclusion, a stale series, a degraded step, a blocked sentence."""

    kind: Literal["noted"] = "noted"
    level: Literal["info", "warning"]
    message: str


class RunFinished(Event):
    kind: Literal["run_finished"] = "run_finished"
    run_id: str
    status: Literal["finished", "blocked", "stopped"]


class BatchStarted(Event):
    """`runs`: the scenario's name by run id. `done`: runs that an earlier process finished."""

    kind: Literal["batch_started"] = "batch_started"
    batch_id: str
    runs: dict[str, str]
    done: int


class MemberEnded(Event):
    """A run of a batch is over, `number` of `total`. `error`: what stopped it, as `kind`, `message` and `fix`."""

    kind: Literal["member_ended"] = "member_ended"
    run_id: str
    status: str
    number: int
    total: int
    seconds: float
    error: dict[str, str] | None = None


class Renderer(Protocol):
    """Shows events to a person or a pipe. It may lose some; it can never veto."""

    def __call__(self, event: Event, /) -> None: ...


class EventBus:
    """Fans events out to its renderers. A renderer that raises is dropped: showing must not stop a run."""

    def __init__(self, *renderers: Renderer) -> None:
        self._renderers: list[Renderer] = list(renderers)

    def subscribe(self, renderer: Renderer) -> Callable[[], None]:
        """Add a renderer; the returned function removes it."""
        self._renderers.append(renderer)

        def unsubscribe() -> None:
            if renderer in self._renderers:
                self._renderers.remove(renderer)

        return unsubscribe

    def emit(self, event: Event) -> None:
        for renderer in list(self._renderers):
            try:
                renderer(event)
            except Exception as error:  # noqa: BLE001  a broken renderer is cut off, and the others are told
                try:
                    self._renderers.remove(renderer)
                except ValueError:  # another thread, or the renderer itself, was quicker
                    continue
                self.emit(Noted(level="warning", message=f"a renderer failed and was dropped: {error!r}"))
