"""Checking a portfolio's file: how it is understood, by which map, and the map that is kept beside it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finllm.errors import InputError
from finllm.sessions.inputs import last_day, open_market

if TYPE_CHECKING:
    from finllm.tools.data.books.check import CheckedBook
    from finllm.tools.data.books.mapping import Map


def check_portfolio(
    file: Path, map_file: Path | None = None, *, sheet: str | None = None, dates: str | None = None,
    decimal: str | None = None, constants: Sequence[str] = (), prices: Sequence[Path] = (),
    as_of: dt.date | None = None, save: bool = False,
) -> tuple[CheckedBook, Path | None]:  # fmt: skip
    """Read a portfolio and value it by its own figures, else at the last price by `as_of`; the map's path if `save`d.

    `map_file`, else the map beside the file, says how it is read; the options count before it. `as_of` is by default
    the last day of the file's prices, else of the market's. Errors: InputError.
    """
    from finllm.tools.data.books.check import check_book, last_priced
    from finllm.tools.data.books.load import read_book
    from finllm.tools.data.books.mapping import save_map

    given = _map(file, map_file, sheet, dates, decimal, constants)
    read = read_book(file, given)
    market = open_market(prices)
    day = as_of or last_priced(read) or last_day(market)
    saved = None
    if save:
        named = {one.column: one.field for one in read.portfolio.columns if one.field is not None}
        saved = save_map(file, read.map.model_copy(update={"columns": {**named, **read.map.columns}}))
    return check_book(read, market, day), saved


def _map(
    file: Path, map_file: Path | None, sheet: str | None, dates: str | None, decimal: str | None,
    constants: Sequence[str],
) -> Map | None:  # fmt: skip
    """The map that the options ask for; None where there are none, and the one beside the file counts."""
    from finllm.tools.data.books.mapping import Map, beside, load_map

    for name, text, known in (
        ("--dates", dates, ("day-first", "month-first")),
        ("--decimal", decimal, ("point", "comma")),
    ):
        if text is not None and text not in known:
            raise InputError(f"{name} {text!r} is not one of {', '.join(known)}", fix=f"write {name} {known[0]}")
    for text in constants:
        if "=" not in text:
            raise InputError(f"--set {text!r} is not FIELD=VALUE", fix="write it as --set currency=USD")
    if map_file is None and not constants and (sheet, dates, decimal) == (None, None, None):
        return None
    path = map_file or (beside(file) if beside(file).is_file() else None)
    found = load_map(path) if path is not None else Map()
    return found.over(dict(text.split("=", 1) for text in constants), sheet=sheet, dates=dates, decimal=decimal)
