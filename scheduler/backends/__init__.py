"""The one protocol behind which every model stands: a request in, a filled template with its probabilities out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from finllm.errors import BackendError
from finllm.scheduler.backends.offer import Offer
from finllm.scheduler.decoding.filling import Choices
from finllm.scheduler.decoding.template import Template
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.money.meter import Meter
from finllm.scheduler.placement.task import Prompt

__all__ = [
    "Backend",
    "BackendLost",
    "Generation",
    "MayBeAway",
    "Offer",
    "Request",
    "Steady",
    "TellsLoad",
    "TokenLimitReached",
]


class BackendLost(BackendError):
    """The engine behind the backend died, froze or was ended: the call itself was in order, and may be asked again."""


class TokenLimitReached(BackendError):
    """The call would have used more tokens than its request allows; `tokens` were used before it stopped."""

    def __init__(self, limit: float, tokens: int) -> None:
        super().__init__(f"the call needs more than the {limit:.0f} tokens left", fix="give the run a larger --budget")
        self.limit = limit
        self.tokens = tokens


@dataclass(frozen=True)
class Request:
    """A call as a backend sees it.

    `token_limit`: the call fails before it would use more. `rank`: of the calls that wait the highest goes first.
    `background`: gives way to every call that is not. `within`: the call is of no use after so many seconds. `meter`
    is read by the backend as the call gets on: without readings it is taken to stand still.
    """

    prompt: Prompt
    template: Template
    priors: Mapping[str, Mapping[str, float]] | None
    seed: int
    token_limit: float = float("inf")
    rank: float = 0.0
    background: bool = False
    within: float = float("inf")
    meter: Meter | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Generation:
    """A filled template.

    `tokens` counts prompt and output; `seconds` is the time that the model worked for this request, its share where it
    served others in the same steps. `cached_tokens` of the prompt were not computed again; `side_by_side` is the most
    requests that one step served. `joules`: its share of those that the model's work took; None: not known. `votes`:
    the fewest valid answers that a choice's probabilities were counted from; 0: they are the model's own.
    """

    text: str
    choices: Choices
    prompt_tokens: int
    output_tokens: int
    seconds: float
    cached_tokens: int = 0
    side_by_side: int = 1
    joules: Amount | None = None
    votes: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens


class Backend(Protocol):
    """Something that generates. A caller that no longer wants the answer cancels the await.

    Errors of `generate`: BackendError, never a hang: the caller bounds the wait.
    """

    @property
    def offer(self) -> Offer: ...

    async def generate(self, request: Request) -> Generation: ...


@runtime_checkable
class TellsLoad(Protocol):
    """A backend whose server tells what it is busy with."""

    async def load_words(self) -> str:
        """Its queue, in words. Errors: BackendError."""
        ...


@runtime_checkable
class Steady(Protocol):
    """A backend that reads its meters at every step, so that one without readings hangs, and that can be restarted."""

    def restart(self, why: str) -> None: ...


@runtime_checkable
class MayBeAway(Protocol):
    """A backend that may leave while others work.

    `away`: why it takes no call now; empty where it does. `returns`: whether waiting for it is worth while.
    """

    @property
    def away(self) -> str: ...

    @property
    def returns(self) -> bool: ...
