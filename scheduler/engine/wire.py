"""What goes over the pipe between a program and its engine process, and how errors cross it."""

from __future__ import annotations

from dataclasses import dataclass

from finllm.errors import BackendError
from finllm.scheduler.backends import TokenLimitReached
from finllm.scheduler.engine.engine import EngineConfig
from finllm.scheduler.engine.job import Finished, Work
from finllm.scheduler.money.meter import Used

NOTHING = Used()


@dataclass(frozen=True)
class Failure:
    """An error as plain data, with what the request had `used`.

    `tokens`: those used before a token limit was reached, None for any other error.
    """

    message: str
    fix: str
    used: Used
    tokens: int | None = None
    limit: float = 0.0

    @classmethod
    def of(cls, error: Exception, used: Used = NOTHING) -> Failure:
        if isinstance(error, TokenLimitReached):
            return cls(error.message, error.fix, used, error.tokens, error.limit)
        if isinstance(error, BackendError):
            return cls(error.message, error.fix, used)
        return cls(f"the engine failed: {type(error).__name__}: {error}", "ask again; see 'finllm doctor'", used)

    def error(self) -> BackendError:
        if self.tokens is not None:
            return TokenLimitReached(self.limit, self.tokens)
        return BackendError(self.message, fix=self.fix)


@dataclass(frozen=True)
class Open:
    """To the engine process: make an engine, to be known as `name`."""

    name: str
    config: EngineConfig


@dataclass(frozen=True)
class Submit:
    """To the engine process: a request; `streamed` wants its free text as it is written."""

    number: int
    name: str
    work: Work
    streamed: bool


@dataclass(frozen=True)
class Stop:
    """To the engine process: nobody waits for this request any more."""

    number: int


@dataclass(frozen=True)
class Close:
    """To the engine process: free an engine."""

    name: str


@dataclass(frozen=True)
class TextPiece:
    """From the engine process: a piece of free text."""

    number: int
    piece: str


@dataclass(frozen=True)
class Done:
    """From the engine process: the answer to a request, or that an engine is closed (its name as the number)."""

    number: int | str
    result: Finished | Failure | None


@dataclass(frozen=True)
class Beat:
    """From the engine process: it is alive, and what the requests under way have used, by their numbers."""

    used: dict[int, Used]
