"""Joules beside always-deep at the same quality, and whether the ranking stands under other energy figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.broker.cells import DAY, SEEDS, bare, specs
from benchmarks.intervals import interval
from finllm.scheduler.placement.fleet import BackendSpec, Profile
from finllm.scheduler.placement.policies.ordered import Ordered, Split, hashed, on_deep
from finllm.scheduler.placement.policies.registry import Factory
from finllm.scheduler.placement.policies.weighted import Weighted
from finllm.scheduler.placement.prices import Prices
from finllm.scheduler.simulation.achieved import metrics
from finllm.scheduler.simulation.prepared import at_load, capacity
from finllm.scheduler.simulation.run import simulate

LOAD = 0.7
"""Of what the deep backend alone gets through, so that always-deep can serve it all."""

FRUGAL = Prices(joule=0.01, deep=0.0, busy=0.0)
"""A budget of joules that is used too fast makes them this dear: a deadline is then worth 100 J."""

POLICIES: Mapping[str, Factory] = {
    "weighted": lambda fleet: Weighted(fleet, FRUGAL),
    "static-split": lambda _fleet: Ordered(where=Split(0.5, hashed)),
    "fcfs": lambda _fleet: Ordered(),
    "always-deep": lambda _fleet: Ordered(where=on_deep),
}

PUBLISHED: Mapping[str, tuple[Mapping[int, float], Mapping[int, float]]] = {
    "ML.ENERGY v3, Qwen3-235B on 8 H100: FP8 as edge, BF16 as deep": ({8: 11.4, 256: 0.95}, {8: 7.3, 256: 1.09}),
    "ML.ENERGY v3, Llama-3.1-8B on one H100, both tiers": ({8: 0.455, 512: 0.070}, {8: 0.455, 512: 0.070}),
}
"""J per token by batch, for edge and for deep (ML.ENERGY leaderboard v3)."""


@dataclass(frozen=True)
class Energy:
    """J of each policy under one set of figures, mean over seeds; `saved`: share fewer than always-deep, with its 95 %
    interval."""

    figures: str
    joules: Mapping[str, float]
    saved: tuple[float, float, float]

    @property
    def ranking(self) -> list[str]:
        return sorted(self.joules, key=lambda name: self.joules[name])


def energies() -> list[Energy]:
    """The figures measured here, these with the edge's half as high and as low, and two published tables."""
    base = specs("edge-deep")
    sets = {
        "measured here": base,
        "edge +50 %": _scaled(base, 1.5),
        "edge −50 %": _scaled(base, 0.5),
        **{name: _published(base, *table) for name, table in PUBLISHED.items()},
    }
    return [_energy(name, backends) for name, backends in sets.items()]


def _energy(name: str, backends: Sequence[BackendSpec]) -> Energy:
    deep = [spec for spec in backends if spec.tier == "deep"]
    found: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for seed in SEEDS:
        tasks = bare("edge-deep", DAY, seed, 160)
        day = at_load(tasks, backends, LOAD, seed, capacity(tasks, deep))
        for policy, factory in POLICIES.items():
            found[policy].append(metrics(simulate(day, backends, factory)).joules)
    saved = interval([1 - ours / theirs for ours, theirs in zip(found["weighted"], found["always-deep"], strict=True)])
    return Energy(name, {policy: float(np.mean(each)) for policy, each in found.items()}, saved)


def _scaled(backends: Sequence[BackendSpec], times: float) -> list[BackendSpec]:
    return [
        replace(spec, profile=spec.profile.faster(1.0, times)) if spec.tier == "edge" else spec for spec in backends
    ]  # fmt: skip


def _published(
    backends: Sequence[BackendSpec], edge: Mapping[int, float], deep: Mapping[int, float]
) -> list[BackendSpec]:
    """Joules of a table, in a straight line between the logarithms of its batches; the prompt's as those of its
    largest.
    """
    return [replace(spec, profile=_tabled(spec.profile, edge if spec.tier == "edge" else deep)) for spec in backends]


def _tabled(profile: Profile, table: Mapping[int, float]) -> Profile:
    batches, joules = np.log(sorted(table)), np.log([table[batch] for batch in sorted(table)])
    slope = (joules[-1] - joules[0]) / (batches[-1] - batches[0])
    decode = {batch: float(np.exp(joules[0] + slope * (np.log(batch) - batches[0]))) for batch in (1, 2, 4, 8, 16)}
    return replace(profile, prefill_joules=float(np.exp(joules[-1])), decode_joules=decode, energy="table")
