"""How often a market without news would bear a text out, and what a title moves: fills docs/text-market.md."""

from __future__ import annotations

import asyncio
import datetime as dt
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finllm.desk.desk import Desk, assemble
from finllm.desk.request import RunRequest
from finllm.errors import InputError
from finllm.events import EventBus
from finllm.graphs.closest import window_of
from finllm.graphs.flow import run_stress_test
from finllm.graphs.report import Report
from finllm.guardrails.audit.recorder import open_recorder
from finllm.memory.precedents import load_precedents
from finllm.scenarios import PORTFOLIOS_DIR, SCENARIOS_DIR
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.factors import FACTOR_IDS, Direction
from finllm.tools.data.limits import load_limits
from finllm.tools.data.market import MarketStore
from finllm.tools.data.scenario import load_scenario
from finllm.tools.forecasts.text_market import SURPRISING, Told, against_market
from finllm.tools.pnl.factorset import FactorSet, Levels

PAGE = Path(__file__).resolve().parent.parent / "docs" / "text-market.md"
LAST = dt.date(2022, 12, 28)
SINCE = "1995-01-01"
HORIZONS = (1, 5, 10, 20)
DAILY = ("EQUITY_US", "OIL_WTI", "USD_BROAD", "VIX")
EARLIEST = 300
"""Observations before the first day that is taken for one of publication."""
TITLES = ("Lehman collapses again", "A routine week", "A devaluation, a border closed, and a ceasefire")


def by_chance(factors: FactorSet, market: MarketStore) -> Iterator[tuple[str, int, int, Counter[str]]]:
    """Each factor and horizon with the verdicts on every fifth day, or farther apart, taken for one of publication."""
    for name in DAILY:
        whole = factors[name].levelled(market, LAST)
        days = pd.DatetimeIndex(whole.values.index)
        first = max(int(days.to_numpy().searchsorted(np.datetime64(SINCE))), EARLIEST)
        for horizon in HORIZONS:
            found: Counter[str] = Counter()
            for at in range(first, len(days) - horizon, max(horizon, 5)):
                end = at + horizon - 1
                cut = Levels(pd.Series(whole.values.iloc[: end + 1]), whole.frequency, whole.breaks)
                found[_verdict(name, "up", cut, factors, days[at].date(), days[end].date())] += 1
            yield name, horizon, sum(found.values()), found


def of_precedents(factors: FactorSet, market: MarketStore) -> Counter[str]:
    """The verdicts on the precedents' own directions, from the day before each to its end: these know the moves."""
    found: Counter[str] = Counter()
    for past in load_precedents():
        for name, way in past.factors.items():
            if way == "none" or not factors[name].has_history or past.end > LAST:
                continue
            try:
                levels = factors[name].levelled(market, past.end)
            except InputError:  # no history by then
                continue
            found[_verdict(name, way, levels, factors, window_of(past)[0] + dt.timedelta(days=1), past.end)] += 1
    return found


def _verdict(
    name: str, way: Direction, levels: Levels, factors: FactorSet, day: dt.date, as_of: dt.date
) -> str:  # fmt: skip
    told = [Told(id="news", day=day)]
    return against_market({name: way}, {name: levels}, {name: factors[name].unit}, told, as_of).factors[name]


def of_titles() -> list[tuple[str, float, float]]:
    """Every shipped scenario on scripted agents: its P&L, and the largest change of P&L or band by another title."""
    rows: list[tuple[str, float, float]] = []
    falls = {f"factors.{name}.direction": "down" for name in FACTOR_IDS}
    script = [{"when": "What kind of event", "say": {"event": "blockade", "severity": "high", **falls}}]
    for file in sorted(SCENARIOS_DIR.glob("*.yaml")):
        scenario = load_scenario(file)
        if scenario.factors or not scenario.sources:
            continue
        plain = _run(scenario.title, file, script)
        others = [_run(title, file, script) for title in TITLES]
        apart = [abs(a - b) for other in others for a, b in zip(_ends(other), _ends(plain), strict=True)]
        rows.append((file.stem, plain.total.value, max(apart)))
    return rows


def _ends(report: Report) -> list[float]:
    return [report.total.value, *(one.value for one in report.interval or ())]


def _run(title: str, file: Path, script: list[dict[str, Any]]) -> Report:
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        with closing(open_recorder(settings)) as ledger:
            desk: Desk = assemble(settings, EventBus(), ledger, [ScriptedBackend(script, name="edge")])
            request = RunRequest(
                scenario=load_scenario(file).model_copy(update={"title": title}),
                portfolio=load_portfolio(PORTFOLIOS_DIR / "default.csv"),
                limits=load_limits(PORTFOLIOS_DIR / "limits.yaml"),
            )
            report = asyncio.run(run_stress_test("run-1", request, desk)).report
    assert report is not None
    return report


def main() -> None:
    market = MarketStore()
    factors = FactorSet.default(market)
    lines = [
        "# Text against the market, measured", "",
        "Written by `python -m benchmarks.text_market`. What is held against what, and by which rules:",
        "[note 34](design/0034-text-against-the-market.md).", "",
        "## A market without news", "",
        f"Days since {SINCE[:4]} that nobody chose, taken for days of publication, and a text that says *up*. A move",
        f"counts from {SURPRISING:g} σ of the forecast of the day before on: 10 % each way, were it right and",
        "moves normal.", "",
        "| factor | trading days since | days taken | moving as told | the opposite | already before | not yet |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    kinds = ("moving as told", "the opposite", "already before the news", "not yet")
    for name, horizon, count, found in by_chance(factors, market):
        lines.append(f"| {name} | {horizon} | {count} | {' | '.join(f'{found[one] / count:.1%}' for one in kinds)} |")
    past = of_precedents(factors, market)
    testable = sum(past[one] for one in kinds)
    lines += [
        "", "## The precedents, in sample", "",
        "The directions of the knowledge base, which were read off the same series, from the close before each to",
        f"its end: of {testable} that can be tested, {past['moving as told'] / testable:.0%} move as told,",
        f"{past['the opposite'] / testable:.0%} the opposite way (the spread's months begin earlier and end later), "
        f"the rest less than {SURPRISING:g} σ; {past['not testable']} cannot be.", "",
        "## A title moves nothing", "",
        "Each shipped scenario on scripted agents, under its own title and three others: the largest change of P&L or",
        "of an end of the band, USD.", "",
        "| scenario | P&L | changed by |", "| --- | --- | --- |",
        *(f"| {name} | {total:,.0f} | {apart:,.2f} |" for name, total, apart in of_titles()),
    ]  # fmt: skip
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
