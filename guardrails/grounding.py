"""The grounding guard: a sentence's numbers come from evidence rows, or the sentence does not get out.

`ground` fills in a template's references; `ungrounded` reads any finished sentence and names each number that no row
carries with the same entity, unit, period and sign, at the precision that it claims.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from finllm.errors import GroundingError
from finllm.guardrails.formula import misfit
from finllm.guardrails.periods import Period, find_periods
from finllm.guardrails.quantities import Quantity, find_quantities
from finllm.guardrails.subjects import (
    BOOK,
    DirectionWord,
    NameMention,
    clause_bounds,
    entity_key,
    find_directions,
    find_mentions,
    find_strangers,
    is_name,
)
from finllm.tools.evidence import Evidence, EvidenceTable, show

NAMES = ("S&P 500", "10-year", "US 10-year", "RATE_US_10Y", "as_of")
"""Names with digits that a sentence may carry."""

GroundingFault = Literal["value", "unit", "sign", "entity", "period", "formula"]

_REFERENCE = re.compile(r"\[\[([A-Za-z][A-Za-z0-9_]*)(\.entity)?\]\]")
_CITED = re.compile(r" ?\[(E[1-9][0-9]*)\]")
_QUOTED = re.compile(r"«[^»]*»")
_CUT = "\0"
"""Stands where a reference or a name was, so that what was around it cannot join up to another name."""
_NEUTRAL = re.compile(
    r"volatility|value at risk|shortfall|^(market|gross) value|^limit|^level of|share of past|^weight"
)
"""What a row measures where no direction is meant: a size, a level or a bound."""
_LOSSES = re.compile(r"value at risk|shortfall|^limit")
_LOSS_CUE = re.compile(r"at risk|\bC?VaR\b|\bES\b|shortfall|limit|allow|cap\b|ceiling|bound", re.IGNORECASE)
"""Words beside which a loss that might be, or is allowed, is meant and not one that comes."""
_CUES = tuple((re.compile(what), re.compile(cue, re.IGNORECASE)) for what, cue in (
    (r"^forecast", r"forecast|predict|project|expect|model|ahead"),
    (r"past event to repeat", r"repeat|replay|again|histor|past|window|analogue"),
    (r"^interval, ", r"between|from|range|interval|band|low|high|worst|best|least|most|confidence|end\b"),
))  # fmt: skip
"""Rows beside the main story, and the words or period without which a number that names no row is not one of these."""


@dataclass(frozen=True)
class Ungrounded:
    """A number that did not pass, the first thing that did not fit, and why, in words."""

    number: str
    fault: GroundingFault
    why: str


def ground(
    sentence: str, evidence: EvidenceTable, quotes: Mapping[str, str] | None = None, *, cite: bool = False
) -> str:
    """Fill in a sentence's `[[E7]]` references with the rows' values, and its `[[name]]` references from `quotes`.

    `[[E7.entity]]` is whom the row is about.

    With `cite` each number names its row (`−7.89 % [E12]`) and what is quoted stands between « and ».

    Quotes are the user's own words (a title, an instrument's id), shown as such. What comes out is read again: what it
    says about each number must be so. Errors: GroundingError for a number outside a reference, a reference to nothing,
    or a sentence that gives a row another entity, period or sign than its own.
    """
    bare = _REFERENCE.sub(_CUT, sentence)
    for name in NAMES:
        bare = bare.replace(name, _CUT)
    if any(character.isnumeric() for character in bare):
        raise GroundingError(
            f"the sentence {sentence!r} carries a number that no evidence row carries",
            fix="cite the row as [[E…]], or report this as a fault of finllm",
        )
    known = {entity for row in evidence for entity in (row.entity, entity_key(row.entity))}

    def fill(match: re.Match[str], *, marked: bool) -> str:
        name = match[1]
        if name in evidence:
            row = evidence[name]
            if match[2]:
                return row.entity if not marked or is_name(row.entity) else f"«{row.entity}»"
            shown = show(row.value, row.unit)
            if not marked:
                return shown
            return f"«{shown}»" if row.unit == "text" else f"{shown} [{name}]"
        if quotes is not None and name in quotes:
            said = quotes[name]
            return said if not marked or (said in known and is_name(said)) else f"«{said.replace('»', '')}»"
        raise GroundingError(
            f"the sentence {sentence!r} refers to {name!r}, which no evidence row is",
            fix="cite an existing row, or report this as a fault of finllm",
        )

    marked = _REFERENCE.sub(lambda match: fill(match, marked=True), sentence)
    unnamed = [said for said in (quotes or {}).values() if said in known and not is_name(said)]
    for found in ungrounded(marked, evidence, *unnamed[:1]):
        raise GroundingError(
            f"the sentence {sentence!r} does not fit its evidence: {found.number!r}: {found.why}",
            fix="word it as the row says, or report this as a fault of finllm",
        )
    return marked if cite else _REFERENCE.sub(lambda match: fill(match, marked=False), sentence)


def ungrounded(sentence: str, evidence: EvidenceTable, subject: str = BOOK) -> tuple[Ungrounded, ...]:
    """Every number of a finished sentence that no evidence row carries; empty for a grounded one.

    A number may name its row (`−7.89 % [E12]`): then it is held to that row, else any row may carry it. Words between
    « and » are quoted and claim nothing. `subject` is whom the sentence is about where it names nobody. Never raises.
    """
    text = _Sentence(sentence, evidence, subject)
    faults = [fault for number in text.numbers if (fault := text.fault_of(number)) is not None]
    faults += [fault for period in text.loose_periods() if (fault := text.fault_of_period(period)) is not None]
    return (*faults, *text.unread())


class _Sentence:
    """A sentence taken apart: its numbers, names, periods and directions, and which belong together."""

    def __init__(self, sentence: str, evidence: EvidenceTable, subject: str) -> None:
        self.evidence = evidence
        self._subject = subject
        text = _QUOTED.sub(lambda m: " " * len(m[0]), sentence)
        cites = {match.start(): match[1] for match in _CITED.finditer(text)}
        text = _CITED.sub(lambda m: " " * len(m[0]), text)
        self.mentions = find_mentions(text, {row.entity for row in evidence})
        masked = _masked(text, self.mentions)
        for name in NAMES:
            masked = masked.replace(name, " " * len(name))
        periods = find_periods(masked)
        self.periods = [one for one in periods if not _is_size(one, cites)]
        masked = _masked(masked, self.periods)
        numbers = find_quantities(masked)
        self.numbers = [_with_cite(one, cites) for one in numbers]
        self._rest = _masked(masked, self.numbers)
        self.mentions += find_strangers(self._rest)
        self.directions = find_directions(self._rest)
        spans = [(a.end, b.start + 1) for a, b in zip(self.numbers, self.numbers[1:], strict=False)
                 if re.fullmatch(r"\s*(?:to|and|or|–|-)\s*(?:a \w+ of )?", self._rest[a.end : b.start])]  # fmt: skip
        self._ends = clause_bounds(self._rest, spans)

    def unread(self) -> list[Ungrounded]:
        """Digits that were left over, which no number could be read from."""
        left = [word for word in self._rest.split() if any(character.isnumeric() for character in word)]
        return [Ungrounded(word, "value", "it cannot be read as a number") for word in left]

    def fault_of(self, number: Quantity) -> Ungrounded | None:
        """None where a row carries the number; else what did not fit on the row that came nearest."""
        named = number.cite is not None and number.cite in self.evidence
        rows = [self.evidence[number.cite]] if named and number.cite else []
        if number.cite is None:
            rows = [row for row in self.evidence if not isinstance(row.value, str)]
        found: list[tuple[int, Ungrounded]] = []
        for row in rows:
            fault = self._misfit(number, row)
            if fault is None:
                return None
            found.append(fault)
        if not found:
            return Ungrounded(number.text, "value", f"there is no row {number.cite or 'with a number'}")
        return max(found, key=lambda one: one[0])[1]

    def _misfit(self, number: Quantity, row: Evidence) -> tuple[int, Ungrounded] | None:
        """How far the row fits, and the first thing that does not."""

        def no(rank: int, fault: GroundingFault, why: str) -> tuple[int, Ungrounded]:
            return rank, Ungrounded(number.text, fault, why)

        if isinstance(row.value, str) or row.unit not in number.units:
            return no(0, "unit", f"{row.id} is in {row.unit}")
        if not number.holds(row.value):
            return no(1, "value", f"{row.id} is {show(row.value, row.unit)}")
        if (why := self._wrong_sign(number, row)) is not None:
            return no(2, "sign", why)
        names = self._entities(number)
        if entity_key(row.entity) not in names and not _is_about_all(row, names):
            return no(3, "entity", f"{row.id} is about {row.entity!r}")
        for period in self._periods_of(number):
            if not period.fits(row):
                return no(4, "period", f"{period.text!r}: {row.id} is for {row.period!r}")
        if number.cite is None and not self._periods_of(number):
            for what, cue in _CUES:
                if what.search(row.what) and not cue.search(self._rest):
                    return no(1, "value", f"{row.id} is {row.what!r}, which the sentence does not say")
        if (why := misfit(row, self.evidence)) is not None:
            return no(5, "formula", f"{row.id}: {why}")
        return None

    def _wrong_sign(self, number: Quantity, row: Evidence) -> str | None:
        value = float(row.value)
        if value == 0:
            return None
        sign = 1 if value > 0 else -1
        said, close = self._direction(number)
        says = f"{row.id} is {show(value, row.unit)}"
        if number.sign and number.sign != sign:
            return says
        if number.sign:
            clash = close is not None and not close.weak and close.sign == -sign
            return f"{says}, and the words say the opposite" if clash and not _is_neutral(row) else None
        if row.unit in ("days", "years", "count", "probability", "ratio") or _is_neutral(row):
            if _LOSSES.search(row.what) and said and not _LOSS_CUE.search(self._rest):
                return f"{row.id} is {row.what!r}, which the sentence does not say"
            return None if sign > 0 else f"{says}, without its sign"
        if said == 0:
            return f"{says}, and the sentence does not say which way"
        return None if said == sign else says

    def _direction(self, number: Quantity) -> tuple[int, DirectionWord | None]:
        """What the words say of a number (+1, −1, 0: nothing), and the word right beside it, if there is one."""
        start, end = self._clause(number.start)
        inside = [one for one in self.directions if start <= one.start < end]
        before = [one for one in inside if one.end <= number.start]
        after = [one for one in inside if one.start >= number.end]
        gap_after = _gap(self._rest, number.end, after[0].start) if after else 99
        gap_before = _gap(self._rest, before[-1].end, number.start) if before else 99
        close = before[-1] if before and gap_before <= 2 else after[0] if after and gap_after == 0 else None
        if after and gap_after == 0 and gap_before > 1:
            return after[0].sign, after[0]
        if before:
            return before[-1].sign, close
        if after:
            return after[0].sign, close
        earlier = [one for one in self.directions if one.end <= start]
        return (earlier[-1].sign if earlier else 0), None

    def _clause(self, at: int) -> tuple[int, int]:
        end = next(one for one in self._ends if one > at or one == self._ends[-1])
        start = max((one for one in self._ends if one <= at and one != end), default=0)
        return start, end

    def _entities(self, number: Quantity) -> frozenset[str]:
        """Whom the number may be about: the names of its clause; else the name before it, after it, or the subject."""
        start, end = self._clause(number.start)
        inside = [one for one in self.mentions if start <= one.start < end]
        known = [one for one in inside if one.entities]
        strangers = [one for one in inside if not one.entities]
        if known and not any(
            _gap(self._rest, one.end, number.start) < 6 for one in strangers if one.end <= number.start
        ):
            return frozenset().union(*(one.entities for one in known))
        if strangers:
            return frozenset()
        before = [one for one in self.mentions if one.end <= start]
        after = [one for one in self.mentions if one.start >= end]
        for near in (*reversed(before), *after):
            return near.entities
        return frozenset((entity_key(self._subject),))

    def _periods_of(self, number: Quantity) -> list[Period]:
        return [one for one in self.periods if self._owner(one) is number]

    def _owner(self, period: Period) -> Quantity | None:
        """The number that a period is about: in its clause the one before it, else after it; else in the sentence."""
        if self._says_horizon(period):
            return None
        start, end = self._clause(period.start)
        before = [one for one in self.numbers if one.end <= period.start]
        after = [one for one in self.numbers if one.start >= period.end]
        near = [one for one in before if one.start >= start][-1:] or [one for one in after if one.start < end][:1]
        return next(iter(near or before[-1:] or after[:1]), None)

    def _says_horizon(self, period: Period) -> bool:
        return re.search(r"\bhorizon(?: is| of|:)? *$", self._rest[: period.start], re.IGNORECASE) is not None

    def _is_horizon(self, period: Period) -> bool:
        return any(row.unit == "days" and period.days == row.value for row in self.evidence)

    def loose_periods(self) -> list[Period]:
        """Periods that stand beside no number: they are a number themselves."""
        return [one for one in self.periods if self._owner(one) is None]

    def fault_of_period(self, period: Period) -> Ungrounded | None:
        fits = [row for row in self.evidence if period.fits(row)]
        if self._is_horizon(period) or (fits and not self._says_horizon(period)):
            return None
        return Ungrounded(period.text, "period", "no row is for that period")


def _masked(text: str, spans: Sequence[NameMention | Period | Quantity]) -> str:
    for one in spans:
        text = text[: one.start] + " " * (one.end - one.start) + text[one.end :]
    return text


def _is_size(period: Period, cites: Mapping[int, str]) -> bool:
    """A duration that names a row is that row's number, not a period of another."""
    return period.days is not None and period.end in cites


def _with_cite(number: Quantity, cites: Mapping[int, str]) -> Quantity:
    return replace(number, cite=cites.get(number.end))


def _gap(text: str, start: int, end: int) -> int:
    return len(text[start:end].split())


def _is_neutral(row: Evidence) -> bool:
    return _NEUTRAL.search(row.what) is not None


def _is_about_all(row: Evidence, names: frozenset[str]) -> bool:
    """The scenario's own figures (its horizon) belong to whatever the sentence is about."""
    return row.entity == "scenario" and bool(names)
