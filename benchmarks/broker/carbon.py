"""What waiting for a cleaner hour saves: the back-test, which may wait four hours, on two grids of 2022."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from benchmarks.broker.cells import DAY, ROOT, SEEDS, bare, specs
from finllm.scheduler.money.carbon import CarbonSeries, ZoneIntensity
from finllm.scheduler.money.carbon_file import read_grid
from finllm.scheduler.placement.fleet import Floats
from finllm.scheduler.placement.policies.weighted import Weighted
from finllm.scheduler.simulation.run import Setup, simulate
from finllm.scheduler.simulation.trace import Arrival

FOLDER = ROOT.parent / "shared" / "carbon"
ZONES = {"ES": "ES_2022_hourly.csv", "US-CAL-CISO": "US-CAL-CISO_2022_hourly.csv"}
BATCH = 300.0
"""s of steady work that a deferrable task is reckoned as, and between two looks at the grid."""


@dataclass(frozen=True)
class Saved:
    """g CO₂e of the deferrable tasks, in life-cycle figures, average intensity: started at once, and when it is
    cleaner.
    """

    zone: str
    at_once: float
    waiting: float
    kept: float
    """Share of the deferrable tasks that were in time all the same."""

    @property
    def share(self) -> float:
        return 1 - self.waiting / self.at_once


def carbon() -> list[Saved]:
    """Both zones, where their files lie beside the project."""
    return [_zone(zone) for zone, file in ZONES.items() if (FOLDER / file).exists()]


@lru_cache
def _source(zone: str) -> ZoneIntensity:
    return read_grid(FOLDER / ZONES[zone], zone, "average").zone(zone)


def _zone(zone: str) -> Saved:
    source = _source(zone)
    assert isinstance(source, CarbonSeries)
    at_once, waiting, kept = [], [], []
    for seed in SEEDS:
        day = int(np.random.default_rng([seed, 11]).integers(0, 360))
        start = dt.datetime(2022, 1, 1, 8, tzinfo=dt.UTC) + dt.timedelta(days=day)
        tasks = [replace(one, deadline=one.defer + 900.0) for one in bare("edge-deep", DAY, seed)]
        plain, _ = _grams(tasks, source, start, defers=False)
        green, in_time = _grams(tasks, source, start, defers=True)
        at_once.append(plain)
        waiting.append(green)
        kept.append(in_time)
    return Saved(zone, float(np.sum(at_once)), float(np.sum(waiting)), float(np.mean(kept)))


def _grams(tasks: Sequence[Arrival], source: CarbonSeries, start: dt.datetime, *, defers: bool) -> tuple[float, float]:
    backends = specs("edge-deep")

    def at(time: float) -> dt.datetime:
        return start + dt.timedelta(seconds=time)

    def intensity(time: float) -> Floats:
        return np.full(len(backends), source.at(at(time)).value)

    @lru_cache(maxsize=100_000)
    def cleaner(now: int, until: int) -> bool:
        first = at(now * BATCH)
        return source.cheapest(first, max(at(until * BATCH), first), BATCH).at > first

    def greener(now: float, until: float) -> bool:
        return cleaner(int(now // BATCH), int(until // BATCH))

    out = simulate(
        tasks, backends, lambda fleet: Weighted(fleet, intensity=intensity, greener=greener if defers else None),
        Setup(grams_per_kwh=intensity),
    )  # fmt: skip
    background = np.array([one.background for one in tasks])
    late = out.finished > np.array([one.time + one.deadline for one in tasks])
    return float(out.grams[background].sum()), float(1 - late[background].mean())
