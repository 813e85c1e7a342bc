"""A request that the engine is working on: how far its program is, and which cells of the context it holds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from finllm.errors import BackendError
from finllm.scheduler.backends import TokenLimitReached
from finllm.scheduler.decoding.filling import Filled
from finllm.scheduler.decoding.template import Write
from finllm.scheduler.engine.cells import Cells
from finllm.scheduler.engine.job import Finished, Job
from finllm.scheduler.engine.native import BATCH
from finllm.scheduler.engine.programs import Branch, Feed, Program, Reply
from finllm.scheduler.money.amount import Amount, total
from finllm.scheduler.money.meter import Used

NOWHERE = -1
FIELD = 5
"""Tokens of a field of a judgement, with its name and punctuation, roughly."""


def _no_cells() -> Cells:
    return np.empty(0, dtype=np.int32)


@dataclass
class LiveJob:
    """A job with its program.

    `head`: the tokens known at once, the prompt and what is forced behind it. `waiting`: tokens still to be decoded,
    `branches` those to be decoded behind them on their own, of which the first `len(read)` were. `cells`: those
    decoded, `computed` how many that and its branches took. `sequence`: NOWHERE while it is not in the context; then
    `saved` holds its cells if it was there before.
    """

    job: Job
    program: Program
    prompt_tokens: int
    head: list[int]
    waiting: list[int]
    branches: tuple[Branch, ...] = ()
    read: list[list[float]] = field(default_factory=list[list[float]])
    filled: Filled | None = None
    sequence: int = NOWHERE
    cells: Cells = field(default_factory=_no_cells)
    saved: bytes | None = None
    cached: int = 0
    passed_over: int = 0
    seconds: float = 0.0
    joules: Amount | None = None
    computed: int = 0
    side_by_side: int = 1
    output_tokens: int = 0

    @classmethod
    def begin(cls, job: Job, program: Program, prompt: list[int], context: int) -> LiveJob:
        """Take a job up. Errors: BackendError for a prompt that cannot fit, TokenLimitReached."""
        limit = job.work.token_limit
        if len(prompt) > limit:
            raise TokenLimitReached(limit, 0)
        live = cls(job, program, len(prompt), list(prompt), [])
        try:
            first = next(program)
        except StopIteration as end:
            live.filled = end.value
            return live
        live.head += first.tokens
        live._take(first, context)
        live.waiting = list(live.head)
        return live

    @property
    def rows(self) -> int:
        """About how many tokens it decodes in a step: prose one by one, a judgement a field with its name."""
        return 1 if any(isinstance(step, Write) for step in self.job.work.template) else FIELD

    @property
    def decoded(self) -> int:
        return len(self.cells)

    @property
    def answering(self) -> bool:
        """Its prompt is through: it waits for short runs of tokens only."""
        return self.decoded >= len(self.head)

    @property
    def pending(self) -> int:
        """Tokens that it has for the next steps."""
        return len(self.waiting) + sum(len(branch.tokens) for branch in self.unread)

    @property
    def unread(self) -> tuple[Branch, ...]:
        return self.branches[len(self.read) :]

    def go_on(self, reply: Reply, context: int) -> None:
        """Send the program what it asked for; takes what it asks for next, and sets `filled` at its end.

        Errors: TokenLimitReached, BackendError beyond the context, and whatever the program raises.
        """
        try:
            feed = self.program.send(reply)
        except StopIteration as end:
            self.filled = end.value
            return
        self._take(feed, context)

    def _take(self, feed: Feed, context: int) -> None:
        """Take a feed, counted before it is fed. Errors: TokenLimitReached, BackendError beyond the context."""
        branched = [len(branch.tokens) for branch in feed.branches]
        used, more = self.prompt_tokens + self.output_tokens, len(feed.tokens) + sum(branched)
        if used + more > self.job.work.token_limit:
            raise TokenLimitReached(self.job.work.token_limit, used)
        text = len(self.head) if not self.decoded else self.decoded + len(feed.tokens)
        if text + max(branched, default=0) > context:
            raise too_long(context)
        if max(branched, default=0) > BATCH:
            raise BackendError(
                f"a question behind the prompt takes more than the {BATCH} tokens of a step", fix="shorten its values"
            )
        self.output_tokens += more
        self.waiting, self.branches, self.read = list(feed.tokens), feed.branches, []

    def take_part(self, tokens: int, seconds: float, joules: Amount | None, side_by_side: int) -> None:
        """A step computed `tokens` of it: its shares of the step's seconds and joules."""
        self.computed += tokens
        self.seconds += seconds
        self.joules = total((self.joules, joules))
        self.side_by_side = max(self.side_by_side, side_by_side)
        self.job.use(Used(self.cached + self.computed, self.seconds, self.joules))

    def finished(self, filled: Filled) -> Finished:
        return Finished(filled, self.prompt_tokens, self.output_tokens, self.cached, self.seconds, self.side_by_side,
                        self.joules)  # fmt: skip


def too_long(context: int) -> BackendError:
    return BackendError(
        f"the prompt needs more than the {context} tokens of the context",
        fix="shorten the sources or raise FINLLM_CONTEXT",
    )
