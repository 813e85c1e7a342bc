"""What would flip a result: the same run with a factor read otherwise, moved otherwise, or without a source; no model.

Everything from the reading on is computed again by the tools; what the agents said besides it stays as it was.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, cast

from finllm.desk.desk import RunContext
from finllm.errors import InputError
from finllm.graphs.nodes.closing import rule_facts
from finllm.graphs.nodes.reading import reading_of
from finllm.graphs.nodes.validation import checked
from finllm.graphs.shocks import EXTRAPOLATED, engine_of, plan_of
from finllm.graphs.state import Row, State, latest
from finllm.guardrails.rules import RuleVerdict, check_rules, worst
from finllm.scheduler.decoding.filling import Choices, best
from finllm.tools.data.factors import FACTOR_IDS, FactorId, Shock
from finllm.tools.pnl.limits import breaches
from finllm.tools.pnl.outcome import EngineResult
from finllm.tools.pnl.shocks import BOUNDS, Plan

STEP = 0.2
"""Sizes of a shock are tried in steps of so many σ."""
FARTHEST = 4.0
"""Changes of a shock beyond so many σ are not tried."""

Flip = Literal["sign", "breach", "block"]
_SIZES = ("small", "medium", "large", "extreme")


@dataclass(frozen=True)
class Verdict:
    """The part of a result that somebody acts on: P&L in USD, limits breached (kind, subject), and compliance."""

    total: Decimal
    breached: frozenset[tuple[str, str]]
    compliance: RuleVerdict

    def flips(self, other: Verdict) -> tuple[Flip, ...]:
        """What is the other way round in `other`: whether the book loses, breaches a limit, is blocked."""
        pairs: tuple[tuple[Flip, bool, bool], ...] = (
            ("sign", self.total < 0, other.total < 0),
            ("breach", bool(self.breached), bool(other.breached)),
            ("block", self.compliance == "block", other.compliance == "block"),
        )
        return tuple(name for name, was, now in pairs if was != now)


@dataclass(frozen=True)
class Otherwise:
    """A factor read otherwise: what was read, what it would be, how probable that was, and what would follow.

    `next`: it was the next most probable value. `probability` is None for a size that was not asked, since no direction
    was read.
    """

    factor: FactorId
    was: str
    would_be: str
    probability: float | None
    next: bool
    verdict: Verdict


@dataclass(frozen=True)
class Step:
    """The smallest change of one factor's move, `sigmas` σ, after which the verdict flips."""

    factor: str
    sigmas: float
    verdict: Verdict


class WhatIf:
    """A finished run's result, to be computed again under other readings. `base` is the run's own."""

    def __init__(self, state: State, run: RunContext) -> None:
        self._state, self._run = state, run
        self._engine = engine_of(state, run)
        self._var = EngineResult.model_validate(state["stress"]["result"]).var_975_1d
        refused = (latest(state, "stress-tester") or {}).get("judgement") or {}
        self._named = {row["factor"] for row in state["shocks"] if row["move"] in refused.get("refuse", ())}
        self.reading: dict[str, Any] | None = reading_of(state)
        self.applied = self._applied(plan_of(state, run, self._engine))
        self.base = self._verdict(state, self.applied)

    @property
    def bears(self) -> frozenset[FactorId]:
        """Factors whose reading can bear on the result: no shock of the user's or of a replayed window is on them."""
        if self.reading is None or self._run.request.scenario.replay is not None:
            return frozenset()
        return frozenset(FACTOR_IDS) - {entry.factor for entry in self._run.request.scenario.shocks}

    def read(self, calls: Mapping[str, Mapping[str, str]], *, without: str | None = None) -> Verdict:
        """The verdict had the factors been read as `calls` (direction, size), and without a source's words."""
        assert self.reading is not None
        changed = copy.deepcopy(self.reading)
        changed["judgement"]["factors"] |= {factor: dict(call) for factor, call in calls.items()}
        sources = [source for source in self._state["sources"] if source["id"] != without]
        state = cast(State, {**self._state, "opinions": [changed], "sources": sources})
        state["checks"] = [check.model_dump(mode="json") for check in checked(state, changed["judgement"])]
        return self._verdict(state, self._applied(plan_of(state, self._run, self._engine)))

    def otherwise(self) -> Iterator[Otherwise]:
        """Every other value of every factor's direction and size, the most probable first within each."""
        if self.reading is None:
            return
        choices: Choices = self.reading["choices"]
        for factor in FACTOR_IDS:
            if factor not in self.bears:
                continue
            call = self.reading["judgement"]["factors"][factor]
            was = told(call)
            turns = _others(choices[f"factors.{factor}.direction"], call["direction"])
            for at, (direction, chance) in enumerate(turns):
                sizes = ("none",) if direction == "none" else _SIZES if call["size"] == "none" else (call["size"],)
                for size in sizes:
                    would = {"direction": direction, "size": size}
                    asked = None if len(sizes) > 1 else chance
                    yield from self._one(factor, was, would, asked, at == 0)
            if call["size"] == "none":
                continue
            for at, (size, chance) in enumerate(_others(choices[f"factors.{factor}.size"], call["size"])):
                would = {"direction": call["direction"], "size": size}
                yield from self._one(factor, was, would, chance, at == 0)

    def _one(
        self, factor: FactorId, was: str, would: dict[str, str], chance: float | None, next: bool
    ) -> Iterator[Otherwise]:
        with contextlib.suppress(InputError):  # too little history for a move of that size: there is no such result
            yield Otherwise(factor, was, told(would), chance, next, self.read({factor: would}))

    def smallest_steps(self) -> list[Step]:
        """For each factor the smallest change of its move that flips the verdict, smallest first.

        A factor that a replay moves is left out: it moved as it did.
        """
        found = [step for factor in self._engine.view.factors.drivers if (step := self._smallest(factor)) is not None]
        return sorted(found, key=lambda step: abs(step.sigmas))

    def _smallest(self, factor: str) -> Step | None:
        sigma = self._engine.view.size(factor, self.applied.days).sigma
        now = self.applied.shocks.get(factor)
        if sigma is None or (now is not None and now.origin == "historical"):
            return None
        move, unit = now.move if now else 0.0, self._engine.view.factors[factor].unit
        low, high = BOUNDS[unit]
        for n in range(1, round(FARTHEST / STEP) + 1):
            for sigmas in (n * STEP, -n * STEP):
                there = move + sigmas * sigma.value
                if not low <= there <= high:
                    continue
                shock = Shock(factor=factor, move=there, unit=unit, sigma=there / sigma.value, origin="user",
                              window=sigma.window)  # fmt: skip
                verdict = self._verdict(self._state, self.applied.with_shock(shock))
                if self.base.flips(verdict):
                    return Step(factor, sigmas, verdict)
        return None

    def _applied(self, plan: Plan) -> Plan:
        """Without those that the agent refused, where the check calls them implausible too."""
        return plan.without({
            name for name, shock in plan.shocks.items()
            if name in self._named and shock.origin in ("model", "table") and shock.sigma is not None
            and abs(shock.sigma) > EXTRAPOLATED
        })  # fmt: skip

    def _verdict(self, state: State, plan: Plan) -> Verdict:
        request = self._run.request
        cuts = self._engine.revalue(plan, propagate=request.scenario.propagate)
        found = breaches(cuts, self._var, request.limits)
        rows: list[Row] = [
            {"factor": one.factor, "origin": one.origin, "refused": None} for one in plan.shocks.values()
        ]
        named: list[Row] = [{"subject": one.subject, "kind": one.kind, "loss": "", "limit": ""} for one in found]
        facts = rule_facts(cast(State, {**state, "shocks": rows}), self._run, named)
        ruled = worst([finding.verdict for finding in check_rules(facts)])
        return Verdict(cuts.total, frozenset((one.kind, one.subject) for one in found), ruled)


def calls_of(choices: Choices) -> dict[str, dict[str, str]]:
    """Direction and size of each factor, as these probabilities choose them."""
    return {
        factor: {name: best(choices[f"factors.{factor}.{name}"]) for name in ("direction", "size")}
        for factor in FACTOR_IDS
    }


def told(call: Mapping[str, str]) -> str:
    """A direction and a size in words."""
    return "unmoved" if call["direction"] == "none" else f"{call['direction']}, {call['size']}"


def _others(odds: Mapping[str, float], chosen: str) -> list[tuple[str, float]]:
    return sorted(((value, p) for value, p in odds.items() if value != chosen), key=lambda item: -item[1])
