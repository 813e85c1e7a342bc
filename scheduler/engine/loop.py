"""Continuous batching: every step puts tokens of all live requests through the model in one batch.

Answers come first, prefill takes what is left in chunks, so that a long prompt never stalls a short answer. Requests
share the cells of a common prefix, and background work leaves the context, to come back as it was, when others need
the room. One thread owns a loop.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np

from finllm.errors import BackendError
from finllm.scheduler.engine.cells import CellCount, Cells
from finllm.scheduler.engine.job import Finished, Job
from finllm.scheduler.engine.live import NOWHERE, LiveJob
from finllm.scheduler.engine.native import BATCH, Native, NoRoom, Run
from finllm.scheduler.engine.prefixes import PrefixStore, Saved
from finllm.scheduler.engine.programs import typed
from finllm.scheduler.engine.share import Share
from finllm.scheduler.engine.trie import PrefixTrie
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.money.energy_share import SharedEnergy

BESIDE = 256
"""Most prefill tokens in a step that also serves answers."""
WORTH_SHARING = 32
"""A common prefix of fewer tokens is not waited for, nor kept."""
MOSTLY = 0.5
"""A prompt of which this share was cached is not kept once more."""
RESERVE = 16
"""Cells that a request should find free beyond its head when it is let in."""
MOST_ROWS = 40
"""Requests are let in until a step decodes about so many tokens: beyond, a step only grows, and the cache with it."""
PATIENCE = 8
"""A request passed over so often for want of room is waited for."""


class Loop:
    """Serves jobs on a `Native`.

    `context`: most tokens of one request. `store`: bytes of saved prefixes; 0 switches prefix sharing off. `turn` is
    held during each step, and may say with how many threads: engines of one machine do not fight for its cores.
    `energy` tells the joules of a step.
    """

    def __init__(
        self,
        native: Native,
        *,
        context: int,
        store: int,
        turn: AbstractContextManager[int | None],
        energy: SharedEnergy | None = None,
    ) -> None:
        self._native = native
        self._context = min(context, native.cells)
        self._turn = turn
        self._energy = energy
        self._sharing = store > 0
        self._cells = CellCount(native.cells)
        self._sequences = list(range(native.sequences - 1, -1, -1))
        self._waiting: list[LiveJob] = []
        self._live: list[LiveJob] = []
        self._trie = PrefixTrie()
        self._store = PrefixStore(store)
        self._saves = 0
        self._adapters: list[str | None] = [None]
        self._adapter: str | None = None
        self.steps = 0

    @property
    def idle(self) -> bool:
        return not self._live and not self._waiting

    @property
    def pending(self) -> int:
        """Tokens that its requests have for the next steps."""
        return sum(live.pending for live in (*self._live, *self._waiting))

    @property
    def unfinished(self) -> int:
        return len(self._live) + len(self._waiting)

    def add(self, job: Job) -> None:
        """Take a job up; one that can never be served is answered at once."""
        vocabulary = self._native.vocabulary
        work = job.work
        try:
            program = typed(vocabulary, work.template, work.priors, work.seed, job.on_text)
            live = LiveJob.begin(job, program, vocabulary.chat_tokens(work.prompt), self._context)
        except Exception as error:  # noqa: BLE001  whatever it was, its caller hears it
            job.done(error)
            return
        if live.filled is not None:
            job.done(live.finished(live.filled))
        else:
            self._waiting.append(live)

    def step(self) -> None:
        """Serve everybody one step on."""
        for live in [*self._live, *self._waiting]:
            why = live.job.ended()
            if why is not None:
                self._end(live, why)
        self._admit()
        shares = self._plan()
        if not shares:
            return
        with self._turn as threads:
            if threads is not None:
                self._native.use(threads)
            try:
                self._serve_metered(shares)
            except NoRoom:
                self._make_room()
                return
            except BackendError as error:
                self._fail(error)
                return
            for share in shares:
                if share.ready:
                    self._go_on(share)
        self.steps += 1

    def fail(self, error: Exception) -> None:
        """Answer every job with an error."""
        for live in [*self._live, *self._waiting]:
            self._end(live, error)

    # -- who is in the context

    def _admit(self) -> None:
        passed_over: list[LiveJob] = []
        for live in sorted(self._waiting, key=lambda waiting: waiting.job.order):
            if not self._sequences and not self._givers(live):
                return
            if live.job.work.adapter != self._adapter:
                if self._live:
                    return  # adapters act on the whole context: those before it finish first
                if not self._adapt(live):
                    continue
            staying = [other for other in self._live if other not in self._givers(live)]
            if staying and sum(other.rows for other in staying) + live.rows > MOST_ROWS:
                return
            if sum(other.pending for other in staying) >= BATCH:
                return  # a step is full: whoever enters now only lengthens the attention of those before
            entered = self._try_to_enter(live)
            if entered is None:
                continue
            if not entered:
                if live.passed_over >= PATIENCE:
                    return
                passed_over.append(live)
                continue
            for other in passed_over:
                other.passed_over += 1

    def _givers(self, live: LiveJob) -> list[LiveJob]:
        """Who leaves the context for a request: background work, for what is not."""
        if live.job.work.background:
            return []
        return [other for other in self._live if other.job.work.background]

    def _adapt(self, live: LiveJob) -> bool:
        try:
            self._native.adapt(live.job.work.adapter)
        except BackendError as error:
            self._end(live, error)
            return False
        self._adapter = live.job.work.adapter
        if self._adapter not in self._adapters:
            self._adapters.append(self._adapter)
        return True

    def _prefix(self, live: LiveJob) -> tuple[object, int, int]:
        """Who can lend the longest beginning now, how long it is, and how long one will be that is being prefilled."""
        if live.saved is not None or not self._sharing:
            return None, 0, 0
        lenders = {other.sequence: other for other in self._live}
        best: tuple[object, int] = (None, 0)
        soon = 0
        for holder, agreement in self._trie.agreements(self._marked(live)).items():
            length = min(agreement - 1, len(live.head) - 1)
            lender = lenders.get(holder) if isinstance(holder, int) else None
            ready = length if lender is None else min(length, lender.decoded)
            if (ready, isinstance(holder, int)) > (best[1], isinstance(best[0], int)):
                best = (holder, ready)
            if lender is None or live.job.work.background or not lender.job.work.background:
                soon = max(soon, length)
        return best[0], best[1], soon

    def _try_to_enter(self, live: LiveJob) -> bool | None:
        """Whether the request found room; background work makes way for what is not. None: it waits for a prefix."""
        while True:
            source, length, soon = self._prefix(live)
            if soon > length + WORTH_SHARING:
                return None
            need = min(live.decoded + len(live.waiting) - length + RESERVE, self._cells.total)
            if self._sequences and need <= self._cells.free:
                try:
                    self._enter(live, source, length)
                except NoRoom:
                    return False
                return True
            givers = self._givers(live)
            if not givers:
                return False
            self._park(max(givers, key=lambda other: other.job.order))

    def _enter(self, live: LiveJob, source: object, length: int) -> None:
        sequence = self._sequences.pop()
        try:
            if live.saved is not None:
                self._native.load(sequence, live.saved)
                live.cells = self._cells.take(live.decoded)
                live.saved = None
            elif length:
                live.cells = self._lend(source, sequence, length)
                live.waiting = live.head[length:]
                live.cached = min(length, live.prompt_tokens)
        except NoRoom:
            self._sequences.append(sequence)
            raise
        live.sequence = sequence
        self._waiting.remove(live)
        self._live.append(live)
        if self._sharing:
            self._trie.hold(sequence, self._marked(live))

    def _lend(self, source: object, sequence: int, length: int) -> Cells:
        """Let a sequence begin with what a live one or a saved prompt holds."""
        if isinstance(source, int):
            self._native.share(source, sequence, length)
            lender = next(other for other in self._live if other.sequence == source)
            return self._cells.share(lender.cells[:length])
        self._native.load(sequence, self._store.get(str(source)).cells)
        self._native.forget(sequence, length)
        return self._cells.take(length)

    def _park(self, live: LiveJob) -> None:
        """Take a request out of the context; it comes back token for token where it was."""
        live.saved = self._native.save(live.sequence)
        count = live.decoded
        self._leave(live)
        live.cells = np.zeros(count, dtype=np.int32)
        self._waiting.append(live)

    def _leave(self, live: LiveJob) -> None:
        self._native.forget(live.sequence)
        self._cells.give_back(live.cells)
        self._trie.drop(live.sequence)
        self._sequences.append(live.sequence)
        self._live.remove(live)
        live.sequence = NOWHERE
        if not self._live:
            self._native.clear()

    def _end(self, live: LiveJob, result: Finished | Exception) -> None:
        if live.sequence != NOWHERE:
            self._leave(live)
        else:
            self._waiting.remove(live)
        live.program.close()
        live.job.done(result)

    # -- a step

    def _plan(self) -> list[Share]:
        """Who is served by the next step with what, within the batch and the free cells."""
        while True:
            shares = list(self._chosen())
            if sum(share.size for share in shares) <= self._cells.free:
                return shares
            self._make_room()

    def _chosen(self) -> Iterator[Share]:
        ordered = sorted(self._live, key=lambda live: (not live.answering, live.job.order))
        room = BATCH
        beside = BATCH
        cells = self._cells.free
        branches = len(self._native.branches)
        for live in ordered:
            if live.answering:
                beside = BESIDE
            limit = room if live.answering else min(room, beside)
            share = Share(live, live.waiting[:limit], ())
            if len(share.tokens) == len(live.waiting):
                share = share.with_branches(limit, cells, branches)
            if not share.size:
                continue
            room -= share.size
            cells -= share.size
            branches -= len(share.branches)
            if not live.answering:
                beside -= share.size
            yield share

    def _serve_metered(self, shares: Sequence[Share]) -> None:
        """`_serve`, of which each request bears its part by tokens, also where the step fails."""
        started = time.monotonic()
        name = None if self._energy is None else self._energy.begin()
        served = False
        try:
            self._serve(shares)
            served = True
        finally:
            joules = None if self._energy is None or name is None else self._energy.end(name)
            seconds, total = time.monotonic() - started, sum(share.size for share in shares)
            for share in shares:
                part = share.size / total
                joule = None if joules is None else Amount(joules.value * part, joules.provenance, joules.basis)
                share.live.take_part(share.size if served else 0, seconds * part, joule, len(shares))

    def _serve(self, shares: Sequence[Share]) -> None:
        """Put a step's tokens through the model, and read what they were for. Errors: as `Native.decode`.

        A branch has a sequence of its own that shares its request's cells, and is gone after the step.
        """
        native, free = self._native, iter(self._native.branches)
        taken = [list(itertools.islice(free, len(share.branches))) for share in shares]
        runs: list[Run] = []
        try:
            for share, branches in zip(shares, taken, strict=True):
                live, position = share.live, share.live.decoded
                if position:
                    for branch in branches:
                        native.share(live.sequence, branch, position)
                if share.tokens:
                    runs.append(Run(live.sequence, position, share.tokens, share.scored, tuple(branches)))
                behind = position + len(share.tokens)
                runs += [
                    Run(sequence, behind, branch.tokens, scored=True)
                    for sequence, branch in zip(branches, share.branches, strict=True)
                ]
            rows = iter(native.decode(runs))
            for share in shares:
                share.row = next(rows) if share.tokens else NOWHERE
                share.read = [branch.read(native.logits(next(rows))) for branch in share.branches]
        finally:
            for branch in itertools.chain(*taken):
                native.forget(branch)
        for share in shares:
            share.live.cells = np.concatenate([share.live.cells, self._cells.take(len(share.tokens))])
            share.live.waiting = share.live.waiting[len(share.tokens) :]
            share.live.read += share.read
            if share.tokens and share.live.decoded == len(share.live.head):
                self._remember(share.live)

    def _make_room(self) -> None:
        """The cache is full: the last in order leaves it for now, or, where it is alone, for good."""
        last = max(self._live, key=lambda live: live.job.order)
        if len(self._live) > 1:
            self._park(last)
        else:
            self._end(last, BackendError("the KV cache is full", fix="shorten the sources or raise FINLLM_CONTEXT"))

    def _go_on(self, share: Share) -> None:
        live = share.live
        try:
            live.go_on(live.read if live.branches else self._native.logits(share.row), self._context)
        except Exception as error:  # noqa: BLE001  whatever it was, its caller hears it
            self._end(live, error)
            return
        if live.filled is not None:
            self._end(live, live.finished(live.filled))

    def _fail(self, error: Exception) -> None:
        """The context is in doubt after a failed step: all that were in it are answered, and it is emptied."""
        for live in list(self._live):
            self._end(live, error)

    # -- prefixes

    def _marked(self, live: LiveJob) -> list[int]:
        """The head as the trie knows it: behind a mark of its adapter, whose cells no other adapter can use."""
        adapter = live.job.work.adapter
        if adapter not in self._adapters:
            self._adapters.append(adapter)
        return [-1 - self._adapters.index(adapter), *live.head]

    def _remember(self, live: LiveJob) -> None:
        """Save the head's cells for later prompts, unless most of them came from a saved one."""
        pinned = live.job.work.pinned
        known = live.cached >= MOSTLY * len(live.head) and not pinned
        if not self._sharing or len(live.head) < WORTH_SHARING or known:
            return
        self._saves += 1
        saved = Saved(f"saved-{self._saves}", self._native.save(live.sequence), len(live.head), pinned)
        self._trie.hold(saved.key, self._marked(live))
        for key in self._store.put(saved):
            self._trie.drop(key)
