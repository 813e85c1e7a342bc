"""What the verdicts of market-signal and stress-tester do to a run's numbers: every rule and threshold of it.

- A regime of `STRESSED`: factors without a shock are completed by the covariance of stress (`Joint.near`).
- A lean of market-signal against the judged direction of the index, which the index's last 20 days bear out and its
  move since the news does not contradict: the band is that of a mixture of the P&L with the judged move and without it,
  weighed by the two probabilities (`text_weight`).
- The shocks' plausibility: a band of `LEVEL` is drawn as wide as one of `DRAWN_AS` would be, one of any other level by
  the same factor, so that a higher level is never narrower; not where the shocks together lie within `USUAL` of past
  moves, nor that of a replay, whose shocks happened.
- A shock from the reading is refused where the stress-tester names it and a tool agrees (`refused`).
"""

from __future__ import annotations

from finllm.agents.agent import Opinion
from finllm.agents.market_signal import MARKET_SIGNAL, MarketSignal
from finllm.agents.stress_tester import StressChoice
from finllm.errors import InputError
from finllm.graphs.rows import MovedBy, WantedShock
from finllm.graphs.state import AfterIntake, AfterValidator
from finllm.tools.evidence import Evidence, EvidenceTable, Unit
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.outcome import EngineResult
from finllm.tools.pnl.propagate import CONTRADICTORY, propagate
from finllm.tools.pnl.shocks import Plan
from finllm.tools.pnl.widening import as_wide_as, mixed, widened

STRESSED = ("stressed", "crisis")
"""Regimes in which factors move together as in stress."""
DRAWN_AS = {"plausible": None, "stretched": 0.95, "implausible": 0.99}
"""The level whose width a band of `LEVEL` has where the shocks are judged so; None for its own."""
USUAL = 0.95
"""Share of past moves of the same factors: shocks that go no farther than so many of them are usual."""
LEVEL = 0.9
"""Probability that a band holds, where nobody asks for another."""
INDEX = "EQUITY_US"
"""The factor that market-signal's lean is about."""
RECENT_CHANGE = "change over the last 20 days"
"""What the evidence row of a factor's recent change says."""
_OPPOSITE = {"up": "down", "down": "up"}


def refused(shock: WantedShock, choice: StressChoice | None, against: frozenset[str]) -> str | None:
    """Why a shock is left out; None where it stands: see `refusal`."""
    if choice is None or shock.move not in choice.refuse:
        return None
    return refusal(shock.factor, shock.origin, choice, against, extrapolated=shock.extrapolated)


def refusal(
    factor: str, origin: str, choice: StressChoice, against: frozenset[str], *, extrapolated: bool
) -> str | None:
    """Why a shock that the stress-tester names is left out; None where it stands. A user's and history's always do.

    A tool has to agree: it lies outside what its history shows, or, where the agent
    calls the shocks implausible, it contradicts what the other shocks imply (`against`, from `contradicting`).
    """
    if origin not in ("model", "table"):
        return None
    if extrapolated:
        return "refused by the stress-tester, and outside what its history shows"
    if choice.plausibility == "implausible" and factor in against:
        return "refused by the stress-tester, which finds the shocks implausible, and against what the others imply"
    return None


def contradicting(plan: Plan, engine: Engine) -> frozenset[str]:
    """The shocked factors that lie `CONTRADICTORY` σ or more from what the other shocks imply."""
    covariance = engine.joint(plan).covariance
    moves = {name: one.move for name, one in plan.shocks.items() if name in covariance.names}
    try:
        given = propagate(moves, covariance).given_others
    except InputError:  # shocks that cannot be told apart: the engine says so when it is asked
        return frozenset()
    return frozenset(name for name, sigmas in given.items() if abs(sigmas) >= CONTRADICTORY)


def leaned(state: AfterIntake) -> Evidence | None:
    """The row of the index's change over its last days, by which market-signal's lean is borne out or not."""
    cited = {id for row in state.market if row.factor == INDEX for id in row.cites}
    return next((row for row in state.evidence if row.id in cited and row.what == RECENT_CHANGE), None)


def borne_out(direction: str, change: Evidence | None) -> bool:
    """Whether the series lean as market-signal says."""
    return change is not None and (float(change.value) > 0) == (direction == "up") and direction != "none"


def text_weight(state: AfterValidator) -> float:
    """How much the text counts against the series, 0 to 1: p / (p + q), p the probability of the index's direction as
    read, q that of market-signal's lean where it is the opposite one. 1 where it is not, where the series do not bear
    the lean out, and where the market moves as told.
    """
    reading, signal = state.reading, state.said(MARKET_SIGNAL)
    if reading is None or signal is None:
        return 1.0
    read = reading.judgement.factors[INDEX].direction
    told = state.held is not None and state.held.result.factors.get(INDEX) == "moving as told"
    if read == "none" or signal.direction != _OPPOSITE[read] or told or not borne_out(signal.direction, leaned(state)):
        return 1.0
    opinion = state.latest(MARKET_SIGNAL)
    assert opinion is not None
    text, series = reading.opinion.probability(f"factors.{INDEX}.direction"), opinion.probability("direction")
    return text / (text + series)


def stress(
    state: AfterValidator, engine: Engine, plan: Plan, opinion: Opinion[StressChoice], table: EvidenceTable,
    *, propagates: bool | None, seed: int, level: float | None = None,
) -> tuple[EngineResult, MovedBy]:  # fmt: skip
    """The engine's result under the plan, and what the verdicts do to it, and that as evidence."""
    signal, choice = state.said(MARKET_SIGNAL), opinion.judgement
    stressed = signal is not None and signal.regime in STRESSED
    plain = engine.stress(plan, propagate=propagates, seed=seed, stressed=stressed,
                          level=LEVEL if level is None else level)  # fmt: skip
    result, weight = plain, text_weight(state)
    judged = INDEX in plan.shocks and plan.shocks[INDEX].origin in ("model", "table")
    if judged and weight < 1.0:
        other = engine.revalue(plan.without({INDEX}), propagate=propagates, stressed=stressed).total
        result = mixed(plain, other, weight, f"market-signal leans against the {INDEX} that was read")
    happened = all(one.origin == "historical" for one in plan.shocks.values())
    usual = result.joint is not None and result.joint.nearer <= USUAL
    to = DRAWN_AS[choice.plausibility] if choice and not happened and not usual else None
    wider = as_wide_as(to, LEVEL) if to and result.interval else 1.0
    result = widened(result, wider, f"the stress-tester finds the shocks {choice.plausibility}" if choice else "")
    moved = _signal_rows(state, signal, weight if judged else 1.0, table, engine, stressed=stressed)
    if choice is not None and plan.shocks:
        moved = moved.model_copy(update={
            "plausibility": choice.plausibility, "happened": happened, "usual": usual,
            "nearer": _row(table, engine, result.joint.nearer, "probability", "past moves that went less far",
                           "shocks", f"of {result.joint.count} {result.joint.window}") if result.joint else None,
            "plausibility_probability": _chance(table, engine, f"shocks {choice.plausibility}", "shocks", opinion,
                                                "plausibility"),
            "width": _row(table, engine, wider, "ratio", "width over its own", "band",
                          f"a band of {LEVEL:.0%} as wide as one of {to:.0%}")
            if to and result.interval else None,
        })  # fmt: skip
    return result, moved


def _signal_rows(
    state: AfterValidator, signal: MarketSignal | None, weight: float, table: EvidenceTable, engine: Engine,
    *, stressed: bool,
) -> MovedBy:  # fmt: skip
    opinion = state.latest(MARKET_SIGNAL)
    if signal is None or opinion is None:
        return MovedBy()
    moved = MovedBy(
        regime=signal.regime, stressed=stressed,
        regime_probability=_chance(table, engine, f"regime {signal.regime}", "equity market", opinion, "regime"),
    )  # fmt: skip
    if weight >= 1.0:
        return moved
    return moved.model_copy(update={
        "lean": signal.direction,
        "lean_probability": _chance(table, engine, f"lean {signal.direction}", "equity market", opinion, "direction"),
        "weight": _row(table, engine, weight, "probability", "weight of the text against the series", INDEX,
                       "probability as read over its sum with that of market-signal's lean"),
    })  # fmt: skip


def _chance(table: EvidenceTable, engine: Engine, what: str, entity: str, opinion: Opinion, field: str) -> str:
    formula = f"measured at the choice by {opinion.agent}, call {opinion.calls[-1][:12] if opinion.calls else '-'}"
    return _row(table, engine, opinion.probability(field), "probability", f"{what}, as judged", entity, formula)


def _row(
    table: EvidenceTable, engine: Engine, value: float, unit: Unit, what: str, entity: str, formula: str
) -> str:  # fmt: skip
    return table.add(value, unit, entity=entity, what=what, period="this event", as_of=engine.view.as_of,
                     formula=formula)  # fmt: skip
