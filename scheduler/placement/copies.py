"""Where the second copy of a critical task runs: the same weights, in domains of power and network of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finllm.scheduler.placement.placing import FleetState, costs
from finllm.scheduler.placement.prices import Prices
from finllm.scheduler.placement.waiting import Tasks


@dataclass(frozen=True)
class Second:
    """The index of the backend that a second copy goes to; None: it has none, and `why` says so.

    `why` is empty where no backend tells its domains: nobody asked for copies.
    """

    backend: int | None
    why: str = ""


def second(row: int, first: int, tasks: Tasks, standing: FleetState, prices: Prices, now: float) -> Second:
    """Where a task that starts on `first` runs a second time.

    The cheapest backend with a free slot that has the same weights at the same precision, so that either answer is the
    answer to the same key, and that shares neither power nor network with the first. A copy never waits and never makes
    a running task late: it is worth having now or not at all.
    """
    fleet = standing.fleet
    if not fleet.tells_domains:
        return Second(None)
    alike = fleet.apart(first) & (fleet.family == fleet.family[first]) & (fleet.rank == fleet.rank[first])
    if not alike.any():
        return Second(None, "no other backend with its weights has both power and network of its own")
    found = costs(np.array([row]), tasks, standing, prices, now, standing.none)
    total = np.where(alike & fleet.up & (standing.free > 0), found.total[0], np.inf)
    best = int(total.argmin())
    if total[best] == np.inf:
        names = ", ".join(fleet.specs[at].name for at in np.flatnonzero(alike))
        return Second(None, f"{names}, which has its weights in other domains, takes no second copy now")
    return Second(best)
