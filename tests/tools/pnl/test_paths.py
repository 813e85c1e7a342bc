"""Paths: steps compound, bonds and options are at the levels reached, and the worst step is the book's own."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

import pytest

from finllm.errors import InputError
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.market import MarketStore
from finllm.tools.data.path_tables import load_path
from finllm.tools.data.scenario import PathTable, Scenario
from finllm.tools.pnl.engine import run_engine
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.paths import Walked, steps_of, walk
from finllm.tools.pnl.trades import Asked

DAY = dt.date(2022, 6, 30)
MARKET = MarketStore()
FACTORS = FactorSet.default(MARKET)
BOOK = load_portfolio(PORTFOLIOS_DIR / "default.csv")
BOND = Position(
    id="BOND", asset_class="bond", market_value=1_000_000, duration=8.0, convexity=80.0, sector="US Treasury"
)
PUT = Position(id="PUT", asset_class="option", underlying="SP500", option_type="put", strike=3600, multiplier=100,
               quantity=10, expiry=dt.date(2022, 12, 16), volatility=0.25)  # fmt: skip


def table(*steps: dict[str, str], moves: str = "step", days: int = 20) -> PathTable:
    rows = [{"days": days, "shocks": [{"factor": name, "move": move} for name, move in one.items()]} for one in steps]
    return PathTable.model_validate({"moves": moves, "steps": rows})


def walked(path: PathTable, *positions: Position, propagate: bool = False) -> Walked:
    book: Portfolio = BOOK.model_copy(update={"positions": positions}) if positions else BOOK
    asked = Asked(MARKET, DAY, 20)
    return walk(asked.engine(asked.book(book)), steps_of(path, FACTORS), propagate=propagate)


def test_returns_of_steps_multiply_and_points_add() -> None:
    path = table(
        {"EQUITY_US": "-10%", "RATE_US_10Y": "+50bp"}, {"EQUITY_US": "-10%"}, {"EQUITY_US": "+5%", "VIX": "+3points"}
    )
    rows = walked(path).rows
    assert [row.moves["EQUITY_US"] for row in rows] == pytest.approx([-0.1, -0.19, 0.81 * 1.05 - 1])
    assert [row.moves["RATE_US_10Y"] for row in rows] == [50, 50, 50]
    assert [row.days for row in rows] == [20, 40, 60]


def test_each_step_is_what_stress_says_of_the_levels_that_it_reaches() -> None:
    found = walked(table({"EQUITY_US": "-10%"}, {"EQUITY_US": "-10%"}), propagate=True)
    alone = run_engine(BOOK, MARKET, DAY, 40, (FACTORS.parse("EQUITY_US", "-19%"),))
    assert found.rows[1].total == alone.total
    assert sum(row.step for row in found.rows) == found.rows[-1].total


def test_a_bond_is_at_the_level_of_its_yield_and_not_hit_twice_by_the_slope() -> None:
    rows = walked(table({"RATE_US_10Y": "+150bp"}, {"RATE_US_10Y": "+150bp"}), BOND).rows
    by_hand = [1e6 * math.expm1(-8.0 * y + 0.5 * (80 - 64) * y * y) for y in (0.015, 0.03)]
    assert [float(row.total) for row in rows] == pytest.approx(by_hand, abs=0.01)
    assert abs(rows[1].step) < abs(rows[0].step)


def test_a_put_pays_more_at_each_further_fall_and_the_worst_step_is_the_books_own() -> None:
    path = table({"EQUITY_US": "-10%"}, {"EQUITY_US": "-10%"}, {"EQUITY_US": "+20%"})
    bought, sold = walked(path, PUT), walked(path, PUT.model_copy(update={"quantity": -10}))
    assert bought.rows[1].step > bought.rows[0].step > 0
    assert sold.worst == 1
    assert bought.worst == 2


def test_moves_since_the_start_are_those_of_steps_compounded() -> None:
    steps = walked(table({"EQUITY_US": "-10%"}, {"EQUITY_US": "-10%"}))
    start = walked(table({"EQUITY_US": "-10%"}, {"EQUITY_US": "-19%"}, moves="start"))
    assert [row.total for row in steps.rows] == [row.total for row in start.rows]


def test_long_paths_say_over_what_their_sizes_are() -> None:
    found = walked(table(*[{"EQUITY_US": "-5%"}] * 3, days=100))
    assert any("beyond 250" in note for note in found.notes)


def test_a_table_of_people_is_read_and_what_is_wrong_in_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "path.csv"
    file.write_text("step,days,EQUITY_US,RATE_US_10Y\nQ1,63,-12%,+50bp\nQ2,63,,+25bp\n")
    path = load_path(file)
    assert [(one.label, len(one.shocks)) for one in path.steps] == [("Q1", 2), ("Q2", 1)]
    wrong = {"days,EQUITY_US\nmany,-1%\n": "no number of trading days", "EQUITY_US\n-1%\n": "no column 'days'",
             "days,EQUITY_US\n20,-1bp\n": "row 2: .*'-1bp'.*|EQUITY_US", "days,EQUITY_US\n20,\n": "row 2: .*no move",
             "days,EQUITY_US\n20,-1%\n0,-2%\n": "row 3: column 'days': '?0'? is not at least 1",
             "days,EQUITY_US\n20,down\n": "row 2: cannot read the move 'down'",
             "days,EQUITY US!\n20,-1%\n": "row 2: the name of a column: "}  # fmt: skip
    for text, match in wrong.items():
        file.write_text(text)
        with pytest.raises(InputError, match=match) as said:
            load_path(file)
        assert not any(word in str(said.value) for word in ("Input should", "String should", "Value error", "steps."))
    with pytest.raises(InputError, match="is in σ"):
        steps_of(table({"EQUITY_US": "-3sigma"}), FACTORS)


def test_a_path_stands_in_the_place_of_shocks() -> None:
    about = {"title": "t", "narrative": "n", "horizon": 20, "as_of": "2022-06-30"}
    step = {"days": 20, "shocks": [{"factor": "EQUITY_US", "move": "-1%"}]}
    with pytest.raises(ValueError, match="in the place of 'shocks'"):
        Scenario.model_validate({**about, "path": {"steps": [step]}, "shocks": step["shocks"]})
    assert "path" not in Scenario.model_validate(about).model_dump()
