"""What a simulated policy achieved: deadlines kept, lateness, quality, energy, carbon, money and fairness."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from finllm.scheduler.placement.fairness import bound
from finllm.scheduler.simulation.run import TaskOutcomes


@dataclass(frozen=True)
class Metrics:
    """`goodput`: share of all tasks answered by their deadline; a refused one is not. `worth`: the same by value.
    `live`: the same of tasks that are not background. `late_p99`: s beyond the deadline, of the answered. `deep_share`:
    of all tokens. `quality`: share of the answered that were right; NaN where answers are not simulated. `gap`: the
    most by which service differed between two tenants with work waiting, in weighted tokens; `gap_bound`: what VTC
    allows. `synchronised`: share of an event's answers that its commonest model family gave; 0 where none share one.
    """

    tasks: int
    goodput: float
    worth: float
    live: float
    refused: float
    latency_p50: float
    latency_p99: float
    late_p99: float
    makespan: float
    deep_share: float
    quality: float
    joules: float
    grams: float
    usd: float
    escalated: float
    gap: float
    gap_bound: float
    doubles: int
    synchronised: float


def metrics(out: TaskOutcomes) -> Metrics:
    """Figures of an outcome. Background tasks count like all others."""
    arrived = np.array([one.time for one in out.arrivals])
    deadline = np.array([one.deadline for one in out.arrivals])
    tokens = np.array([one.prompt + one.output for one in out.arrivals], dtype=np.float64)
    answered = np.isfinite(out.finished)
    latency = out.finished - arrived
    in_time = latency <= deadline
    value = np.array([one.value for one in out.arrivals])
    background = np.array([one.background for one in out.arrivals])
    late = np.maximum(latency - deadline, 0.0)[answered]
    worked = tokens[answered].sum()
    on = out.backend[answered]
    fleet = out.fleet
    return Metrics(
        tasks=len(arrived),
        goodput=float(in_time.mean()),
        worth=float(value[in_time].sum() / value.sum()),
        live=float(in_time[~background].mean()) if not background.all() else float("nan"),
        refused=float((~answered).mean()),
        latency_p50=_quantile(latency[answered], 0.5),
        latency_p99=_quantile(latency[answered], 0.99),
        late_p99=_quantile(late, 0.99),
        makespan=float(np.nanmax(out.finished) - arrived.min()) if answered.any() else float("nan"),
        deep_share=float(out.deep_tokens.sum() / worked) if worked else 0.0,
        quality=float(out.right[answered].mean()) if out.right.any() and answered.any() else float("nan"),
        joules=out.total_joules,
        grams=float(out.grams.sum()),
        usd=float((fleet.usd[on] * tokens[answered]).sum()),
        escalated=float(out.escalated.mean()),
        gap=service_gap(out),
        gap_bound=2 * bound(max(one.prompt for one in out.arrivals), float(fleet.kv.sum())),
        doubles=out.doubles,
        synchronised=synchronised(out),
    )


def synchronised(out: TaskOutcomes) -> float:
    """Mean over tasks that share a prompt: how large a part of its answers the commonest model family gave."""
    families: dict[str, list[int]] = {}
    for task, one in enumerate(out.arrivals):
        if one.prefix and out.backend[task] >= 0:
            families.setdefault(one.prefix, []).append(int(out.fleet.family[out.backend[task]]))
    most = sum(max(Counter(each).values()) for each in families.values())
    answered = sum(len(each) for each in families.values())
    return most / answered if answered else 0.0


def service_gap(out: TaskOutcomes) -> float:
    """The largest |W_i − W_j| over any stretch in which tenants i and j both have tasks waiting (Sheng et al. 2024)."""
    tenants = sorted({tenant for _, tenant, _ in out.served})
    events = sorted(
        [(time, 0, tenant, float(waits)) for time, tenant, waits in out.waits]
        + [(time, 1, tenant, tokens) for time, tenant, tokens in out.served]
    )
    worst = 0.0
    for one, other in combinations(tenants, 2):
        backlogged = {one: False, other: False}
        ahead = low = high = 0.0
        for _, kind, tenant, amount in events:
            if tenant not in backlogged:
                continue
            if kind == 0:
                backlogged[tenant] = bool(amount)
                if all(backlogged.values()):
                    ahead = low = high = 0.0
            elif all(backlogged.values()):
                ahead += amount if tenant == one else -amount
                low, high = min(low, ahead), max(high, ahead)
                worst = max(worst, high - low)
    return worst


def _quantile(values: np.ndarray[tuple[int], np.dtype[np.float64]], share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else float("nan")
