"""What a placement would cost: tasks on backends, in predicted seconds, joules, grams and deadlines missed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finllm.scheduler.fleet import ALL, CHUNK, Fleet, Floats, Ints
from finllm.scheduler.prices import Prices
from finllm.scheduler.waiting import NO_PREFIX, Tasks

JOULES_PER_KWH = 3.6e6


class Standing:
    """The fleet as far as every task's cost needs it, kept up to date backend by backend as `Fleet.touched` names them.

    `most` (B,): tasks side by side, and `free` (B,): those that may still come. `ends` (B,): when the first running
    task ends. `slack` (B,): s for which a prompt that joins may hold up the running tasks until one that is in time
    would no longer be. `time` and `cost` (3, B): what a task adds by itself, per prompt token, and per token of output.
    """

    def __init__(self, fleet: Fleet, limit: float = 1.0) -> None:
        count = len(fleet)
        self.most = np.maximum((fleet.slots * limit).astype(np.int64), 1)
        self.fleet = fleet
        self.free: Ints = np.zeros(count, dtype=np.int64)
        self.ends, self.slack = np.full(count, np.inf), np.full(count, np.inf)
        self.time, self.cost = np.zeros((3, count)), np.zeros((3, count))
        self.token_joules, self.grams_per_joule, self.room = np.zeros(count), np.zeros(count), np.zeros(count)
        self.none = np.zeros(count)
        self._prices: Prices | None = None
        width = fleet.step.shape[1]
        self._first = fleet.rows * width
        self._step, self._joules = fleet.step.ravel(), fleet.step_joules.ravel()

    def refresh(self, now: float, prices: Prices, grams_per_kwh: Floats | None) -> None:
        """Take in what has changed since the last time."""
        fleet = self.fleet
        if grams_per_kwh is not None:
            self.grams_per_joule = grams_per_kwh / JOULES_PER_KWH
        if fleet.touched is None or prices is not self._prices or grams_per_kwh is not None:
            self._take_in(ALL, now, prices)
        else:
            for backend in fleet.touched:
                self._take_in(backend, now, prices)
        self._prices = prices
        fleet.touched = set()

    def wait(self, now: float) -> Floats:
        """s until a slot is free, (B,): 0 where one is, ∞ where none will be."""
        if np.count_nonzero(self.free) == len(self.free):
            return self.none
        return np.where(self.free > 0, 0.0, np.maximum(self.ends - now, 0.0))

    def _take_in(self, at: int | slice, now: float, prices: Prices) -> None:
        """Of one backend or all; of one, most of it is arithmetic of single numbers."""
        fleet = self.fleet
        running = fleet.running[at]
        place = self._first[at] + running
        step, joined = self._step[place], self._step[place + 1]
        prompt_token = fleet.per_prompt_token[at] + step / CHUNK
        if fleet.shares:
            crowd = fleet.crowd(at)
            step, joined, prompt_token = step * crowd, joined * crowd, prompt_token * crowd
        ahead = fleet.pending[at] * prompt_token + fleet.link[at] + fleet.wake[at] * fleet.asleep[at]
        self.time[0, at], self.time[1, at], self.time[2, at] = ahead, prompt_token, joined
        token_joules = self._joules[place + 1] - self._joules[place]
        token_joules *= token_joules > 0
        per_joule = prices.joule + prices.gram * self.grams_per_joule[at]
        each = prices.deep * fleet.deep_weight[at] + prices.usd * fleet.usd[at]
        self.cost[1, at] = each + prices.busy * prompt_token + per_joule * fleet.prompt_joules[at]
        self.cost[2, at] = each + prices.busy * joined + per_joule * token_joules
        self.token_joules[at] = token_joules
        up = fleet.up[at]
        self.free[at] = np.maximum(self.most[at] - running, 0) * up
        self.room[at] = (fleet.kv[at] - fleet.held[at] + 1.0) * up - 1.0
        left, begins, slower = fleet.left[at], now + ahead, joined - step
        if isinstance(at, slice):
            step, begins, slower = step[:, None], begins[:, None], slower[:, None]
        ends = left * step
        ends += begins
        spare = fleet.due[at] - ends
        spare[spare < 0] = np.inf
        spare -= left * slower
        self.slack[at] = np.minimum.reduce(spare, axis=-1)
        ends[~fleet.occupied[at]] = np.inf
        self.ends[at] = np.minimum.reduce(ends, axis=-1)


@dataclass(frozen=True)
class Costs:
    """Tasks on backends, (M, B) each: `seconds` until the answer, `lateness` (s beyond the deadline), `total`; ∞ where
    a task may not run now.
    """

    seconds: Floats
    lateness: Floats
    total: Floats


def costs(rows: Ints, tasks: Tasks, standing: Standing, prices: Prices, now: float, wait: Floats) -> Costs:
    """The objective of each task on each backend. `wait`: s until a slot is free, (B,), others that wait ahead
    included.

    T = wait + link + pending + (n − cached)·prefill + ô·τ(k+1); total = λ_L·lateness + λ_E·E + λ_C·I·E + λ_D·deep
    tokens (design, section 7), with a price on a deadline missed, on slot seconds and on money. A backend where the
    task would make a running one late is closed to it.
    """
    fleet = standing.fleet
    length = tasks.length[rows]
    seconds = length @ standing.time + wait
    total = length @ standing.cost
    if prices.busy and wait is not standing.none:
        total += prices.busy * wait
    prefill = length[:, 1:2] * standing.time[1]
    if fleet.cached:
        for at in np.flatnonzero(tasks.prefix[rows] != NO_PREFIX):
            held = fleet.cached.get(int(tasks.prefix[rows[at]]))
            if held is not None:
                saved = np.minimum(held, tasks.shared[rows[at]])
                seconds[at] -= saved * standing.time[1]
                prefill[at] -= saved * standing.time[1]
                total[at] -= saved * standing.cost[1]
    lateness = np.maximum(seconds - (tasks.due[rows] - now)[:, None], 0.0)
    if np.count_nonzero(lateness):
        total += tasks.value[rows][:, None] * (prices.miss * (lateness > 0) + prices.late * lateness)
    may = tasks.may[rows] & (standing.room >= tasks.most[rows][:, None]) & (prefill * fleet.stalls <= standing.slack)
    return Costs(seconds, lateness, np.where(may, total, np.inf))


def energy(row: int, backend: int, tasks: Tasks, standing: Standing) -> tuple[float, float]:
    """J that a task adds to a backend's batch, predicted, and the g CO₂e of them."""
    fleet = standing.fleet
    held = fleet.cached.get(int(tasks.prefix[row]), standing.none)[backend]
    fresh = tasks.length[row, 1] - min(held, tasks.shared[row])
    joules = fresh * fleet.prompt_joules[backend] + tasks.length[row, 2] * standing.token_joules[backend]
    return float(joules), float(joules * standing.grams_per_joule[backend])
