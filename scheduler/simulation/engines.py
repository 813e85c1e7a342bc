"""Simulated backends: continuous batching as a fluid model, prompts one after another, a token a step per task.

Between two changes every rate is constant, so the time to the next one is exact; all backends move in one array.
"""

from __future__ import annotations

import numpy as np

from finllm.scheduler.placement.fleet import CHUNK, Bools, Fleet, Ints

_DONE = 1e-9
"""s that count as none."""
_SHORT = 1e-4
"""Tokens that count as none: more than the fastest engine puts through in `_DONE`, and than rounding leaves."""


class Engines:
    """What the fleet's backends are working on; slots (B, S).

    `broken`: makes no progress though it seems up (frozen or dead, and not found yet).
    """

    def __init__(self, fleet: Fleet, fixed: bool = False) -> None:
        """`fixed`: tasks do not slow each other down; each takes what it would with the backend's slots all in use."""
        shape = fleet.left.shape
        self.fleet = fleet
        self.row: Ints = np.full(shape, -1, dtype=np.int64)
        self.delay, self.prompt, self.output = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.predicted, self.done, self.joules, self.stamp = (np.zeros(shape) for _ in range(4))
        self.broken: Bools = np.zeros(len(fleet), dtype=np.bool_)
        self.total_joules = np.zeros(len(fleet))
        self._order = 0.0
        self._fixed = fixed
        self._rates()

    def start(self, backend: int, row: int, delay: float, prompt: float, output: float, slot: int) -> None:
        """A task in a slot that the fleet has given it: s before it begins, tokens of prompt to compute, of output."""
        at = backend, slot
        self._order += 1
        if self._fixed:
            step = self.fleet.step[backend, self.fleet.slots[backend]]
            delay += prompt * (self.fleet.per_prompt_token[backend] + step / CHUNK) + output * step
            prompt, output = 0.0, 0.0
        self.row[at], self.delay[at], self.prompt[at], self.output[at] = row, delay, prompt, output
        self.predicted[at], self.done[at], self.joules[at] = self.fleet.left[at], 0.0, 0.0
        self.stamp[at] = self._order
        self._rates()

    def leave(self, backend: int, slot: int) -> float:
        """Empty a slot; the joules of its task."""
        self.row[backend, slot] = -1
        self.delay[backend, slot] = self.prompt[backend, slot] = self.output[backend, slot] = 0.0
        self._rates()
        return float(self.joules[backend, slot])

    def set_broken(self, backend: int, broken: bool) -> None:
        self.broken[backend] = broken
        self._rates()

    def until_next(self) -> float:
        """s until a task ends a phase; ∞ where nothing moves."""
        return self._until

    def advance(self, seconds: float) -> None:
        """Let so many s pass, at most `until_next`."""
        if seconds <= 0:
            return
        fleet, at = self.fleet, self.fleet.rows
        np.subtract(self.delay, seconds, out=self.delay, where=self._delaying)
        if self._any_prompt:
            through = np.where(self._has, self._prompt_rate * seconds, 0.0)
            self.prompt[at, self._head] -= through
            spent = through * fleet.prompt_joules
            self.joules[at, self._head] += spent
            self.total_joules += spent
        steps = self._token_rate * seconds
        moved = np.where(self._decoding, steps[:, None], 0.0)
        self.output -= moved
        self.done += moved
        spent = steps * self._step_joules
        self.total_joules += spent
        self.joules += np.where(self._decoding, (spent / np.maximum(self._batch, 1))[:, None], 0.0)
        np.maximum(self.predicted - self.done, 1.0, out=fleet.left, where=self._decoding)
        if self._fixed:
            np.divide(self.delay, fleet.step[:, 1:2], out=fleet.left, where=self._delaying)
        fleet.pending[:] = np.where(fleet.occupied, np.maximum(self.prompt, 0.0), 0.0).sum(axis=1)
        fleet.touched = None
        self._until -= seconds
        if self._until <= _DONE:
            self.delay[self.delay < _DONE] = 0.0
            self.prompt[self.prompt < _SHORT] = 0.0
            self._rates()

    def ended(self) -> list[tuple[int, int]]:
        """Backend and slot of each task whose output is complete."""
        over = self._decoding & (self.output < _SHORT)
        return [] if not over.any() else [(int(b), int(s)) for b, s in zip(*np.nonzero(over), strict=True)]

    def _rates(self) -> None:
        """Rates until the next change: tokens/s of the first prompt, and of each decoding task, by backend."""
        fleet, at = self.fleet, self.fleet.rows
        occupied = self.row >= 0
        self._delaying = occupied & (self.delay > 0)
        ready = occupied & ~self._delaying
        prompting = ready & (self.prompt > 0)
        self._decoding = ready & ~prompting
        self._batch = self._decoding.sum(axis=1)
        self._has = prompting.any(axis=1)
        self._any_prompt = bool(self._has.any())
        self._head = np.where(prompting, self.stamp, np.inf).argmin(axis=1)
        self._working = (self._has | (self._batch > 0)) & ~self.broken
        speed = self._working.astype(np.float64)
        if fleet.shares:
            counts = np.bincount(fleet.node, weights=self._working & fleet.shared, minlength=int(fleet.node.max()) + 1)
            speed /= np.where(fleet.shared, np.maximum(counts[fleet.node], 1.0), 1.0)
        step = fleet.step[at, self._batch]
        self._step_joules = fleet.step_joules[at, self._batch]
        self._prompt_rate = speed / (fleet.per_prompt_token + step / CHUNK)
        alone = np.divide(speed, step, out=np.zeros_like(speed), where=self._batch > 0)
        self._token_rate = np.where(self._has, self._prompt_rate / CHUNK, alone) * (self._batch > 0)
        times = np.full(3, np.inf)
        if self._delaying.any():
            times[0] = self.delay[self._delaying].min()
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._any_prompt:
                through = np.where(self._has & (speed > 0), self.prompt[at, self._head] / self._prompt_rate, np.inf)
                times[1] = through.min()
            if (self._batch > 0).any():
                least = np.where(self._decoding, self.output, np.inf).min(axis=1)
                moving = (self._batch > 0) & (self._token_rate > 0)
                times[2] = np.where(moving, np.maximum(least, 0.0) / self._token_rate, np.inf).min()
        self._until = float(times.min())
