"""Damaged books: never a traceback, never a row that vanishes, never a figure of an undamaged row in another unit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.books.load import ReadBook, read_book
from finllm.tools.data.books.position import Position

from .books import FLEX, FLEX_ROWS, GERMAN

OWN = """id,quantity,market_value,currency,asset_class,sector,duration,convexity,beta,delta
AAPL,1500,,USD,equity,Technology,,,,
FUND,,250000.5,USD,fund,Funds,,,0.75,
SIE,40,10000,EUR,equity,Industrials,,,1.1,
UST34,,250547,USD,bond,Government,6.7,53,,
BARS,,1000,USD,gold,Gold,,,,1
"""
LIST = """Holdings of a fund,,,,,,,,
,,,,,,,,
Ticker,ISIN,Name,Position,Px Last,Mkt Val (USD),Crncy,Cpn,Mod Dur
Equities,,,,,,,,
KO US Equity,US1912161007,COCA-COLA,500,70.5,"35,250",USD,,
SIE GY Equity,DE0007236101,SIEMENS,100,250,"29,000",EUR,,
T 4 1/4 11/15/34 Govt,US91282CLW90,US TREASURY,"100,000",100.5,"100,500",USD,4.25,6.7
JPM 5.35 06/01/34 Corp,US46647PDR47,JPMORGAN,"50,000",102.4,"51,200",USD,5.35,5.2
Total,,,,,"215,950",,,
"""
BOOKS = {"own": OWN, "flex": "\n".join([FLEX, *FLEX_ROWS]) + "\n", "list": LIST, "german": GERMAN}
HEADERS = {"own": 1, "flex": 1, "list": 3, "german": 4}
JUNK = st.sampled_from(
    ["", "-", "NaN", "inf", "1.234", "1,5", "12a", "#REF!", "(5)", "5%", "€ 5", "1e400", "01.02.2026", "USD", "\x07",
     "0", "-1", '"', "=1+1", "Total", "ÿ", "٣", "9" * 400]
)  # fmt: skip


def damage_cell(draw: st.DrawFn, lines: list[str], at: int, sign: str) -> None:
    cells = lines[at].split(sign)
    cells[draw(st.integers(0, len(cells) - 1))] = draw(JUNK)
    lines[at] = sign.join(cells)


def damage_line(draw: st.DrawFn, lines: list[str], at: int, sign: str) -> None:
    line = lines[at]
    where = draw(st.integers(0, len(line)))
    lines[at] = draw(st.sampled_from([
        line[:where], line[where:], line[:where] + draw(JUNK) + line[where:], line.replace(sign, draw(JUNK), 1),
        line.replace(".", ","), line.replace(sign, "|"), line + sign + "more", line[:where] + "\n" + line[where:],
    ]))  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, set[int], bool, bytes]:
    """A book's name, the lines of it that were touched, whether its end was cut off, and the bytes."""
    name = draw(st.sampled_from(sorted(BOOKS)))
    sign = ";" if name == "german" else ","
    lines = BOOKS[name].splitlines()
    touched: set[int] = set()
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(lines) - 1))
        touched.add(at)
        draw(st.sampled_from([damage_cell, damage_line]))(draw, lines, at, sign)
    text = "\n".join(lines) + "\n"
    data = text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
    cut = draw(st.integers(0, 9)) == 0
    if cut:
        data = data[: draw(st.integers(0, len(data)))]
    return name, touched, cut, data


def sizes(one: Position) -> tuple[object, ...]:
    return (one.currency, one.asset_class, one.quantity, one.market_value, one.price, one.fx, one.coupon, one.duration,
            one.multiplier)  # fmt: skip


def read(folder: Path, data: bytes) -> ReadBook | InputError:
    path = folder / "book.csv"
    path.write_bytes(data)
    try:
        return read_book(path)
    except InputError as error:
        return error


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged())
def test_damage_is_told_and_harms_no_other_row(
    tmp_path: Path, case: tuple[str, set[int], bool, bytes]
) -> None:  # fmt: skip
    name, touched, cut, data = case
    found = read(tmp_path, data)
    if isinstance(found, InputError):
        assert found.message
        assert found.fix
        return
    whole = read(tmp_path, BOOKS[name].encode())
    assert isinstance(whole, ReadBook)
    told = "\n".join(found.portfolio.notes)
    kept = {one.id: one for one in found.portfolio.positions}
    refused = {one.id for one in found.portfolio.refused}
    if any(at < HEADERS[name] for at in touched) or cut:
        return  # the header itself is another one, or the file ends early
    for position in whole.portfolio.positions:
        if whole.rows[position.id] - 1 in touched:
            continue
        assert position.id in kept or position.id in refused or position.id in told
        if position.id in kept and not re.search(f"{re.escape(position.id)}.* are added", told):
            assert sizes(kept[position.id]) == pytest.approx(sizes(position)), position.id
