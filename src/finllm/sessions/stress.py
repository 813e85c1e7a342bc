"""A stress test as a question and its answer: shocks on a book in; P&L, breaches, charts and files out; no model."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from finllm.errors import InputError
from finllm.plain_text import clean_lines
from finllm.sessions.failing import Against, against, against_limits, limits_json
from finllm.sessions.inputs import FoundLimits, Inputs, parse_shocks

if TYPE_CHECKING:
    from finllm.review.drawing import Picture
    from finllm.tools.data.factors import UserShock
    from finllm.tools.data.market import MarketStore
    from finllm.tools.data.scenario import Scenario
    from finllm.tools.export import Format
    from finllm.tools.pnl.completion import Tails
    from finllm.tools.pnl.limits import Breach, Held, Unchecked
    from finllm.tools.pnl.outcome import EngineResult
    from finllm.tools.pnl.paths import Walked
    from finllm.tools.pnl.trades import Increment


@dataclass(frozen=True)
class StressQuestion:
    """What is to happen to a book, as a person writes it.

    `shocks`: OIL_WTI=+40%, RATE_US_10Y=+75bp, VIX=+12points or EQUITY_US=-3sigma. `replay`: an episode's id, or a
    window as 2008-09-12:2008-11-20. `horizon`: trading days. `propagate`: the shocked factors move the others, which
    hang together as `tails` says; unset, but for those of which a replay has no data. `level`: the probability that the
    interval holds. `trades`: AAPL=-2000, whose effect on P&L, VaR and ES is told beside the result, which is of the
    book as it is. `path`: a table of steps, or a scenario that has one, in the place of shocks and replay: the result
    is that at the step that is worst. `stressed`: what is not shocked is completed by the covariance of stress at any
    size of shock, as in a run whose market-signal agent calls the market stressed. `age`: time passes, over the horizon
    or `passing` trading days.
    """

    shocks: Sequence[str] = ()
    replay: str | None = None
    horizon: int = 20
    propagate: bool | None = None
    tails: Tails = "gaussian"
    level: float = 0.9
    seed: int = 0
    trades: Sequence[str] = ()
    path: Path | None = None
    stressed: bool = False
    age: bool = False
    passing: int | None = None


@dataclass(frozen=True)
class StressAnswer:
    """The P&L with its cuts and bands, how it stands to its limits, and the restricted names that the book holds."""

    portfolio: str
    result: EngineResult
    held: Held
    restricted: tuple[str, ...]
    market: MarketStore
    increments: tuple[Increment, ...] = ()
    walked: Walked | None = None

    @property
    def breaches(self) -> tuple[Breach, ...]:
        return self.held.breaches

    @property
    def unchecked(self) -> tuple[Unchecked, ...]:
        return self.held.unchecked

    @property
    def against(self) -> Against:
        return against(self.held, self.restricted, self.result.coverage)

    @cached_property
    def charts(self) -> tuple[Picture, ...]:
        """The charts of the page, drawn when they are first asked for."""
        from finllm.review.charts import stress_index_chart
        from finllm.review.drawing import draw
        from finllm.review.html import engine_charts

        return draw(engine_charts(self.result, stress_index=stress_index_chart(self.market, self.result.as_of)))

    @property
    def undrawn(self) -> str | None:
        """Which charts of the page were not drawn and why; None where all were."""
        from finllm.review.drawing import undrawn

        return undrawn(self.charts)

    def to_json(self) -> dict[str, object]:
        """The result's fields, the portfolio's name, the breaches, the limits not checked and the restricted names."""
        trades = [one.model_dump(mode="json") for one in self.increments]
        return {"portfolio": self.portfolio, **self.result.model_dump(mode="json"),
                **limits_json(self.held, self.restricted), "trades": trades,
                **({"path": self.walked.model_dump(mode="json")} if self.walked else {})}  # fmt: skip

    def page(self) -> str:
        """A self-contained HTML page that needs no JavaScript."""
        from finllm.review.html import engine_html

        return clean_lines(
            engine_html(
                self.result, self.portfolio, self.charts, self.held, self.restricted, self.increments, self.walked
            )
        )

    def files(self, formats: Sequence[Format]) -> dict[str, bytes]:
        """The tables in each of the formats, the page, its charts as PNG, and result.json; by file name."""
        from finllm.review.html import page_files
        from finllm.tools.export import engine_tables, table_files

        said = json.dumps(self.to_json(), indent=2, allow_nan=False)
        return {
            **table_files(engine_tables(self.result), formats, "result"),
            **page_files(self.page(), self.charts),
            "result.json": f"{said}\n".encode(),
        }


def answer_stress(inputs: Inputs, question: StressQuestion, allowed: FoundLimits | None = None) -> StressAnswer:
    """Answer the question. Errors: InputError for one that moves nothing, and those of the P&L engine."""
    from finllm.tools.pnl.engine import run_engine
    from finllm.tools.pnl.limits import Held

    if question.stressed and (question.trades or question.path is not None):
        raise InputError("--stressed is for shocks and a replay", fix="leave out --trade and --path")
    inputs = inputs.shocked_by(question.shocks)
    shocks, window = parse_shocks(question.shocks, inputs.factors), parse_replay(question.replay)
    walked: Walked | None = None
    if question.path is not None:
        inputs, question, walked, shocks = _walked(inputs, question)
    if not shocks and window is None:
        raise InputError("nothing to stress: there is no --shock and no --replay",
                         fix="add --shock EQUITY_US=-20%, or --replay lehman-2008")  # fmt: skip
    result = run_engine(
        inputs.portfolio, inputs.market, inputs.as_of, question.horizon, shocks, propagate=question.propagate,
        replay=window, seed=question.seed, level=question.level, tails=question.tails, factors=inputs.factors,
        thresholds=inputs.thresholds, future=inputs.future, currency=inputs.currency,
        parts=True, stressed=question.stressed, age=question.age, passing=question.passing,
    )  # fmt: skip
    if not result.shocks:
        raise InputError(f"replay {question.replay!r} moves no factor: no series has data there",
                         fix="replay a window inside the data, or add prices that cover it")  # fmt: skip
    if walked is not None:
        result = result.model_copy(update={"notes": (*result.notes, *walked.notes)})
    more = _increments(inputs, question, shocks, window)
    if allowed is None:
        return StressAnswer(inputs.portfolio.name, result, Held(), (), inputs.market, more, walked)
    noted = result.model_copy(update={"notes": (*result.notes, *allowed.notes)})
    held, restricted = against_limits(noted, noted, inputs, allowed.limits)
    return StressAnswer(inputs.portfolio.name, noted, held, restricted, inputs.market, more, walked)


def path_story(file: Path) -> Scenario | None:
    """The scenario that a path is taken from, whose day, factors, currency, `propagate` and `age` hold where nothing
    else is asked for; None of a table, which has none. Errors: InputError."""
    from finllm.tools.data.path_tables import is_scenario
    from finllm.tools.data.scenario import load_scenario

    return load_scenario(file) if is_scenario(file) else None


def _walked(inputs: Inputs, question: StressQuestion) -> tuple[Inputs, StressQuestion, Walked, tuple[UserShock, ...]]:
    """The path walked, with the question and the shocks of its worst step. Errors: InputError."""
    from finllm.tools.data.path_tables import load_path
    from finllm.tools.pnl.paths import steps_of, walk
    from finllm.tools.pnl.trades import Asked

    assert question.path is not None
    if question.shocks or question.replay:
        raise InputError("a path stands in the place of shocks and a replay", fix="leave out --shock and --replay")
    table = load_path(question.path)
    inputs = inputs.shocked_by([f"{name}=" for name in table.factors])
    try:
        steps = steps_of(table, inputs.factors)
    except InputError as error:
        raise InputError(f"{question.path}: {error.message}", fix=error.fix) from error
    asked = Asked(inputs.market, inputs.as_of, question.horizon, factors=inputs.factors, currency=inputs.currency,
                  age=question.age)  # fmt: skip
    walked = walk(asked.engine(asked.book(inputs.portfolio)), steps, propagate=question.propagate)
    worst = steps[walked.worst]
    return inputs, replace(question, horizon=worst.horizon, passing=worst.days), walked, worst.shocks


def _increments(
    inputs: Inputs, question: StressQuestion, shocks: Sequence[UserShock], window: tuple[dt.date, dt.date] | str | None
) -> tuple[Increment, ...]:
    from finllm.tools.pnl.trades import Asked, increments, parse_trades

    if not question.trades:
        return ()
    asked = Asked(inputs.market, inputs.as_of, question.horizon, shocks, window, question.propagate, inputs.factors,
                  inputs.currency, age=question.age, passing=question.passing)  # fmt: skip
    return increments(inputs.portfolio, parse_trades(question.trades), asked)


def parse_replay(text: str | None) -> tuple[dt.date, dt.date] | str | None:
    """An episode's id, or a window written as 2008-09-12:2008-11-20. Errors: InputError for anything else."""
    from finllm.tools.pnl.episodes import episode

    if text is None:
        return None
    start, colon, end = text.partition(":")
    if not colon:
        return episode(text.strip()).id
    try:
        return dt.date.fromisoformat(start.strip()), dt.date.fromisoformat(end.strip())
    except ValueError as error:
        raise InputError(f"replay {text!r} is not START:END", fix="write it as 2008-09-12:2008-11-20") from error
