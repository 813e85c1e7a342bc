"""The reviewed size table worked out from histories that the project does not carry; writes tools/pnl/size_table.yaml.

`python -m benchmarks.sizes [FOLDER]`: FOLDER holds `prices/` (files of FRED and of the World Bank in their own layout)
and `fed/` (the Federal Reserve's historic data to its stress test); ../shared unless given.
"""

from __future__ import annotations

import datetime as dt
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from finllm.tools.data.factors import MoveUnit, Size
from finllm.tools.pnl.history import one_step
from finllm.tools.pnl.shocks import QUANTILE
from finllm.tools.pnl.size_table import SIZE_TABLE_PATH

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT.parent / "shared"
HORIZON = 20
FIRST_YEAR = "1990"
"""Since when: the first year of the packaged prices, and after the rates of 1979 to 1982."""
KEPT_EXTREME = 30.0
"""Points of the VIX that stay the extreme of 20 days: the quarters of 2008 and 2020 brought +34 and +62."""


TOLD = """
Sizes of moves over the horizon, for factors without a history at hand, or whose history starts too late for an early
as_of (VIX before 2014). Written by `python -m benchmarks.sizes` from the histories named in each row: sigma is the
standard deviation of a 20-day move, small to extreme are the quantiles 50, 80, 95 and 99 % of its size whatever its
sign; the direction comes from the judgement. RATE_US_10Y in bp, USD_BROAD and GOLD in decimal returns, VIX in points.
For other horizons scale by the square root of time.
"""


@dataclass(frozen=True)
class History:
    """Where a factor's levels are: a file's column, by days. `step`: trading days between two of them.

    `averaged`: each is the mean of its period's days, whose differences have two thirds of the variance of those of
    the periods' ends (Working 1960), which is put back.
    """

    factor: str
    unit: MoveUnit
    file: str
    day: str
    column: str
    source: str
    step: int = 1
    averaged: bool = False


HISTORIES = (
    History("RATE_US_10Y", "bp", "prices/fred_DGS10.csv", "observation_date", "DGS10",
            "DGS10 (Federal Reserve H.15, by FRED)"),
    History("USD_BROAD", "return", "prices/fred_DTWEXBGS.csv", "observation_date", "DTWEXBGS",
            "DTWEXBGS (Federal Reserve H.10, by FRED)"),
    History("GOLD", "return", "prices/datasets_gold_monthly.csv", "Date", "Price",
            "gold (World Bank commodity prices, monthly averages)", step=21, averaged=True),
    History("VIX", "points", "fed/2025-Table_1A_Historic_Domestic.csv", "Date", "Market Volatility Index (Level)",
            "VIX, highest close of each quarter (Federal Reserve, 2025 stress test, table 1A)", step=63),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of the table, in the factor's unit over `HORIZON` days, with its source and window in words."""

    unit: MoveUnit
    sigma: float
    sizes: dict[Size, float]
    basis: str


def size_row(one: History, folder: Path) -> Row:
    """The row of one factor: σ of its moves, and the quantiles of their size whatever their sign."""
    table = pd.read_csv(folder / one.file, na_values=".").set_index(one.day)
    levels = pd.Series(table[one.column]).dropna()
    levels = pd.Series(levels[levels.index.astype(str) >= FIRST_YEAR])
    steps = max(1, HORIZON // one.step)
    moves = one_step(levels.to_numpy(dtype="float64") * (100.0 if one.unit == "bp" else 1.0), one.unit, steps)
    scale = math.sqrt(HORIZON / (steps * one.step)) * (math.sqrt(1.5) if one.averaged else 1.0)
    over = f"{steps}-{ {1: 'day', 21: 'month', 63: 'quarter'}[one.step] } moves"
    basis = f"{one.source}, {over}, {levels.index[0]} to {levels.index[-1]}, {len(moves)} of them"
    if scale != 1:
        basis += (
            f", × {scale:.3f} (√({HORIZON}/{steps * one.step}){', ends for averages √1.5' if one.averaged else ''})"
        )
    far = scale * np.abs(moves)
    sizes: dict[Size, float] = {name: float(np.quantile(far, share)) for name, share in QUANTILE.items()}
    if one.factor == "VIX":
        basis += f"; extreme kept at {KEPT_EXTREME:g}, as the quarters of 2008 and 2020 went farther than the quantile"
        sizes["extreme"] = KEPT_EXTREME
    return Row(one.unit, scale * float(moves.std(ddof=1)), sizes, basis)


def table_text(rows: dict[str, Row], on: dt.date) -> str:
    """The file of the table."""
    by = "computed from histories (benchmarks/sizes.py); no outside review yet"
    lines = [
        *(f"# {line}" for line in TOLD.strip().splitlines()),
        "version: 2",
        f'reviewed: {{by: "{by}", "on": {on}}}  # quoted, or YAML reads "on" as true',
        f"horizon: {HORIZON}  # trading days",
        "factors:",
    ]
    for name, row in rows.items():
        figures = {"sigma": row.sigma, **row.sizes}
        lines += [f"  {name}:", f"    unit: {row.unit}"]
        lines += [f"    {key}: {rounded(value)}" for key, value in figures.items()]
        lines += [f'    basis: "{row.basis}"']
    return "\n".join(lines) + "\n"


def rounded(value: float) -> str:
    """Three significant digits."""
    return f"{float(f'{value:.3g}'):g}"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    rows = {one.factor: size_row(one, folder) for one in HISTORIES}
    SIZE_TABLE_PATH.write_text(table_text(rows, dt.datetime.now(dt.UTC).date()), encoding="utf-8")
    print(SIZE_TABLE_PATH.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
