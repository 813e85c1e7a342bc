"""The Federal Reserve's supervisory scenario files: 28 quarterly variables into one Parquet file, and out as series."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.data.market import Series, SeriesUnit, day_of
from finllm.tools.evidence import sha256_of

HISTORY = "history.parquet"
PATH = "severely-adverse.parquet"
SOURCES = "sources.json"
_WHERE = "https://www.federalreserve.gov/supervisionreg/dfa-stress-tests-2025.htm"
_QUARTER = re.compile(r"^(\d{4}) Q([1-4])$")

_DOMESTIC: dict[str, tuple[str, SeriesUnit]] = {
    "Real GDP growth": ("FED_GDP_REAL", "percent"),
    "Nominal GDP growth": ("FED_GDP_NOMINAL", "percent"),
    "Real disposable income growth": ("FED_INCOME_REAL", "percent"),
    "Nominal disposable income growth": ("FED_INCOME_NOMINAL", "percent"),
    "Unemployment rate": ("FED_UNEMPLOYMENT", "percent"),
    "CPI inflation rate": ("FED_CPI", "percent"),
    "3-month Treasury rate": ("FED_UST_3M", "percent"),
    "5-year Treasury yield": ("FED_UST_5Y", "percent"),
    "10-year Treasury yield": ("FED_UST_10Y", "percent"),
    "BBB corporate yield": ("FED_BBB", "percent"),
    "Mortgage rate": ("FED_MORTGAGE", "percent"),
    "Prime rate": ("FED_PRIME", "percent"),
    "Dow Jones Total Stock Market Index (Level)": ("FED_STOCKS", "price"),
    "House Price Index (Level)": ("FED_HPI", "price"),
    "Commercial Real Estate Price Index (Level)": ("FED_CRE", "price"),
    "Market Volatility Index (Level)": ("FED_VIX", "points"),
}
_INTERNATIONAL: dict[str, tuple[str, SeriesUnit]] = {
    "Euro area real GDP growth": ("FED_EURO_GDP", "percent"),
    "Euro area inflation": ("FED_EURO_CPI", "percent"),
    "Euro area bilateral dollar exchange rate (USD/euro)": ("FED_USD_PER_EUR", "price"),
    "Developing Asia real GDP growth": ("FED_ASIA_GDP", "percent"),
    "Developing Asia inflation": ("FED_ASIA_CPI", "percent"),
    "Developing Asia bilateral dollar exchange rate (F/USD, index)": ("FED_ASIA_PER_USD", "price"),
    "Japan real GDP growth": ("FED_JAPAN_GDP", "percent"),
    "Japan inflation": ("FED_JAPAN_CPI", "percent"),
    "Japan bilateral dollar exchange rate (yen/USD)": ("FED_JPY_PER_USD", "price"),
    "U.K. real GDP growth": ("FED_UK_GDP", "percent"),
    "U.K. inflation": ("FED_UK_CPI", "percent"),
    "U.K. bilateral dollar exchange rate (USD/pound)": ("FED_USD_PER_GBP", "price"),
}
VARIABLES: dict[str, SeriesUnit] = dict([*_DOMESTIC.values(), *_INTERNATIONAL.values()])
"""The 28 variables by the names of their series, with their units; growth and inflation are annualised rates."""
_TABLES = {
    "1A": ("*Table_1A_Historic_Domestic.csv", _DOMESTIC),
    "1B": ("*Table_1B_Historic_International.csv", _INTERNATIONAL),
    "3A": ("*Table_3A_Supervisory_Severely_Adverse_Domestic.csv", _DOMESTIC),
    "3B": ("*Table_3B_Supervisory_Severely_Adverse_International.csv", _INTERNATIONAL),
}


class FedImport(BaseModel):
    """What an import wrote: the folder, the number of variables and quarters, the first and last, the source files."""

    model_config = ConfigDict(frozen=True)

    folder: str
    variables: int
    quarters: int
    first: dt.date
    last: dt.date
    path_quarters: int
    sources: dict[str, str]
    """File name → sha256 of its bytes."""


@dataclass(frozen=True)
class _Table:
    name: str
    sha256: str
    frame: pd.DataFrame


def import_fed(source: Path, target: Path) -> FedImport:
    """Read the Federal Reserve's CSV files in `source` and write them as Parquet into the folder `target`.

    Tables 1A and 1B (history) are required, 3A and 3B (the severely adverse path) taken where they are. Rows are
    stamped with the first day of their quarter; an empty cell before a variable begins stays empty. The files replace
    those of an earlier import, each in one step. Errors: one InputError that lists every problem with file and row.
    """
    if not source.is_dir():
        raise InputError(f"no folder {str(source)!r}", fix="give the folder with the Federal Reserve's CSV files")
    tables: dict[str, _Table] = {}
    problems: list[str] = []
    for key, (pattern, columns) in _TABLES.items():
        files = sorted(source.glob(pattern))
        if len(files) > 1:
            problems.append(f"{source}: {len(files)} files match {pattern}; keep one year's")
        elif files:
            tables[key] = _read(files[0], columns, problems)
        elif key in ("1A", "1B"):
            problems.append(f"{source}: no file {pattern}; download the historical tables from {_WHERE}")
    if ("3A" in tables) != ("3B" in tables):
        problems.append(f"{source}: the severely adverse path needs both tables 3A and 3B")
    for first, second in (("1A", "1B"), ("3A", "3B")):
        both = first in tables and second in tables and not problems
        if both and not tables[first].frame.index.equals(tables[second].frame.index):
            problems.append(f"{tables[second].name}: its quarters are not those of {tables[first].name}")
    if problems:
        raise InputError("\n".join(problems), fix="correct the files or download them again")
    history = tables["1A"].frame.join(tables["1B"].frame)
    _write(target, HISTORY, _parquet(history))
    quarters = 0
    if "3A" in tables:
        path = tables["3A"].frame.join(tables["3B"].frame)
        quarters = len(path)
        _write(target, PATH, _parquet(path))
    found = {table.name: table.sha256 for table in tables.values()}
    _write(target, SOURCES, json.dumps(found, indent=2).encode())
    return FedImport(
        folder=str(target), variables=history.shape[1], quarters=len(history), first=day_of(history.index[0]),
        last=day_of(history.index[-1]), path_quarters=quarters, sources=found,
    )  # fmt: skip


def load_fed(folder: Path) -> list[Series]:
    """The imported history as quarterly series: the 28 variables and two derived from them.

    FED_BBB_SPREAD: BBB yield less the 10-year Treasury's, bp. FED_USD: geometric mean of euro, yen, pound and
    developing Asia per dollar with equal weights, 100 at its start (the files carry no trade weights).
    A quarter is visible from the first day of the next. Figures are as revised up to the import's vintage: growth and
    house prices were not all known so at the time; yields and exchange rates were. Yields are averages over the
    quarter, VIX is its highest close.
    Errors: InputError where nothing was imported.
    """
    path = folder / HISTORY
    try:
        data = path.read_bytes()
        table = pd.read_parquet(io.BytesIO(data))
    except FileNotFoundError as error:
        raise InputError(
            f"nothing was imported into {str(folder)!r}", fix="run 'finllm data import fed DIR'"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}", fix="run 'finllm data import fed DIR' again") from error
    uri, sha256 = path.resolve().as_uri(), sha256_of(data)
    units: dict[str, SeriesUnit] = {**VARIABLES, "FED_BBB_SPREAD": "bp", "FED_USD": "price"}
    table["FED_BBB_SPREAD"] = np.round(100 * (table["FED_BBB"].to_numpy() - table["FED_UST_10Y"].to_numpy()), 6)
    table["FED_USD"] = dollar(table)
    return [
        Series(name, pd.Series(table[name].dropna(), dtype="float64", name=name), unit, "quarterly", uri, sha256)
        for name, unit in units.items()
    ]


def dollar(table: pd.DataFrame) -> pd.Series:
    """The dollar against euro, yen, pound and developing Asia: geometric mean, equal weights, 100 at its start."""
    asia, yen, euro, pound = (
        np.log(table[name].to_numpy(dtype="float64"))
        for name in ("FED_ASIA_PER_USD", "FED_JPY_PER_USD", "FED_USD_PER_EUR", "FED_USD_PER_GBP")
    )
    values = (asia + yen - euro - pound) / 4
    return pd.Series(100 * np.exp(values - values[~np.isnan(values)][0]), index=table.index)


def _read(path: Path, columns: dict[str, tuple[str, SeriesUnit]], problems: list[str]) -> _Table:
    """One table by series name; what is wrong with it is added to `problems`."""
    data = path.read_bytes()
    empty = _Table(path.name, sha256_of(data), pd.DataFrame())
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{path.name}: not a CSV file in UTF-8: {error}")
        return empty
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    wanted = ["Scenario Name", "Date", *columns]
    if not rows or [cell.strip() for cell in rows[0]] != wanted:
        found = rows[0] if rows else []
        lost = [name for name in wanted if name not in found] or ["the columns' order"]
        problems.append(f"{path.name}: row 1: not the Federal Reserve's header; missing: {', '.join(lost)}")
        return empty
    days: list[dt.date] = []
    values: list[list[float]] = []
    before = len(problems)
    for number, row in enumerate(rows[1:], start=2):
        match = _QUARTER.match(row[1].strip()) if len(row) == len(wanted) else None
        if match is None:
            problems.append(f"{path.name}: row {number}: not {len(wanted)} cells with a quarter such as '2024 Q4'")
            continue
        day = dt.date(int(match[1]), 3 * int(match[2]) - 2, 1)
        if days and (day.year - days[-1].year) * 12 + day.month - days[-1].month != 3:
            problems.append(f"{path.name}: row {number}: {row[1]} does not follow the quarter before it")
        days.append(day)
        values.append([_number(cell, name, unit, f"{path.name}: row {number}", problems)
                       for cell, (name, unit) in zip(row[2:], columns.values(), strict=True)])  # fmt: skip
    if not values and len(problems) == before:
        problems.append(f"{path.name}: no quarter")
    names = pd.Index([name for name, _ in columns.values()])
    if len(problems) > before:
        return empty
    frame = pd.DataFrame(values, index=pd.DatetimeIndex(days, name="quarter"), columns=names)
    problems += [f"{path.name}: {name} has a gap inside its history" for name in frame if _gap(frame[name].to_numpy())]
    return _Table(path.name, sha256_of(data), frame)


def _number(cell: str, name: str, unit: SeriesUnit, where: str, problems: list[str]) -> float:
    if not cell.strip():
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if not math.isfinite(value) or (unit in ("price", "points") and value <= 0):
        problems.append(f"{where}: {name} is {cell!r}, not a number{' above zero' if unit != 'percent' else ''}")
        return math.nan
    return value


def _gap(values: np.ndarray) -> bool:
    held = np.flatnonzero(~np.isnan(values))
    return bool(len(held)) and bool(np.isnan(values[held[0] : held[-1] + 1]).any())


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def _write(folder: Path, name: str, data: bytes) -> None:
    """Write a file so that it is there in full or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}.", delete=False) as part:
        part.write(data)
    os.replace(part.name, folder / name)
