"""What the engine is asked, what it answers, and the order in which those that wait are served."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from finllm.errors import BackendError
from finllm.scheduler.decoding.filling import Filled, Priors
from finllm.scheduler.decoding.template import Template
from finllm.scheduler.engine.programs import OnText
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.money.meter import Used
from finllm.scheduler.placement.task import Prompt

_arrivals = itertools.count()


@dataclass(frozen=True)
class Work:
    """A request to the engine; all of it may cross a process boundary.

    `rank`: of those that wait the highest goes first, among equals the first come. `background`: gives way to all that
    is not. `within`: seconds after which the answer is of no use. `adapter`: path of a GGUF LoRA adapter. `pinned`:
    keep the prompt's cells so that later prompts that begin alike need not prefill them.
    """

    prompt: Prompt
    template: Template
    priors: Priors | None = None
    seed: int = 0
    token_limit: float = float("inf")
    rank: float = 0.0
    background: bool = False
    within: float = float("inf")
    adapter: str | None = None
    pinned: bool = False


@dataclass(frozen=True)
class Finished:
    """An answer. `output_tokens` counts forced and chosen tokens; `cached_tokens` of the prompt were not prefilled.

    `seconds`: the request's share, by tokens, of the steps that it was part of; `side_by_side`: the most requests that
    any of these steps served. `joules`: its share, by tokens, of what these steps took.
    """

    filled: Filled
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    seconds: float
    side_by_side: int
    joules: Amount | None = None


WhenDone = Callable[[Finished | Exception], None]


@dataclass
class Job:
    """Work on its way through the engine. `done` is called once, from the engine's thread; so is `on_text`.

    `used`: what it has used so far, also of work that fails; `on_used` is told each time that it grew.
    """

    work: Work
    done: WhenDone
    on_text: OnText | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    arrived: int = field(default_factory=lambda: next(_arrivals))
    expires: float = 0.0
    used: Used = field(default_factory=Used)
    on_used: Callable[[Used], None] | None = None

    def __post_init__(self) -> None:
        self.expires = time.monotonic() + self.work.within

    def use(self, used: Used) -> None:
        """Take note of what it has used."""
        self.used = used
        if self.on_used is not None:
            self.on_used(used)

    @property
    def order(self) -> tuple[bool, float, int]:
        """Sorts those that wait: the smallest goes first."""
        return (self.work.background, -self.work.rank, self.arrived)

    def ended(self) -> BackendError | None:
        """Why the job need not go on: its caller left, or it is too late."""
        if self.stop.is_set():
            return BackendError("the call was abandoned", fix="ask again")
        if time.monotonic() > self.expires:
            return BackendError(
                f"no answer within {self.work.within:.1f} s", fix="ask again when less waits, or raise the deadline"
            )
        return None
