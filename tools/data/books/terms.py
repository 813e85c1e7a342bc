"""Reading a contract's terms from the cells of a row: dates, kinds of options, and rates as decimals."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

from finllm.tools.instruments.bonds import FREQUENCIES, day_count_of

RATES = ("volatility", "coupon", "yield")
"""Decimals a year: 0.04, or with the sign, 4%. 1 or more without the sign is taken for a percentage, and refused."""
_LEAST = {"strike": 0.0, "multiplier": 0.0, "volatility": 0.0, "coupon": 0.0, "yield": -0.99, "price": -1e9}
_OPTION = {"c": "call", "call": "call", "calls": "call", "p": "put", "put": "put", "puts": "put"}
_EXERCISE = {"e": "European", "european": "European", "a": "American", "american": "American"}
TERMS = (
    "name", "underlying", "option_type", "exercise", "strike", "expiry", "multiplier", "volatility", "coupon",
    "maturity", "frequency", "day_count", "yield", "price",
)  # fmt: skip
"""The columns of a contract's terms, which any row may leave empty."""


def read_terms(row: Mapping[str, str]) -> tuple[list[str], dict[str, Any]]:
    """What is wrong with the terms of a row, by column, and those that were read, as fields of a position."""
    problems: list[str] = []
    found: dict[str, Any] = {}
    for name in (one for one in TERMS if row.get(one)):
        try:
            found[name] = _read(name, row[name])
        except ValueError as wrong:
            problems.append(f"column {name!r}: {wrong}")
    return problems, found


def _read(name: str, text: str) -> object:
    """The cell as its column's type. Errors: ValueError with what is wrong and the mend."""
    match name:
        case "name" | "underlying":
            return text
        case "option_type" | "exercise":
            kinds = _OPTION if name == "option_type" else _EXERCISE
            if text.lower() not in kinds:
                raise ValueError(f"{text!r} is neither of {' and '.join(dict.fromkeys(kinds.values()))}")
            return kinds[text.lower()]
        case "expiry" | "maturity":
            try:
                return dt.date.fromisoformat(text[:10])
            except ValueError:
                raise ValueError(f"{text!r} is not a date; write it as 2026-12-18") from None
        case "day_count":
            if day_count_of(text) is None:
                raise ValueError(f"{text!r} is not one of 30/360, 30E/360, ACT/ACT, ACT/365, ACT/360")
            return text
        case "frequency":
            if _number(text) not in FREQUENCIES:
                raise ValueError(f"{text!r} is not a number of coupons a year: {', '.join(map(str, FREQUENCIES))}")
            return int(_number(text))
        case _:
            return _bounded(name, text)


def _bounded(name: str, text: str) -> float:
    percent = text.endswith("%")
    value = _number(text.removesuffix("%")) / (100.0 if percent else 1.0)
    if name in RATES and not percent and value >= 1:
        raise ValueError(f"{text} would be {value:.0%}; in per cent? write {value / 100:g}, or {text}%")
    low = _LEAST[name]
    if value < low or (value == low and name in ("strike", "multiplier", "volatility")):
        raise ValueError(f"{text} is not above {low:g}; correct it")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number; write 1234.5") from None
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number; correct it or leave it empty")
    return value
