"""The user's price files: a table of daily prices as series."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from pathlib import Path

import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.market.series import Series
from finllm.tools.data.tables.cells import blank
from finllm.tools.data.tables.reader import read_table


def read_price_file(path: Path) -> list[Series]:
    """Daily prices in a wide table: the first column is the date, every other one an instrument.

    A column may begin late or end early (NaN at its ends is dropped); a gap inside is an error. Errors: one InputError
    that lists every problem with its row or column. Rows are counted as in the file, from 1 with the header.
    """
    table = read_table(path, what="price file")
    if len(table.header) < 2:
        raise InputError(f"{path}: no instrument", fix="write the date first, then one column per instrument")
    header, body = table.header, table.rows
    problems: list[str] = []
    repeated = sorted({name for name in header[1:] if header.count(name) > 1})
    problems += [f"column {name!r} appears twice" for name in repeated]
    problems += [f"column {at + 1} has no name" for at, name in enumerate(header) if at and not name]
    days, bad_days = _days([row[0] for row in body])
    problems += bad_days
    found: list[Series] = []
    for at, name in enumerate(header[1:], start=1):
        prices, bad_cells = _prices(name, [row[at] for row in body], [row[0] for row in body])
        problems += bad_cells
        if not problems:
            values = pd.Series(prices, index=pd.DatetimeIndex(days), dtype="float64", name=name).dropna()
            found.append(Series(name, values, "price", "daily", path.resolve().as_uri(), table.sha256))
    if not problems and len(days) >= 5 and (typical := _spacing(days)) > 4:
        problems.append(f"prices are not daily: rows are typically {typical:g} days apart")
    if problems:
        raise InputError("\n".join(f"{path}: {text}" for text in problems), fix="correct the file")
    return found


def _days(cells: list[object]) -> tuple[list[pd.Timestamp], list[str]]:
    days: list[pd.Timestamp] = []
    problems: list[str] = []
    for row, cell in enumerate(cells, start=2):
        try:
            day = pd.to_datetime(str(cell).strip(), format="ISO8601").tz_localize(None).normalize()
        except ValueError:
            day = None
        if not isinstance(day, pd.Timestamp):
            problems.append(f"row {row}: {str(cell)!r} is not a date; write it as 2022-06-30")
            continue
        if days and day == days[-1]:
            problems.append(f"row {row}: date {day.date()} appears twice")
        elif days and day < days[-1]:
            problems.append(f"row {row}: date {day.date()} comes after {days[-1].date()}; sort the rows by date")
        days.append(day)
    return days, problems


def _spacing(days: list[pd.Timestamp]) -> float:
    """Typical number of calendar days between rows."""
    return statistics.median((after - before).days for before, after in pairwise(days))


def _prices(name: str, cells: list[object], labels: list[object]) -> tuple[list[float], list[str]]:
    """The column's prices, NaN where it has none yet or any more, and what is wrong with it."""
    prices: list[float] = []
    problems: list[str] = []
    for row, cell in enumerate(cells, start=2):
        text = str(cell).strip()
        try:
            price = math.nan if blank(cell) else float(text)
        except ValueError:
            problems.append(f"row {row}, column {name!r}: {text!r} is not a number")
            price = math.nan
        if math.isinf(price) or price <= 0:
            problems.append(f"row {row}, column {name!r}: price {text} is not positive and finite")
        prices.append(price)
    held = [at for at, price in enumerate(prices) if not math.isnan(price)]
    if not held:
        problems.append(f"column {name!r} holds no price")
    gaps = [at for at in range(held[0], held[-1]) if math.isnan(prices[at])] if held and not problems else []
    problems += [f"row {at + 2}, column {name!r}: no price on {labels[at]}; fill or remove that day" for at in gaps]
    return prices, problems
