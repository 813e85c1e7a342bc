"""Predicts the cost of each task on each backend: seconds, joules, grams and missed deadlines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from finllm.scheduler.money.amount import JOULES_PER_KWH
from finllm.scheduler.placement.fleet import ALL, CHUNK, Fleet, Floats, Ints
from finllm.scheduler.placement.prices import Prices
from finllm.scheduler.placement.waiting import NO_PREFIX, Tasks


class FleetState:
    """The fleet as far as every task's cost needs it, kept up to date backend by backend as `Fleet.touched` names them.

    `most` (B,): tasks side by side, and `free` (B,): those that may still come. `ends` (B,): when the first running
    task ends. `slack` (B,): s for which a prompt that joins may hold up the running tasks until one that is in time
    would no longer be. `time` and `cost` (3, B): what a task adds by itself, per prompt token, and per token of output.
    `cached`: tokens of each prefix that every backend holds (B,), none where `affinity` is off.
    """

    def __init__(self, fleet: Fleet, limit: float = 1.0, *, affinity: bool = True) -> None:
        count = len(fleet)
        self.cached = fleet.cached if affinity else dict[int, Floats]()
        self.most = np.maximum((fleet.slots * limit).astype(np.int64), 1)
        self.fleet = fleet
        self.free: Ints = np.zeros(count, dtype=np.int64)
        self.ends, self.slack = np.full(count, np.inf), np.full(count, np.inf)
        self.time, self.cost = np.zeros((3, count)), np.zeros((3, count))
        self.token_joules, self.grams_per_joule, self.room = np.zeros(count), np.zeros(count), np.zeros(count)
        self.none = np.zeros(count)
        self._prices: Prices | None = None
        self._step, joules = fleet.step.ravel(), fleet.step_joules.ravel()
        self._joined = np.append(self._step[1:], 0.0)
        self._joules = np.maximum(np.append(np.diff(joules), 0.0), 0.0)
        self._first = fleet.rows * fleet.step.shape[1]
        self._fixed = (self.most, fleet.kv, fleet.per_prompt_token, fleet.link, fleet.wake, fleet.deep_weight,
                       fleet.usd, fleet.prompt_joules)  # fmt: skip
        self._fixed_of = [*zip(*(column.tolist() for column in self._fixed), strict=True)]

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

    def _state(self, at: int | slice) -> tuple[Any, ...]:
        """What the costs of all backends are made of, in columns; of one in plain numbers, which are quicker."""
        fleet = self.fleet
        changing = (fleet.running, fleet.pending, fleet.asleep, fleet.held, fleet.up, self.grams_per_joule)
        speeds = (self._step, self._joined, self._joules)
        if isinstance(at, int):
            place = int(self._first[at] + fleet.running[at])
            state, found = [column.item(at) for column in changing], [speed.item(place) for speed in speeds]
            return (*self._fixed_of[at], *state, *found)
        return (*self._fixed, *changing, *(speed[self._first + fleet.running] for speed in speeds))

    def _take_in(self, at: int | slice, now: float, prices: Prices) -> None:
        """Of one backend or of all."""
        fleet = self.fleet
        (
            most, kv, own, link, wake, deep, usd, prompt_joules,
            running, pending, asleep, held, up, grams, step, joined, token_joules,
        ) = self._state(at)  # fmt: skip
        prompt_token = own + step / CHUNK
        if fleet.shares:
            crowd = fleet.crowd(at)
            step, joined, prompt_token = step * crowd, joined * crowd, prompt_token * crowd
        ahead = pending * prompt_token + link + wake * asleep
        self.time[0, at], self.time[1, at], self.time[2, at] = ahead, prompt_token, joined
        per_joule = prices.joule + prices.gram * grams
        each = prices.deep * deep + prices.usd * usd
        self.cost[1, at] = each + prices.busy * prompt_token + per_joule * prompt_joules
        self.cost[2, at] = each + prices.busy * joined + per_joule * token_joules
        self.token_joules[at] = token_joules
        self.free[at] = np.maximum(most - running, 0) * up
        self.room[at] = (kv - held + 1.0) * up - 1.0
        begins, slower = now + ahead, joined - step
        if isinstance(at, int):
            tasks = (fleet.left[at].tolist(), fleet.due[at].tolist(), fleet.occupied[at].tolist())
            self.slack[at], self.ends[at] = _slack_and_end(*tasks, step, begins, slower)
            return
        ends = fleet.left * step[:, None] + begins[:, None]
        spare = fleet.due - ends
        kept = np.where(spare < 0, np.inf, spare - fleet.left * slower[:, None])
        self.slack[at], self.ends[at] = kept.min(axis=1), np.where(fleet.occupied, ends, np.inf).min(axis=1)


def _slack_and_end(
    left: list[float], due: list[float], occupied: list[bool], step: float, begins: float, slower: float
) -> tuple[float, float]:
    """One backend's `slack` and `ends`: for a handful of tasks arrays are six times as slow."""
    slack = first = math.inf
    for tokens, deadline, taken in zip(left, due, occupied, strict=True):
        if taken:
            end = tokens * step + begins
            first = min(first, end)
            if deadline >= end:
                slack = min(slack, deadline - end - tokens * slower)
    return slack, first


@dataclass(frozen=True)
class Costs:
    """Tasks on backends, (M, B) each: `seconds` until the answer, `lateness` (s beyond the deadline), `total`; ∞ where
    a task may not run now.
    """

    seconds: Floats
    lateness: Floats
    total: Floats


def costs(rows: Ints, tasks: Tasks, standing: FleetState, prices: Prices, now: float, wait: Floats) -> Costs:
    """The objective of each task on each backend. `wait`: s until a slot is free, (B,), others that wait ahead
    included.

    T = wait + link + pending + (n − cached)·prefill + ô·τ(k+1); total = λ_L·lateness + λ_E·E + λ_C·I·E + λ_D·deep
    tokens (design, section 7), with a price on a deadline missed, on slot seconds and on money. A backend where the
    task would make a running one late is closed to it.
    """
    fleet = standing.fleet
    at = slice(rows[0], rows[0] + 1) if len(rows) == 1 else rows
    length = tasks.length[at]
    seconds = length @ standing.time
    total = length @ standing.cost
    if wait is not standing.none:
        seconds += wait
        total += prices.busy * wait
    prefill = length[:, 1:2] * standing.time[1]
    if standing.cached:
        for of in np.flatnonzero(tasks.prefix[at] != NO_PREFIX):
            held = standing.cached.get(int(tasks.prefix[rows[of]]))
            if held is not None:
                saved = np.minimum(held, tasks.shared[rows[of]])
                seconds[of] -= saved * standing.time[1]
                prefill[of] -= saved * standing.time[1]
                total[of] -= saved * standing.cost[1]
    lateness = seconds - (tasks.due[at] - now)[:, None]
    np.maximum(lateness, 0.0, out=lateness)
    if np.count_nonzero(lateness):
        total += tasks.value[at][:, None] * (prices.miss * (lateness > 0) + prices.late * lateness)
    prefill *= fleet.stalls
    may = tasks.may[at] & (standing.room >= tasks.most[at][:, None])
    may &= prefill <= standing.slack
    return Costs(seconds, lateness, np.where(may, total, np.inf))


def energy(row: int, backend: int, tasks: Tasks, standing: FleetState) -> tuple[float, float]:
    """J that a task adds to a backend's batch, predicted, and the g CO₂e of them."""
    fleet = standing.fleet
    held = fleet.cached.get(int(tasks.prefix[row]), standing.none)[backend]
    fresh = tasks.length[row, 1] - min(held, tasks.shared[row])
    joules = fresh * fleet.prompt_joules[backend] + tasks.length[row, 2] * standing.token_joules[backend]
    return float(joules), float(joules * standing.grams_per_joule[backend])
