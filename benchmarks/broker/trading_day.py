"""A generated trading day: two opens, one surprise release, and a background back-test that can wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finllm.scheduler.simulation.trace import Arrival

DAY = 8.5 * 3600
"""s from the first open (09:00 in Europe) to the last close that counts."""
OPENS = (0.06 * DAY, 0.62 * DAY)
"""When the two markets open, s: announced, so that a calendar may hold them."""
SURPRISE = (0.30, 0.50)
"""Share of the day between which the unannounced release falls."""

SHAPES: dict[str, tuple[float, float, float]] = {
    "market-signal": (500, 40, 0.6),
    "narrative": (1_100, 90, 1.0),
    "sanity-checker": (800, 25, 0.7),
    "validator": (700, 30, 0.9),
    "stress-tester": (900, 60, 0.8),
    "compliance": (1_200, 45, 0.8),
}
"""Median prompt and output in tokens, and value, of a task by agent."""


@dataclass(frozen=True)
class Burst:
    """`peak`: arrivals per unit of base rate just after `time`, dying away over `length` s."""

    time: float
    peak: float
    length: float


def bursts(seed: int) -> list[Burst]:
    """The day's bursts: the two opens, and the surprise at a time that only the seed knows."""
    at = np.random.default_rng([seed, 1]).uniform(*SURPRISE) * DAY
    return [Burst(OPENS[0], 8, 900), Burst(OPENS[1], 8, 900), Burst(at, 12, 600)]


def trading_day(tasks: int, tenants: int, seed: int, agents: Sequence[str] = tuple(SHAPES)) -> list[Arrival]:
    """So many tasks, without deadlines yet. One in five belongs to the back-test: it comes in batches through the day,
    may wait four hours to be started, and is worth a fifth. Those of one burst share the event's prompt.
    """
    random = np.random.default_rng([seed, 2])
    live = round(tasks * 0.8)
    found: list[Arrival] = []
    grid = np.linspace(0, DAY, 8_001)
    rate = np.ones_like(grid)
    for burst in bursts(seed):
        since = grid - burst.time
        rate += np.where(since >= 0, burst.peak * np.exp(-np.maximum(since, 0) / (burst.length / 3)), 0.0)
    cumulative = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2)])
    times = np.sort(np.interp(random.random(live), cumulative / cumulative[-1], grid))
    weights = 1 / np.arange(1, tenants + 1)
    weights /= weights.sum()
    for time in times:
        event = next((at for at, b in enumerate(bursts(seed)) if 0 <= time - b.time < b.length), None)
        found.append(_task(float(time), random, agents, tenants, weights, event))
    batches = max((tasks - live) // 25, 1)
    for start in np.sort(random.uniform(0, DAY * 0.9, batches)):
        for _ in range((tasks - live) // batches):
            one = _task(float(start), random, agents, tenants, weights, None)
            found.append(
                Arrival(one.time, one.prompt, one.output, one.agent, one.deadline, "back-test", one.value / 5, True,
                        4 * 3600.0)
            )  # fmt: skip
    return sorted(found, key=lambda one: one.time)


def _task(
    time: float,
    random: np.random.Generator,
    agents: Sequence[str],
    tenants: int,
    weights: np.ndarray[tuple[int], np.dtype[np.float64]],
    event: int | None,
) -> Arrival:
    agent = agents[int(random.integers(len(agents)))]
    prompt_median, output_median, value = SHAPES[agent]
    prompt = int(np.clip(prompt_median * np.exp(0.35 * random.standard_normal()), 50, 3_000))
    output = int(np.clip(output_median * np.exp(0.3 * random.standard_normal()), 4, 400))
    tenant = f"tenant-{int(random.choice(tenants, p=weights)) + 1}"
    prefix, shared = ("", 0) if event is None else (f"event-{event}-{agent}", prompt // 2)
    return Arrival(time, prompt, output, agent, float("inf"), tenant, value, prefix=prefix, shared=shared)
