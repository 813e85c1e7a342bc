"""Positions as a portfolio lists them: an instrument, how much of it, and the terms that it is revalued by."""

from __future__ import annotations

import datetime as dt
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

AssetClass = Literal[
    "equity", "index", "fund", "bond", "commodity", "fx", "gold", "volatility", "cash", "future", "option"
]
ASSET_CLASSES: tuple[AssetClass, ...] = get_args(AssetClass)
OptionType = Literal["call", "put"]
Exercise = Literal["European", "American"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Terms(Frozen):
    """What an instrument is and what it answers to; shared by a position and by a holding.

    `duration` in years, `convexity` in years², `beta` to the S&P 500. `delta` is the return per unit return of the
    factor, but for a volatility position its money of `currency` per VIX point. `gamma` is the change of beta or delta
    per unit return of the factor (P&L of value·½·gamma·r²), for a volatility position money per VIX point². `vega`:
    money of `currency` per VIX point.

    Contract terms: `underlying` is the id of the series or position that an option or a future is on, `strike` in its
    price, `multiplier` units of it in one contract; `volatility`, `coupon` and `yield` are decimals a year, `frequency`
    coupons a year, `price` the instrument's own, in `currency` (a bond's per 100 of nominal).
    """

    id: str
    asset_class: AssetClass
    currency: str = "USD"
    name: str | None = None
    duration: float | None = None
    convexity: float | None = None
    beta: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    underlying: str | None = None
    option_type: OptionType | None = None
    exercise: Exercise | None = None
    strike: float | None = None
    expiry: dt.date | None = None
    multiplier: float | None = None
    volatility: float | None = None
    coupon: float | None = None
    maturity: dt.date | None = None
    frequency: int | None = None
    day_count: str | None = None
    yield_: float | None = Field(default=None, alias="yield")
    tags: dict[str, str] = Field(default_factory=dict)


class Position(Terms):
    """One row of a portfolio: `quantity` in units (negative is short) or `market_value` in `currency`, or both.

    `price` is the instrument's own in `currency`, and `priced_on` the day that it or the market value is of; `fx` is
    what the file says one unit of `currency` is worth in the book's base currency.
    """

    quantity: float | None = None
    market_value: float | None = None
    sector: str | None = None
    price: float | None = None
    priced_on: dt.date | None = None
    fx: float | None = None


class Refused(Frozen):
    """A row of the file that is no position: why, and what it is worth, if that is known.

    `currency`: that of `market_value`, the book's base currency where it is None. It is no part of any result, and
    counts against the coverage of every one.
    """

    id: str
    row: int
    reason: str
    name: str | None = None
    market_value: float | None = None
    currency: str | None = None


class ReadColumn(Frozen):
    """How a column of the file was understood: the field that it holds, None where it is a tag, and why."""

    column: str
    field: str | None
    why: str


class Portfolio(Frozen):
    """A file of positions as it was read. `base_currency` is the one that it is in as a whole, where it says so."""

    name: str
    uri: str
    sha256: str
    positions: tuple[Position, ...]
    refused: tuple[Refused, ...] = ()
    columns: tuple[ReadColumn, ...] = ()
    notes: tuple[str, ...] = ()
    base_currency: str | None = None
