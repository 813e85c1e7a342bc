"""Hedging as a question and its answer: limits on a book in, the cheapest trades that keep them out; no model."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finllm.errors import InputError
from finllm.sessions.failing import Against, against_limits
from finllm.sessions.inputs import FoundLimits, Inputs, parse_shocks
from finllm.sessions.requests import with_trades
from finllm.sessions.reverse import parse_loss
from finllm.sessions.stress import parse_replay

if TYPE_CHECKING:
    from finllm.tools.data.factors import UserShock
    from finllm.tools.data.scenario import PathTable, Scenario
    from finllm.tools.export import Format
    from finllm.tools.pnl.hedge import Hedger, HedgeResult, Target
    from finllm.tools.pnl.limits import Breach, Held
    from finllm.tools.pnl.outcome import EngineResult
    from finllm.tools.pnl.shocks import Plan
    from finllm.tools.pnl.trades import Asked

HALF = 0.5
"""Share to which the largest factor's loss is brought where nothing else is asked for or breached."""


@dataclass(frozen=True)
class HedgeQuestion:
    """What is to be kept under which limit, as a person writes it, in which scenario, with which instruments.

    `limits`: names of the limits file. `loss`: 10% or 500000; `var`: an amount; `factors`: FACTOR=AMOUNT, the most that
    may be lost through it. Without any, the limits that are breached, else the largest factor's loss to its half.
    `instruments`: a list's file; None for the list that comes with finllm. `age`: time passes while the shocks come;
    None: as the scenario says. `stressed`: as in a run whose market is
    judged stressed, see `Asked`.
    """

    scenario: Scenario | None = None
    shocks: Sequence[str] = ()
    replay: str | None = None
    horizon: int | None = None
    propagate: bool | None = None
    limits: Sequence[str] = ()
    loss: str | None = None
    var: str | None = None
    factors: Sequence[str] = ()
    instruments: Path | None = None
    age: bool | None = None
    stressed: bool = False
    plan: Plan | None = None
    """A run's own plan, whole, in the place of shocks, replay and horizon: the P&L without trades is then the run's."""


@dataclass(frozen=True)
class HedgeAnswer:
    """The trades, the limits that are breached without them, and how the book with them stands to all of its limits."""

    portfolio: str
    result: HedgeResult
    before: EngineResult
    chosen: str
    breaches: tuple[Breach, ...]
    held: Held
    first: tuple[str, ...] = ()
    """What has to be known before the figures are read."""

    @property
    def against(self) -> Against:
        coverage = self.before.coverage
        incomplete = coverage is not None and not coverage.complete
        missed = any(not one.met for one in self.result.targets)
        return Against(breached=bool(self.held.breaches) or missed,
                       unchecked=bool(self.held.unchecked) or self.result.open, incomplete=incomplete)  # fmt: skip

    def to_json(self) -> dict[str, object]:
        coverage = self.before.coverage
        return {
            "portfolio": self.portfolio, "first": list(self.first), "targets_chosen": self.chosen,
            **self.result.model_dump(mode="json"),
            "breaches_before": [one.model_dump(mode="json") for one in self.breaches],
            "breaches": [one.model_dump(mode="json") for one in self.held.breaches],
            "unchecked": [one.model_dump(mode="json") for one in self.held.unchecked],
            "coverage": None if coverage is None else coverage.model_dump(mode="json"),
        }  # fmt: skip

    def files(self, formats: Sequence[Format]) -> dict[str, bytes]:
        """The trades as a table in each of the formats, and hedge.json; by file name."""
        from finllm.tools.export import Table, table_files

        rows = tuple((one.id, one.name, one.lots, one.notional, one.cost, one.calm_month, one.gain)
                     for one in self.result.trades)  # fmt: skip
        table = Table("trades", ("instrument", "name", "lots", "notional", "cost", "calm_month", "gain"), rows)
        said = json.dumps(self.to_json(), indent=2, allow_nan=False)
        return table_files((table,), formats, "hedge") | {"hedge.json": f"{said}\n".encode()}


def answer_hedge(inputs: Inputs, question: HedgeQuestion, allowed: FoundLimits) -> HedgeAnswer:
    """Answer the question. Errors: InputError for a target that is not there or needs shocks, and the engine's."""
    from finllm.tools.data.hedges.instruments import DEFAULT, load_instruments
    from finllm.tools.pnl.hedge import Hedger
    from finllm.tools.pnl.trades import Asked

    story = question.scenario
    if story is not None:
        inputs = replace(inputs, portfolio=with_trades(inputs.portfolio, story, inputs.market))
    shocks = (*((f"{one.factor}={one.move}" for one in story.shocks) if story else ()), *question.shocks)
    inputs = inputs.shocked_by((*shocks, *(f"{name}=" for name in (story.insisted if story else ()))))
    replay: tuple[dt.date, dt.date] | str | None = parse_replay(question.replay)
    if replay is None and story is not None and story.replay is not None:
        replay = story.replay.start, story.replay.end
    moved: tuple[UserShock, ...] = parse_shocks(shocks, inputs.factors)
    propagate = story.propagate if question.propagate is None and story else question.propagate
    horizon = question.horizon or (story.horizon if story else 20)
    age = bool(story and story.age) if question.age is None else question.age
    asked = Asked(inputs.market, inputs.as_of, horizon, moved, replay, propagate, inputs.factors, inputs.currency,
                  age=age, stressed=question.stressed, given=question.plan, at_hand=inputs.at_hand)  # fmt: skip
    listed = load_instruments(question.instruments or DEFAULT, inputs.market, inputs.as_of)
    if story is not None and story.path is not None:
        asked = _at_worst(asked, story.path, inputs)
    hedger = Hedger(inputs.portfolio, replace(asked, thresholds=inputs.thresholds), listed)
    held, _ = against_limits(hedger.before, hedger.before, inputs, allowed.limits)
    targets, chosen = _targets(question, hedger, held, allowed, shocked=asked.shocked)
    first = (*hedger.before.first, *(() if story is None else (_of_the_story(story),)))
    result = hedger.solve(targets)
    result = result.model_copy(update={"notes": (*first, *result.notes)})
    return HedgeAnswer(inputs.portfolio.name, result, hedger.before, chosen, held.breaches,
                       hedger.held(allowed.limits), first)  # fmt: skip


def _of_the_story(story: Scenario) -> str:
    """What a scenario moves here, where no agent reads its text."""
    own = [f"{one.factor} {one.move}" for one in story.shocks]
    if story.replay is not None:
        own.append(f"the replay of {story.replay.start} to {story.replay.end}")
    if story.path is not None:
        own.append("its path, at the step that is worst")
    what = f"only what the scenario itself gives moves the book: {', '.join(own)}" if own else "it gives no shocks"
    return f"the story is not read here: {what}; 'finllm run' reads the text, and its shocks can be given by --shock"


def _at_worst(asked: Asked, table: PathTable, inputs: Inputs) -> Asked:
    """The step of a path that is worst for the book without trades; further shocks go before its own."""
    from finllm.tools.pnl.paths import steps_of, walk

    steps = steps_of(table, inputs.factors)
    worst = steps[walk(asked.engine(asked.book(inputs.portfolio)), steps, propagate=asked.propagate).worst]
    own = {one.factor for one in asked.shocks}
    shocks = (*asked.shocks, *(one for one in worst.shocks if one.factor not in own))
    return replace(asked, shocks=shocks, horizon=worst.horizon, passing=worst.days)


def _targets(
    question: HedgeQuestion, hedger: Hedger, held: Held, allowed: FoundLimits, *, shocked: bool
) -> tuple[list[Target], str]:
    """What is to be kept, and why that."""
    from finllm.tools.pnl.hedge import Target

    found = [*_named(question, allowed), *_given(question, hedger.before)]
    chosen = "as asked for"
    if not found:
        hedgeable = ("total_loss", "var_975_1d", "es_975_1d", "loss_by_factor", "loss_by_sector")
        found = [Target(one.kind, float(one.limit), one.subject) for one in held.breaches if one.kind in hedgeable]
        chosen = "the limits that are breached"
    if not found:
        losses = {name: gain for name, gain in hedger.before.by_factor.items() if gain < 0}
        if not losses:
            raise InputError("nothing is asked for, no limit is breached, and no factor loses anything",
                             fix="give --loss, --var, --factor or --limit, and shocks that lose something")  # fmt: skip
        worst = min(losses, key=lambda name: losses[name])
        found = [Target("loss_by_factor", -float(losses[worst]) * HALF, worst)]
        chosen = f"nothing is breached: the largest loss by factor, {worst}, to its half"
    if not shocked and (without := [one for one in found if one.needs_shocks]):
        raise InputError(f"a limit on {without[0].kind.replace('_', ' ')} needs a scenario: nothing is shocked",
                         fix="name a scenario, or add --shock EQUITY_US=-20% or --replay lehman-2008")  # fmt: skip
    return found, chosen


def _named(question: HedgeQuestion, allowed: FoundLimits) -> Iterator[Target]:
    """Limits of the file by name. Errors: InputError for a name that it does not have."""
    from finllm.tools.pnl.hedge import Target

    limits = allowed.limits
    for name in question.limits:
        folded = name.casefold()
        whole = {kind: getattr(limits, kind) for kind in ("total_loss", "var_975_1d", "es_975_1d")}
        by_factor = {one.casefold(): (one, amount) for one, amount in limits.loss_by_factor.items()}
        by_sector = {one.casefold(): (one, amount) for one, amount in limits.loss_by_sector.items()}
        if whole.get(folded) is not None:
            yield Target(folded, float(whole[folded]))  # pyright: ignore[reportArgumentType]
        elif folded in by_factor:
            yield Target("loss_by_factor", float(by_factor[folded][1]), by_factor[folded][0])
        elif folded in by_sector:
            yield Target("loss_by_sector", float(by_sector[folded][1]), by_sector[folded][0])
        else:
            known = [*(kind for kind, one in whole.items() if one is not None), *limits.loss_by_factor,
                     *limits.loss_by_sector]  # fmt: skip
            use = ", ".join(known) or "those of a limits file: --limits FILE"
            raise InputError(f"--limit {name!r} is no limit that trades could keep", fix=f"use one of {use}")


def _given(question: HedgeQuestion, before: EngineResult) -> Iterator[Target]:
    from finllm.tools.pnl.hedge import Target

    gross = float(before.gross_value or before.book_value)
    if question.loss is not None:
        amount = parse_loss(question.loss)
        yield Target("total_loss", amount if amount >= 1 else amount * gross)
    if question.var is not None:
        amount = parse_loss(question.var)
        yield Target("var_975_1d", amount if amount >= 1 else amount * gross)
    for text in question.factors:
        name, sign, most = text.partition("=")
        if not sign or not name.strip():
            raise InputError(f"--factor {text!r} is not FACTOR=AMOUNT", fix="write it as EQUITY_US=500000")
        amount = parse_loss(most)
        yield Target("loss_by_factor", amount if amount >= 1 else amount * gross, name.strip())
