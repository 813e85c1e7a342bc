"""What the broker is asked: tasks, with their floor, deadline, value and budget. It knows no agent and no finance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from finllm.scheduler.decoding.filling import Priors
from finllm.scheduler.decoding.template import Template, Write
from finllm.scheduler.money.budget import Budget

Tier = Literal["edge", "deep"]

PRECISIONS: tuple[str, ...] = ("pruned", "Q4_0", "Q4_1", "Q4_K_M", "Q5_K_M", "Q8_0", "F16", "BF16", "F32")
"""From coarse to fine; `pruned` is Q4_0 on fewer layers. The order decides whether a backend meets a task's floor."""


def meets_floor(precision: str, floor: str) -> bool:
    """True if `precision` is at least as fine as `floor`. Errors: ValueError for a precision not in `PRECISIONS`."""
    return PRECISIONS.index(precision) >= PRECISIONS.index(floor)


CHAT_OVERHEAD = 256
"""Tokens that a chat template may put around the messages, at most."""


@dataclass(frozen=True)
class Prompt:
    """The two messages of a call. `user` may hold retrieved text: it is tokenised as data, never as control tokens."""

    system: str
    user: str


@dataclass(frozen=True)
class Task:
    """One model call that an agent asks for.

    `floor`: coarsest precision that may answer; `exactly`: the one that may, where no other will do. `deadline`:
    longest useful wait, s. `value`: what the answer is expected to be worth, a pure number that orders tasks.
    `priors`: probabilities to divide by, see `filling.walk`. `priors_at`: those of weights or of a precision that have
    their own, by digest or precision. `background`: the call gives way to every one that is not. `budget`: what this
    call may spend of its run's. `why`: what led to this task, for its placement's record. `critical`: it runs in two
    domains of power and network at once, where two hold the weights and the budget holds both. `ahead`: tokens that its
    caller asks for next, without which this answer is of no use.
    """

    agent: str
    node: str
    prompt: Prompt
    prompt_version: str
    template: Template
    floor: str
    deadline: float
    seed: int
    value: float = 1.0
    tenant: str = "default"
    priors: Priors | None = None
    background: bool = False
    budget: Budget | None = None
    why: str | None = None
    priors_at: Mapping[str, Priors] = field(default_factory=dict[str, Priors])
    exactly: str | None = None
    ahead: float = 0.0
    critical: bool = False

    def priors_of(self, precision: str, weights: str = "") -> Priors | None:
        """What the scores of a backend of this precision and these weights (sha256) are divided by."""
        return self.priors_at.get(weights, self.priors_at.get(precision, self.priors))

    def content(self) -> dict[str, Any]:
        """Everything that may change the answer, as JSON-able data; who asked and how urgently is not part of it."""
        return {
            "prompt": asdict(self.prompt),
            "template": [{"step": type(step).__name__, **asdict(step)} for step in self.template],
            "priors": self.priors,
            "seed": self.seed,
            **({"priors_at": self.priors_at} if self.priors_at else {}),
        }

    def most_tokens(self) -> int:
        """More than any call of this task uses: a token is at least one byte of what goes in or may come out."""
        written = sum(step.tokens for step in self.template if isinstance(step, Write))
        return len(json.dumps(self.content(), ensure_ascii=False).encode()) + written + CHAT_OVERHEAD


def canonical(value: Any) -> bytes:
    """A value as the one JSON text that it has: keys sorted, no spaces, UTF-8. Errors: ValueError for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def key_of(kind: str, content: Mapping[str, Any]) -> str:
    """The ledger's key: hex sha256 of the kind and of the content as canonical JSON."""
    return hashlib.sha256(canonical([kind, content])).hexdigest()


def task_digest(task: Task) -> str:
    """Hex sha256 of everything that may change a task's answer, but for the weights."""
    return key_of("task", task.content())


def asked_digest(content: Mapping[str, Any]) -> str:
    """Hex sha256 of what a task's or a call's content has the model say, whatever the scores are divided by."""
    return key_of("asked", {name: content[name] for name in ("prompt", "template", "seed")})
