"""Dates after as_of inside a text: a sentence that tells of what came later was written, or changed, with hindsight."""

from __future__ import annotations

import datetime as dt
import re

from finllm.guardrails.periods import find_periods

_MONTHS = {
    name: at
    for names in (
        "january february march april may june july august september october november december",
        "januar februar märz april mai juni juli august september oktober november dezember",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    )
    for at, name in enumerate(names.split(), 1)
}
_NAMED = re.compile(
    rf"(?<!\d)(?:(?P<d>\d{{1,2}})(?:st|nd|rd|th|er)?\.? (?:of |de )?)?(?P<m>{'|'.join(_MONTHS)}),? (?:de |del )?"
    r"(?P<y>(?:19|20)\d\d)(?!\d)", re.IGNORECASE)  # fmt: skip
_FIGURES = re.compile(
    r"(?<![\d./-])(?P<a>\d{1,2})(?P<s>[./-])(?P<b>\d{1,2})(?P=s)(?P<y>(?:19|20)\d\d)(?!\d)"
    r"|(?<!\d)(?P<y2>(?:19|20)\d\d)[./](?P<a2>\d{1,2})[./](?P<b2>\d{1,2})(?!\d)"
    r"|(?P<y3>(?:19|20)\d\d)\s?年\s?(?P<a3>\d{1,2})\s?月(?:\s?(?P<b3>\d{1,2})\s?日)?"
)
_STAMP = re.compile(
    r"\b(?:updated|corrected|correction|edited|modified|revised|published|posted|dated|as of|stand vom|aktualisiert)\b",
    re.IGNORECASE,
)
"""Words that give the date of the text itself, which then is of that day whatever else it says."""
_AHEAD = re.compile(
    r"\b(?:may|(?i:will|would|shall|should|could|might|next|upcoming|coming|ahead|due|deadline|effective|expect\w*|"
    r"forecast\w*|predict\w*|project(?:ed|s|ions?)|plan(?:s|ned)?|scheduled?|slated|set to|aims?|targets?|matur\w+|"
    r"expir\w+|futures?|contracts?|deliver\w*|guidance|outlook|to (?:meet|vote|decide|begin|start|end|take|be)|"
    r"wird|werden|soll|sollen))\b"  # with a capital, May is the month
)
"""Words by which a sentence looks forward, as news of a meeting or a maturity does: such a date is no hindsight."""
_UNTIL = re.compile(r"\b(?:until|till|by|before|through|bis)\s+(?:the )?(?:end of )?$")
"""What makes the date that follows it a limit to come."""


def later_dates(sentence: str, as_of: dt.date) -> list[str]:
    """The dates in a sentence by which it was written after the end of `as_of`, as they stand there; empty for none.

    A period counts from its first day, and a date that may be read two ways, such as 07/08/2022, by its earlier one.
    """
    found = [
        *((one.start, one.end, one.text, one.first) for one in find_periods(sentence) if one.first is not None),
        *((match.start(), match.end(), match[0], day) for match in _NAMED.finditer(sentence)
          if (day := _day(match["y"], _MONTHS[match["m"].lower()], match["d"])) is not None),
        *((match.start(), match.end(), match[0], day) for match in _FIGURES.finditer(sentence)
          if (day := _first(match)) is not None),
    ]  # fmt: skip
    later = [(start, end, text) for start, end, text, day in sorted(found) if day > as_of]
    forward = _AHEAD.search(sentence) is not None
    later = [one for one in later if _stamps(sentence, one[0]) or not (forward or _limits(sentence, one[0]))]
    kept: list[tuple[int, int, str]] = []
    for start, end, text in sorted(later, key=lambda one: (one[0], -one[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, text))
    return [text for _start, _end, text in kept]


def _stamps(sentence: str, start: int) -> bool:
    """Whether a word shortly before makes the date one of the text itself."""
    return _STAMP.search(sentence[max(0, start - 24) : start]) is not None


def _limits(sentence: str, start: int) -> bool:
    return _UNTIL.search(sentence[max(0, start - 24) : start]) is not None


def _first(match: re.Match[str]) -> dt.date | None:
    """The earliest day that a date in figures may mean."""
    year = match["y"] or match["y2"] or match["y3"]
    a, b = match["a"] or match["a2"] or match["a3"], match["b"] or match["b2"] or match["b3"]
    orders = [(b, a), (a, b)] if match["y"] else [(a, b)]
    days = [day for month, of in orders if month and (day := _day(year, int(month), of)) is not None]
    return min(days, default=None)


def _day(year: str, month: int, day: str | None) -> dt.date | None:
    try:
        return dt.date(int(year), month, int(day or 1))
    except ValueError:
        return None
