"""Each row of a portfolio as a position, or why it is none."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, TypeVar

from finllm.tools.data.books.amounts import Amounts, settle
from finllm.tools.data.books.columns import Column
from finllm.tools.data.books.fields import IDENTIFIERS, is_government, plain, words
from finllm.tools.data.books.listed import Listed
from finllm.tools.data.books.position import ASSET_CLASSES, AssetClass, Position, Refused
from finllm.tools.data.books.symbols import Told, bond_told, future_told, is_isin, option_told, ticker_of
from finllm.tools.data.books.values import Values
from finllm.tools.data.tables.cells import as_text
from finllm.tools.data.tables.table import Table

T = TypeVar("T")
_CODE = re.compile(r"[A-Z]{3}|GBp|ZAc")
_KEPT = frozenset((*IDENTIFIERS[1:-1], "subclass"))
_SIZES = frozenset(("quantity", "market_value", "value_base"))
_SETTLED = ("quantity", "market_value", "value_base", "price", "fx", "multiplier")

_TICKER = re.compile(r"[A-Z0-9]{1,6}(?:[./ -][A-Z]{1,3})?")
_NOTHING = Told()
_TYPES = {"c": "call", "call": "call", "calls": "call", "kauf": "call", "p": "put", "put": "put", "puts": "put"}
_STYLES = {"american": "American", "a": "American", "us": "American", "amerikanisch": "American",
           "european": "European", "e": "European", "eu": "European", "europaisch": "European"}  # fmt: skip


@dataclass
class Rows:
    """Positions with the rows that they are of, what is doubtful of them by id, and the rows that are refused.

    `said` counts for how many rows something was done, by what it was, with the first of them.
    """

    positions: list[tuple[int, Position]] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    said: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str, id: str) -> None:
        self.said.setdefault(what, []).append(id)


@dataclass(frozen=True)
class Context:
    """What all rows of a file share: its columns' values, what its list tells, the base currency and the tags."""

    table: Table
    values: Values
    listed: Listed
    base: str | None
    tags: Sequence[Column]
    own: bool
    in_base: bool


def read_rows(context: Context) -> Rows:
    """Read every row that is no total, heading or remark."""
    found, values = Rows(), context.values
    count = len(context.table.rows)
    across = zip(_across(values.texts, count), _across(values.numbers, count), _across(values.days, count), strict=True)
    for at, (texts, numbers, days) in enumerate(across):
        if at not in context.listed.skipped:
            row = _Row(
                {name: text for name, text in zip(values.texts, texts, strict=True) if text},
                {name: one for name, one in zip(values.numbers, numbers, strict=True) if one == one},  # noqa: PLR0124
                {name: day for name, day in zip(values.days, days, strict=True) if day is not None},
                list(values.problems.get(at, ())),
            )
            _read_row(context, at, row, found)
    return found


def _across(columns: dict[str, list[T]], count: int) -> Iterable[tuple[T, ...]]:
    """The values of each row in turn, in the order of the columns."""
    return zip(*columns.values(), strict=True) if columns else repeat((), count)


@dataclass
class _Row:
    """One row: its values by field, what is empty left out, and what is wrong with it."""

    text: dict[str, str]
    number: dict[str, float]
    day: dict[str, dt.date]
    problems: list[str]


def _read_row(context: Context, at: int, row: _Row, found: Rows) -> None:
    id, keyed = _identity(row)
    number = context.table.numbers[at]
    if not (id.isalnum() or any(map(str.isalnum, id))) or id in ("nan", "null", "none", "#N/A"):
        id = ""
        row.problems.append("column 'id': is empty; name the instrument")
    kind = _asset_class(context, row, at, id, keyed, found)
    told = _terms(row, kind, id)
    if kind is not None:
        _needs(row, kind, told)
    currency = _currency(context, row, at)
    amounts = _amounts(context, row, kind, told, currency, id, found)
    if row.problems or amounts is None or kind is None or currency is None:
        reason = "; ".join(dict.fromkeys(row.problems))
        worth, told_in = _worth(row, amounts, currency)
        found.refused.append(Refused(id=id or "?", row=number, reason=reason, name=row.text.get("name"),
                                     market_value=worth, currency=told_in))  # fmt: skip
        return
    if amounts.doubt:
        found.doubts[id] = amounts.doubt
    if kind == "bond" and "sector" not in row.text and _is_government(context, row, at):
        row.text["sector"] = "Government"
        found.note("are bonds of a government by class or name: no credit spread moves them", id)
    found.positions.append((number, _position(context, row, at, id, kind, told, amounts)))


def _identity(row: _Row) -> tuple[str, AssetClass | None]:
    """The name that a position goes by, and the class of asset that a Bloomberg ticker tells."""
    own = row.text.get("id", "")
    if own and "ticker" not in row.text and " " not in own:
        return own, None
    keyed = None
    ticker = ""
    if written := row.text.get("ticker"):
        ticker, keyed = ticker_of(written)
    own = " ".join(row.text.get("id", "").split())
    if own and not keyed and " " in own:
        own, keyed = ticker_of(own)
    others = (row.text.get(name, "") for name in IDENTIFIERS[2:])
    return own or ticker or next((one for one in others if one), ""), keyed


def _asset_class(
    context: Context, row: _Row, at: int, id: str, keyed: AssetClass | None, found: Rows
) -> AssetClass | None:
    known = words().asset_classes
    if written := row.text.get("asset_class"):
        kind = written if written in ASSET_CLASSES else known.get(plain(written))
        if kind is None:
            row.problems.append(f"column 'asset_class': {written!r} is not one of {', '.join(ASSET_CLASSES)}")
            return None
        narrower = row.text.get("subclass") if kind == "equity" else None
        return "fund" if narrower and known.get(plain(narrower)) == "fund" else kind
    heading = known.get(plain(context.listed.groups.get(at, "")))
    if "asset_class" in context.values.texts and context.own:
        row.problems.append(f"column 'asset_class': '' is not one of {', '.join(ASSET_CLASSES)}")
        return None
    told = _by_terms(row, id)
    kind = told or keyed or heading or known.get(plain(row.text.get("subclass", "")))
    if kind is None and _is_cash(id, row):
        kind = "cash"
    if kind is None and (is_isin(row.text.get("isin", "")) or _TICKER.fullmatch(id)) and "quantity" in row.number:
        found.note(
            "have no class of asset and are taken as equities, as they have a ticker or an ISIN and a quantity", id
        )
        return "equity"
    if kind is None:
        row.problems.append("nothing tells its class of asset; add a column 'asset_class'")
    elif "asset_class" not in context.values.texts:
        found.note(f"are taken as {kind} by their {'terms' if told else 'ticker, heading or name'}", id)
    return kind


def _by_terms(row: _Row, id: str) -> AssetClass | None:
    if option_told(id) or ("strike" in row.number and "option_type" in row.text):
        return "option"
    name = row.text.get("name", "")
    if {"coupon"} <= row.number.keys() and ("maturity" in row.day or "duration" in row.number):
        return "bond"
    return "bond" if "duration" in row.number or bond_told(id) or bond_told(name) else None


def _is_cash(id: str, row: _Row) -> bool:
    name = plain(row.text.get("name", id))
    kind = words().asset_classes.get(name)
    return id in words().currencies or kind == "cash" or name.startswith("cash ") or name.endswith("money market")


def _is_government(context: Context, row: _Row, at: int) -> bool:
    told = (row.text.get(name, "") for name in ("asset_class", "subclass", "ticker", "id", "name"))
    return any(map(is_government, told)) or is_government(context.listed.groups.get(at, ""))


def _terms(row: _Row, kind: AssetClass | None, id: str) -> Told:
    """What the symbol or the name spells out, where the columns do not say it."""
    name = row.text.get("name", "")
    if kind == "option":
        return option_told(id) or option_told(row.text.get("ticker", "")) or _NOTHING
    if kind == "future":
        return future_told(id) or future_told(row.text.get("ticker", "")) or _NOTHING
    if kind == "bond":
        return bond_told(id) or bond_told(row.text.get("ticker", "")) or bond_told(name) or _NOTHING
    return _NOTHING


def _needs(row: _Row, kind: AssetClass, told: Told) -> None:
    """What a class of asset cannot be stressed without, and words of contracts that are none."""
    if kind == "option":
        for name, known in (("option_type", _TYPES), ("exercise", _STYLES)):
            if (written := row.text.get(name)) and plain(written) not in known:
                named = ", ".join(sorted(set(known.values())))
                row.problems.append(f"column {name!r}: {written!r} is not one of {named}")
    if kind == "bond" and "duration" not in row.number:
        terms = "coupon" in row.number or told.coupon is not None
        repaid = told.maturity or row.day.get("maturity") or row.day.get("expiry")
        valued = row.number.keys() & {"yield", "price"} or {"quantity", "market_value"} <= row.number.keys()
        if not (terms and repaid and valued):
            row.problems.append(
                "column 'duration': a bond needs one, in years, or its coupon, maturity and yield or price"
            )
    if kind == "volatility" and "delta" not in row.number:
        row.problems.append("column 'delta': a volatility position needs one, in USD per VIX point")


def _currency(context: Context, row: _Row, at: int) -> str | None:
    """The currency of a row: its own, else the one beside or above its figures, else that of the whole file."""
    written = row.text.get("currency", "")
    if written in words().currencies:
        return written
    code = written if _CODE.fullmatch(written) else written.upper() if written.upper() in words().currencies else None
    if code is None and not written:
        signs = {"€": "EUR", "£": "GBP", "₹": "INR", "₩": "KRW"}
        beside = context.values.signs.get(at, "")
        code = beside if beside in words().currencies else signs.get(beside) or context.values.unit
        if code is None and not context.own and "currency" not in context.values.texts:
            code = context.base
    if code is None:
        row.problems.append(f"column 'currency': {written!r} is not a three-letter code such as 'USD'")
    return code


def _amounts(
    context: Context, row: _Row, kind: AssetClass | None, told: Told, currency: str | None, id: str, found: Rows
) -> Amounts | None:
    """How much of it there is and what it is worth, each held against the other."""
    if (
        "side" in row.text
        and _side(row) < 0
        and any(row.number.get(name, 0) > 0 for name in ("quantity", "market_value", "value_base"))
    ):
        for name in ("quantity", "market_value", "value_base"):
            if name in row.number:
                row.number[name] = -abs(row.number[name])
        found.note("are short by their column, and their figures are taken as negative", id)
    if row.number.keys().isdisjoint(_SIZES):
        row.problems.append("columns 'quantity' and 'market_value': neither is given; give one")
        return None
    if kind is None or currency is None:
        return None
    amounts = settle(row.number, kind, currency, told.multiplier, id, row.text.get("name", ""), context.base,
                     context.values.unit, context.in_base)  # fmt: skip
    row.problems += amounts.problems
    for what in amounts.said:
        found.note(what, id)
    return amounts


def _side(row: _Row) -> int:
    written = row.text["side"]
    side = words().sides.get(plain(written) or written)
    if side is None:
        row.problems.append(f"column 'side': {written!r} is neither long nor short")
    return side or 1


def _worth(row: _Row, amounts: Amounts | None, currency: str | None) -> tuple[float | None, str | None]:
    """What a refused row is worth, if the file says so, and in which currency: None is the base currency."""
    if "value_base" in row.number:
        return row.number["value_base"], None
    if amounts is not None and amounts.market_value is not None and amounts.fx is not None:
        return amounts.market_value * amounts.fx, None
    value = row.number.get("market_value")
    if value is not None and "fx" in row.number:
        return value * row.number["fx"], None
    return (None, None) if currency is None else (value, currency)


def _position(
    context: Context, row: _Row, at: int, id: str, kind: AssetClass, told: Told, amounts: Amounts
) -> Position:  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in row.number.items() if name not in _SETTLED}
    if "frequency" in given:
        given["frequency"] = int(given["frequency"])
    days = row.day
    if kind == "bond" and "maturity" not in days and "expiry" in days:
        days["maturity"] = days.pop("expiry")
    if kind in ("option", "future") and "expiry" not in days and "maturity" in days:
        days["expiry"] = days.pop("maturity")
    given |= days
    if told is not _NOTHING:
        spelt = ("underlying", "strike", "expiry", "coupon", "maturity")
        given = {name: getattr(told, name) for name in spelt if getattr(told, name) is not None} | given
    if kind == "option":
        given["option_type"] = _TYPES.get(plain(row.text.get("option_type", ""))) or told.option_type
        given["exercise"] = _STYLES.get(plain(row.text.get("exercise", "")))
    for name in ("name", "underlying", "day_count", "sector"):
        if name in row.text:
            given[name] = row.text[name]
    given |= {"quantity": amounts.quantity, "market_value": amounts.market_value}
    if amounts.price is not None or amounts.fx is not None or amounts.multiplier is not None:
        given |= {"price": amounts.price, "fx": amounts.fx, "multiplier": amounts.multiplier}
    if tags := _tags(context, row, at):
        given["tags"] = tags
    return Position.model_validate({"id": id, "asset_class": kind, "currency": amounts.currency, **given})


def _tags(context: Context, row: _Row, at: int) -> dict[str, str]:
    cells = context.table.rows[at]
    tags = {column.name: as_text(cells[column.at]) for column in context.tags if cells[column.at] is not None}
    for name in _KEPT & row.text.keys():
        tags.setdefault(name, row.text[name])
    if at in context.listed.groups:
        tags.setdefault("group", context.listed.groups[at])
    return tags


def united(rows: Rows, own: bool) -> list[str]:
    """Several rows of one instrument become one position of their sum; what differs more than in size is refused.

    In finllm's own form a second row is a mistake: the problems are returned.
    """
    counts = Counter(position.id for _, position in rows.positions)
    if max(counts.values(), default=0) < 2:
        return []
    first: dict[str, tuple[int, Position]] = {}
    problems: list[str] = []
    for number, position in rows.positions:
        if position.id not in first:
            first[position.id] = (number, position)
            continue
        before, other = first[position.id]
        if own:
            problems.append(f"row {number}, column 'id': {position.id!r} is already in row {before}; merge the two")
        elif (sum_ := _sum(other, position)) is not None:
            first[position.id] = (before, sum_)
            rows.note("stand in several rows, which are added", position.id)
        else:
            reason = f"{position.id!r} is already in row {before}, with other terms; give the two different names"
            rows.refused.append(Refused(id=position.id, row=number, reason=reason, name=position.name,
                                        market_value=_value_in_base(position)))  # fmt: skip
    rows.positions = list(first.values())
    return problems


def _sum(one: Position, other: Position) -> Position | None:
    sizes = {"quantity", "market_value", "tags", "price", "sector", "name", "fx", "delta", "gamma", "vega"}
    if one.model_dump(exclude=sizes) != other.model_dump(exclude=sizes):
        return None
    added: dict[str, Any] = {}
    for name in ("quantity", "market_value"):
        a, b = getattr(one, name), getattr(other, name)
        if (a is None) != (b is None):
            return None
        added[name] = None if a is None else a + b
    if one.asset_class == "volatility":  # its greeks are amounts of money, which add
        added |= {name: None if getattr(one, name) is None or getattr(other, name) is None
                  else getattr(one, name) + getattr(other, name) for name in ("delta", "gamma", "vega")}  # fmt: skip
    elif one.model_dump(include={"delta", "gamma", "vega"}) != other.model_dump(include={"delta", "gamma", "vega"}):
        return None
    return one.model_copy(update=added)


def _value_in_base(position: Position) -> float | None:
    if position.market_value is None:
        return None
    return position.market_value * position.fx if position.fx is not None else None
