"""Speed of contracts: 5,000 options under 1,000 scenarios beside a plain QuantLib loop, and a mixed book of 50,000."""

from __future__ import annotations

import datetime as dt
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.market import MarketStore
from finllm.tools.instruments.options import quantlib
from finllm.tools.pnl.contracts import CHANNELS, Contracts, Options
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.kernel import Sensitivities, totals

OPTIONS, SCENARIOS, LOOP = 5_000, 1_000, 20_000
AMERICAN_LOOP, HISTORY = 4_000, 1_008
"""Prices of the American loop, scenarios of a history."""
DAY = 0.22
"""One day's moves as a share of the scenarios', which are of a month."""
POSITIONS = 50_000
OPTION_SECONDS, HISTORY_SECONDS, BOOK_SECONDS, BOOK_MIB = 60.0, 1.0, 8.0, 600
DIVIDEND = 0.015
AGREED = 2e-5
"""By how much of the strike American prices may differ: QuantLib's accurate scheme errs by a little over 1e-5."""
AS_OF = dt.date(2022, 6, 30)
Row = tuple[str, float, str]


def option_rows() -> tuple[list[Row], bool]:
    """Seconds of ours and of the loop, scaled to all prices; whether the bars are met. Stops where the two differ."""
    european, first_met = _compared(an_option_book(), LOOP, "European", 1e-6)
    listed = an_option_book(american=True)
    american, second_met = _compared(listed, AMERICAN_LOOP, "American", AGREED * 5200.0)
    own = _seconds(an_option_book(american=True, listed=False), shocks())
    history = _seconds(listed.rows(range(0, OPTIONS, OPTIONS // 50)), DAY * shocks(count=HISTORY))
    return [
        *european, *american,
        (f"ours, {OPTIONS:,} American options of which none share an expiry", own, f"{OPTION_SECONDS:.0f} s"),
        (f"ours, 50 American options through the {HISTORY:,} scenarios of a VaR history", history,
         f"{HISTORY_SECONDS:.0f} s"),
    ], first_met and second_met and own <= OPTION_SECONDS and history <= HISTORY_SECONDS  # fmt: skip


def _compared(book: Sensitivities, loop: int, kind: str, apart: float) -> tuple[list[Row], bool]:
    """Two rows of the table; prices may be `apart` by so many dollars."""
    moves = shocks()
    ours = _seconds(book, moves)
    some = book.rows(range(loop // SCENARIOS))
    started = time.perf_counter()
    plain = quantlib_loop(some, moves)
    theirs = (time.perf_counter() - started) * SCENARIOS * OPTIONS / loop
    held = float(np.abs(_terms(some).units).sum())
    np.testing.assert_allclose(totals(some, moves), plain, rtol=1e-8, atol=1e-6 + 2.0 * apart * held)
    size = f"{OPTIONS:,} {kind} options × {SCENARIOS:,} scenarios"
    return [
        (f"ours, {size}, spot, volatility and rate", ours, f"{OPTION_SECONDS:.0f} s"),
        (
            f"QuantLib, one {kind} option after another ({loop:,} prices, scaled)",
            theirs,
            f"{theirs / ours:,.0f} × ours",
        ),
    ], ours <= OPTION_SECONDS


def _seconds(book: Sensitivities, moves: np.ndarray) -> float:
    totals(book, moves[:10])
    started = time.perf_counter()
    totals(book, moves)
    return time.perf_counter() - started


def _terms(book: Sensitivities) -> Options:
    assert book.contracts is not None
    terms = book.contracts.kinds[0]
    assert isinstance(terms, Options)
    return terms


def an_option_book(seed: int = 0, *, american: bool = False, listed: bool = True) -> Sensitivities:
    """Calls and puts, long and short, of a week to two years, on one index; USD.

    American ones pay dividends and come by their expiry, 24 months if `listed`; else each has a day of its own.
    """
    random = np.random.default_rng(seed)
    spot = np.full(OPTIONS, 4000.0)
    days = random.integers(7, 730, OPTIONS).astype(float)
    if american:
        days = np.sort(np.ceil(days / 30.4) * 30.4) if listed else days + np.arange(OPTIONS) / OPTIONS
    options = Options(
        random.normal(0, 100, OPTIONS), np.zeros(OPTIONS), random.random(OPTIONS) < 0.5, spot,
        spot * random.uniform(0.7, 1.3, OPTIONS), np.rint(days) / 365.0 if listed else days / 365.0,
        random.uniform(0.1, 0.5, OPTIONS), np.full(OPTIONS, 0.03), np.full(OPTIONS, DIVIDEND if american else 0.0),
        np.full(OPTIONS, american),
    )  # fmt: skip
    loads = np.zeros((CHANNELS, OPTIONS, CHANNELS))
    loads[range(CHANNELS), :, range(CHANNELS)] = np.array([1.0, 0.01, 1e-4])[:, None]
    nothing = np.zeros((OPTIONS, CHANNELS))
    return Sensitivities(
        positions=tuple(f"O{at}" for at in range(OPTIONS)), factors=("SPOT", "VIX", "RATE"), sectors=("Options",),
        sector=np.zeros(OPTIONS, dtype=int), value=np.zeros(OPTIONS), linear=nothing, direction=nothing,
        curvature=np.zeros(OPTIONS), floored=np.zeros(OPTIONS, dtype=bool),
        contracts=Contracts(np.arange(OPTIONS), loads, (options,)),
    )  # fmt: skip


def shocks(seed: int = 1, count: int = SCENARIOS) -> np.ndarray:
    """Moves (S, 3): a return, VIX points, bp."""
    random = np.random.default_rng(seed)
    return random.standard_normal((count, 3)) * np.array([0.1, 5.0, 50.0])


def quantlib_loop(book: Sensitivities, moves: np.ndarray) -> np.ndarray:
    """The plain way: one VanillaOption after another on its own quotes, repriced by scenario. Totals, (S,)."""
    ql: Any = quantlib()
    terms = _terms(book)
    today, count = ql.Date(30, 6, 2022), ql.Actual365Fixed()
    found = np.zeros(len(moves))
    with ql.SavedSettings():
        ql.Settings.instance().evaluationDate = today
        for at, (call, strike, years) in enumerate(zip(terms.call, terms.strike, terms.years, strict=True)):
            spot, volatility, rate = (
                ql.SimpleQuote(float(one[at])) for one in (terms.spot, terms.volatility, terms.rate)
            )
            curve = ql.FlatForward(today, ql.QuoteHandle(rate), count)
            surface = ql.BlackConstantVol(today, ql.NullCalendar(), ql.QuoteHandle(volatility), count)
            paid = ql.FlatForward(today, float(terms.dividend[at]), count)
            process = ql.BlackScholesMertonProcess(
                ql.QuoteHandle(spot), ql.YieldTermStructureHandle(paid), ql.YieldTermStructureHandle(curve),
                ql.BlackVolTermStructureHandle(surface),
            )  # fmt: skip
            payoff = ql.PlainVanillaPayoff(ql.Option.Call if call else ql.Option.Put, float(strike))
            end = today + round(years * 365)
            if terms.american[at]:
                option = ql.VanillaOption(payoff, ql.AmericanExercise(today, end))
                engine = ql.QdFpAmericanEngine(process, ql.QdFpAmericanEngine.accurateScheme())
            else:
                option = ql.VanillaOption(payoff, ql.EuropeanExercise(end))
                engine = ql.AnalyticEuropeanEngine(process)
            option.setPricingEngine(engine)
            before = option.NPV()
            for row, move in enumerate(moves):
                spot.setValue(float(terms.spot[at] * (1 + move[0])))
                volatility.setValue(max(float(terms.volatility[at] + move[1] / 100), 0.01))
                rate.setValue(float(terms.rate[at] + move[2] / 1e4))
                found[row] += float(terms.units[at]) * (option.NPV() - before)
    return found


def a_mixed_file(path: Path, seed: int = 2) -> None:
    """50,000 rows: a tenth options, half of them American; a fifth bonds, half of them by duration; else shares."""
    random = np.random.default_rng(seed)
    head = (
        "id,currency,asset_class,sector,quantity,market_value,beta,duration,convexity,underlying,option_type,exercise,"
    )
    lines = [head + "strike,expiry,volatility,coupon,maturity,yield"]
    for at in range(POSITIONS):
        value = f"{random.normal(2e4, 5e4):.2f}"
        match at % 10:
            case 0:
                kind, style = ("call", "put")[at % 20 // 10], ("European", "American")[at % 40 // 20]
                expiry = AS_OF + dt.timedelta(int(random.integers(30, 700)))
                lines.append(f"O{at},USD,option,Options,,{value},,,,SP500,{kind},{style},"
                             f"{3785 * random.uniform(0.85, 1.15):.0f},{expiry},"
                             f"{random.uniform(0.15, 0.5):.3f},,,")  # fmt: skip
            case 1:
                maturity = AS_OF + dt.timedelta(int(random.integers(200, 10_900)))
                coupon = random.uniform(0, 0.07)
                lines.append(f"B{at},USD,bond,Treasury,,{value},,,,,,,,,,{coupon:.4f},{maturity},"
                             f"{random.uniform(0.02, 0.06):.4f}")  # fmt: skip
            case 2:
                lines.append(f"D{at},USD,bond,Credit,,{value},,{random.uniform(1, 15):.2f},,,,,,,,,,")
            case _:
                lines.append(f"E{at},USD,equity,Sector {at % 11},,{value},{random.normal(1, 0.4):.2f},,,,,,,,,,,")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def revalue_file(path: Path) -> None:
    """Print seconds and the peak of memory, MiB, of reading, valuing and revaluing a file under one scenario."""
    from finllm.tools.data.books.valuation import value_portfolio
    from finllm.tools.data.factors import parse_user_shock

    market = MarketStore()
    user = [parse_user_shock(*one) for one in (("EQUITY_US", "-20%"), ("VIX", "+15points"), ("RATE_US_10Y", "+100bp"))]
    started = time.perf_counter()
    portfolio = load_portfolio(path)
    read = time.perf_counter()
    engine = Engine(value_portfolio(portfolio, market, AS_OF), market, AS_OF)
    valued = time.perf_counter()
    engine.revalue(engine.plan(20, user=user))
    done = time.perf_counter()
    engine.stress(engine.plan(20, user=user))
    all_of_it = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(read - started, valued - read, done - valued, all_of_it - done, peak)


def book_rows() -> tuple[list[Row], float, bool]:
    """Rows of the table, the peak of memory in MiB, and whether both bars are met; in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "book.csv")
        a_mixed_file(path)
        command = [sys.executable, "-m", "benchmarks.contracts", str(path)]
        told = [subprocess.run(command, check=True, capture_output=True, text=True, timeout=300) for _ in range(3)]
    runs = [[float(one) for one in run.stdout.split()] for run in told]
    read, valued, revalued, stressed, peak = min(runs, key=lambda run: sum(run[:3]))
    whole = read + valued + revalued
    what = f"{POSITIONS:,} mixed positions (10 % options, 20 % bonds)"
    return (
        [
            (f"{what}: read, checked, valued, revalued under one scenario", whole, f"{BOOK_SECONDS:.0f} s"),
            ("of which reading and checking the file", read, f"{read / whole:.0%}"),
            ("of which valuing and sensitivities", valued, f"{valued / whole:.0%}"),
            ("of which the revaluation with its four cuts", revalued, f"{revalued / whole:.0%}"),
            ("beside it, the whole `stress`: rows by horizon, VaR, analogue", stressed, "-"),
        ],
        peak,
        whole <= BOOK_SECONDS and peak <= BOOK_MIB,
    )


if __name__ == "__main__":
    revalue_file(Path(sys.argv[1]))
