"""Portfolios and limits: their files, and the book that a portfolio is worth at `as_of`."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finllm.errors import InputError
from finllm.tools.data.market import MarketStore, read_table
from finllm.tools.data.unique_keys import refuse_repeated_keys
from finllm.tools.evidence import sha256_of

AssetClass = Literal["equity", "index", "bond", "commodity", "fx", "gold", "volatility"]
ASSET_CLASSES: tuple[AssetClass, ...] = get_args(AssetClass)

COLUMNS = (
    "id", "quantity", "market_value", "currency", "asset_class", "sector", "duration", "convexity", "beta", "delta",
    "gamma", "vega",
)  # fmt: skip
REQUIRED = ("id", "currency", "asset_class")
MIN_HISTORY = 61
"""Days shared with the S&P 500 (60 returns) below which a position's beta is not estimated."""
MAX_PRICE_AGE = 400
"""Calendar days after which a price no longer values a position."""

_BOUNDS = {
    "quantity": (-1e15, 1e15),
    "market_value": (-1e15, 1e15),
    "duration": (0, 100),
    "convexity": (-100, 5000),
    "beta": (-20, 20),
}
_USED_BY: dict[str, tuple[AssetClass, ...]] = {
    "duration": ("bond",),
    "convexity": ("bond",),
    "beta": ("equity", "index"),
    "delta": ("commodity", "fx", "gold", "volatility"),
    "gamma": ("equity", "index", "commodity", "fx", "gold", "volatility"),
    "vega": ("equity", "index", "commodity", "fx", "gold"),
}
_FILE_EXAMPLE = "see 'finllm scenarios list' for the shipped portfolio"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Position(_Frozen):
    """One row of a portfolio. Exactly one of `quantity` (units; negative is short) and `market_value` (in `currency`).

    `duration` in years, `convexity` in years², `beta` to the S&P 500. `delta` is the return per unit return of the
    factor, but for a volatility position its USD per VIX point. `gamma` is the change of beta or delta per unit return
    of the factor (P&L of value·½·gamma·r²), for a volatility position USD per VIX point². `vega`: USD per VIX point.
    """

    id: str
    currency: str
    asset_class: AssetClass
    quantity: float | None = None
    market_value: float | None = None
    sector: str | None = None
    duration: float | None = None
    convexity: float | None = None
    beta: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None


class Portfolio(_Frozen):
    name: str
    uri: str
    sha256: str
    positions: tuple[Position, ...]


class Holding(_Frozen):
    """A position with its value. `market_value` in USD; `price` in USD of `price_date`, if it was valued by quantity.

    `series` names the history that its own returns come from, if it has one that the market store can use.
    """

    id: str
    asset_class: AssetClass
    sector: str
    market_value: float
    quantity: float | None = None
    price: float | None = None
    price_date: dt.date | None = None
    series: str | None = None
    duration: float | None = None
    convexity: float | None = None
    beta: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None


class Exclusion(_Frozen):
    """A position left out. `weight`: its share of the gross value of all valued positions, None if it has no value."""

    id: str
    reason: str
    weight: float | None


class Book(_Frozen):
    """What a portfolio is worth at `as_of`, in USD: what is held, what was left out and why, what to know about it."""

    name: str
    as_of: dt.date
    sha256: str
    holdings: tuple[Holding, ...]
    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]

    @property
    def value(self) -> float:
        """Net market value, USD."""
        return math.fsum(holding.market_value for holding in self.holdings)


Usd = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]


class Limits(BaseModel):
    """Largest losses allowed, as positive USD. The key `each` stands for every name that has no limit of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: int | str
    loss_by_factor: dict[str, Usd] = {}
    loss_by_sector: dict[str, Usd] = {}
    loss_by_position: dict[str, Usd] = {}
    var_975_1d: Usd | None = None
    restricted: list[str] = []


def load_portfolio(path: Path) -> Portfolio:
    """Read a CSV, Parquet or Excel portfolio.

    Errors: one InputError that lists every problem with file, row (from 1, the header) and column.
    """
    rows, data = read_table(path, "portfolio")
    header = ["" if cell is None else str(cell).strip() for cell in rows[0]]
    problems = _header_problems(header)
    if problems:
        raise _refused(path, problems)
    positions: list[Position] = []
    first_row: dict[str, int] = {}
    for at, cells in enumerate(rows[1:], start=2):
        row = {name: _clean(cell) for name, cell in zip(header, cells, strict=True)}
        found, position = _read_row(row)
        if row["id"] in first_row and row["id"]:
            found.append(f"column 'id': {row['id']!r} is already in row {first_row[row['id']]}; merge the two")
        first_row.setdefault(row["id"], at)
        problems += [f"row {at}, {text}" for text in found]
        if position is not None:
            positions.append(position)
    if problems:
        raise _refused(path, problems)
    return Portfolio(name=path.stem, uri=path.resolve().as_uri(), sha256=sha256_of(data), positions=tuple(positions))


def load_limits(path: Path) -> Limits:
    """Read a YAML file of limits. Errors: InputError naming file, line and field."""
    try:
        text = path.read_text(encoding="utf-8")
        node, data = yaml.compose(text, Loader=yaml.CSafeLoader), yaml.load(text, Loader=yaml.CSafeLoader)
        refuse_repeated_keys(node)
    except FileNotFoundError as error:
        raise InputError(f"no limits at {str(path)!r}", fix="correct the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="give a UTF-8 YAML file") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise InputError(f"{path}:{line}: not YAML: {error}", fix="correct that line") from error
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{path}:1: limits are a mapping with 'version' and the limits", fix=_FILE_EXAMPLE)
    try:
        return Limits.model_validate(data)
    except ValidationError as error:
        raise InputError(
            "\n".join(
                f"{path}:{_line(node, one['loc'])}: field {'.'.join(map(str, one['loc']))!r}: {one['msg']}"
                for one in error.errors()
            ),
            fix="correct the limits",
        ) from error


def value_portfolio(portfolio: Portfolio, market: MarketStore, as_of: dt.date) -> Book:
    """Value every position in USD at `as_of`, after the close, or leave it out with the reason and its weight.

    Errors: InputError if no position is left.
    """
    notes = ["values are in USD; no FX series is given, so positions in other currencies are left out"]
    kept: list[Holding] = []
    dropped: list[tuple[str, str, float | None]] = []
    for position in portfolio.positions:
        holding, reason = _valued(position, market, as_of)
        if holding is None:
            dropped.append((position.id, reason, None))
            continue
        if reason := _unusable(holding, market, as_of):
            dropped.append((position.id, reason, holding.market_value))
            continue
        kept.append(holding)
        notes += _notes(position, holding, as_of)
    known = [holding.market_value for holding in kept] + [value for *_, value in dropped if value is not None]
    gross = math.fsum(abs(value) for value in known)
    exclusions = tuple(
        Exclusion(id=name, reason=reason, weight=None if value is None else abs(value) / gross if gross else 0.0)
        for name, reason, value in dropped
    )
    if not kept:
        reasons = "; ".join(f"{one.id}: {one.reason}" for one in exclusions)
        raise InputError(f"nothing of portfolio {portfolio.name!r} can be valued at {as_of} ({reasons})",
                         fix="give market values with betas, a price file, or another 'as_of'")  # fmt: skip
    return Book(name=portfolio.name, as_of=as_of, sha256=portfolio.sha256, holdings=tuple(kept),
                exclusions=exclusions, notes=tuple(notes))  # fmt: skip


def _valued(position: Position, market: MarketStore, as_of: dt.date) -> tuple[Holding | None, str]:
    """The position with its value, or why it has none."""
    if position.currency != "USD":
        return None, f"in {position.currency}, and there is no FX series"
    value, price, price_date = position.market_value, None, None
    if position.quantity is not None:
        if position.id not in market:
            return None, "given by quantity, and there is no price series of that name"
        try:
            seen = market.read(position.id, as_of)
        except InputError as error:
            return None, error.message
        if seen.series.unit != "price":
            return None, f"the series {position.id!r} is in {seen.series.unit}, which is not a price"
        if seen.age_days > MAX_PRICE_AGE:
            return None, f"its last price, of {seen.last}, is {seen.age_days} days old"
        price, price_date = float(seen.values.iloc[-1]), seen.last
        value = position.quantity * price
    assert value is not None
    has_history = position.asset_class in ("equity", "index") and (
        market.shared_days(position.id, "SP500", as_of) >= MIN_HISTORY
    )
    return Holding(
        id=position.id, asset_class=position.asset_class, sector=position.sector or position.asset_class,
        market_value=value, quantity=position.quantity, price=price, price_date=price_date,
        series=position.id if has_history else None, duration=position.duration, convexity=position.convexity,
        beta=position.beta, delta=position.delta, gamma=position.gamma, vega=position.vega,
    ), ""  # fmt: skip


def _unusable(holding: Holding, market: MarketStore, as_of: dt.date) -> str:
    """Why a valued holding cannot be stressed, or nothing."""
    if holding.asset_class not in ("equity", "index") or holding.series or holding.beta is not None:
        return ""
    days = market.shared_days(holding.id, "SP500", as_of)
    had = (
        f"{days} days of history shared with the S&P 500 (at least {MIN_HISTORY} are needed)" if days else "no history"
    )
    return f"{had} and no beta"


def _notes(position: Position, holding: Holding, as_of: dt.date) -> Iterable[str]:
    if holding.price_date and (age := (as_of - holding.price_date).days) > 7:
        yield f"{holding.id!r} is valued at its last price, of {holding.price_date}, {age} days before {as_of}"
    for field, classes in _USED_BY.items():
        if getattr(position, field) is not None and position.asset_class not in classes:
            yield f"{field} of {position.id!r} is not used: only {' and '.join(classes)} positions have one"


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
    for name in ("quantity", "market_value", *_USED_BY):
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


def _clean(cell: object) -> str:
    """The cell as text. An empty cell is empty, but a written NaN stays, so that it is reported and not dropped."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)) or str(cell) == "<NA>":  # empty in Parquet
        return ""
    return str(cell).strip()


def _refused(path: Path, problems: list[str]) -> InputError:
    count = f"the {len(problems)} cells named" if len(problems) > 1 else "the cell named"
    return InputError("\n".join(f"{path}: {text}" for text in problems), fix=f"correct {count}")


def _line(node: Any, loc: tuple[int | str, ...]) -> int:
    line = node.start_mark.line + 1
    for part in loc:
        found = next(
            ((key, value) for key, value in getattr(node, "value", ()) if key.value == str(part)), None
        ) if isinstance(node, yaml.MappingNode) else None  # fmt: skip
        if found is None:
            return line
        line, node = found[0].start_mark.line + 1, found[1]
    return line
