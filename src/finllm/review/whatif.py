"""What would flip a result: the same run with a factor read otherwise, moved otherwise, or without a source; no model.

Everything from the reading on is computed again by the tools; what the agents said besides it stays as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from finllm.agents.market_signal import MARKET_SIGNAL
from finllm.agents.narrative import FactorCall, Reading
from finllm.agents.pooling import pooled
from finllm.agents.stress_tester import STRESS_TESTER
from finllm.desk.desk import RunContext
from finllm.errors import InputError
from finllm.graphs.consequences import STRESSED, contradicting, refusal
from finllm.graphs.nodes.compliance import rule_facts
from finllm.graphs.nodes.validation import Voices, checked, explained_by
from finllm.graphs.rows import BreachRow, ChannelRow, OpinionRow, WantedShock
from finllm.graphs.shocks import EXTRAPOLATED, engine_of, plan_of
from finllm.graphs.state import Finished, JudgedOpinion
from finllm.graphs.through import without_source
from finllm.guardrails.rules import RuleVerdict, check_rules, worst
from finllm.scheduler.decoding.filling import Choices, best
from finllm.tools.data.factors import FACTOR_IDS, FactorId, MoveUnit, Shock, parse_user_shock
from finllm.tools.evidence import show
from finllm.tools.pnl.attribution import Attribution
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.limits import Known, hold
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
    """A finished run's result, to be computed again under other readings. `base` is the run's own.

    `engine`: the run's, where it is at hand.
    """

    def __init__(self, state: Finished, run: RunContext, engine: Engine | None = None) -> None:
        self._state, self._run = state, run
        self._engine = engine = engine or engine_of(state, run)
        self._known = Known.of(state.stress.result, engine.view.factors.drivers, engine.coverage)
        choice = state.said(STRESS_TESTER)
        self._named = {shock.factor for shock in state.shocks if choice and shock.move in choice.refuse}
        self._choice, signal = choice, state.said(MARKET_SIGNAL)
        self.stressed = signal is not None and signal.regime in STRESSED
        self._past = Voices(run, state.through)
        self.reading: JudgedOpinion[Reading] | None = state.reading
        self.applied = self._applied(plan_of(state, run, self._engine))
        self.base = self._verdict(state, self.applied)

    @property
    def cuts(self) -> Attribution:
        """The P&L of the run with its parts."""
        request = self._run.request
        return self._engine.revalue(self.applied, propagate=request.scenario.propagate, stressed=self.stressed)

    @property
    def bears(self) -> frozenset[FactorId]:
        """Factors whose reading can bear on the result: no shock of the user's or of a replayed window is on them."""
        if self.reading is None or self._run.request.scenario.replay is not None:
            return frozenset()
        return frozenset(FACTOR_IDS) - self._run.request.scenario.insisted

    def read(self, calls: Mapping[FactorId, FactorCall], *, without: str | None = None) -> Verdict:
        """The verdict had the factors been read as `calls`, and without a source's words."""
        assert self.reading is not None
        read = self.reading.judgement
        read = read.model_copy(update={"factors": {**read.factors, **calls}})
        sources = tuple(source for source in self._state.sources if source.id != without)
        state = self._state.model_copy(update={
            "opinions": (self.reading.opinion.model_copy(update={"judgement": read}),),
            "sources": sources,
            "checks": tuple(checked(read, sources, self._past, explained_by(self._state))),
        })  # fmt: skip
        return self._verdict(state, self._applied(plan_of(state, self._run, self._engine)))

    def unheard(self, source: str | None) -> Verdict:
        """The verdict had a source not been read: the channels of all others, as they stand on record."""
        assert self.reading is not None
        through, sources = self._state.through, self._state.sources
        heard = without_source(through, self._run, sources, source) if through else None
        if through is None or heard is None:
            return self.read({}, without=source)
        opinion = pooled(self.reading.opinion, heard)
        assert opinion.judgement is not None
        kept = tuple(one for one in sources if one.id != source)
        rows = tuple(ChannelRow(opened=one, evidence="", words="") for one in heard.opened)
        through = through.model_copy(update={"rows": rows, "fields": heard.fields})
        state = self._state.model_copy(update={"opinions": (OpinionRow.of(opinion),), "through": through,
                                               "sources": kept})  # fmt: skip
        checks = checked(opinion.judgement, kept, Voices(self._run, through), explained_by(state))
        state = state.model_copy(update={"checks": tuple(checks)})
        return self._verdict(state, self._applied(plan_of(state, self._run, self._engine)))

    def moved(self, factor: str, move: str) -> tuple[Verdict, float, MoveUnit]:
        """The verdict had a factor moved so, written as a user's shock, all other shocks as they are; with the move.

        Errors: InputError for a factor or move that cannot be read, or that lies outside what the factor can do.
        """
        factors = self._engine.view.factors
        asked = parse_user_shock(factor, move, {name: factors[name].unit for name in factors.drivers})
        sigma, unit = self._engine.view.size(factor, self.applied.days).sigma, factors[factor].unit
        if asked.in_sigmas and sigma is None:
            raise InputError(f"{factor!r} has no history to measure sigmas in", fix="give the move in its own unit")
        there = asked.amount * sigma.value if asked.in_sigmas and sigma else asked.amount
        low, high = BOUNDS[unit]
        low = max(low, self._engine.view.least_move(factor)[0])
        if not low <= there <= high:
            raise InputError(f"{factor!r} cannot move by {move!r}",
                             fix=f"stay between {show(low, unit)} and {show(high, unit)}")  # fmt: skip
        shock = Shock(factor=factor, move=there, unit=unit, sigma=there / sigma.value if sigma else None, origin="user",
                      window=sigma.window if sigma else "given")  # fmt: skip
        return self._verdict(self._state, self.applied.with_shock(shock)), there, unit

    def otherwise(self) -> Iterator[Otherwise]:
        """Every other value of every factor's direction and size, the most probable first within each."""
        if self.reading is None:
            return
        choices = self.reading.opinion.choices
        for factor in FACTOR_IDS:
            if factor not in self.bears:
                continue
            call = self.reading.judgement.factors[factor]
            was = told(call)
            turns = _others(choices[f"factors.{factor}.direction"], call.direction)
            for at, (direction, chance) in enumerate(turns):
                sizes = ("none",) if direction == "none" else _SIZES if call.size == "none" else (call.size,)
                for size in sizes:
                    would = call_of(direction, size)
                    asked = None if len(sizes) > 1 else chance
                    yield from self._one(factor, was, would, asked, at == 0)
            if call.size == "none":
                continue
            for at, (size, chance) in enumerate(_others(choices[f"factors.{factor}.size"], call.size)):
                yield from self._one(factor, was, call_of(call.direction, size), chance, at == 0)

    def _one(
        self, factor: FactorId, was: str, would: FactorCall, chance: float | None, next: bool
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
        low = max(low, self._engine.view.least_move(factor)[0])
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
        """Without those that the agent refused, where the rule for that holds."""
        if self._choice is None or not self._named:
            return plan
        against = contradicting(plan, self._engine)
        return plan.without({
            name for name, shock in plan.shocks.items()
            if name in self._named and refusal(name, shock.origin, self._choice, against, extrapolated=(
                shock.sigma is not None and abs(shock.sigma) > EXTRAPOLATED))
        })  # fmt: skip

    def _verdict(self, state: Finished, plan: Plan) -> Verdict:
        request = self._run.request
        cuts = self._engine.revalue(plan, propagate=request.scenario.propagate, stressed=self.stressed)
        held = hold(cuts, self._known, request.limits)
        shocks = tuple(WantedShock(factor=one.factor, move="", sigma=None, origin=one.origin, window=one.window,
                                   extrapolated=False) for one in plan.shocks.values())  # fmt: skip
        named = [BreachRow(subject=one.subject, kind=one.kind, loss=None, limit="") for one in held.breaches]
        facts = rule_facts(state.model_copy(update={"shocks": shocks}), self._run, named, held.unchecked)
        ruled = worst([finding.verdict for finding in check_rules(facts)])
        return Verdict(cuts.total, frozenset((one.kind, one.subject) for one in held.breaches), ruled)


def calls_of(choices: Choices) -> dict[FactorId, FactorCall]:
    """Direction and size of each factor, as these probabilities choose them."""
    return {
        factor: call_of(best(choices[f"factors.{factor}.direction"]), best(choices[f"factors.{factor}.size"]))
        for factor in FACTOR_IDS
    }


def call_of(direction: str, size: str) -> FactorCall:
    """A factor read so; one without a direction, or without a size, does not move."""
    if "none" in (direction, size):
        return FactorCall(direction="none", size="none")
    return FactorCall.model_validate({"direction": direction, "size": size})


def told(call: FactorCall) -> str:
    """A direction and a size in words."""
    return "unmoved" if call.direction == "none" else f"{call.direction}, {call.size}"


def _others(odds: Mapping[str, float], chosen: str) -> list[tuple[str, float]]:
    return sorted(((value, p) for value, p in odds.items() if value != chosen), key=lambda item: -item[1])
