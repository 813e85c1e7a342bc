"""Paths: a scenario of several steps, the book revalued at the levels that each step reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from finllm.errors import InputError
from finllm.tools.data.factors import LONGEST_HORIZON, UserShock
from finllm.tools.data.scenario import PathTable
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.outcome import Cents, Frozen
from finllm.tools.pnl.shocks import Plan

LONG = (
    f"beyond {LONGEST_HORIZON} trading days the sizes in σ, and what completion moves, are those over {LONGEST_HORIZON}"
)


@dataclass(frozen=True)
class Step:
    """Where a path has taken its factors from today: `days` trading days on, the moves since the start of the path."""

    label: str
    days: int
    shocks: tuple[UserShock, ...]

    @property
    def horizon(self) -> int:
        return min(self.days, LONGEST_HORIZON)


class PathRow(Frozen):
    """One step's result. `total`: the P&L from today, by full revaluation at the levels reached; `step`: that less the
    P&L from today of the step before. `moves`: of every factor from today, the completed ones too."""

    label: str
    days: int
    moves: dict[str, float]
    step: Cents
    total: Cents
    by_factor: dict[str, Cents]


class Walked(Frozen):
    """Every step of a path, and which of them is the worst for the book: the largest loss from today."""

    rows: tuple[PathRow, ...]
    worst: int
    notes: tuple[str, ...]

    @property
    def at_worst(self) -> PathRow:
        return self.rows[self.worst]


def steps_of(table: PathTable, factors: FactorSet) -> tuple[Step, ...]:
    """The steps with their moves since the start: those of each step compounded (returns multiply, bp and points add),
    or as they are where the table gives them so. A factor that a step does not name stays where it was.

    Errors: InputError naming the step and field for a move in σ or another unit, or of an unknown factor.
    """
    reached: dict[str, float] = {}
    found: list[Step] = []
    days = 0
    for at, row in enumerate(table.steps):
        for number, entry in enumerate(row.shocks):
            try:
                shock = factors.parse(entry.factor, entry.move)
            except InputError as error:
                raise InputError(f"field 'path.steps.{at}.shocks.{number}': {error.message}", fix=error.fix) from error
            if shock.in_sigmas:
                raise InputError(f"field 'path.steps.{at}.shocks.{number}': a step's move is in σ",
                                 fix=f"write it in the factor's unit, {factors[entry.factor].unit}")  # fmt: skip
            before = reached.get(entry.factor, 0.0)
            if table.moves == "start":
                reached[entry.factor] = shock.amount
            elif factors[entry.factor].unit == "return":
                reached[entry.factor] = (1 + before) * (1 + shock.amount) - 1
            else:
                reached[entry.factor] = before + shock.amount
        days += row.days
        shocks = tuple(UserShock(factor=name, amount=amount, in_sigmas=False) for name, amount in reached.items())
        found.append(Step(row.label or f"step {at + 1}", days, shocks))
    return tuple(found)


def plan_at(engine: Engine, step: Step) -> Plan:
    return engine.plan(step.horizon, user=step.shocks, passing=step.days)


def walk(engine: Engine, steps: Sequence[Step], *, propagate: bool | None = None) -> Walked:
    """The book under every step, each from today: bonds and options at the levels reached, so that steps compound.

    No time passes, unless the engine ages: then to each step's day. Errors: those of `Engine.plan`.
    """
    rows: list[PathRow] = []
    before = Decimal(0)
    for one in steps:
        plan = plan_at(engine, one)
        moves = engine.moves(plan, propagate=propagate)
        cuts = engine.revalue(plan, propagate=propagate)
        rows.append(PathRow(label=one.label, days=one.days, moves=moves, step=cuts.total - before, total=cuts.total,
                            by_factor=cuts.by_factor))  # fmt: skip
        before = cuts.total
    worst = min(range(len(rows)), key=lambda at: rows[at].total)
    ages = "contracts age to its day" if engine.age else "positions do not age along the path"
    notes = [f"each step is from today, at the levels that it reaches; {ages}"]
    if any(one.days > LONGEST_HORIZON for one in steps):
        notes.append(LONG)
    return Walked(rows=tuple(rows), worst=worst, notes=tuple(notes))
