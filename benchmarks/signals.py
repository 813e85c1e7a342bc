"""How far the market signals can be trusted: coverage, accuracy, speed and the stress index; fills docs/signals.md.

`python -m benchmarks.signals` records what is not recorded yet, under build/signals (half an hour);
`--fresh` starts over.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.market import STOCKS, MarketStore, packaged_series
from finllm.tools.forecasts.ensemble import LEVEL_MEMBERS, HeldOut, calibrate_ensemble, combine, fit, project
from finllm.tools.forecasts.forecast import to_levels
from finllm.tools.forecasts.regime import regime_state
from finllm.tools.forecasts.stress_index import shared_prices, stress_history, stress_index
from finllm.tools.forecasts.volatility_ensemble import MEMBERS, past_volatility

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "build" / "signals"
PAGE = ROOT / "docs" / "signals.md"
AS_OF = dt.date(2022, 12, 28)
NAMES = (*STOCKS, "SP500")
HORIZONS = (1, 5, 20)
LEVELS = (80, 95)
FIRST, LAST = 2015, 2022
VALIDATED = (2010, 2014)
"""Years whose forecasts chose the single member that the ensemble is held against."""
UNSCALED_DAYS = 2016
EPISODES = (
    ("Gulf", "1990-07-16", "1990-10-11"),
    ("Asia", "1997-10-07", "1997-10-27"),
    ("Russia, LTCM", "1998-07-17", "1998-08-31"),
    ("dot-com", "2000-03-24", "2000-05-23"),
    ("September 11", "2001-09-10", "2001-09-21"),
    ("WorldCom", "2002-07-05", "2002-07-23"),
    ("quant funds", "2007-07-19", "2007-08-15"),
    ("Lehman", "2008-09-12", "2008-11-20"),
    ("bank lows", "2009-02-09", "2009-03-09"),
    ("flash crash, Greece", "2010-04-23", "2010-07-02"),
    ("US downgrade", "2011-07-22", "2011-08-08"),
    ("taper tantrum", "2013-05-21", "2013-06-24"),
    ("renminbi", "2015-08-17", "2015-08-25"),
    ("oil, China", "2015-12-29", "2016-02-11"),
    ("volatility funds", "2018-01-26", "2018-02-08"),
    ("end of 2018", "2018-09-20", "2018-12-24"),
    ("pandemic", "2020-02-19", "2020-03-23"),
    ("inflation", "2022-01-03", "2022-10-12"),
    ("calm: 2005", "2005-05-31", "2005-07-29"),
    ("calm: 2017", "2017-05-31", "2017-07-31"),
)
"""The eight windows that the back-test replays, others since 1990, and two calm stretches to hold them against."""


def coverage_records(name: str) -> pd.DataFrame:
    """Every non-overlapping forecast of one series, month by month with that month's calibration, and what happened."""
    path = RECORDS / f"coverage-{name}.parquet"
    if path.exists():
        return pd.read_parquet(path)
    levels = to_levels(packaged_series()[name])
    values, index = levels.to_numpy(), pd.DatetimeIndex(levels.index)
    month = index.year.to_numpy() * 12 + index.month.to_numpy()
    rows: list[dict[str, object]] = []
    blocks: dict[tuple[int, int], HeldOut] = {}
    for now in np.unique(month[(index.year >= FIRST) & (index.year <= LAST)]):
        first, end = int(np.searchsorted(month, now)), int(np.searchsorted(month, now + 1))
        known = levels.iloc[:first]
        kept = calibrate_ensemble(known, "daily", HORIZONS, blocks)
        fitted = fit(known.to_numpy(), kept[1].order, "daily")
        for at in range(first, end):
            for steps in (one for one in HORIZONS if at % one == 0 and at + one < len(values)):
                point, changes, sigma = project(values[: at + 1], fitted, kept[steps])
                realised = values[at + steps] - values[at]
                past = values[at - UNSCALED_DAYS : at + 1]
                row = {"name": name, "day": index[at], "steps": steps, "realised": realised, "point": point}
                row |= dict(zip(LEVEL_MEMBERS, changes, strict=True))
                for level in LEVELS:
                    low, high = (point + sigma * score for score in kept[steps].ends(level))
                    plain = np.quantile(past[steps:] - past[:-steps], [(100 - level) / 200, (100 + level) / 200])
                    row |= {
                        f"low{level}": low, f"high{level}": high, f"plain_low{level}": plain[0],
                        f"plain_high{level}": plain[1],
                    }  # fmt: skip
                rows.append(row)
    found = pd.DataFrame(rows)
    found.to_parquet(path)
    return found


def volatility_records(name: str) -> pd.DataFrame:
    """Every week's held-out forecast of log volatility by member and by the ensemble, weights refitted each year."""
    path = RECORDS / f"volatility-{name}.parquet"
    if path.exists():
        return pd.read_parquet(path)
    past = past_volatility(packaged_series()[name].values, weeks_scored=52 * 18)
    weeks, at = past.weeks, past.at
    years = pd.DatetimeIndex(weeks.index).year.to_numpy()[at + 1]
    found = pd.DataFrame(past.forecasts, columns=list(MEMBERS))
    found["day"], found["realised"], found["ensemble"] = weeks.index[at + 1], weeks.to_numpy()[at + 1], np.nan
    for year in range(VALIDATED[0], LAST + 1):
        now = np.flatnonzero(years == year)
        before = past.errors[max(0, now[0] - 260) : now[0]]
        found.loc[now, "ensemble"] = past.forecasts[now] @ combine(before)
    found["scale"] = np.abs(np.diff(weeks.to_numpy()[: at[np.flatnonzero(years == FIRST)[0]] + 1])).mean()
    found.to_parquet(path)
    return found


def coverage_table() -> str:
    """Share of changes inside each interval, all series together, beside the unscaled interval of the same years."""
    every = pd.concat([coverage_records(name) for name in NAMES])
    lines = [
        "| horizon | level | inside | block bootstrap, 95 % | bar | lowest and highest series | unscaled |"
        " worst year | unscaled | n |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for steps in HORIZONS:
        rows = every[every["steps"] == steps]
        for level in LEVELS:
            hit = rows["realised"].between(rows[f"low{level}"], rows[f"high{level}"])
            plain = rows["realised"].between(rows[f"plain_low{level}"], rows[f"plain_high{level}"])
            low, high = bootstrap(hit, pd.DatetimeIndex(rows["day"]))
            series = hit.groupby(rows["name"].to_numpy()).mean()
            years = pd.DatetimeIndex(rows["day"]).year
            yearly, plain_yearly = hit.groupby(years).mean(), plain.groupby(years).mean()
            worst, plain_worst = (one[(one - level / 100).abs().idxmax()] for one in (yearly, plain_yearly))
            bar = 5 if steps == max(HORIZONS) else 3
            met = "met" if abs(100 * hit.mean() - level) <= bar else "missed"
            lines.append(
                f"| {steps} | {level} % | **{hit.mean():.1%}** | {low:.1%} to {high:.1%} | ±{bar}: {met} |"
                f" {series.min():.1%} {series.idxmin()}, {series.max():.1%} {series.idxmax()} | {plain.mean():.1%} |"
                f" {worst:.1%} | {plain_worst:.1%} | {len(rows):,} |"
            )
    lines += ["", "| horizon | ensemble | " + " | ".join(LEVEL_MEMBERS[:3]) + " | width of the 80 % interval, from its"
              " 5th to its 95th percentile |", "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for steps in HORIZONS:
        rows = every[every["steps"] == steps]
        base = rows["realised"].abs().mean()
        ratios = [float(np.abs(rows["realised"] - rows[name]).mean() / base) for name in ("point", *LEVEL_MEMBERS[:3])]
        widths = np.quantile(rows["high80"] - rows["low80"], [0.05, 0.95])
        spans = f"{widths[0]:.1%} to {widths[1]:.1%}"
        lines.append(f"| {steps} | " + " | ".join(f"{one:.3f}" for one in ratios) + f" | {spans} |")
    return "\n".join(lines)


def bootstrap(hit: pd.Series, days: pd.DatetimeIndex, draws: int = 4000) -> tuple[float, float]:
    """95 % interval of the mean by resampling whole quarters of a year, every series in them together."""
    quarters = days.to_period("Q")
    grouped = pd.DataFrame({"hit": hit.to_numpy(), "quarter": quarters.astype(str)}).groupby("quarter")["hit"]
    sums, counts = grouped.sum().to_numpy(), grouped.size().to_numpy()
    drawn = np.random.default_rng(0).integers(0, len(sums), (draws, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def volatility_table() -> str:
    """MASE of next week's log volatility, the ensemble beside the member that its validation years chose."""
    lines = ["| stock | chosen on 2010–2014 | its MASE 2015–2022 | ensemble | ratio | naive | best in hindsight |",
             "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    ratios: list[float] = []
    for name in STOCKS:
        rows = volatility_records(name)
        years = rows["day"].dt.year
        errors = pd.DataFrame({one: (rows["realised"] - rows[one]).abs() for one in (*MEMBERS, "ensemble")})
        chosen = pd.Series(errors[years.between(*VALIDATED)][list(MEMBERS)].mean()).idxmin()
        tested = errors[years.between(FIRST, LAST)].mean() / rows["scale"].iloc[0]
        ratios.append(float(tested["ensemble"] / tested[chosen]))
        lines.append(
            f"| {name} | {chosen} | {tested[chosen]:.3f} | **{tested['ensemble']:.3f}** | {ratios[-1]:.3f} |"
            f" {tested['SeasonalNaive']:.3f} | {tested[list(MEMBERS)].idxmin()} {tested[list(MEMBERS)].min():.3f} |"
        )
    won = sum(one <= 1 for one in ratios)
    met = "met" if won >= 0.6 * len(ratios) and np.mean(ratios) <= 1.05 else "missed"
    summary = (
        f"At or below the chosen member for **{won} of {len(ratios)}** (bar: 12); on average {np.mean(ratios) - 1:+.1%}"
        f" (bar: at most +5 %); the worst is {max(ratios) - 1:+.1%}. Bar {met}."
    )
    return "\n".join([*lines, "", summary])


def crises_table() -> str:
    market = MarketStore()
    history = stress_history(shared_prices(market, STOCKS, AS_OF)[0])
    lines = ["| episode | S&P 500, close to close | index at its start | at its end |"
             " highest of the five-day grid to 20 days after |"
             " percentile then | absorption | dispersion | regime at its end | break confirms |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for words, start, end in EPISODES:
        first, last = dt.date.fromisoformat(start), dt.date.fromisoformat(end)
        window = market.window("SP500", first, last, last)
        inside = history.loc[start : str(last + dt.timedelta(days=28))]
        shown = [_index(market, day) for day in (first, last)]
        if inside["index"].notna().any():
            peak = inside.loc[inside["index"].idxmax()]
            past = history["index"].dropna()[: str(inside["index"].idxmax().date())]
            most = f"**{peak['index']:+.2f}** | {(past <= peak['index']).mean():.0%}"
            parts = f"{peak['absorption']:.2f} | {peak['dispersion']:.0%}"
        else:
            most, parts = "none yet | ", f"{inside['absorption'].max():.2f} | {inside['dispersion'].max():.0%}"
        fall = f"{window.iloc[-1] / window.iloc[0] - 1:+.2%}"
        cells = [f"{words}, {start} to {end}", fall, *shown, most, parts, _regime(market, last)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _regime(market: MarketStore, day: dt.date) -> str:
    try:
        state = regime_state(market.read("SP500", day).values)
    except InputError:
        return "none yet | "
    return f"{state.label} | { {True: 'yes', False: 'not yet', None: 'no say'}[state.confirmed] }"


def _index(market: MarketStore, day: dt.date) -> str:
    try:
        return f"{stress_index(market, day).value:+.2f}"
    except InputError:
        return "none yet"


SIGNALS = """
import datetime as dt, json, sys, time
began = time.perf_counter()
from pathlib import Path
from finllm.tools.forecasts.calibrations import Calibrations
from finllm.tools.forecasts.forecast import forecasts
from finllm.tools.data.market import STOCKS, MarketStore
from finllm.tools.forecasts.signals import market_signals
market, day, kept = MarketStore(), dt.date.fromisoformat(sys.argv[1]), Calibrations(Path(sys.argv[2]))
for name in (*STOCKS, "SP500", "MTUM", "QUAL", "USMV", "VLUE"):
    forecasts(market.read(name, day), (1, 5, 20), calibrations=kept)
market_signals(market, day)
print(json.dumps({"wall": time.perf_counter() - began, "processor": time.process_time()}))
"""
PEER = """
import json, sys, time, warnings
began = time.perf_counter()
warnings.simplefilter("ignore")
import numpy as np
from statsforecast.models import AutoETS
from statsforecast.utils import ConformalIntervals
from finllm.tools.data.market import STOCKS, MarketStore, packaged_series
from finllm.tools.forecasts.regime import regime_state
from finllm.tools.forecasts.stress_index import shared_prices, stress_history, stress_index
for name in (*STOCKS, "SP500", "MTUM", "QUAL", "USMV", "VLUE"):
    levels = np.log(packaged_series()[name].values[: sys.argv[1]].to_numpy())[-252 - 32 * 20 :]
    AutoETS(1, "AZN", prediction_intervals=ConformalIntervals(h=20, n_windows=32)).forecast(levels, 20, level=[80, 95])
print(json.dumps({"wall": time.perf_counter() - began, "processor": time.process_time()}))
"""


def speed_table() -> str:
    """Wall-clock and processor seconds of signals for 25 series, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        cold = _timed(SIGNALS, "2022-06-29", folder)
        warm = _timed(SIGNALS, "2022-06-30", folder)
    peer = _timed(PEER, "2022-06-30")
    rows = (
        ("signals of 25 series, yesterday's calibration at hand", warm, "10 s"),
        ("the same, cold", cold, ""),
        ("statsforecast's own conformal AutoETS, 25 series, one horizon", peer, ""),
    )
    return "\n".join([
        "Three horizons, two levels, regime and stress index; one process each, imports included;"
        f" {os.cpu_count()} cores at a load of {os.getloadavg()[0]:.1f}: the processor's seconds say more than the"
        " clock's.", "",
        "| what | clock | processor | bar |", "| --- | --- | --- | --- |",
        *(f"| {what} | {one['wall']:.1f} s | {one['processor']:.1f} s | {bar} |" for what, one, bar in rows),
    ])  # fmt: skip


def _timed(code: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


TABLES = {
    "coverage": coverage_table, "volatility": volatility_table, "crises": crises_table, "speed": speed_table,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(TABLES)}; all by default")
    parser.add_argument("--fresh", action="store_true", help="forget what is recorded")
    parser.add_argument("--records", action="store_true", help="only record, write no page")
    chosen = parser.parse_args()
    if chosen.fresh:
        shutil.rmtree(RECORDS, ignore_errors=True)
    RECORDS.mkdir(parents=True, exist_ok=True)
    if chosen.records:
        for name in NAMES:
            print(dt.datetime.now(tz=dt.UTC).time(), name, len(coverage_records(name)), flush=True)
        for name in STOCKS:
            print(dt.datetime.now(tz=dt.UTC).time(), name, len(volatility_records(name)), flush=True)
        return
    page = PAGE.read_text(encoding="utf-8")
    for name in chosen.tables or TABLES:
        table = TABLES[name]()
        print(table, flush=True)
        begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        before, rest = page.split(begin)
        page = before + f"{begin}\n{table}\n{end}" + rest.split(end)[1]
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
