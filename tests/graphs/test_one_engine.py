"""One way to a number: the graph's stress-tester and `finllm stress` agree to the cent on any book and shocks."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finllm.desk.desk import Desk, open_run
from finllm.desk.request import RunRequest
from finllm.errors import InputError
from finllm.graphs.nodes.stress_tester import stress_tester
from finllm.graphs.state import AfterValidator
from finllm.sessions.inputs import Inputs, read_inputs
from finllm.sessions.stress import StressQuestion, answer_stress
from finllm.tools.data.books.fields import OWN
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import factor_table
from finllm.tools.data.limits import Limits
from finllm.tools.data.market import STOCKS, MarketStore
from finllm.tools.data.scenario import Replay, Scenario, ShockEntry
from finllm.tools.evidence import EvidenceTable
from finllm.tools.pnl.episodes import EPISODES
from finllm.tools.pnl.outcome import EngineResult
from tests.conftest import bounded

MakeDesk = Callable[..., Desk]
AS_OF = dt.date(2022, 6, 30)
MARKET = MarketStore()


def rounded(low: float, high: float, digits: int = 2) -> st.SearchStrategy[str]:
    return st.floats(low, high, allow_nan=False).map(lambda value: f"{value:.{digits}f}")


VALUE = {"market_value": rounded(-1e7, 1e7)}
MAYBE_CURVED = {"gamma": rounded(-30, 30), "vega": rounded(-5e4, 5e4)}


CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CHF")


def position(ids: Sequence[str], asset_class: str, given: dict[str, Any], maybe: dict[str, Any]) -> st.SearchStrategy:
    fixed = {"id": st.sampled_from(ids), "asset_class": st.just(asset_class)}
    return st.fixed_dictionaries(fixed | given, optional={"currency": st.sampled_from(CURRENCIES)} | maybe)


SECTOR = {"sector": st.sampled_from(["Tech", "Energy", "Banks"])}
POSITION = st.one_of(
    position(STOCKS, "equity", VALUE | SECTOR, {"beta": rounded(-3, 3), **MAYBE_CURVED}),
    position(STOCKS, "equity", {"quantity": rounded(-1e5, 1e5)} | SECTOR, {}),
    position(["PRIVATE"], "equity", VALUE | {"beta": rounded(-3, 3)}, {}),
    position(["SP500"], "index", VALUE, MAYBE_CURVED),
    position(["CORP"], "bond", VALUE | {"duration": rounded(0.1, 30)}, {"convexity": rounded(-50, 900)}),
    position(["GOV"], "bond", VALUE | {"duration": rounded(0.1, 30), "sector": st.just("Treasury")}, {}),
    position(["OIL"], "commodity", VALUE, {"delta": rounded(-2, 2), **MAYBE_CURVED}),
    position(["EURUSD", "USDJPY", "BASKET"], "fx", VALUE, {"delta": rounded(-2, 2)}),
    position(["FRANCS"], "cash", VALUE, {}),
    position(["BARS"], "gold", VALUE, {"delta": rounded(-2, 2), **MAYBE_CURVED}),
    position(["CALLS"], "volatility", VALUE | {"delta": rounded(-1e5, 1e5)}, {"gamma": rounded(-1e3, 1e3)}),
    position(["MTUM"], "fund", VALUE, {}),
    position(["BALANCED"], "fund", VALUE | {"beta": rounded(0, 1.5)}, {}),
)
UNITS = {"quantity": rounded(-500, 500)}
EXPIRY = {"expiry": st.sampled_from(["2022-07-15", "2022-12-16", "2024-06-21"])}
OPTION = {
    "option_type": st.sampled_from(["call", "put"]), "volatility": rounded(0.1, 0.8), "multiplier": st.just("100"),
} | EXPIRY  # fmt: skip
ISSUED = {"maturity": st.sampled_from(["2023-02-15", "2032-05-15", "2052-06-30"]), "coupon": rounded(0, 0.08, 4)}
MAYBE_ISSUED = {
    "frequency": st.sampled_from(["1", "2", "4"]), "day_count": st.sampled_from(["30/360", "ACT/ACT", "ACT/360"]),
    "sector": st.just("Government"),
}  # fmt: skip
EXERCISE = {"exercise": st.sampled_from(["European", "American"])}
CONTRACT = st.one_of(
    position(["SPX_ONE", "SPX_TWO"], "option", UNITS | OPTION | {"underlying": st.just("SP500"),
             "strike": rounded(2800, 4800)}, EXERCISE | {"market_value": rounded(-1e6, 1e6)}),
    position(["AAPL_CALL"], "option", VALUE | OPTION | {"underlying": st.just("AAPL"), "strike": rounded(100, 180)},
             EXERCISE),
    position(["GOLD_PUT"], "option", UNITS | OPTION | {"underlying": st.just("GC"), "strike": rounded(1500, 2000),
             "price": rounded(5, 200)}, EXERCISE),
    position(["GREEKS"], "option", VALUE | {"underlying": st.just("SP500"), "delta": rounded(-20, 20)}, MAYBE_CURVED),
    position(["ESU2"], "future", UNITS | {"multiplier": st.just("50")}, {"price": rounded(3700, 3850)}),
    position(["CLU2"], "future", UNITS | {"multiplier": st.just("1000"), "price": rounded(80, 120)}, {}),
    position(["EURUSD_DEC"], "fx", UNITS | EXPIRY | {"underlying": st.just("EURUSD"), "multiplier": st.just("1000"),
             "strike": rounded(0.9, 1.2, 4)}, {}),
    position(["NOTE"], "bond", VALUE | ISSUED | {"yield": rounded(0, 0.09, 4)}, MAYBE_ISSUED),
    position(["LISTED"], "bond", {"quantity": rounded(-1e6, 1e6)} | ISSUED | {"price": rounded(70, 120)}, MAYBE_ISSUED),
)  # fmt: skip
BOOK = st.lists(st.one_of(POSITION, CONTRACT), min_size=1, max_size=9, unique_by=lambda row: row["id"])


def move(unit: str) -> st.SearchStrategy[str]:
    written = {
        "return": (rounded(-80, 100), "%"),
        "bp": (rounded(-100, 400), "bp"),
        "points": (rounded(-10, 50), "points"),
    }
    number, suffix = written[unit]
    return st.one_of(number.map(lambda text: f"{text}{suffix}"), rounded(-3, 3).map(lambda text: f"{text}sigma"))


RATES = ("FX_EURUSD", "FX_JPYUSD")
MOVES = st.fixed_dictionaries({}, optional={id: move(row.unit) for id, row in factor_table().items() if row.judged}
                              | {id: move("return") for id in RATES})  # fmt: skip
PAST = [one for one in EPISODES.values() if one.end <= AS_OF]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=BOOK, moves=MOVES, replay=st.one_of(st.none(), st.sampled_from(PAST)), propagate=st.booleans(),
    horizon=st.sampled_from([1, 10, 20, 60]), seed=st.integers(0, 3), answered=st.booleans(),
    currency=st.sampled_from(CURRENCIES[:4]), age=st.booleans(),
)  # fmt: skip
def test_a_run_and_the_command_give_a_book_one_p_and_l(
    scripted_desk: MakeDesk, tmp_path: Path, rows: list[dict[str, str]], moves: dict[str, str], replay: Any,
    propagate: bool, horizon: int, seed: int, answered: bool, currency: str, age: bool,
) -> None:  # fmt: skip
    """The node is given a run's state and an agent that answers or fails; the command, the file and what one types.

    What one of them refuses, such as a shock that takes a yield below its floor, the other refuses in the same words.
    """
    if not moves and replay is None:
        moves = {"EQUITY_US": "-10%"}
    file = tmp_path / "book.csv"
    cells = [{"currency": "USD", "sector": "Other"} | row for row in rows]
    lines = [",".join(OWN), *(",".join(row.get(name, "") for name in OWN) for row in cells)]
    file.write_text("\n".join(lines))
    typed = StressQuestion([f"{name}={text}" for name, text in moves.items()], replay.id if replay else None, horizon,
                           propagate, seed=seed, age=age)  # fmt: skip
    scenario = Scenario(
        title="any", narrative="Something happens.", horizon=horizon, as_of=AS_OF, propagate=propagate, sources=(),
        approved_by=None, currency=currency, age=age, channels={}, level=None,
        shocks=tuple(ShockEntry(factor=name, move=text) for name, text in moves.items()),
        replay=Replay(start=replay.start, end=replay.end) if replay else None,
    )  # fmt: skip
    desk = scripted_desk([{"say": {}}] if answered else [{"fail": "no answer"}])
    try:
        command = answer_stress(inputs_of(file, currency), typed).result
    except InputError as refused:
        with pytest.raises(InputError, match=f"^{re.escape(str(refused))}$"):
            node_result(scenario, file, seed, desk)
        return
    graph, told = node_result(scenario, file, seed, desk)
    assert (graph.total, graph.by_position, graph.by_factor) == (command.total, command.by_position, command.by_factor)
    assert (graph.by_sector, graph.by_direction) == (command.by_sector, command.by_direction)
    assert (graph.interval, graph.var_975_1d, graph.shocks) == (command.interval, command.var_975_1d, command.shocks)
    assert told == float(command.total)
    assert graph.currency == command.currency == currency
    for cut in (graph.by_position, graph.by_factor, graph.by_sector, graph.by_direction):
        assert sum(cut.values(), Decimal(0)) == graph.total


def inputs_of(file: Path, currency: str) -> Inputs:
    """What the command reads; the packaged prices are read once for all examples."""
    return replace(read_inputs(file, (), AS_OF, (), currency), market=MARKET)


def node_result(scenario: Scenario, file: Path, seed: int, desk: Desk) -> tuple[EngineResult, float]:
    """What the graph's node computes for the book as intake values it, and the total that its evidence row tells."""
    request = RunRequest(scenario=scenario, portfolio=load_portfolio(file), limits=Limits(version=1), seed=seed)
    run = replace(open_run(desk, "any", request), market=MARKET)
    book = value_portfolio(request.portfolio, run.market, AS_OF, request.currency)
    state = AfterValidator(evidence=(), sources=(), precedents=(), market=(), book=book, checks=(), verdict="aligned")
    out = bounded(stress_tester(state, run))
    assert out.stress is not None
    return out.stress.result, float(EvidenceTable(out.evidence)[out.stress.total].value)
