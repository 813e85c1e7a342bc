"""Reading a portfolio from a table: its columns are finllm's own."""

from __future__ import annotations

import math
import re
from pathlib import Path

from finllm.errors import InputError
from finllm.tools.data.books.position import ASSET_CLASSES, Portfolio, Position
from finllm.tools.data.books.valuation import USED_BY
from finllm.tools.data.tables.cells import as_text
from finllm.tools.data.tables.reader import read_table

COLUMNS = (
    "id", "quantity", "market_value", "currency", "asset_class", "sector", "duration", "convexity", "beta", "delta",
    "gamma", "vega",
)  # fmt: skip
REQUIRED = ("id", "currency", "asset_class")

_BOUNDS = {
    "quantity": (-1e15, 1e15),
    "market_value": (-1e15, 1e15),
    "duration": (0, 100),
    "convexity": (-100, 5000),
    "beta": (-20, 20),
}


def load_portfolio(path: Path) -> Portfolio:
    """Read a CSV, Parquet or Excel portfolio.

    Errors: one InputError that lists every problem with file, row (from 1, the header) and column.
    """
    table = read_table(path, what="portfolio")
    header = list(table.header)
    problems = _header_problems(header)
    if problems:
        raise _refused(path, problems)
    positions: list[Position] = []
    first_row: dict[str, int] = {}
    for at, cells in zip(table.numbers, table.rows, strict=True):
        row = {name: as_text(cell) for name, cell in zip(header, cells, strict=True)}
        found, position = _read_row(row)
        if row["id"] in first_row and row["id"]:
            found.append(f"column 'id': {row['id']!r} is already in row {first_row[row['id']]}; merge the two")
        first_row.setdefault(row["id"], at)
        problems += [f"row {at}, {text}" for text in found]
        if position is not None:
            positions.append(position)
    if problems:
        raise _refused(path, problems)
    return Portfolio(name=path.stem, uri=path.resolve().as_uri(), sha256=table.sha256, positions=tuple(positions))


def _header_problems(header: list[str]) -> list[str]:
    problems = [f"row 1: column {name!r} appears twice" for name in sorted({n for n in header if header.count(n) > 1})]
    problems += [f"row 1: no column {name!r}; add it" for name in REQUIRED if name not in header]
    problems += [
        f"row 1: unknown column {name!r}; columns are {', '.join(COLUMNS)}" for name in header if name not in COLUMNS
    ]
    if not {"quantity", "market_value"} & set(header):
        problems.append("row 1: no column 'quantity' or 'market_value'; add one")
    return problems


def _read_row(row: dict[str, str]) -> tuple[list[str], Position | None]:
    """What is wrong with the row, and the position if nothing is."""
    problems: list[str] = []
    if not row["id"]:
        problems.append("column 'id': is empty; name the instrument")
    if not re.fullmatch(r"[A-Z]{3}", row["currency"]):
        problems.append(f"column 'currency': {row['currency']!r} is not a three-letter code such as 'USD'")
    if row["asset_class"] not in ASSET_CLASSES:
        problems.append(f"column 'asset_class': {row['asset_class']!r} is not one of {', '.join(ASSET_CLASSES)}")
    numbers: dict[str, float | None] = {}
    for name in ("quantity", "market_value", *USED_BY):
        numbers[name] = None
        if text := row.get(name, ""):
            try:
                numbers[name] = float(text)
            except ValueError:
                problems.append(f"column {name!r}: {text!r} is not a number; write 1234.5")
                continue
            low, high = _BOUNDS.get(name, (-math.inf, math.inf))
            if not math.isfinite(float(text)):
                problems.append(f"column {name!r}: {text!r} is not a finite number; correct it or leave it empty")
            elif not low <= float(text) <= high:
                problems.append(f"column {name!r}: {text} is not between {low} and {high}; correct it")
    if bool(row.get("quantity")) == bool(row.get("market_value")):
        which = "both are given" if row.get("quantity") else "neither is given"
        problems.append(f"columns 'quantity' and 'market_value': {which}; give exactly one")
    if row["asset_class"] == "bond" and not row.get("duration"):
        problems.append("column 'duration': a bond needs one, in years")
    if row["asset_class"] == "volatility" and not row.get("delta"):
        problems.append("column 'delta': a volatility position needs one, in USD per VIX point")
    if problems:
        return problems, None
    text = {name: row[name] for name in ("id", "currency", "asset_class")}
    return [], Position.model_validate({**text, **numbers, "sector": row.get("sector") or None})


def _refused(path: Path, problems: list[str]) -> InputError:
    count = f"the {len(problems)} cells named" if len(problems) > 1 else "the cell named"
    return InputError("\n".join(f"{path}: {text}" for text in problems), fix=f"correct {count}")
