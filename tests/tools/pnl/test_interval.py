"""The width of the P&L's interval with and without what was judged: the mixture's rule, on the shipped book."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import pytest

from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import UserShock, parse_user_shock
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.bands import simulate
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.interval import JudgedMove, interval_widths, narrower

AS_OF = dt.date(2018, 6, 29)
MARKET = MarketStore()
BOOK = load_portfolio(Path(__file__).resolve().parents[3] / "scenarios" / "portfolios" / "default.csv")
ENGINE = Engine(value_portfolio(BOOK, MARKET, AS_OF), MARKET, AS_OF)


def widths(*judged: dict[str, JudgedMove], user: tuple[UserShock, ...] = ()) -> tuple[float, ...]:
    return interval_widths(ENGINE, ENGINE.plan(20, user=user), judged)


def test_a_sure_judgement_narrows_and_an_unsure_one_of_a_large_move_widens() -> None:
    none, sure, unsure, naught = widths(
        {}, {"EQUITY_US": JudgedMove(-0.05, 1.0)}, {"EQUITY_US": JudgedMove(-0.3, 0.5)},
        {"EQUITY_US": JudgedMove(-0.05, 0.0)},
    )  # fmt: skip
    assert narrower(none, sure) > 0.05
    assert narrower(none, unsure) < 0
    assert naught == pytest.approx(none)


def test_what_the_user_insists_on_or_has_no_history_is_not_stretched() -> None:
    down = parse_user_shock("EQUITY_US", "-10%")
    fixed, judged = widths({}, {"EQUITY_US": JudgedMove(-0.05, 1.0)}, user=(down,))
    assert fixed == judged
    without, gold = widths({}, {"GOLD": JudgedMove(0.05, 1.0)})
    assert without == gold


def test_the_same_question_has_the_same_answer() -> None:
    asked = ({}, {"OIL_WTI": JudgedMove(0.2, 0.8)})
    assert widths(*asked) == widths(*asked)


def test_narrower_is_a_logarithm_that_adds_and_is_naught_without_a_width() -> None:
    assert narrower(4.0, 2.0) == pytest.approx(math.log(2))
    assert narrower(8.0, 2.0) == pytest.approx(narrower(8.0, 4.0) + narrower(4.0, 2.0))
    assert narrower(0.0, 2.0) == narrower(2.0, 0.0) == 0.0


def test_a_set_of_judgements_that_was_asked_before_is_not_simulated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, made = ENGINE.plan(20), list[int]()
    module = "finllm.tools.pnl.interval.simulate"

    def counted(*given: Any, **named: Any) -> Any:
        made.append(1)
        return simulate(*given, **named)

    monkeypatch.setattr(module, counted)
    calls = {"OIL_WTI": JudgedMove(0.2, 0.8)}
    none, offered, applied = interval_widths(ENGINE, plan, [{}, calls, dict(calls)])
    assert offered == applied != none
    assert len(made) == 2
