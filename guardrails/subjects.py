"""Whom a sentence is about, and whether it says that they rose or fell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from finllm.tools.data.factors import FACTORS

BOOK = "book"
_ALIASES: dict[str, tuple[str, ...]] = {
    BOOK: ("book", "portfolio", "holdings", "positions"),
    "EQUITY_US": ("US equities", "US stocks", "US shares", "equities", "equity", "stocks", "shares", "stock market",
                  "S&P 500", "S&P"),
    "CREDIT_BAA_AAA": ("credit spreads", "credit spread", "credit", "BAA over AAA", "BAA–AAA spread"),
    "RATE_US_10Y": ("US 10-year rate", "US 10-year yield", "10-year Treasury yield", "10-year yield", "10-year rate",
                    "Treasury yield", "Treasury yields", "rates", "yields"),
    "OIL_WTI": ("crude oil", "WTI crude", "crude", "WTI", "oil"),
    "USD_BROAD": ("US dollar", "dollar", "dollar index", "greenback"),
    "GOLD": ("gold", "bullion"),
    "VIX": ("implied volatility", "VIX"),
}  # fmt: skip
"""Names by which prose calls the book and the judged factors."""
_ELSE = [
    "copper",
    "silver",
    "platinum",
    "palladium",
    "bitcoin",
    "ether",
    "crypto",
    "wheat",
    "corn",
    "gilts",
    "bunds",
    "bonds",
    "euro",
    "yen",
    "sterling",
    "pound",
    "franc",
    "renminbi",
    "yuan",
    "nikkei",
    "dax",
    "ftse",
    "nasdaq",
    "dow",
    "gas",
    "coal",
    "lithium",
    "uranium",
    "housing",
    "property",
    "cash",
]
"""What finance talks of besides: a sentence about one of these is not about the book."""
_NO_NAMES = frozenset(
    [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "It",
        "That",
        "This",
        "There",
        "They",
        "We",
        "What",
        "Which",
        "Nothing",
        "Nobody",
        "The",
        "A",
        "An",
        "Our",
        "Your",
        "Its",
        "Their",
        "These",
        "Those",
        "All",
        "Each",
        "Both",
        "In",
        "On",
        "At",
        "By",
        "Of",
        "For",
        "From",
        "To",
        "With",
        "Over",
        "After",
        "Before",
        "Through",
        "Without",
        "Within",
        "Under",
        "Between",
        "If",
        "When",
        "While",
        "Where",
        "Were",
        "Had",
        "As",
        "So",
        "Then",
        "But",
        "And",
        "Or",
        "Not",
        "No",
        "Most",
        "Some",
        "Many",
        "Much",
        "More",
        "Less",
        "Overall",
        "However",
        "Today",
        "Here",
        "Still",
        "Yet",
        "Thus",
        "Hence",
        "Together",
        "Again",
        "Now",
        "Meanwhile",
        "Also",
        "Finally",
        "First",
        "Second",
        "Third",
        "Next",
        "Otherwise",
        "Instead",
        "Elsewhere",
        "Of",
        "USD",
        "US",
        "P&L",
        "VaR",
        "ES",
        "CVaR",
        "I",
        "Q1",
        "Q2",
        "Q3",
        "Q4",
        "E",
    ]
)

_UP = (r"gain(?:s|ed|ing)?|ris(?:e|es|en|ing)|rose|climb(?:s|ed|ing)?|jump(?:s|ed|ing)?|up|higher|add(?:s|ed|ing)?|"
       r"mak(?:e|es|ing)|made|earn(?:s|ed|ing)?|profits?|profited|increas(?:e|es|ed|ing)|grow(?:s|n|ing)?|grew|"
       r"surg(?:e|es|ed|ing)|soar(?:s|ed|ing)?|rall(?:y|ies|ied|ying)|widen(?:s|ed|ing)?|strengthen(?:s|ed|ing)?|"
       r"appreciat(?:e|es|ed|ing)|rebound(?:s|ed|ing)?|advanc(?:e|es|ed|ing)|improv(?:e|es|ed|ing)|benefit(?:s|ed)?|"
       r"positive|plus|spik(?:e|es|ed|ing)|leap(?:s|t|ing)?|wins?|won|upside")  # fmt: skip
_DOWN = (r"los(?:e|es|t|ing|s|ses)|fall(?:s|en|ing)?|fell|drop(?:s|ped|ping)?|declin(?:e|es|ed|ing)|"
         r"decreas(?:e|es|ed|ing)|down|lower|shed(?:s|ding)?|drawdowns?|giv(?:e|es|ing) up|gave up|slid(?:e|es|ing)?|"
         r"sink(?:s|ing)?|sank|tumbl(?:e|es|ed|ing)|plung(?:e|es|ed|ing)|slump(?:s|ed|ing)?|shrink(?:s|ing)?|shrank|"
         r"weaken(?:s|ed|ing)?|narrow(?:s|ed|ing)?|tighten(?:s|ed|ing)?|eas(?:e|es|ed|ing)|retreat(?:s|ed|ing)?|"
         r"dip(?:s|ped|ping)?|contract(?:s|ed|ing)|cost(?:s|ing)?|depreciat(?:e|es|ed|ing)|negative|minus|deficit|"
         r"crash(?:es|ed|ing)?|collaps(?:e|es|ed|ing)|erod(?:e|es|ed|ing)|suffer(?:s|ed|ing)?|downside|forfeit(?:s|ed)?|"
         r"wip(?:e|es|ed|ing) out|tak(?:e|es|ing) off|knock(?:s|ed|ing)? off|worse")  # fmt: skip
_WEAK = frozenset(("make", "makes", "making", "made", "add", "adds", "added", "adding", "plus", "minus"))
"""Verbs that also stand before a signed number: `would have made −3 %` says what the sign says."""
_DIRECTION = re.compile(
    rf"\b(?:(?P<up>{_UP})|(?P<down>{_DOWN}))\b(?! than\b| to [-+−]?[$\d]| bound| end\b)(?<!up to)", re.IGNORECASE
)
_NEGATED = re.compile(
    r"\b(?:no|not|never|without|hardly|neither|nor|avoids?|avoided|avoiding|cannot)\b|n't\b", re.IGNORECASE
)
_CLAUSE = re.compile(
    r"[;:()]|,(?!\d{3})|[—]|(?<= )–(?= [a-z])|\b(?:and|but|or|while|whereas|when|if|as|so|because|that|which|with|"
    r"against|"
    r"ahead of|after|where|were|had|versus|than)\b", re.IGNORECASE)  # fmt: skip


@dataclass(frozen=True)
class NameMention:
    """A name in a sentence and the entities that it may mean; none of them for a name that no row is about."""

    start: int
    end: int
    text: str
    entities: frozenset[str]


@dataclass(frozen=True)
class DirectionWord:
    """A word that says which way: `sign` is +1, −1, or 0 where it is negated; `weak` words yield to a written sign."""

    start: int
    end: int
    sign: int
    weak: bool


def entity_key(entity: str) -> str:
    """One name for a factor's id and its label; every other entity is its own."""
    return _LABELS.get(entity, entity)


_LABELS = {factor.label: id for id, factor in FACTORS.items()}


def is_name(entity: str) -> bool:
    """Whether a sentence may carry the name as it is: one that starts with a digit could pass for a number."""
    return re.match(r"[^\W\d_]", entity) is not None


def find_mentions(text: str, entities: Iterable[str]) -> list[NameMention]:
    """Every name of a table's entities, of the book and of a factor, and every other name; longest first."""
    pattern, meant = _names(frozenset(entities))
    found: list[NameMention] = []
    for match in pattern.finditer(text):
        keys = meant.get(match[0]) or meant.get(match[0].lower(), frozenset())
        found.append(NameMention(match.start(), match.end(), match[0], keys))
    return found


def find_strangers(text: str) -> list[NameMention]:
    """Names in a text whose known names are masked: capitalised words, and what finance talks of besides."""
    found = [NameMention(m.start(), m.end(), m[0], frozenset()) for m in _OTHER.finditer(text)]
    for match in _CAPITAL.finditer(text):
        first = not text[: match.start()].strip(" «\"'")
        subject = match[0].isupper() or _FINITE.match(text, match.end())
        if match[0] not in _NO_NAMES and (not first or subject):
            found.append(NameMention(match.start(), match.end(), match[0], frozenset()))
    return found


_FINITE = re.compile(
    r",|(?:'s)?(?: alone| itself| also| then| now)? (?:is|are|was|were|has|have|had|will|would|could|may|might|should|"
    r"can|showed|\w+s|"
    rf"{_UP}|{_DOWN})\b", re.IGNORECASE)  # fmt: skip
"""What follows the subject of a sentence, so that its capital is a name's and not only the first word's."""
_OTHER = re.compile(rf"\b(?:{'|'.join(_ELSE)})\b", re.IGNORECASE)
_CAPITAL = re.compile(r"(?<![\w&])[A-Z][\w&.-]*\w")


@lru_cache(maxsize=64)
def _names(entities: frozenset[str]) -> tuple[re.Pattern[str], dict[str, frozenset[str]]]:
    meant: dict[str, set[str]] = {}
    for entity in filter(is_name, entities):
        key = entity_key(entity)
        meant.setdefault(entity, set()).add(key)
        if " " in entity or not entity.isupper():
            meant.setdefault(entity.lower(), set()).add(key)
        if entity.startswith("source "):
            meant.setdefault(entity.removeprefix("source "), set()).add(key)
    for key, names in _ALIASES.items():
        meant.setdefault(key, set()).add(key)
        for name in names:
            for written in {name, name.lower()}:
                meant.setdefault(written, set()).add(key)
    loose = sorted((name for name in meant if name == name.lower()), key=len, reverse=True)
    exact = sorted((name for name in meant if name != name.lower()), key=len, reverse=True)
    written = sorted((*exact, *loose), key=len, reverse=True)
    parts = [re.escape(n) if n in exact else f"(?i:{re.escape(n)})" for n in written]
    pattern = re.compile(rf"(?<![\w&])(?:{'|'.join(parts)})(?![\w&]|-\w)")
    return pattern, {name: frozenset(keys) for name, keys in meant.items()}


def find_directions(text: str) -> list[DirectionWord]:
    found: list[DirectionWord] = []
    for match in _DIRECTION.finditer(text):
        before = " ".join(text[: match.start()].split()[-3:])
        sign = 0 if _NEGATED.search(before) else 1 if match["up"] else -1
        found.append(DirectionWord(match.start(), match.end(), sign, match[0].lower() in _WEAK))
    return found


def clause_bounds(text: str, ranges: Iterable[tuple[int, int]]) -> list[int]:
    """Where the clauses of a text end, its own end included. `ranges` are spans that no clause ends in."""
    kept = list(ranges)
    cuts = [m.start() for m in _CLAUSE.finditer(text) if not any(a <= m.start() < b for a, b in kept)]
    return [*cuts, len(text)]
