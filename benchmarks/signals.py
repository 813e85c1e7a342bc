"""How far the market signals can be trusted: coverage, accuracy, speed and the stress index; writes docs/signals.md.

`python -m benchmarks.signals` does what is not done yet, from the records under build/signals; `--fresh` starts over.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from finllm.tools.ensemble import LEVEL_MEMBERS, HeldOut, calibrate, combine, fit, project
from finllm.tools.forecast import to_levels
from finllm.tools.market import STOCKS, packaged_series
from finllm.tools.volatility_ensemble import MEMBERS, past_volatility

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "build" / "signals"
NAMES = (*STOCKS, "SP500")
HORIZONS = (1, 5, 20)
LEVELS = (80, 95)
FIRST, LAST = 2015, 2022
VALIDATED = (2010, 2014)
"""Years whose forecasts chose the single member that the ensemble is held against."""
UNSCALED_DAYS = 2016


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
        kept = calibrate(known, "daily", HORIZONS, blocks)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="forget what is recorded")
    parser.add_argument("--records", action="store_true", help="only record, write no page")
    chosen = parser.parse_args()
    if chosen.fresh:
        shutil.rmtree(RECORDS, ignore_errors=True)
    RECORDS.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        print(dt.datetime.now(tz=dt.UTC).time(), name, len(coverage_records(name)), flush=True)
    for name in STOCKS:
        print(dt.datetime.now(tz=dt.UTC).time(), name, len(volatility_records(name)), flush=True)


if __name__ == "__main__":
    main()
