"""Reading a portfolio: any table, its columns understood, its rows positions, refused or told to be neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finllm.errors import InputError
from finllm.tools.data.books.amounts import values_are_in_base
from finllm.tools.data.books.columns import REQUIRED, Column, is_known, is_own, understand
from finllm.tools.data.books.fields import IDENTIFIERS, words
from finllm.tools.data.books.listed import Listed, look_over
from finllm.tools.data.books.mapping import Map, beside, load_map
from finllm.tools.data.books.position import Portfolio, ReadColumn, Refused
from finllm.tools.data.books.rows import Context, Rows, read_rows, united
from finllm.tools.data.books.values import Values, fill_constants, read_values
from finllm.tools.data.tables.reader import read_table

SETTLES = "run 'finllm portfolio check "
"""Begins a mend that is a command of its own."""
OPTIONS = ("--sheet", "--dates", "--decimal", "--set")
SHOWN = 3
"""How many of a kind are named before the others are counted."""


@dataclass(frozen=True)
class ReadBook:
    """A portfolio with what was seen as it was read: the rows of its positions, and what is doubtful of them, by id."""

    portfolio: Portfolio
    rows: dict[str, int]
    doubts: dict[str, str]
    map: Map


def load_portfolio(path: Path) -> Portfolio:
    """Read any table of positions, with the map beside it where there is one (see `read_book`)."""
    try:
        return read_book(path).portfolio
    except InputError as error:
        if SETTLES not in error.fix and any(option in error.fix for option in OPTIONS):
            raise InputError(error.message, fix=f"{error.fix}, to 'finllm portfolio check {path} --save-map', which "
                                                "settles it for every command") from error  # fmt: skip
        raise


def read_book(path: Path, given: Map | None = None) -> ReadBook:
    """Read any table of positions. `given` is the map to read it by; else the one beside it, if there is one.

    A row that is no position is refused alone. Errors: InputError for a file that is no table, lacks a column that
    every position needs, may be read in two ways, or of which every row is refused.
    """
    mapping, notes = given or Map(), []
    if given is None and beside(path).is_file():
        mapping = load_map(beside(path))
        notes.append(f"read by the map {beside(path).name!r} beside it")
    table = read_table(path, what="portfolio", sheet=mapping.sheet,
                       known=lambda text: text in mapping.columns or is_known(text))  # fmt: skip
    columns = understand(table, mapping)
    values = read_values(table, columns, mapping)
    _check_columns(path, table.header_row, columns, mapping, values.signs)
    own = is_own(table.header)
    listed = look_over(table, values, own)
    fill_constants(table, mapping, values)
    base, in_base = _base(values)
    tags = [one for one in columns if one.name and (one.field is None or one.field == "isin")]
    rows = read_rows(Context(table, values, listed, base, tags, own, in_base))
    _refuse_twice(path, united(rows, own))
    if not rows.positions:
        raise _nothing_left(path, rows.refused, listed)
    notes += [*table.notes, *values.notes, *listed.notes, *_base_note(values, base, in_base), *_said(rows)]
    portfolio = Portfolio(
        name=path.stem, uri=path.resolve().as_uri(), sha256=table.sha256,
        positions=tuple(position for _, position in rows.positions), refused=tuple(rows.refused),
        columns=tuple(ReadColumn(column=one.name, field=one.field, why=one.why) for one in columns),
        notes=tuple(notes), base_currency=base,
    )  # fmt: skip
    return ReadBook(portfolio, {one.id: number for number, one in rows.positions}, rows.doubts, mapping)


def summed_up(items: Sequence[str]) -> str:
    """The first few, and how many more: `AAPL, MSFT, XOM and 280 more`."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def _check_columns(
    path: Path, row: int, columns: Sequence[Column], mapping: Map, signs: dict[int, str]
) -> None:  # fmt: skip
    """Errors: InputError that lists what every position needs and no column holds."""
    held = {one.field for one in columns if one.field} | set(mapping.constants)
    problems: list[str] = []
    if not held & set(IDENTIFIERS):
        problems.append("no column 'id'; add it")
    if not held & {"quantity", "market_value", "value_base"}:
        problems.append("no column 'quantity' or 'market_value'; add one")
    units = any(one.unit for one in columns)
    tells = {"ticker", "isin", "duration", "coupon", "strike", "subclass", "name"}
    if not held & {"currency", "base_currency"} and not units:
        dollars = "$" in signs.values()
        if not signs or dollars:
            which = ", and '$' may be the dollar of the United States, Canada, Australia or others" if dollars else ""
            problems.append(f"no column 'currency'{which}; add it, or say which holds for all rows")
    if "asset_class" not in held and not held & tells:
        problems.append("no column 'asset_class'; add it")
    if problems:
        names = ", ".join(repr(one.name) for one in columns if one.name)
        if problems[0].startswith("no column 'currency'") and len(problems) == 1:
            mend = f"{SETTLES}{path} --set currency=USD --save-map', with the currency that it is in"
            raise InputError(f"{path}: row {row}: {problems[0]}", fix=f"{mend}: every command then reads it so")
        problems.append(f"its columns are {names[:300]}")
        raise InputError("\n".join(f"{path}: row {row}: {text}" for text in problems),
                         fix=f"name them {', '.join(REQUIRED)} and so on, or say which they are by --map MAP.yaml, or "
                             "what holds for all rows by --set currency=USD")  # fmt: skip


def _base(values: Values) -> tuple[str | None, bool]:
    """The currency that the file is in as a whole, if it says so, and whether its market values are in it."""
    known = words().currencies
    currencies = [text if text in known else "" for text in values.texts.get("currency", ())]
    stated = {text.upper() for text in values.texts.get("base_currency", ()) if text}
    base = stated.pop() if len(stated) == 1 else values.base
    if base is None and values.unit and any(one not in ("", values.unit) for one in currencies):
        base = values.unit
    if base is None and "fx" in values.numbers and currencies:
        at_par = {code for code, rate in zip(currencies, values.numbers["fx"], strict=True) if rate == 1 and code}
        base = at_par.pop() if len(at_par) == 1 else None
    numbers = values.numbers
    if (
        values.unit is None
        and len({*currencies} - {""}) > 1
        and {"quantity", "price", "market_value"} <= numbers.keys()
    ):
        seen = values_are_in_base(numbers["quantity"], numbers["price"], numbers["market_value"], currencies)
        if seen is not None and base in (None, seen):
            return seen, True
    return base if base in words().currencies else None, False


def _base_note(values: Values, base: str | None, in_base: bool) -> list[str]:
    if in_base:
        return [f"market values are in {base} in every row, as quantity × price tells"]
    return [f"the file's base currency is {base}"] if base else []


def _refuse_twice(path: Path, problems: Sequence[str]) -> None:
    if problems:
        raise InputError("\n".join([*(f"{path}: {text}" for text in problems[:SHOWN]),
                                    *([f"{path}: and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])]),
                         fix="merge the rows of each, or give them different ids")  # fmt: skip


def _nothing_left(path: Path, refused: Sequence[Refused], listed: Listed) -> InputError:
    if not refused:
        return InputError(f"{path}: holds no position: {summed_up(listed.notes)}", fix="add a row for each position")
    lines = [f"{path}: row {one.row}, {one.reason}" for one in refused[:SHOWN]]
    more = [f"{path}: and {len(refused) - SHOWN} more"] if len(refused) > SHOWN else []
    return InputError("\n".join([*lines, *more]), fix="correct the cells named; no row of the portfolio can be read")


def _said(rows: Rows) -> list[str]:
    """What was done with rows, each kind once; the refused and the doubtful."""
    notes = [f"{summed_up(list(dict.fromkeys(ids)))} {what}" for what, ids in rows.said.items()]
    notes += [f"{id!r} is doubtful: {why}" for id, why in list(rows.doubts.items())[:SHOWN]]
    if len(rows.doubts) > SHOWN:
        notes.append(f"and {len(rows.doubts) - SHOWN} more are doubtful")
    notes += [f"row {one.row}, {one.id!r}, is refused: {one.reason}" for one in rows.refused[:SHOWN]]
    if len(rows.refused) > SHOWN:
        notes.append(f"and {len(rows.refused) - SHOWN} more rows are refused")
    return notes
