"""Figures that a risk committee would ask for, worked out from histories: loads, coherent shocks, replays; writes
docs/numbers.md."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import bands_page, run_tools
from benchmarks.loads import BOOK, FACTORS, LATEST, MARKET, SECTORS, choices
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.market import INDEX, STOCKS, day_of
from finllm.tools.pnl.backtest import backtest
from finllm.tools.pnl.betas import FURTHER_WINDOW, regress
from finllm.tools.pnl.damping import DAMPED, damped
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.episodes import EPISODES
from finllm.tools.pnl.joint import Joint
from finllm.tools.pnl.propagate import propagate
from finllm.tools.pnl.sizes import FactorView

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "numbers.md"
OIL_ENDS = dt.date(2018, 12, 31)
ENERGY = ("CVX", "RRC", "XOM")
KUWAIT = {"EQUITY_US": -0.138, "OIL_WTI": 0.54}
FROM = dt.date(1992, 1, 2)
MOST, FALL = 0.15, -0.05
WHOLE = 10_000
"""Days: longer than any history."""

HEAD = """# Numbers, recomputed

Written by `make bench-numbers` from the packaged histories and the shipped book. *Before*: betas to the index alone,
factors without a shock held still, one window for all of them. *In sample* figures know the days that they are about:
they say that the model can hold them, not that it would have told them. *Loads of the day before* know nothing
later, but five years and the sector as what to shrink towards were first chosen on the same windows: what choosing them
by the past alone gives is below. How and why: [0031](design/0031-loads-and-joint-shocks.md) and
[0032](design/0032-damped-oil-and-replays.md)."""
CHOICE = """## The choice of loads, by the past alone

Squared error of 20 stocks' 20-day returns since 1992, given what index and oil did, over that of the index alone; loads
of the day before, renewed every 60 days (`python -m benchmarks.loads`). The grid: 2, 5 or 10 years behind the load on
oil, shrunk to the sector, to all names or not, and oil's move as it is, by its logarithm (ln(1 + |move|)), or stopped
at ±25 %."""


@dataclass(frozen=True)
class Row:
    """A figure: what it was before, what it should be, what it is, and whether that is met; None without a bar."""

    what: str
    before: str
    wanted: str
    reached: str
    met: bool | None = None


def main() -> None:
    rows = [*kuwait(), *windows(), *falls(), *coherent(), *sizes(), *replays()]
    verdict = {True: "met", False: "**missed**", None: ""}
    lines = "\n".join(
        f"| {one.what} | {one.before} | {one.wanted} | {one.reached} | {verdict[one.met]} |" for one in rows
    )
    chosen = "\n".join(f"| {what} | {figure} |" for what, figure in choices())
    DOCUMENT.write_text(f"{HEAD}\n\n| figure | before | wanted | reached | |\n|---|---|---|---|---|\n{lines}\n\n"
                        f"{CHOICE}\n\n| what | error ratio |\n|---|---|\n{chosen}\n", encoding="utf-8")  # fmt: skip
    print(lines)
    bands_page.write()
    run_tools.write()


def loads(
    as_of: dt.date, names: Sequence[str], window: int = 504, further: int = FURTHER_WINDOW
) -> dict[str, dict[str, float]]:
    """Loads of the stocks on the index and on oil."""
    drivers = [FACTORS["EQUITY_US"], FACTORS["OIL_WTI"]]
    found = regress(STOCKS, drivers, MARKET, as_of, window=window, further_window=further, sectors=SECTORS)
    return {name: found[name].betas for name in names}


def gain(betas: Mapping[str, float], moves: Mapping[str, float]) -> float:
    felt = {name: float(damped(np.array(move))) if name in DAMPED else move for name, move in moves.items()}
    return sum(betas.get(name, 0.0) * move for name, move in felt.items())


def kuwait() -> list[Row]:
    """August 1990 with loads of the whole history."""
    own, happened = loads(OIL_ENDS, ENERGY, WHOLE, WHOLE), {"XOM": -0.03, "CVX": -0.05, "RRC": 0.0}
    before = {"XOM": "-9 %", "CVX": "-9 %", "RRC": "-13 %"}
    return [
        Row(f"Kuwait 1990, oil +54 %, S&P -13.8 %, in sample: {name}", before[name], f"{real:+.0%} ± 3 points",
            f"{gain(own[name], KUWAIT):+.1%}", abs(gain(own[name], KUWAIT) - real) <= 0.03)
        for name, real in happened.items()
    ]  # fmt: skip


def windows() -> list[Row]:
    """All 20-day windows since 1992, by loads of the day before (renewed every 20 days) and what the factors did."""
    levels = pd.DataFrame({name: MARKET.read(name, LATEST).values for name in (*STOCKS, INDEX, "WTI")}).dropna()
    days = [day_of(day) for day in levels.index]
    first = next(at for at, day in enumerate(days) if day >= FROM)
    signs: list[bool] = []
    ours, alone = np.zeros(len(STOCKS)), np.zeros(len(STOCKS))
    for start in range(first, len(days) - 40, 20):
        own = loads(days[start], STOCKS)
        one = regress(STOCKS, [FACTORS["EQUITY_US"]], MARKET, days[start])
        index, oil = (np.array([own[name].get(id, 0.0) for name in STOCKS]) for id in ("EQUITY_US", "OIL_WTI"))
        simple = np.array([one[name].betas["EQUITY_US"] for name in STOCKS])
        for at in range(start, start + 20):
            move = levels.iloc[at + 20].to_numpy() / levels.iloc[at].to_numpy() - 1
            real, told = move[:-2], index * move[-2] + oil * damped(move[-1])
            ours += (told - real) ** 2
            alone += (simple * move[-2] - real) ** 2
            if abs(move[-1]) > MOST:
                energy = [STOCKS.index(name) for name in ENERGY]
                signs.append(bool((told[energy].mean() > move[-2]) == (real[energy].mean() > move[-2])))
    ratio = ours / alone
    whole, worst = float(ours.sum() / alone.sum()), float(ratio.max())
    return [
        Row(f"sign of energy less index, all {len(signs)} 20-day windows since 1992 with oil beyond ±15 %, loads of the"
            " day before", "0.50", "≥ 0.75", f"{np.mean(signs):.2f}", float(np.mean(signs)) >= 0.75),
        Row("squared error of 20 stocks' 20-day returns, given what index and oil did, over that of the index alone,"
            " loads of the day before", "1", "≤ 1", f"{whole:.3f}", whole <= 1),
        Row(f"the same for the stock that gains least ({STOCKS[int(ratio.argmax())]})", "1", "≤ 1", f"{worst:.3f}",
            worst <= 1),
    ]  # fmt: skip


def falls() -> list[Row]:
    """Falls of the index by 5 % or more, over several lengths, and the eight windows of the back-test."""
    ours, alone = np.array([ranks(start, end) for start, end in fallen(5)]).T
    eight = {method: backtest(BOOK, MARKET, method=method).rank_returns for method in ("index", "engine")}
    rows = [
        Row(f"rank correlation across stocks, {len(ours)} falls of 5 % or more in five days", f"{np.mean(alone):.2f}",
            "≥ 0.47", f"{np.mean(ours):.2f}", float(np.mean(ours)) >= 0.47),
        Row("the same in the eight windows of the back-test", f"{eight['index']:.2f}", "beside it",
            f"{eight['engine']:.2f}"),
    ]  # fmt: skip
    for days in (1, 10, 20):
        ours, alone = np.array([ranks(start, end) for start, end in fallen(days)]).T
        rows.append(Row(f"the same, {len(ours)} falls of 5 % or more in {days} day{'s' * (days > 1)}",
                        f"{np.mean(alone):.2f}", "beside it", f"{np.mean(ours):.2f}"))  # fmt: skip
    return rows


def fallen(length: int) -> list[tuple[dt.date, dt.date]]:
    """Windows of `length` days, in order and without overlap, in which the index fell by 5 % or more."""
    index = MARKET.read(INDEX, LATEST).values
    days, values = pd.DatetimeIndex(index.index), index.to_numpy()
    found: list[tuple[dt.date, dt.date]] = []
    at = 504
    while at + length < len(days):
        fell = bool(values[at + length] / values[at] - 1 <= FALL)
        if fell:
            found.append((day_of(days[at]), day_of(days[at + length])))
        at += length if fell else 1
    return found


def moved(name: str, start: dt.date, end: dt.date) -> float | None:
    """A series' return between two days; None where one of them has no price."""
    levels = MARKET.read(name, LATEST).values.reindex([pd.Timestamp(start), pd.Timestamp(end)]).to_numpy()
    return float(levels[1] / levels[0] - 1) if np.isfinite(levels).all() else None


def ranks(start: dt.date, end: dt.date) -> tuple[float, ...]:
    """Rank correlation of the stocks' returns with what loads of the day before tell, and with the index alone."""
    seen = {"EQUITY_US": moved(INDEX, start, end), "OIL_WTI": moved("WTI", start, end)}
    moves = {name: move for name, move in seen.items() if move is not None}
    real = [moved(name, start, end) for name in STOCKS]
    simple = regress(STOCKS, [FACTORS["EQUITY_US"]], MARKET, start)
    betas = loads(start, STOCKS) if "OIL_WTI" in moves else {n: simple[n].betas for n in STOCKS}
    told = pd.Series([gain(betas[name], moves) for name in STOCKS])
    index = pd.Series([gain(simple[name].betas, moves) for name in STOCKS])
    return tuple(float(one.corr(pd.Series(real), method="spearman")) for one in (told, index))


def coherent() -> list[Row]:
    """What is completed given one shock, as of the middle of 2022."""
    names = ("EQUITY_US", "CREDIT_BAA_AAA", "OIL_WTI", "USD_BROAD", "VIX")
    joint = Joint(FactorView(FACTORS, MARKET, dt.date(2022, 6, 30)), names, 20)

    def given(shock: dict[str, float], other: str, *, near: bool = True) -> float:
        found = propagate(shock, joint.near(shock)[0] if near else joint.covariance)
        return float(found.means[found.others.index(other)])

    plain, near = (given({"EQUITY_US": -0.2}, "CREDIT_BAA_AAA", near=one) for one in (False, True))
    vix, oil = given({"EQUITY_US": -0.1314}, "VIX"), given({"OIL_WTI": 0.4}, "EQUITY_US")
    return [
        Row("credit spread with equities -20 %, all past moves alike", "+10 bp", "+24 bp", f"{plain:+.0f} bp",
            abs(plain - 24) <= 3),
        Row("the same, moves towards the shock weighing more", "", "quarters beyond -10 % brought +27",
            f"{near:+.0f} bp"),
        Row("VIX with equities -13.14 %", "+2.08", "as past falls", f"{vix:+.1f}", 8 <= vix <= 25),
        Row("equities with oil +40 %", "+3 %", "no large rise", f"{oil:+.1%}"),
    ]  # fmt: skip


def sizes() -> list[Row]:
    """σ over long horizons, and the reviewed size that a short history does not displace."""
    view = FactorView(FACTORS, MARKET, LATEST)
    wanted = {("VIX", 60): (11.9, 5.6), ("VIX", 250): (24.4, 6.4), ("CREDIT_BAA_AAA", 60): (18.7, 24.0),
              ("CREDIT_BAA_AAA", 250): (38.0, 50.0)}  # fmt: skip
    rows: list[Row] = []
    for (name, days), (before, right) in wanted.items():
        found = view.size(name, days).sigma
        value = found.value if found else 0.0
        rows.append(Row(f"σ of {name} over {days} days", f"{before}", f"{right}", f"{value:.1f}",
                        abs(value / right - 1) < 0.03))  # fmt: skip
    table = view.size("VIX", 60).table
    extreme = table.sizes["extreme"] if table else 0.0
    return [*rows, Row("extreme rise of the VIX over 60 days", "19", "52", f"{extreme:.0f}", round(extreme) == 52)]


def replays() -> list[Row]:
    """The corporate bond of the shipped book, by the packaged yields of BAA bonds."""
    wanted = {"taper-2013": (-18_558, -181_770), "downgrade-2011": (-70_678, 122_687),
              "volmageddon-2018": (6_205, -88_912), "lehman-2008": (-460_467, -588_738)}  # fmt: skip
    engine = Engine(value_portfolio(BOOK, MARKET, LATEST), MARKET, LATEST)
    bond = next(one.id for one in BOOK.positions if one.asset_class == "bond")
    rows: list[Row] = []
    for id, (before, right) in wanted.items():
        found = float(engine.revalue(engine.plan(20, replay=id)).by_position[bond])
        rows.append(Row(f"{bond} in the replay of {EPISODES[id].title}, USD", f"{before:+,}", f"{right:+,}",
                        f"{found:+,.0f}", abs(found / right - 1) < 0.05))  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
