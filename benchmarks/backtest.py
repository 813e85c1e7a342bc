"""The outcome back-test of the shipped book: eight windows, four kinds of prediction; writes docs/backtest.md."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.position import Portfolio
from finllm.tools.data.market import INDEX, MarketStore, day_of
from finllm.tools.pnl.backtest import METHODS, Backtest, StockOutcome, WindowOutcome, backtest
from finllm.tools.pnl.episodes import EPISODES, Episode

RANK_BAR = 0.5
"""Rank correlation of predicted and realised P&L across stocks that the windows should reach on average."""
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "backtest.md"
BEFORE, AFTER = "<!-- figures: written by benchmarks/backtest.py -->", "<!-- end of figures -->"
FALL, DAYS, FIRST = -0.04, 20, 1300
"""Other falls: 20 days in which the index lost 4 % or more, apart from the episodes, from its 1,300th day on."""


def main() -> None:
    market, book = MarketStore(), load_portfolio(PORTFOLIOS_DIR / "default.csv")
    eight = {method: backtest(book, market, method=method) for method in METHODS}
    others = other_falls(market)
    rest = {method: backtest(book, market, method=method, windows=others) for method in METHODS}
    figures = "\n\n".join([
        _windows(eight["index"]), _methods(eight, rest, len(others)), _per_window(eight), _misses(eight["index"]),
        _stocks(eight["index"], book),
    ])  # fmt: skip
    head, _old, tail = _parts(DOCUMENT.read_text(encoding="utf-8"))
    DOCUMENT.write_text(f"{head}{BEFORE}\n\n{figures}\n\n{AFTER}{tail}", encoding="utf-8")
    print(figures)


def other_falls(market: MarketStore) -> list[Episode]:
    """Falls that no choice of method has seen, in order and without overlap."""
    prices = market.read(INDEX, dt.date(2022, 12, 28)).values
    found: list[Episode] = []
    at = FIRST
    while at + DAYS < len(prices):
        start, end = day_of(prices.index[at]), day_of(prices.index[at + DAYS])
        apart = not any(start <= one.end and end >= one.start for one in EPISODES.values())
        if apart and prices.iloc[at + DAYS] / prices.iloc[at] - 1 < FALL:
            found.append(Episode(f"fall-{start}", "another fall", start, end))
            at += DAYS
        else:
            at += 5
    return found


def _parts(text: str) -> tuple[str, str, str]:
    head, rest = text.split(BEFORE)
    old, tail = rest.split(AFTER)
    return head, old, tail


def _windows(result: Backtest) -> str:
    rows = [
        [one.window.title, f"{one.window.start} → {one.window.end}", f"{one.factors['EQUITY_US']:+.2%}",
         f"{one.predicted:+,.0f}", f"{one.realised:+,.0f}", "right" if one.sign_right else "**wrong**",
         f"{one.bias:+.1%}", f"{one.mae:.1%}", _number(one.rank), _number(one.rank_returns)]
        for one in result.windows
    ]  # fmt: skip
    signs = f"{result.signs_right} of {len(result.windows)} right"
    rows.append(["average", "", "", "", "", signs, f"{result.bias:+.1%}", f"{result.mae:.1%}", _number(result.rank),
                 _number(result.rank_returns)])  # fmt: skip
    header = ["window", "close to close", "S&P 500", "predicted, USD", "realised, USD", "sign", "bias", "MAE",
              "rank, USD", "rank, returns"]  # fmt: skip
    return f"### Plain betas and the index alone\n\n{result.how}.\n\n{_table(header, rows)}"


def _methods(eight: dict[str, Backtest], rest: dict[str, Backtest], count: int) -> str:
    rows = [
        [f"`{name}`", one.how, f"{one.signs_right}/{len(one.windows)}", f"{one.mae:.1%}", _number(one.rank),
         _bar(one.rank_returns), f"{rest[name].signs_right}/{len(rest[name].windows)}", f"{rest[name].mae:.1%}",
         _number(rest[name].rank), _number(rest[name].rank_returns)]
        for name, one in eight.items()
    ]  # fmt: skip
    naive, naive_rest = eight["index"].rank_naive, rest["index"].rank_naive
    rows.append(["(sizes)", "every beta one: what the sizes of the positions rank by themselves", "", "",
                 _number(naive), "none", "", "", _number(naive_rest), "none"])  # fmt: skip
    header = ["method", "knows", "signs", "MAE", "rank, USD", "rank, returns", f"signs, {count} other falls", "MAE",
              "rank, USD", "rank, returns"]  # fmt: skip
    return f"### What more knowledge gives\n\n{_table(header, rows)}"


def _per_window(eight: dict[str, Backtest]) -> str:
    rows = [
        [one.window.title, *(_bar(result.windows[at].rank_returns) for result in eight.values())]
        for at, one in enumerate(eight["index"].windows)
    ]  # fmt: skip
    rows.append(["average", *(_bar(result.rank_returns) for result in eight.values())])
    return f"### Rank correlation of returns, by window\n\n{_table(['window', *eight], rows)}"


def _misses(result: Backtest) -> str:
    rows = [[one.window.title, _number(one.rank_returns), _number(one.spread), _sectors(one)]
            for one in result.windows if one.rank_returns is not None and one.rank_returns < RANK_BAR]  # fmt: skip
    header = ["window", "rank, returns", "spread", "sectors: realised less predicted, furthest below and above"]
    return f"### Where plain betas fail to rank\n\n{_table(header, rows)}"


def _sectors(one: WindowOutcome) -> str:
    gaps: dict[str, list[float]] = {}
    for row in one.positions:
        gaps.setdefault(row.sector, []).append(row.realised_return - row.predicted_return)
    means = sorted(((sum(gap) / len(gap), name) for name, gap in gaps.items()))
    return ", ".join(f"{name} {gap:+.0%}" for gap, name in [*means[:2], *means[-2:]])


def _stocks(result: Backtest, book: Portfolio) -> str:
    """Predicted and realised return of every position, a column per window."""
    by_id: dict[str, dict[str, StockOutcome]] = {}
    for one in result.windows:
        for row in one.positions:
            by_id.setdefault(row.id, {})[one.window.id] = row
    rows = [[name, *(_both(found.get(one.window.id)) for one in result.windows)] for name, found in by_id.items()]
    header = [f"{book.name} book", *(one.window.start.strftime("%Y-%m") for one in result.windows)]
    return f"### Every stock: predicted / realised return\n\n{_table(header, rows)}"


def _both(row: StockOutcome | None) -> str:
    return f"{row.predicted_return:+.0%} / {row.realised_return:+.0%}" if row else "-"


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _bar(value: float | None) -> str:
    """In bold where it reaches the bar."""
    return f"**{value:.2f}**" if value is not None and value >= RANK_BAR else _number(value)


if __name__ == "__main__":
    main()
