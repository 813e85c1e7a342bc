"""The numbers of a sentence: what each says, in which unit, and how exactly, in digits or in words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from finllm.tools.data.currencies import ECB, KNOWN
from finllm.tools.evidence import Unit, money

UnitKind = Literal[
    "percent", "percentage points", "bp", "points", "usd", "sigma", "days", "years", "times", "bare", "other"
]
"""How a sentence gives a number. `bare`: without a unit; `other`: in another currency than
the dollar, or in a unit that no evidence row has."""

UNITS: dict[UnitKind, tuple[Unit, ...]] = {
    "percent": ("return", "probability"), "percentage points": ("bp",), "bp": ("bp",), "points": ("points",),
    "usd": ("usd",), "sigma": ("sigma",), "days": ("days",), "years": ("years",), "times": ("ratio",),
    "bare": ("count", "ratio"), "other": (),
}  # fmt: skip
"""The units of the rows that a number of that kind may stand for."""
_FACTOR: dict[UnitKind, float] = {"percent": 100.0, "percentage points": 0.01}
"""What a row's value is multiplied with to stand in that kind."""

_SCALES = {"thousand": 1e3, "k": 1e3, "million": 1e6, "mn": 1e6, "mm": 1e6, "m": 1e6, "billion": 1e9, "bn": 1e9,
           "b": 1e9, "trillion": 1e12, "tn": 1e12}  # fmt: skip
SMALL_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
"""Nought to nineteen in words, each at its own place."""
_TENS = dict(
    zip(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], range(20, 100, 10), strict=True)
)
_WORDS = {word: value for value, word in enumerate(SMALL_NUMBERS)} | _TENS
_FRACTIONS = {"half": 1 / 2, "third": 1 / 3, "quarter": 1 / 4, "fifth": 1 / 5, "tenth": 1 / 10, "twentieth": 1 / 20}

_SCALE = r"(?:thousand|million|billion|trillion|mn|mm|bn|tn|[kmb])(?![A-Za-z])"
_MONEY = r"(?:US\s?\$|\$|USD(?![A-Za-z_]))"
_CODES = f"(?-i:{'|'.join(ECB)})"
_FOREIGN = rf"(?:€|£|¥|{_CODES})(?![A-Za-z])"
_NAMED = {
    "€": "EUR",
    "euro": "EUR",
    "£": "GBP",
    "pound": "GBP",
    "¥": "JPY",
    "yen": "JPY",
    "franc": "CHF",
    "yuan": "CNY",
}
_CURRENCY = re.compile(rf"{_CODES}|€|£|¥|euro|pound|yen|franc|yuan", re.IGNORECASE)
_ANY_MONEY: tuple[Unit, ...] = tuple(sorted(money(code) for code in KNOWN))
_DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_AFTER: tuple[tuple[UnitKind, str], ...] = (
    ("percentage points", r"percentage[ -]points?|pp(?![A-Za-z])"),
    ("percent", r"%|per ?cents?(?![A-Za-z])"),
    ("bp", r"bps?(?![A-Za-z])|basis[ -]points?"),
    ("usd", r"USD(?![A-Za-z_])|(?:US )?dollars?(?![A-Za-z])|\$"),
    ("sigma", r"σ|sigmas?(?![A-Za-z])|standard[ -]deviations?"),
    ("points", r"(?:index |volatility |vol )?(?:points?|pts)(?![A-Za-z])"),
    ("days", r"(?:trading |business )?days?(?![A-Za-z])"),
    ("years", r"years?(?![A-Za-z])"),
    ("times", r"times(?![A-Za-z])|[x×](?![A-Za-z])|-?fold(?![A-Za-z])"),
    ("other", rf"(?:€|£|¥|{_CODES}|euros?|pounds?|yen|francs?|yuan|barrels?|ounces?|tonnes?|tons?|degrees?)"
              r"(?![A-Za-z])"),
)  # fmt: skip
_UNIT = "|".join(f"(?P<u{at}>{pattern})" for at, (_kind, pattern) in enumerate(_AFTER))
_NUMBER = re.compile(
    rf"(?P<sign0>[-+−–](?=\s?(?:{_MONEY}|{_FOREIGN})))?\s?(?:(?P<money>{_MONEY})|(?P<foreign>{_FOREIGN}))?\s?"
    rf"(?P<sign>[-+−–])?(?P<digits>{_DIGITS})(?:[ -]?(?P<scale>{_SCALE}))?(?:[  -]?(?:{_UNIT}))?",
)
_NUMERAL = "|".join((*SMALL_NUMBERS, *_TENS, "dozen", "hundred", "thousand", "million", "billion", "trillion"))
_SPELLED = re.compile(
    rf"\b(?:an? )?(?:{_NUMERAL})(?:(?:[ -]| and )(?:{_NUMERAL}))*\b(?:[ -]?(?:{_UNIT}))?", re.IGNORECASE
)
_SHARE = re.compile(
    rf"\b(?:(?P<count>an?|one|two|three|four) |(?P<bare>))(?P<part>{'|'.join(_FRACTIONS)})s?\b(?= of| off|[.,;]|$)"
    r"|\bhalf\b|\b(?P<times>twice|doubled?|doubles|thrice|tripled?|triples|halved|halves)\b",
    re.IGNORECASE,
)  # fmt: skip
_TIMES = {"twice": 2.0, "thrice": 3.0}
_HEDGE = re.compile(
    r"\b(?:about|around|roughly|some|circa|approximately|nearly|almost|close to)\s*(?:an? )?$|[~≈]\s*$", re.IGNORECASE
)
_ABOVE = re.compile(r"\b(?:more than|over|above|at least|in excess of|exceed\w*|upwards of)\s*$", re.IGNORECASE)
_BELOW = re.compile(r"\b(?:less than|under|below|at most|fewer than)\s*$", re.IGNORECASE)
BEFORE = 40
"""Characters before a number in which a word about it is looked for."""
_RANGE = re.compile(r"\s*(?:to|and|or|–|-)\s*(?:a (?:gain|loss) of )?")


@dataclass(frozen=True)
class Quantity:
    """A number where it stands. `value` is in the unit of the rows that it may stand for, see `UNITS`.

    `size` is the number as written, a multiple of `step` (the precision it claims), `factor` what a row's value is
    multiplied with to compare. `bound`: +1 for `more than`, −1 for `less than`. `sign`: +1, −1, or 0 where none is
    written. `cite`: the row that it names. `currency`: its code, where it is money but no dollars.
    """

    start: int
    end: int
    text: str
    size: float
    step: float
    factor: float
    kind: UnitKind
    sign: int
    scaled: bool
    bound: int = 0
    cite: str | None = None
    currency: str | None = None

    @property
    def units(self) -> tuple[Unit, ...]:
        """`bare` with a scale (`1.2 million`) is money, in whichever currency the row is."""
        if self.kind == "bare" and self.scaled:
            return (*_ANY_MONEY, "count")
        return (money(self.currency),) if self.kind == "other" and self.currency else UNITS[self.kind]

    def holds(self, value: float) -> bool:
        """Whether a row's value, without its sign, is this number at the precision that it claims (ties to even)."""
        size = abs(value) * self.factor
        if self.bound:
            return 0 <= self.bound * (size - self.size) < self.step
        if self.step < 1:
            decimals = round(-math.log10(self.step))
            return f"{size:.{decimals}f}" == f"{self.size:.{decimals}f}"
        return round(size / self.step) == round(self.size / self.step)


def find_quantities(text: str) -> list[Quantity]:
    """Every number of a text in which names and dates are masked, in order."""
    found = [_from_digits(match, text) for match in _NUMBER.finditer(text)]
    taken = bytearray(len(text))
    for one in found:
        taken[one.start : one.end] = bytes([1]) * (one.end - one.start)
    for spelled in (_from_words, _from_share):
        pattern = _SPELLED if spelled is _from_words else _SHARE
        for match in pattern.finditer(text):
            if not any(taken[match.start() : match.end()]):
                one = spelled(match, text)
                if one is not None:
                    found.append(one)
                    taken[one.start : one.end] = bytes([1]) * (one.end - one.start)
    return _ranges(sorted(found, key=lambda one: one.start), text)


def _from_digits(match: re.Match[str], text: str) -> Quantity:
    digits = match["digits"]
    scale = _SCALES[match["scale"].lower()] if match["scale"] else 1.0
    kind = _kind(match)
    if match["foreign"]:
        kind = "other"
    elif match["money"]:
        kind = "usd" if kind in ("bare", "usd") else "other"
    start = match.start() + len(match[0]) - len(match[0].lstrip())
    written = match["sign0"] or match["sign"]
    if written in ("-", "–") and re.search(
        r"\w$", text[max(0, start - 1) : start]
    ):  # `2019-2020`, `pre-2008`: a dash, no sign
        written = None
    sign = {None: 0, "+": 1}.get(written, -1)
    decimals = len(digits.partition(".")[2])
    step = 10.0**-decimals
    hedged = _HEDGE.search(text[max(0, start - BEFORE) : start]) is not None
    if hedged and not decimals:
        step = 10.0 ** _trailing_zeros(digits)
    return _quantity(match, text, start, float(digits.replace(",", "")), step, scale, kind, sign, bool(match["scale"]))


def _trailing_zeros(digits: str) -> int:
    bare = digits.replace(",", "")
    return len(bare) - len(bare.rstrip("0")) if bare.strip("0") else 0


def _from_words(match: re.Match[str], text: str) -> Quantity | None:
    """A number in words; `one` and `a hundred` alone are no numbers unless a unit follows."""
    kind = _kind(match)
    unit = next((match[f"u{at}"] for at in range(len(_AFTER)) if match[f"u{at}"]), "")
    words = [
        word for word in re.split(r"[ -]", match[0][: len(match[0]) - len(unit)].lower()) if word not in ("and", "")
    ]
    if kind == "bare" and words in (["one"], ["a", "one"], ["zero"]):
        return None
    value, part = 0.0, 0.0
    for word in words:
        if word in ("a", "an"):
            part = 1.0
        elif word in _WORDS:
            part += _WORDS[word]
        elif word in ("hundred", "dozen"):
            part = (part or 1.0) * (100.0 if word == "hundred" else 12.0)
        else:
            value += (part or 1.0) * _SCALES[word]
            part = 0.0
    value += part
    scaled = any(word in _SCALES for word in words)
    step = next((_SCALES[word] for word in reversed(words) if word in _SCALES), 1.0) if words[-1] in _SCALES else 1.0
    return _quantity(match, text, match.start(), value / step, 1.0, step, kind, 0, scaled)


def _from_share(match: re.Match[str], text: str) -> Quantity | None:
    times = match["times"]
    if times:
        value = _TIMES.get(
            times.lower(), 3.0 if times.lower().startswith("trip") else 0.5 if "hal" in times.lower() else 2.0
        )
        return _quantity(match, text, match.start(), value, 0.1, 1.0, "times", 0, False)
    part = (match["part"] or "half").lower()
    count = (match["count"] or "a").lower()
    if part != "half" and not match["count"]:
        return None  # an ordinal
    many = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}[count]
    return _quantity(match, text, match.start(), 100 * many * _FRACTIONS[part], 2.0, 1.0, "percent", 0, False)


def _quantity(
    match: re.Match[str], text: str, start: int, number: float, step: float, scale: float, kind: UnitKind, sign: int,
    scaled: bool,
) -> Quantity:  # fmt: skip
    before = text[max(0, start - BEFORE) : start]
    bound = 0
    if _ABOVE.search(before) and kind not in ("days", "years"):
        bound = 1
    elif _BELOW.search(before):
        bound = -1
    said = text[start : match.end()]
    named = _CURRENCY.search(said) if kind == "other" else None
    currency = _NAMED.get(named[0].lower(), named[0]) if named else None
    return Quantity(start, match.end(), said, number, step, _FACTOR.get(kind, 1.0) / scale, kind,
                    sign, scaled, bound, currency=currency)  # fmt: skip


def _kind(match: re.Match[str]) -> UnitKind:
    for at, (kind, _pattern) in enumerate(_AFTER):
        if match[f"u{at}"]:
            return kind
    return "bare"


def _ranges(found: Sequence[Quantity], text: str) -> list[Quantity]:
    """`1.2 to 1.4 million USD`: the first end of a range takes the unit and the scale of the second."""
    out = list(found)
    for at in range(len(out) - 2, -1, -1):
        one, other = out[at], out[at + 1]
        if one.kind != "bare" or other.kind == "bare" or not _RANGE.fullmatch(text[one.end : other.start]):
            continue
        scale = re.search(_SCALE, other.text)
        shared = _SCALES[scale[0].lower()] if scale and not one.scaled else 1.0
        factor = one.factor * _FACTOR.get(other.kind, 1.0) / shared
        out[at] = replace(one, kind=other.kind, factor=factor, scaled=one.scaled or other.scaled,
                          currency=other.currency)  # fmt: skip
    return out
