"""Reads a budget written in one line, such as `20s,500deep,2kJ`."""

from __future__ import annotations

import math
import re

from finllm.errors import InputError

_UNITS: dict[str, tuple[str, float]] = {
    "s": ("seconds", 1.0),
    "tokens": ("tokens", 1.0),
    "deep": ("deep_tokens", 1.0),
    "J": ("joules", 1.0),
    "kJ": ("joules", 1e3),
    "MJ": ("joules", 1e6),
    "g": ("grams", 1.0),
    "kg": ("grams", 1e3),
    "usd": ("usd", 1.0),
}
_PART = re.compile(r"(?P<dollar>\$)?\s*(?P<amount>[+-]?(?:[0-9.]+|nan|inf))\s*(?P<unit>[A-Za-z]*)")
_FIX = (
    "write seconds, tokens, deep tokens, joules, gCO₂e and dollars such as '20s,5000tokens,500deep,2kJ,12g,$0.05', "
    "each at most once"
)


def parse_budget_text(text: str) -> dict[str, float]:
    """The limits in a text, by the field of `BudgetEntry`: s, tokens, deep tokens, J, gCO₂e, USD.

    Errors: InputError for anything else: a unit that is not known or given twice, no number, one that is negative or
    endless, or 0 (but for deep tokens), more deep tokens than tokens in all.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, amount = _read(text, part.strip())
        if name in found:
            raise InputError(f"budget {text!r}: {name.replace('_', ' ')} are given twice", fix=_FIX)
        found[name] = amount
    if found.get("deep_tokens", 0) > found.get("tokens", math.inf):
        raise InputError(
            f"budget {text!r}: deep tokens count as tokens, and there are more of them", fix="raise tokens"
        )
    return found


def _read(text: str, part: str) -> tuple[str, float]:
    match = _PART.fullmatch(part)
    unit = "" if match is None else match["unit"]
    unit = "usd" if match is not None and ((match["dollar"] and not unit) or unit.lower() == "usd") else unit
    if match is None or unit not in _UNITS:
        raise InputError(f"budget {text!r}: cannot read {part!r}", fix=_FIX)
    name, scale = _UNITS[unit]
    try:
        amount = float(match["amount"]) * scale
    except ValueError as error:
        raise InputError(f"budget {text!r}: {part!r} holds no number", fix=_FIX) from error
    if not math.isfinite(amount) or amount < 0:
        raise InputError(f"budget {text!r}: {part!r} is impossible", fix="give a number above 0, or leave it out")
    if name in ("tokens", "deep_tokens") and not amount.is_integer():
        raise InputError(f"budget {text!r}: {part!r} is not a whole number of tokens", fix=_FIX)
    if amount == 0 and name != "deep_tokens":
        raise InputError(f"budget {text!r}: {part!r} allows nothing", fix="give more, or leave it out")
    return name, amount
