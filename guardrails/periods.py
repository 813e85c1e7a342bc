"""The periods of a sentence and of an evidence row: durations and dates, and whether one names the other."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

from finllm.guardrails.quantities import SMALL_NUMBERS
from finllm.tools.evidence import Evidence

_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_SHORT = {name[:3]: at for at, name in enumerate(_MONTHS, 1)} | {"sept": 9}
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)[a-z]*\.?"
_COUNTS = {word: at for at, word in enumerate((*SMALL_NUMBERS[1:], "twenty"), 1)} | {
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "ninety": 90,
}  # fmt: skip
_ONES = "one|two|three|four|five|six|seven|eight|nine"
_COUNT = rf"\d+|(?:twenty|thirty|forty|fifty|sixty|ninety)(?:[ -](?:{_ONES}))?|{'|'.join(_COUNTS)}"
_DAYS = {"day": 1, "session": 1, "step": 1, "week": 5, "month": 21, "quarter": 63, "year": 252}
"""Trading days of each unit: 252 to the year, the count that the project annualises with."""

_DURATION = re.compile(
    rf"(?<![\w.,])(?P<count>{_COUNT})[ -]?(?:(?:trading|business|calendar|full)[ -])?"
    r"(?P<unit>day|session|step|week|month|quarter|year)s?(?![a-z])", re.IGNORECASE)  # fmt: skip
_LONE = re.compile(
    r"\b(?:over|in|within|for|during|after|through) (?:an?|the|the next|the last|the past|the coming|the previous) "
    r"(?P<unit>day|week|month|quarter|year)(?![a-z])|(?P<night>\bovernight\b)", re.IGNORECASE)  # fmt: skip
_DATE = re.compile(
    rf"(?P<iso>(?<!\d)\d{{4}}-\d{{2}}-\d{{2}}(?!\d))"
    rf"|(?P<d1>\d{{1,2}})(?:st|nd|rd|th)? (?P<m1>{_MONTH}),? (?P<y1>\d{{4}})"
    rf"|(?P<m2>{_MONTH}) (?P<d2>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<y2>\d{{4}})"
    rf"|(?P<m3>{_MONTH}) (?P<y3>\d{{4}})"
    r"|\b(?P<q>Q[1-4]) (?P<y4>\d{4})"
    r"|(?:(?<=\bin )|(?<=since )|(?<=from )|(?<=until )|(?<=during )|(?<=\bof )|(?<=\bto )|(?<=– )|(?<=-))"
    r"(?P<y5>(?:19|20)\d{2})(?![\d,.]\d|\d| ?%| (?:bp|USD|points|dollars|days|million|billion|per))"
)


@dataclass(frozen=True)
class Period:
    """A stretch or a day that a sentence names. `days`: trading days of a duration; else the first and last day."""

    start: int
    end: int
    text: str
    days: int | None
    first: dt.date | None = None
    last: dt.date | None = None

    def fits(self, row: Evidence) -> bool:
        """True where the row's period, what it measures or its as-of names the same."""
        own = find_periods(f"{row.what}; {row.period}")
        if self.days is not None:
            return any(one.days == self.days for one in own)
        days = {row.as_of} | {day for one in own if one.first and one.last for day in (one.first, one.last)}
        return any(self.first <= day <= self.last for day in days if self.first and self.last)


def find_periods(text: str) -> list[Period]:
    """Every period that a text names, in order. A day that is none (31 February) is no period."""
    found: list[Period] = []
    for match in _DATE.finditer(text):
        span = _span(match)
        if span is not None:
            found.append(Period(match.start(), match.end(), match[0], None, *span))
    for match in (*_DURATION.finditer(text), *_LONE.finditer(text)):
        if any(one.start < match.end() and match.start() < one.end for one in found):
            continue
        found.append(Period(match.start(), match.end(), match[0], _length(match)))
    return sorted(found, key=lambda one: one.start)


def _length(match: re.Match[str]) -> int:
    parts = match.groupdict()
    if parts.get("night"):
        return 1
    count = (parts.get("count") or "1").lower()
    return _count(count) * _DAYS[(parts["unit"] or "day").lower()]


def _count(word: str) -> int:
    return int(word) if word.isdigit() else sum(_COUNTS[part] for part in re.split(r"[ -]", word))


def _span(match: re.Match[str]) -> tuple[dt.date, dt.date] | None:
    try:
        if match["iso"]:
            day = dt.date.fromisoformat(match["iso"])
            return day, day
        for d, m, y in (("d1", "m1", "y1"), ("d2", "m2", "y2")):
            if match[d]:
                day = dt.date(int(match[y]), _month(match[m]), int(match[d]))
                return day, day
        if match["m3"]:
            return _months(int(match["y3"]), _month(match["m3"]), 1)
        if match["q"]:
            return _months(int(match["y4"]), 3 * int(match["q"][1]) - 2, 3)
        return _months(int(match["y5"]), 1, 12)
    except (ValueError, KeyError):
        return None


def _month(name: str) -> int:
    return _SHORT[name.rstrip(".").lower()[:3]]


def _months(year: int, month: int, count: int) -> tuple[dt.date, dt.date]:
    end = dt.date(year + (month + count > 12), (month + count - 1) % 12 + 1, 1)
    return dt.date(year, month, 1), end - dt.timedelta(days=1)
