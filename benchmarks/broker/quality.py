"""What precision is worth: the measured edge–deep gap and, were it larger, what escalation would gain and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.broker.cells import DAY, TUNING, bare, specs
from finllm.scheduler.calibration.measured import RungCalibration
from finllm.scheduler.placement.fleet import BackendSpec, Fleet
from finllm.scheduler.placement.policies.ordered import Ordered, Split, on_deep
from finllm.scheduler.placement.policies.weighted import Weighted
from finllm.scheduler.placement.prices import Prices
from finllm.scheduler.simulation.achieved import Metrics, metrics
from finllm.scheduler.simulation.answers import Answers
from finllm.scheduler.simulation.prepared import at_load
from finllm.scheduler.simulation.run import Setup, simulate
from finllm.scheduler.simulation.trace import Arrival

SHOWN_FROM = 0.05
"""A smaller gap between the tiers shows nothing about quality."""
MOST_DEEP = 0.35
MARGIN = 0.9
"""Share of tokens that the deep tier may have; a tenth of it is kept back for days that differ."""
SCARCE = Prices(deep=0.01)
"""A budget of deep tokens that is used too fast makes them this dear: first answers then come from the edge."""
TASKS = 300
LOAD = 0.5


@dataclass(frozen=True)
class Gap:
    """Share of an agent's probes that each tier had right."""

    agent: str
    edge: float
    deep: float
    items: int

    @property
    def shown(self) -> bool:
        return self.deep - self.edge >= SHOWN_FROM


def gaps(calibrations: Sequence[RungCalibration], edge: str, deep: str) -> list[Gap]:
    """The measured gap by agent, from the latest calibration of both precisions; none where one is missing."""
    latest = {one.precision: one for one in sorted(calibrations, key=lambda one: one.taken_at)}
    if edge not in latest or deep not in latest:
        return []
    below, above = latest[edge].quality, latest[deep].quality
    return [Gap(agent, below[agent].score, above[agent].score, below[agent].items) for agent in below]


@dataclass(frozen=True)
class Quality:
    """Shares right, and of deep tokens: for escalation, for a router that decides beforehand, and for always deep."""

    edge: float
    deep: float
    signal: float
    escalated: Metrics
    routed: Metrics
    always_deep: Metrics

    @property
    def kept(self) -> float:
        return self.escalated.quality / self.always_deep.quality


def supposed(edge: float, deep: float, signal: float, seed: int) -> Quality:
    """Escalation on tiers of supposed quality: the confidence threshold is chosen on another day, so that the deep tier
    has its share of tokens, and the router gets the same share with a score as good as the confidence."""
    backends = [replace(spec, quality={}) for spec in specs("edge-deep")]
    backends = [_with_quality(spec, edge, deep) for spec in backends]
    day = _day(seed, backends)
    threshold = _threshold(_day(TUNING + seed, backends), edge, signal, TUNING + seed)
    answers = Answers.drawn(len(day), signal, seed)

    def scarce(fleet: Fleet) -> Weighted:
        return Weighted(fleet, SCARCE)

    escalated = metrics(simulate(day, backends, scarce, Setup(answers=answers, escalate_below=threshold)))
    sure = np.argsort(np.argsort([-answers.confidence(at, edge) for at in range(len(day))])) / len(day)
    share = escalated.deep_share

    def doubt(row: int) -> float:
        return float(sure[row % len(day)])

    routed = metrics(simulate(day, backends, lambda _f: Ordered(where=Split(share, doubt)), Setup(answers=answers)))
    always = metrics(simulate(day, backends, lambda _f: Ordered(where=on_deep), Setup(answers=answers)))
    return Quality(edge, deep, signal, escalated, routed, always)


def _with_quality(spec: BackendSpec, edge: float, deep: float) -> BackendSpec:
    from benchmarks.broker.trading_day import SHAPES

    return replace(spec, quality=dict.fromkeys(SHAPES, deep if spec.tier == "deep" else edge))


def _day(seed: int, backends: Sequence[BackendSpec]) -> list[Arrival]:
    return [replace(one, deadline=1e6) for one in at_load(bare("edge-deep", DAY, seed, TASKS), backends, LOAD, seed)]


def _threshold(day: list[Arrival], edge: float, signal: float, seed: int) -> float:
    """The confidence below which, on another day, lie the tasks that hold the deep tier's share of the tokens."""
    answers = Answers.drawn(len(day), signal, seed)
    confidence = np.array([answers.confidence(at, edge) for at in range(len(day))])
    order = np.argsort(confidence)
    tokens = np.cumsum(np.array([one.prompt + one.output for one in day])[order])
    return float(confidence[order[int(np.searchsorted(tokens, MARGIN * MOST_DEEP * tokens[-1]))]])
