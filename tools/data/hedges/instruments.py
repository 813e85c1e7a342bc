"""Reads lists of instruments to hedge with: YAML with terms relative to the market of the day, or any table."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from finllm.errors import InputError
from finllm.tools.data.books.position import AssetClass, Exercise, Frozen, OptionType, Position
from finllm.tools.data.market import MarketStore
from finllm.tools.data.yaml_files import read_yaml

DEFAULT = Path(__file__).with_name("instruments.yaml")
Side = Literal["buy", "sell", "both"]
LOTS = 100_000
"""Lots of an instrument that may be traded, unless its list says otherwise."""
FRESH = 10
"""Calendar days after which a level of the VIX no longer says what options cost."""
VOLATILITY_DAYS = 60
"""Daily returns behind the volatility of an option whose list says 'market' where there is no fresh VIX."""
YEAR = 252
_SHARE = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*(%|bp)\s*$")
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Entry(Frozen):
    """One instrument as a list has it: the terms of one lot, relative to the market where a share or days say so.

    `strike`: a price, or a share of the underlying's such as 95%. `days`: calendar days to the expiry. `volatility`: a
    year, or `market`. `notional`: of a future whose price is not known. `cost`: of a round trip of one lot in
    `currency`, or a share of its notional (of an option: its premium). `carry`: what holding one lot earns in a year,
    as a decimal share of its notional. `most`: lots on either side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    id: str = Field(min_length=1, max_length=64)
    name: str | None = None
    asset_class: AssetClass
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    sector: str | None = None
    underlying: str | None = None
    multiplier: Positive | None = None
    notional: Positive | None = None
    market_value: Positive | None = None
    quantity: Positive | None = None
    price: Positive | None = None
    option_type: OptionType | None = None
    exercise: Exercise | None = None
    strike: str | None = None
    expiry: dt.date | None = None
    days: int | None = Field(None, gt=0)
    volatility: str | None = None
    duration: float | None = None
    convexity: float | None = None
    coupon: float | None = None
    maturity: dt.date | None = None
    yield_: float | None = Field(None, alias="yield")
    beta: float | None = None
    delta: float | None = None
    cost: str = "0"
    carry: float = 0.0
    sides: Side = "both"
    most: int = Field(LOTS, gt=0)

    @field_validator("cost", "strike", "volatility")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is None or value == "market" or _share(value) is not None:
            return value
        try:
            amount = float(value)
        except ValueError:
            amount = math.nan
        if not math.isfinite(amount) or amount < 0:
            raise ValueError(f"{value!r} is neither an amount nor a share such as 2bp or 95%")
        return value


class Entries(Frozen):
    """A list as a file has it."""

    instruments: tuple[Entry, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Instrument:
    """What may be traded: one lot as a position, what a round trip of it costs (an amount of its currency, or a share
    of its notional or premium), what it earns in a year, and how much of it may be traded on which side."""

    position: Position
    cost: float
    cost_share: float
    carry: float
    side: Side
    most: int
    note: str | None = None


def load_instruments(path: Path, market: MarketStore, as_of: dt.date) -> tuple[Instrument, ...]:
    """Read a list for the market at `as_of`: `.yaml`, or any table of positions, one lot a row, with the further
    columns cost, carry, sides and most.

    Errors: InputError naming the file and what is wrong; also for an id that is listed twice.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        listed = read_yaml(path, Entries, "list of instruments", needs="a list is a mapping with 'instruments'",
                           example=f"see {DEFAULT.name!r}, which comes with finllm")  # fmt: skip
        found = tuple(_resolved(one, market, as_of) for one in listed.instruments)
    else:
        found = tuple(_of_table(path))
    ids = [one.position.id for one in found]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise InputError(f"{path}: {twice[0]!r} is listed twice", fix="give each instrument an id of its own")
    return found


def _resolved(entry: Entry, market: MarketStore, as_of: dt.date) -> Instrument:
    """The entry with the strike, the expiry and the volatility of the day."""
    plain = entry.model_dump(by_alias=False, exclude_none=True, exclude={
        "notional", "strike", "days", "volatility", "cost", "carry", "sides", "most"})  # fmt: skip
    note = None
    if entry.notional is not None:
        plain["market_value"] = entry.notional
    elif entry.market_value is None:
        plain.setdefault("quantity", 1.0)
    if entry.days is not None:
        plain["expiry"] = as_of + dt.timedelta(days=entry.days)
    if entry.strike is not None:
        share = _share(entry.strike)
        spot = None if share is None else _spot(entry.underlying or "", market, as_of)
        if share is not None and spot is not None:
            plain["strike"] = round(share * spot, 2)
        elif share is None:
            plain["strike"] = float(entry.strike)
    if entry.volatility == "market":
        plain["volatility"], note = _volatility(entry.underlying or "", market, as_of)
    elif entry.volatility is not None:
        share = _share(entry.volatility)
        plain["volatility"] = float(entry.volatility) if share is None else share
    if plain.get("volatility") is None:
        plain.pop("volatility", None)
    return _instrument(Position.model_validate(plain), entry.cost, entry.carry, entry.sides, entry.most, note)


def _of_table(path: Path) -> list[Instrument]:
    from finllm.tools.data.books.load import load_portfolio

    found: list[Instrument] = []
    for one in load_portfolio(path).positions:
        tags = {name.strip().lower(): text for name, text in one.tags.items()}
        given = {name: tags[name] for name in ("cost", "carry", "sides", "most") if tags.get(name)}
        about: Mapping[str, Any] = {"id": one.id, "asset_class": one.asset_class, **given}
        try:
            entry = Entry.model_validate(about)
        except ValueError as error:
            why = str(error).splitlines()[-2].strip()
            fix = "cost is an amount or a share, sides is buy, sell or both, most a number"
            raise InputError(f"{path}: {one.id!r}: {why}", fix=fix) from error
        found.append(_instrument(one, entry.cost, entry.carry, entry.sides, entry.most, None))
    return found


def _instrument(position: Position, cost: str, carry: float, side: Side, most: int, note: str | None) -> Instrument:
    share = _share(cost)
    return Instrument(position, 0.0 if share is not None else float(cost), share or 0.0, carry, side, most, note)


def _share(text: str) -> float | None:
    found = _SHARE.match(text)
    return None if found is None else float(found[1]) / (100 if found[2] == "%" else 10_000)


def _spot(name: str, market: MarketStore, as_of: dt.date) -> float | None:
    try:
        return float(market.read(name, as_of).values.iloc[-1]) if name in market else None
    except InputError:
        return None


def _volatility(name: str, market: MarketStore, as_of: dt.date) -> tuple[float | None, str]:
    """A year's: the VIX where it is fresh, else that of the underlying's last returns; and which, in words."""
    try:
        seen = market.read("VIX", as_of)
        if seen.age_days <= FRESH:
            return float(seen.values.iloc[-1]) / 100, f"at a volatility of {float(seen.values.iloc[-1]):.1f} %, the VIX"
    except InputError:
        pass
    try:
        returns = market.read(name, as_of).values.pct_change().dropna().tail(VOLATILITY_DAYS)
    except InputError:
        return None, "no volatility is known"
    found = float(returns.std() * math.sqrt(YEAR))
    return found, f"at a volatility of {found:.1%}, that of the last {len(returns)} days, as no fresh VIX is known"
