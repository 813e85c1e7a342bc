"""Writes results as CSV, Parquet or Excel tables: exact to the cent, and no text is taken for a formula."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd

from finllm.errors import InputError

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

    from finllm.tools.pnl.backtest import Backtest
    from finllm.tools.pnl.outcome import EngineResult, ReverseResult

Format = Literal["csv", "parquet", "xlsx"]
FORMATS: tuple[Format, ...] = get_args(Format)

Cell = str | float | int | Decimal | bool | None

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A text cell that begins with one of these is run as a formula by spreadsheets that open a CSV file."""
_SHEET_ROWS = 1_048_576


@dataclass(frozen=True)
class Table:
    """Rows under named columns. USD is a Decimal in whole cents, text is text, and None is an empty cell."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def parse_formats(text: str) -> tuple[Format, ...]:
    """Formats written as `csv,parquet,xlsx`. Errors: InputError for another word, or none."""
    words = dict.fromkeys(word.strip().lower() for word in text.split(","))
    found: list[Format] = [one for one in FORMATS if one in words]
    unknown = [word for word in words if word not in FORMATS]
    if unknown:
        raise InputError(f"--format {text!r}: {unknown[0]!r} is not a format", fix=f"use {', '.join(FORMATS)}")
    return tuple(found)


def engine_tables(result: EngineResult) -> tuple[Table, ...]:
    """Every cut of a stress result, its horizons, shocks, liquidity cascade and what was left out."""
    usd = ("usd",)
    interval, liquidity = result.interval, result.liquidity
    summary: list[tuple[str, Cell]] = [
        ("as_of", result.as_of.isoformat()), ("horizon_days", result.horizon), ("book_value", result.book_value),
        ("gross_value", result.gross_value), ("total", result.total), ("total_share", result.share),
        ("interval_lower", interval and interval.lower),
        ("interval_upper", interval and interval.upper), ("interval_level", interval and interval.level),
        ("var_975_1d", result.var_975_1d and result.var_975_1d.loss),
        ("var_975_1d_after", result.var_975_1d_after and result.var_975_1d_after.loss),
        ("es_975_1d", result.es_975_1d and result.es_975_1d.loss),
        ("es_975_1d_after", result.es_975_1d_after and result.es_975_1d_after.loss),
        ("liquidity_es", liquidity and liquidity.total), ("mahalanobis", result.mahalanobis),
    ]  # fmt: skip
    return (
        Table("summary", ("what", "value"), tuple(summary)),
        _cut("by_position", ("position", *usd), result.by_position),
        _cut("by_factor", ("factor", *usd), result.by_factor),
        _cut("by_sector", ("sector", *usd), result.by_sector),
        _cut("by_direction", ("direction", *usd), result.by_direction),
        Table("by_horizon", ("days", "total", "lower", "upper"),
              tuple((row.horizon, row.total, row.lower, row.upper) for row in result.by_horizon)),
        Table("shocks", ("factor", "move", "unit", "origin", "sigma", "implied", "given_others", "lower", "upper",
                         "flags", "window"),
              tuple((row.factor, row.move, row.unit, row.origin, row.sigma, row.implied, row.given_others, row.lower,
                     row.upper, ", ".join(row.flags), row.window) for row in result.shocks)),
        Table("risk_by_position", ("position", "var_975_1d", "es_975_1d"), _parts(result, "position")),
        Table("risk_by_factor", ("factor", "var_975_1d", "es_975_1d"), _parts(result, "factor")),
        Table("liquidity", ("days", "es_10d", "scaled", "factors"),
              tuple((row.days, row.es_10d, row.scaled, ", ".join(row.factors))
                    for row in (liquidity.rows if liquidity else ()))),
        Table("left_out", ("position", "reason", "weight"),
              tuple((row.id, row.reason, row.weight) for row in result.exclusions)),
    )  # fmt: skip


def _parts(result: EngineResult, cut: Literal["position", "factor"]) -> tuple[tuple[Cell, ...], ...]:
    """What each adds to VaR and ES before the shocks."""
    if (found := result.components) is None:
        return ()
    var, shortfall = getattr(found, f"var_by_{cut}"), getattr(found, f"es_by_{cut}")
    return tuple((name, var.get(name), shortfall.get(name)) for name in dict.fromkeys((*var, *shortfall)))


def reverse_tables(result: ReverseResult) -> tuple[Table, ...]:
    """The answers, nearest first, and the factors' moves of each."""
    return (
        Table("answers", ("answer", "distance", "loss", "method", "price", "explanation"),
              tuple((at, one.distance, one.loss, one.method, one.price, one.explanation)
                    for at, one in enumerate(result.answers, start=1))),
        Table("moves", ("answer", "factor", "move", "unit", "sigma", "at_bound", "fixed"),
              tuple((at, move.factor, move.move, move.unit, move.sigma, move.at_bound, move.fixed)
                    for at, one in enumerate(result.answers, start=1) for move in one.moves)),
    )  # fmt: skip


def backtest_tables(result: Backtest) -> tuple[Table, ...]:
    """One row per window, and one per position in each."""
    return (
        Table("windows", ("window", "start", "end", "predicted", "realised", "book_value", "sign_right", "bias", "mae",
                          "rank", "rank_returns", "rank_naive"),
              tuple((one.window.id, one.window.start.isoformat(), one.window.end.isoformat(), one.predicted,
                     one.realised, one.book_value, one.sign_right, one.bias, one.mae, one.rank, one.rank_returns,
                     one.rank_naive) for one in result.windows)),
        Table("positions", ("window", "position", "sector", "market_value", "predicted", "realised", "predicted_return",
                            "realised_return"),
              tuple((one.window.id, row.id, row.sector, row.market_value, row.predicted, row.realised,
                     row.predicted_return, row.realised_return) for one in result.windows for row in one.positions)),
    )  # fmt: skip


def table_files(tables: Sequence[Table], formats: Sequence[Format], workbook: str) -> dict[str, bytes]:
    """File names and contents: one CSV and one Parquet file per table, one Excel workbook with a sheet per table.

    In CSV, a text that a spreadsheet would run as a formula gets an apostrophe in front. Errors: InputError for a table
    that has more rows than an Excel sheet.
    """
    files: dict[str, bytes] = {}
    if "csv" in formats:
        files |= {f"{table.name}.csv": _csv(table) for table in tables}
    if "parquet" in formats:
        files |= {f"{table.name}.parquet": _parquet(table) for table in tables}
    if "xlsx" in formats:
        files[f"{workbook}.xlsx"] = _excel(tables)
    return files


def _cut(name: str, columns: tuple[str, ...], gains: Mapping[str, Decimal]) -> Table:
    return Table(name, columns, tuple(gains.items()))


def _csv(table: Table) -> bytes:
    rows = [tuple(_plain(cell) for cell in row) for row in table.rows]
    frame = pd.DataFrame(rows, columns=pd.Index(table.columns), dtype=object)
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _plain(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    first = unicodedata.normalize("NFKC", cell[:1])  # spreadsheets of East Asia take full-width signs for plain ones
    return f"'{cell}" if first in _FORMULA_STARTS else cell


def _parquet(table: Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: _column([row[at] for row in table.rows]) for at, name in enumerate(table.columns)}
    out = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(values, type=kind) for name, (values, kind) in columns.items()}), out)
    return out.getvalue()


def _column(cells: list[Cell]) -> tuple[list[Cell], object]:
    """The cells and their Arrow type: cents as decimals; a column of mixed kinds as text."""
    import pyarrow as pa

    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {Decimal}:
        return cells, pa.decimal128(38, 2)
    if kinds <= {int, float} and float in kinds:
        return cells, pa.float64()
    if len(kinds) == 1:
        return cells, {int: pa.int64(), bool: pa.bool_(), str: pa.string()}[kinds.pop()]
    return [None if cell is None else str(cell) for cell in cells], pa.string()


def _excel(tables: Sequence[Table]) -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    for sheet in book.worksheets:
        book.remove(sheet)
    for table in tables:
        if len(table.rows) >= _SHEET_ROWS:
            raise InputError(f"table {table.name!r} has {len(table.rows)} rows, more than an Excel sheet holds",
                             fix="use --format parquet")  # fmt: skip
        _fill(book.create_sheet(table.name), table)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _fill(sheet: Worksheet, table: Table) -> None:
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    for at, name in enumerate(table.columns, start=1):
        sheet.cell(1, at, name).font = Font(bold=True)
    for row, cells in enumerate(table.rows, start=2):
        for at, value in enumerate(cells, start=1):
            if value is None:
                continue
            shown = ILLEGAL_CHARACTERS_RE.sub(" ", value) if isinstance(value, str) else value
            cell = sheet.cell(row, at, shown)
            if isinstance(shown, str):
                cell.data_type = "s"  # text stays text, even if it begins with '='
            elif isinstance(shown, Decimal):
                cell.number_format = "#,##0.00"
    sheet.freeze_panes = "A2"
    for at, name in enumerate(table.columns):
        longest = max([len(name), *(len(str(row[at])) for row in table.rows[:200])])
        sheet.column_dimensions[get_column_letter(at + 1)].width = min(60, longest + 2)
