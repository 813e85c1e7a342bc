"""What an identifier tells by itself: check digits, Bloomberg's keys, the terms that symbols of contracts spell out."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from functools import cache

from finllm.tools.data.books.fields import contracts, words
from finllm.tools.data.books.position import AssetClass, OptionType

_ISIN = re.compile(r"[A-Z]{2}[A-Z0-9]{9}\d")
_CUSIP = re.compile(r"[A-Z0-9*@#]{8}\d")
_US = ("US", "UN", "UW", "UQ", "UA", "UP", "UR", "UV")
_OCC = re.compile(r"([A-Z][A-Z0-9.]{0,5}) *(\d{2})(\d{2})(\d{2})([CP])(\d{8})")
_SHORT = re.compile(r"-?([A-Z]{1,6})(\d{2})(\d{2})(\d{2})([CP])(\d{1,5}(?:\.\d+)?)")
_LISTED = re.compile(r"([A-Z0-9]{1,8})(?: [A-Z]{2})? (\d{1,2})/(\d{1,2})/(\d{2}|\d{4}) ([CP]) ?(\d+(?:\.\d+)?)(?: .*)?")
_FUTURE = re.compile(r"([A-Z0-9]{1,4}?)([FGHJKMNQUVXZ])(\d{1,2})(?: .*)?")
_COUPON = re.compile(r"(\d+(?:\.\d+)?)(?: (\d+)/(\d+))? (?:V?\d\d? )?(\d{1,2})/(\d{1,2})/(\d{2}|\d{4})")


@dataclass(frozen=True)
class Told:
    """What a symbol or name says; what it does not say is None. `multiplier` is the exchange's for such contracts."""

    asset_class: AssetClass | None = None
    underlying: str | None = None
    option_type: OptionType | None = None
    strike: float | None = None
    expiry: dt.date | None = None
    multiplier: float | None = None
    coupon: float | None = None
    maturity: dt.date | None = None


def is_isin(text: str) -> bool:
    """Whether it is an ISIN, by its check digit (ISO 6166: the Luhn sum over letters as two-digit numbers)."""
    if not _ISIN.fullmatch(text):
        return False
    digits = "".join(str(int(sign, 36)) for sign in text)
    return sum(sum(divmod(int(one) * (1 + at % 2), 10)) for at, one in enumerate(reversed(digits))) % 10 == 0


def is_cusip(text: str) -> bool:
    """Whether it is a CUSIP, by its check digit (ANSI X9.6: double every second value, sum the digits)."""
    if not _CUSIP.fullmatch(text):
        return False
    values = [int(one, 36) if one.isalnum() else 36 + "*@#".index(one) for one in text[:8]]
    total = sum(sum(divmod(value * (1 + at % 2), 10)) for at, value in enumerate(values))
    return (10 - total % 10) % 10 == int(text[8])


def ticker_of(text: str) -> tuple[str, AssetClass | None]:
    """A ticker without Bloomberg's key and, of a share listed in the United States, without the exchange; the class
    that the key tells: `AAPL US Equity` is AAPL, an equity; `SAP GY Equity` is SAP GY.
    """
    head, _, last = text.rpartition(" ")
    kind = words().yellow_keys.get(last.lower()) if head else None
    if kind is None:
        return " ".join(text.split()), None
    name, _, exchange = head.rpartition(" ")
    bare = name if kind == "equity" and name and exchange in _US else head
    if kind == "index" and _LISTED.fullmatch(bare):
        kind = "option"
    elif kind == "equity" and _LISTED.fullmatch(head):
        kind, bare = "option", head
    elif kind == "index" and _FUTURE.fullmatch(bare) and any(sign.isdigit() for sign in bare[-2:]):
        kind = "future" if root_of(bare) in contracts()["futures"] else "index"
    return " ".join(bare.split()), kind


def root_of(symbol: str) -> str | None:
    """The root of a future's symbol: ES of ESZ6; None for another text."""
    match = _FUTURE.fullmatch(symbol)
    return match[1] if match else None


@cache
def option_told(text: str) -> Told | None:
    """The terms in an option's symbol: the OCC's (SPY 261218P00640000), or Bloomberg's (SX5E 12/18/26 P5400)."""
    table = contracts()
    if match := _OCC.fullmatch(text):
        day = _day(match[2], match[3], match[4])
        units = table["options"].get(match[1], table["us_options"])
        return day and Told("option", match[1], _type(match[5]), int(match[6]) / 1000, day, units)
    if match := _SHORT.fullmatch(text):
        day = _day(match[2], match[3], match[4])
        units = table["options"].get(match[1], table["us_options"])
        return day and Told("option", match[1], _type(match[5]), float(match[6]), day, units)
    if match := _LISTED.fullmatch(text):
        day = _day(match[4], match[2], match[3])
        units = table["options"].get(match[1])
        return day and Told("option", match[1], _type(match[5]), float(match[6]), day, units)
    return None


@cache
def future_told(text: str) -> Told | None:
    """The root of a future's symbol and the size of its contract, if that is a known one."""
    root = root_of(text)
    if root is None:
        return None
    return Told("future", root, multiplier=contracts()["futures"].get(root))


@cache
def bond_told(text: str) -> Told | None:
    """The coupon and the maturity that a bond's name spells out: `T 4 1/4 11/15/34` pays 4.25 % until 15 November 2034.

    Days in names of bonds have the month first, as Bloomberg writes them.
    """
    match = _COUPON.search(text)
    if match is None or (match[3] and int(match[3]) not in (2, 4, 8, 16, 32)):
        return None
    fraction = int(match[2]) / int(match[3]) if match[2] else 0.0
    coupon = (float(match[1]) + fraction) / 100
    day = _day(match[6], match[4], match[5])
    return Told("bond", coupon=coupon, maturity=day) if day and coupon < 0.3 else None


def _type(sign: str) -> OptionType:
    return "call" if sign == "C" else "put"


def _day(year: str, month: str, day: str) -> dt.date | None:
    try:
        return dt.date(int(year) if len(year) == 4 else 2000 + int(year), int(month), int(day))
    except ValueError:
        return None
