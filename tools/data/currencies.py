"""Currencies: their codes, pence and other hundredths, those that ended, and how pairs and FX factors are named."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

ECB = (
    "EUR", "JPY", "BGN", "CYP", "CZK", "DKK", "EEK", "GBP", "HUF", "LTL", "LVL", "MTL", "PLN", "ROL", "RON", "SEK",
    "SIT", "SKK", "CHF", "ISK", "NOK", "HRK", "RUB", "TRL", "TRY", "AUD", "BRL", "CAD", "CNY", "HKD", "IDR", "ILS",
    "INR", "KRW", "MXN", "MYR", "NZD", "PHP", "SGD", "THB", "ZAR",
)  # fmt: skip
"""Currencies with an ECB reference rate, now or once, beside the dollar."""
SPECIFIED = ("EUR", "JPY", "GBP", "AUD", "CAD", "CHF", "MXN", "CNY", "NZD", "RUB", "HKD", "SGD", "TRY", "KRW", "SEK",
             "ZAR", "INR", "NOK", "BRL")  # fmt: skip
"""Those whose pair with the dollar has the shorter liquidity horizon (Basel Committee, MAR21.88)."""
OTHERS = (
    "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AWG", "AZN", "BAM", "BBD", "BDT", "BHD", "BIF", "BMD", "BND", "BOB",
    "BSD", "BTN", "BWP", "BYN", "BZD", "CDF", "CLP", "COP", "CRC", "CUP", "CVE", "DJF", "DOP", "DZD", "EGP", "ERN",
    "ETB", "FJD", "FKP", "GEL", "GHS", "GIP", "GMD", "GNF", "GTQ", "GYD", "HNL", "HTG", "IQD", "IRR", "JMD", "JOD",
    "KES", "KGS", "KHR", "KMF", "KPW", "KWD", "KYD", "KZT", "LAK", "LBP", "LKR", "LRD", "LSL", "LYD", "MAD", "MDL",
    "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR", "MWK", "MZN", "NAD", "NGN", "NIO", "NPR", "OMR", "PAB",
    "PEN", "PGK", "PKR", "PYG", "QAR", "RSD", "RWF", "SAR", "SBD", "SCR", "SDG", "SHP", "SLE", "SOS", "SRD", "SSP",
    "STN", "SVC", "SYP", "SZL", "TJS", "TMT", "TND", "TOP", "TTD", "TWD", "TZS", "UAH", "UGX", "UYU", "UZS", "VED",
    "VES", "VND", "VUV", "WST", "XAF", "XCD", "XOF", "XPF", "YER", "ZMW", "ZWG",
)  # fmt: skip
"""The other currencies of ISO 4217 as of 2025, without funds, metals and test codes."""
KNOWN = frozenset(("USD", *ECB, *OTHERS))
HUNDREDTHS = {"GBX": "GBP", "GBp": "GBP", "ILA": "ILS", "ZAc": "ZAR", "ZAC": "ZAR"}
"""What exchanges quote in hundredths, and of which currency: pence, agorot, South African cents."""
STAND_INS = {"CNH": "CNY"}
"""The yuan traded outside China is valued at, and moves with, the one inside."""
REPLACED: dict[str, tuple[dt.date, str, float]] = {
    **{code: (dt.date(1999, 1, 1), "EUR", per_euro) for code, per_euro in {
        "ATS": 13.7603, "BEF": 40.3399, "DEM": 1.95583, "ESP": 166.386, "FIM": 5.94573, "FRF": 6.55957,
        "IEP": 0.787564, "ITL": 1936.27, "LUF": 40.3399, "NLG": 2.20371, "PTE": 200.482}.items()},
    "GRD": (dt.date(2001, 1, 1), "EUR", 340.75),
    "SIT": (dt.date(2007, 1, 1), "EUR", 239.64),
    "CYP": (dt.date(2008, 1, 1), "EUR", 0.585274),
    "MTL": (dt.date(2008, 1, 1), "EUR", 0.4293),
    "SKK": (dt.date(2009, 1, 1), "EUR", 30.126),
    "EEK": (dt.date(2011, 1, 1), "EUR", 15.6466),
    "LVL": (dt.date(2014, 1, 1), "EUR", 0.702804),
    "LTL": (dt.date(2015, 1, 1), "EUR", 3.4528),
    "HRK": (dt.date(2023, 1, 1), "EUR", 7.5345),
    "BGN": (dt.date(2026, 1, 1), "EUR", 1.95583),
    "TRL": (dt.date(2005, 1, 1), "TRY", 1e6),
    "ROL": (dt.date(2005, 7, 1), "RON", 1e4),
}  # fmt: skip
"""Currencies that ended: since when, what replaced them, and how many of them one unit of that is, irrevocably.

Council Regulation (EC) No 2866/98 and its amendments."""
_PAIR = re.compile(r"([A-Z]{3})[/._ -]?([A-Z]{3})(?:=X|[ .]CURNCY)?", re.IGNORECASE)
_FACTOR = re.compile(r"FX_([A-Z]{3})USD")


@dataclass(frozen=True)
class Currency:
    """What one unit of a code is: `units` of the currency `code`, and why, where that is not what is written."""

    code: str
    units: float
    note: str = ""


def currency_of(text: str, as_of: dt.date) -> Currency | None:
    """The currency that a code stands for on a day; None for a code that is no currency.

    Hundredths (GBX, GBp, ILA, ZAc) are a hundredth of theirs, and a currency that ended is worth what it was replaced
    by at the fixed rate. Case counts only for `GBp` and `ZAc`.
    """
    written = text.strip()
    code = HUNDREDTHS.get(written) or HUNDREDTHS.get(written.upper() if written.upper() in ("GBX", "ILA") else written)
    if code is not None:
        return Currency(code, 0.01, f"{written} is a hundredth of {code}")
    code = written.upper()
    if code in STAND_INS:
        return Currency(STAND_INS[code], 1.0, f"{code} is taken as {STAND_INS[code]}")
    if code in REPLACED and as_of >= REPLACED[code][0]:
        since, successor, per_unit = REPLACED[code]
        words = f"{code} ended on {since}: {per_unit:g} {code} are 1 {successor}, the fixed rate"
        return Currency(successor, 1.0 / per_unit, words)
    return Currency(code, 1.0) if code in KNOWN or code in REPLACED else None


def fx_factor(code: str) -> str:
    """The factor of a currency against the dollar: `FX_EURUSD` is what one euro costs in USD."""
    return f"FX_{code}USD"


def factor_currency(factor: str) -> str | None:
    """The currency of an FX factor, or None for another factor and for what is no currency."""
    match = _FACTOR.fullmatch(factor)
    return match[1] if match and match[1] in KNOWN and match[1] != "USD" else None


def pair_of(text: str) -> tuple[str, str] | None:
    """The currencies of a pair such as `EURUSD`, `EUR/USD` or `EURUSD=X`: what is bought, and what is paid."""
    match = _PAIR.fullmatch(text.strip())
    if match is None:
        return None
    first, second = match[1].upper(), match[2].upper()
    return (first, second) if {first, second} <= KNOWN and first != second else None


def legs_of(text: str, base: str) -> tuple[str, str] | None:
    """What an FX position named `text` buys and what it pays with: a pair's, or a currency's against `base`."""
    code = text.strip().upper()
    return pair_of(text) or ((code, base) if code in KNOWN and code != base else None)


def fx_hint(name: str) -> str:
    """What to write instead of a pair or a currency that was given as a factor; empty for anything else."""
    code = name.strip().upper()
    if code in KNOWN and code != "USD":
        return f"use {fx_factor(code)}, what one {code} costs in USD"
    pair = pair_of(code.removeprefix("FX_"))
    if pair is None:
        return ""
    first, second = pair
    if second == "USD":
        return f"use {fx_factor(first)}, what one {first} costs in USD"
    if first == "USD":
        return f"use {fx_factor(second)}, what one {second} costs in USD, so it moves the other way"
    return f"use {fx_factor(first)} and {fx_factor(second)}: every currency is quoted in USD"
