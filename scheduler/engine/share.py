"""The part of one decoding step that belongs to a request: tokens of its text, and branches tried and taken back."""

from __future__ import annotations

from dataclasses import dataclass, field

from finllm.scheduler.engine.live import NOWHERE, LiveJob
from finllm.scheduler.engine.programs import Branch


@dataclass
class Share:
    """What a step does for one request: `tokens` of its text, and `branches` behind all of it.

    `row`: where the logits behind the tokens are, NOWHERE without; `read`: what the branches read.
    """

    live: LiveJob
    tokens: list[int]
    branches: tuple[Branch, ...]
    row: int = NOWHERE
    read: list[list[float]] = field(default_factory=list[list[float]])

    @property
    def size(self) -> int:
        return len(self.tokens) + sum(len(branch.tokens) for branch in self.branches)

    @property
    def scored(self) -> bool:
        """Whether the logits behind the tokens are wanted."""
        return len(self.tokens) == len(self.live.waiting) and not self.live.branches

    @property
    def ready(self) -> bool:
        """After the step: whether the request has all that it asked for."""
        return not self.live.waiting and not self.live.unread

    def with_branches(self, tokens: int, cells: int, count: int) -> Share:
        """The share with as many branches as go into so many tokens and cells; at least one, whatever the cells."""
        fitting: list[Branch] = []
        size = len(self.tokens)
        for branch in self.live.unread[:count]:
            size += len(branch.tokens)
            if size > tokens or (fitting and size > cells):
                break
            fitting.append(branch)
        return Share(self.live, self.tokens, tuple(fitting))
