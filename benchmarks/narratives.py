"""Narratives about made-up evidence tables: many phrasings, half of them held out from the guard's development.

A phrasing is a sentence with slots. `{role.n}` is the number of the row in that role, unsigned; `{role.s}` the same
with its sign; `{role.v}` a verb that says its direction, `{role.noun}` a noun that does; `{role.e}` a name of the row's
entity and `{role.p}` its period. Pieces stay
apart until the text is joined, so that a mutation changes one fact and no other.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.made_up_table import made_up_table
from finllm.graphs.nodes.report import summary_lines
from finllm.graphs.rows import StressRow
from finllm.tools.data.factors import FACTORS
from finllm.tools.evidence import EvidenceTable, show
from finllm.tools.pnl.outcome import EngineResult

PHRASINGS = (
    "{total.E} {total.v} {total.n} over {total.p}.",
    "Over {total.p}, {total.e} {total.v} {total.n}, or {share.n} of its value.",
    "{total.E} would {total.vi} {total.n} within {total.p}, which is {share.n} of what it is worth.",
    "P&L of {total.e} comes to {total.s} after {total.p}.",
    "In {total.p} {total.e} {total.v} roughly {total.n}.",
    "We expect {total.e} to {total.vi} {total.n} over the next {total.p}.",
    "A {total.noun} of {total.n} is what {total.e} faces over {total.p}.",
    "After {total.p}, the {total.noun} on {total.e} amounts to {total.n}.",
    "{total.E} ends {total.p} with a {total.noun} of {total.n} ({share.s}).",
    "The {total.noun} for {total.e}: {total.n}, {share.s} of market value, horizon {total.p}.",
    "{total.E} is seen between {low.s} and {high.s} at {level.n}.",
    "The interval for {low.e} runs from {low.s} to {high.s}, with {level.n} confidence.",
    "With a probability of {level.n}, {low.e} ends {low.p} no lower than {low.s} and no higher than {high.s}.",
    "At {level.n}, the range of {low.e} is {low.s} to {high.s} over {low.p}.",
    "{factor.E} alone {factor.v} {factor.n} over {factor.p}.",
    "Most of it comes through {factor.e}, which contributes {factor.s} over {factor.p}.",
    "The contribution of {factor.e} is {factor.s}.",
    "{factor.E} accounts for a {factor.noun} of {factor.n} within {factor.p}.",
    "Through {factor.e} the desk {factor.v} {factor.n}; {total.e} as a whole {total.v} {total.n}.",
    "{factor.E} {factor.v} {factor.n}, while {other.e} {other.v} {other.n}.",
    "The biggest single effect is {factor.e} at {factor.s}, ahead of {other.e} at {other.s}.",
    "By factor, {factor.e} stands at {factor.s} and {other.e} at {other.s} over {other.p}.",
    "Of the positions, {position.e} {position.v} {position.n}.",
    "{position.E} {position.v} {position.n} over {position.p}, and {sector.e} {sector.v} {sector.n}.",
    "Holding {position.e} means a {position.noun} of {position.n}.",
    "The {position.e} position is marked {position.s} after {position.p}.",
    "{sector.E} names together {sector.v} {sector.n} in {sector.p}.",
    "Sector by sector, {sector.e} comes out at {sector.s}.",
    "Were the shocks to come, {sector.e} would {sector.vi} {sector.n}.",
    "The scenario has {shock.e} {shock.ving} {shock.n}, a move of {sigma.s}.",
    "{shock.E} {shock.v} {shock.n} in this scenario.",
    "The shock to {shock.e} is {shock.s}, which is {sigma.s} of its own history.",
    "A {shock.noun} of {shock.n} in {shock.e} is assumed, {sigma.n} away from normal.",
    "We shock {shock.e} by {shock.s}.",
    "With {shock.e} {shock.adj} {shock.n}, {total.e} {total.v} {total.n}.",
    "{total.E} {total.v} {total.n} when {shock.e} {shock.v} {shock.n}.",
    "If {shock.e} {shock.v} {shock.n}, expect a {total.noun} of {total.n} on {total.e} over {total.p}.",
    "{rate.E} {rate.v} by {rate.n}.",
    "{rate.E} is taken {rate.adj} by {rate.n}, and {shock.e} {shock.v} {shock.n}.",
    "The story moves {rate.e} {rate.s}.",
    "Assume {rate.e} {rate.s} and {shock.e} {shock.s}.",
    "{change.E} {change.pv} {change.n} over {change.p}.",
    "Over {change.p}, {change.e} {change.pv} {change.n}.",
    "In {change.p} {change.e} has moved {change.s}.",
    "The market already {change.pv} {change.n} in {change.e} over {change.p}.",
    "Realised volatility of {vol.e} was {vol.n} over {vol.p}.",
    "{vol.E} showed a volatility of {vol.n} a year during {vol.p}.",
    "{vol.E} has been running at {vol.n} volatility, measured over {vol.p}.",
    "The one-day value at risk of {var.e} was {var.n} before the event.",
    "Before the event, {var.e} had a one-day VaR of {var.n}.",
    "One-day VaR for {var.e} stands at {var.n}.",
    "{value.E} is worth {value.n}.",
    "Market value of {value.e}: {value.n}.",
    "With {value.n} invested, {total.e} {total.v} {total.n}, that is {share.n}.",
    "The model forecasts {forecast.s} for {forecast.e} {forecast.p}.",
    "{forecast.E} is forecast at {forecast.s} {forecast.p}.",
    "Limit breached: {factor.e} {factor.v} {factor.n} where {limit.n} is allowed.",
    "{factor.E}: {factor.s} against a limit of {limit.n}.",
    "The limit on {limit.e} is {limit.n}, and it {factor.v} {factor.n}.",
    "Replaying {analogue.p}, {analogue.e} would {analogue.vi} {analogue.n}.",
    "Had {analogue.p} repeated, {analogue.e} would have made {analogue.s}.",
    "In the window {analogue.p} the same holdings moved by {analogue.s}.",
    "{count.n} publishers with nearly the same text were found for {count.e}.",
    "The horizon is {horizon.n}.",
    "{total.E}, over a horizon of {horizon.n}, {total.v} {total.n}.",
)  # fmt: skip

FRESH = (
    "Over {total.p} we see {total.e} {total.ving} {total.n}.",
    "Should the story come true, {total.e} {total.v} some {total.n}, i.e. {share.n}, in {total.p}.",
    "{total.E} takes a {total.noun} of {total.n}; {factor.e} alone is good for {factor.s}.",
    "What hurts or helps is {factor.e}: {factor.s} within {factor.p}.",
    "{shock.E} goes {shock.adj} {shock.n} and {rate.e} goes {rate.adj} {rate.n}.",
    "Because {shock.e} {shock.v} {shock.n}, {position.e} {position.v} {position.n}.",
    "No limit but that on {limit.e}, {limit.n}, is near.",
    "{position.E} stands at {position.s}; {sector.e} stands at {sector.s}.",
    "From {low.s} to {high.s}: that is where {low.e} ends up, {level.n} of the time.",
    "In the past event, {analogue.p}, {analogue.e} {analogue.v} {analogue.n}.",
    "{vol.E} swung by {vol.n} a year, judged by {vol.p}.",
    "A one-day VaR of {var.n} was reported for {var.e}.",
    "All of {value.e} was valued at {value.n}.",
    "{other.E} hands {total.e} {other.s}.",
    "({total.E}: {total.s}, {share.s}; {total.p}.)",
    "Desk note: {sector.e} {sector.v} {sector.n}, {position.e} {position.v} {position.n}, horizon {position.p}.",
)  # fmt: skip
"""Phrasings written after the guard was finished, and run on it as they are."""

ALIASES: dict[str, tuple[str, ...]] = {
    "book": ("the book", "the portfolio", "your book", "our portfolio"),
    "EQUITY_US": ("US equities", "equities", "the S&P 500", "EQUITY_US", "stocks"),
    "CREDIT_BAA_AAA": ("the credit spread", "credit", "CREDIT_BAA_AAA", "credit spreads"),
    "RATE_US_10Y": ("the US 10-year rate", "the 10-year yield", "RATE_US_10Y"),
    "OIL_WTI": ("crude oil", "WTI", "oil", "OIL_WTI", "crude"),
    "USD_BROAD": ("the dollar", "USD_BROAD", "the US dollar"),
    "GOLD": ("gold", "GOLD", "bullion"),
    "VIX": ("the VIX", "implied volatility", "VIX"),
}

_UP = {"v": ("gains", "adds", "makes", "earns"), "vi": ("gain", "add", "make"), "noun": ("gain", "profit"),
       "adj": ("up", "higher"), "ving": ("rising", "climbing"), "pv": ("has gained", "gained")}  # fmt: skip
_DOWN = {"v": ("loses", "gives up", "sheds", "drops"), "vi": ("lose", "give up", "shed"), "noun": ("loss", "drawdown"),
         "adj": ("down", "lower"), "ving": ("falling", "dropping"), "pv": ("has lost", "lost")}  # fmt: skip
_RISE = _UP | {
    "v": ("rises", "climbs", "jumps", "is up"),
    "noun": ("rise", "jump"),
    "pv": ("rose", "climbed", "has gained"),
}
_FALL = _DOWN | {"v": ("falls", "drops", "slides", "is down"), "noun": ("fall", "drop", "decline"),
                 "pv": ("fell", "slid", "has lost")}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A part of a narrative. `kind`: text, number, verb, entity or period; `row`: the evidence row it speaks of."""

    kind: str
    text: str
    row: str = ""
    value: float = 0.0
    unit: str = ""


@dataclass(frozen=True)
class Narrative:
    """A table, and sentences about it as pieces."""

    table: EvidenceTable
    roles: dict[str, str]
    sentences: tuple[tuple[Piece, ...], ...]

    def texts(self, *, cited: bool) -> list[str]:
        """The sentences; `cited` puts `[E7]` behind each number."""
        return ["".join(_shown(piece, cited) for piece in pieces) for pieces in self.sentences]

    def with_piece(self, sentence: int, at: int, piece: Piece) -> Narrative:
        pieces = list(self.sentences[sentence])
        pieces[at] = piece
        return replace(self, sentences=(*self.sentences[:sentence], tuple(pieces), *self.sentences[sentence + 1 :]))


def _shown(piece: Piece, cited: bool) -> str:
    return f"{piece.text} [{piece.row}]" if cited and piece.kind == "number" else piece.text


def held_out(phrasing: str) -> bool:
    """Half of the phrasings, by a digest of their text: never looked at while the guard was written."""
    return hashlib.sha256(phrasing.encode()).digest()[0] % 2 == 1


_SLOT = re.compile(r"\{(\w+)\.(\w+)\}")
_ROUNDED = re.compile(r"roughly|about")


def narrative(draw: random.Random, phrasings: Sequence[str]) -> Narrative:
    """Two to four sentences, with at least one amount, one per cent or bp, one entity, one period and one direction."""
    table, roles = made_up_table(draw)
    while True:
        chosen = draw.sample(list(phrasings), draw.randrange(2, 5))
        sentences = tuple(_told(phrasing, table, roles, draw) for phrasing in chosen)
        pieces = [piece for sentence in sentences for piece in sentence]
        if (any(p.kind == "number" and p.unit == "usd" for p in pieces)
                and any(p.kind == "number" and p.unit in ("return", "bp") for p in pieces)
                and any(p.kind == "period" for p in pieces)
                and any(p.kind == "entity" for p in pieces) and any(is_directed(p) for p in pieces)):  # fmt: skip
            return Narrative(table, roles, sentences)


_REFERENCE = re.compile(r"\[\[(\w+?)(\.entity)?\]\]|\b(the book)\b")


def report_narrative(draw: random.Random) -> Narrative:
    """The summary that a run's report would give of a made-up table, as the report words it."""
    table, roles = made_up_table(draw)
    stress = StressRow.model_construct(
        total=roles["total"], total_share=roles["share"], horizon=roles["horizon"],
        interval=(roles["low"], roles["high"]), interval_level=roles["level"],
        by_factor={row.entity: row.id for row in table if row.what == "P&L by factor"},
        result=EngineResult.model_construct(interval=None),
    )  # fmt: skip
    sentences: list[tuple[Piece, ...]] = []
    for line in summary_lines(stress, table):
        pieces: list[Piece] = []
        at = 0
        for match in _REFERENCE.finditer(line.replace("[[title]]", "Hormuz closed for 30 days")):
            pieces += [Piece("text", match.string[at : match.start()])] if match.start() > at else []
            pieces.append(_reported(match, table, roles))
            at = match.end()
        sentences.append((*pieces, Piece("text", match.string[at:])))
    return Narrative(table, roles, tuple(sentences))


def _reported(match: re.Match[str], table: EvidenceTable, roles: dict[str, str]) -> Piece:
    if match[3]:
        return Piece("entity", match[3], roles["total"])
    row = table[match[1]]
    if match[2]:
        return Piece("entity", row.entity, row.id)
    kind = "period" if row.unit == "days" else "number"
    return Piece(kind, show(row.value, row.unit), row.id, float(row.value), row.unit)


def is_directed(piece: Piece) -> bool:
    return piece.kind == "verb" or (piece.kind == "number" and piece.text[:1] in "+-−")


def _told(phrasing: str, table: EvidenceTable, roles: dict[str, str], draw: random.Random) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    at = 0
    for match in _SLOT.finditer(phrasing):
        pieces.append(Piece("text", phrasing[at : match.start()]))
        pieces.append(_piece(table, roles[match[1]], match[2], draw))
        at = match.end()
    pieces.append(Piece("text", phrasing[at:]))
    return tuple(piece for piece in pieces if piece.text)


def _piece(table: EvidenceTable, id: str, slot: str, draw: random.Random) -> Piece:
    row = table[id]
    value = float(row.value)
    money = row.unit == "usd"
    if slot in ("n", "s"):
        return Piece("number", number(value, row.unit, draw, signed=slot == "s"), id, value, row.unit)
    if slot in ("e", "E"):
        text = draw.choice(names_of(row.entity))
        return Piece("entity", text[:1].upper() + text[1:] if slot == "E" else text, id)
    if slot == "p":
        return Piece("period", period_of(row.what, row.period, draw), id)
    words = (_UP if money else _RISE) if value > 0 else (_DOWN if money else _FALL)
    return Piece("verb", draw.choice(words[slot]), id, value, row.unit)


def names_of(entity: str) -> tuple[str, ...]:
    """Names by which a narrative may call an entity of the table."""
    for id, factor in FACTORS.items():
        if entity in (id, factor.label):
            return ALIASES[id]
    return ALIASES.get(entity, (entity,))


def number(value: float, unit: str, draw: random.Random, *, signed: bool) -> str:
    """A value in one of the ways in which people write it, at a random precision that keeps two digits."""
    size = abs(value)
    sign = (draw.choice("-−") if value < 0 else "+") if signed else ""
    if unit == "usd":
        return _money(size, sign, draw)
    if unit == "return":
        digits = draw.choice((1, 2)) if size >= 0.01 else 2
        return f"{sign}{size * 100:.{digits}f}{draw.choice((' %', '%', ' per cent', ' percent'))}"
    if unit == "bp":
        return f"{sign}{size:.0f} {draw.choice(('bp', 'basis points', 'bps'))}"
    if unit == "points":
        return f"{sign}{size:.1f} points"
    if unit == "sigma":
        return f"{sign}{size:.1f} {draw.choice(('σ', 'standard deviations', 'sigma'))}"
    if unit == "probability":
        return f"{size * 100:.0f}{draw.choice((' %', '%', ' per cent'))}"
    if unit == "days":
        return f"{size:.0f} {draw.choice(('days', 'trading days'))}"
    return f"{size:.0f}"


def _money(size: float, sign: str, draw: random.Random) -> str:
    ways = [f"{sign}{size:,.0f} USD", f"USD {sign}{size:,.0f}", f"{sign}${size:,.0f}"]
    for limit, words in ((1e9, ("billion", "bn")), (1e6, ("million", "m"))):
        if size >= limit:
            amount = f"{size / limit:.{draw.choice((1, 2))}f}"
            ways += [f"{sign}{amount} {words[0]} USD", f"{sign}${amount} {words[0]}", f"USD {sign}{amount} {words[0]}",
                     f"{sign}${amount}{words[1]}", f"{sign}{amount} {words[0]} dollars"]  # fmt: skip
            break
    return draw.choice(ways)


def period_of(what: str, period: str, draw: random.Random) -> str:
    """The row's period in one of the ways in which people write it."""
    if what.startswith("change over the last 20 days"):
        return draw.choice(("the last 20 days", "the past 20 days"))
    if match := re.fullmatch(r"(\d+) trading days", period):
        return draw.choice((period, f"{match[1]} days", f"{_word(int(match[1]))} trading days"))
    if match := re.fullmatch(r"(\d+) steps from (\S+)", period):
        return draw.choice((f"{match[1]} steps from {match[2]}", f"{match[1]} steps ahead"))
    if match := re.fullmatch(r"(\S+) to (\S+)", period):
        start, end = (dt.date.fromisoformat(part) for part in match.groups())
        return draw.choice((period, f"{start.day} {start:%B %Y} to {end.day} {end:%B %Y}", f"{start} – {end}"))
    if period.startswith("last "):
        return draw.choice((f"the {period}", f"the past {period.removeprefix('last ')}"))
    return period


def _word(count: int) -> str:
    return {5: "five", 10: "ten", 20: "twenty", 21: "twenty-one", 60: "sixty"}[count]
