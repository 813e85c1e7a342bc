"""Names and numbers of a question, found by rules: never by a model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

NAMES = Path(__file__).with_name("names.yaml")
SLOTS = ("row", "run", "source", "position", "sector", "episode", "agent", "move", "loss", "factor", "when", "term")
"""Kinds of name, in the order in which they are sought: what one has taken, no later one takes."""

_ROW = re.compile(r"(?<![\w-])[eE]\s?([1-9][0-9]{0,4})(?![\w%])")
_RUN = re.compile(r"\b\d{8}-\d{6}-[a-z0-9-]+-[0-9a-f]{4}\b")
_UNITS = r"%|per ?cent|percent|pct|bps?|basis points?|points?|pts|sigmas?|σ|standard deviations?"
_MOVE = re.compile(
    rf"(?P<sign>[-+−–]\s?|minus |plus |down |up |fall(?:s|ing)? |drop(?:s|ping)? |ris(?:e|es|ing) |los(?:e|es|ing) )?"
    rf"(?P<way>by |to |at |of |a |another )?(?P<sign2>[-+−–])?(?P<number>\d+(?:[.,]\d+)?)\s?-?(?P<unit>{_UNITS})(?!\w)",
    re.IGNORECASE,
)
_LOSS = re.compile(
    r"(?:\$|usd |eur |€)?\s?(?P<number>\d[\d,_.]*)\s?(?P<scale>k|m|mn|mm|million|thousand|bn|billion)?"
    r"(?:\s?(?:usd|dollars?|eur|euros?))?(?!\w)", re.IGNORECASE)  # fmt: skip
_WHEN = re.compile(
    r"\b(today|yesterday|this week|last week|this month|last month|this year|last year|\d{4}-\d{2}-\d{2})\b", re.I
)
_DOWN = re.compile(r"minus|down|fall|fell|drop|los|[-−–]|lower|sink|crash|tumbl|declin|decreas|plung", re.IGNORECASE)
_SCALES = {"k": 1e3, "thousand": 1e3, "m": 1e6, "mn": 1e6, "mm": 1e6, "million": 1e6, "bn": 1e9, "billion": 1e9}
_BARE = re.compile(r"\b(?:at|to|by|up|down|of)\s+(?P<sign>[-−])?\+?(?P<number>\d{1,3}(?:\.\d+)?)(?![\w%.])")
"""A number without a unit beside a factor: it is meant in the factor's own."""
_QUOTED = re.compile(r"[\"“”‘’«»]")


@dataclass(frozen=True)
class Known:
    """What a question may name: by slot the names and what each means. `words` of the glossary are terms."""

    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, slot: str) -> Mapping[str, str]:
        return self.names.get(slot, {})


@dataclass(frozen=True)
class Slots:
    """What a question names: by slot the values in their order, and the question with its names taken out."""

    values: Mapping[str, tuple[str, ...]]
    masked: str

    def first(self, slot: str) -> str | None:
        return next(iter(self.values.get(slot, ())), None)

    def all(self, slot: str) -> tuple[str, ...]:
        return self.values.get(slot, ())

    def with_those_of(self, other: Slots, only: Iterable[str]) -> Slots:
        """These, and of the other's those that are lacking here."""
        added = {slot: other.values[slot] for slot in only if slot in other.values and slot not in self.values}
        return Slots({**added, **self.values}, self.masked)

    def to_json(self) -> dict[str, list[str]]:
        return {slot: list(values) for slot, values in self.values.items()}


@cache
def house_names() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """What people call factors, agents, sectors, companies and words."""
    import yaml

    rows = yaml.load(NAMES.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return {slot: {id: tuple(names) for id, names in of.items()} for slot, of in rows.items()}


def find_slots(text: str, known: Known) -> Slots:
    """The names and numbers of a question, and the question with `[slot]` in place of each."""
    rest = _QUOTED.sub(" ", text)
    found: dict[str, list[str]] = {}
    for slot in SLOTS:
        rest = _PATTERNS[slot](rest, found, known) if slot in _PATTERNS else _by_name(rest, slot, found, known)
    if "factor" in found and not found.get("move") and (bare := _BARE.search(rest)):
        down = bare["sign"] or _DOWN.search(rest[: bare.start("number")])
        found["move"] = [f"{'-' if down else '+'}{bare['number']}"]
        rest = f"{rest[: bare.start()]} [move]{rest[bare.end() :]}"
    return Slots(
        {slot: tuple(dict.fromkeys(values)) for slot, values in found.items() if values}, " ".join(rest.split())
    )


def _by_name(text: str, slot: str, found: dict[str, list[str]], known: Known) -> str:
    names = known.of(slot)
    if not names:
        return text
    pattern = _pattern(tuple(sorted(names, key=len, reverse=True)))

    def take(match: re.Match[str]) -> str:
        said = " ".join(match[0].lower().split())
        found.setdefault(slot, []).append(names[said])
        return match[0] if slot == "term" else f"[{slot}]"  # a word of the glossary says what a question is about

    out = pattern.sub(take, text)
    return _misspelt(out, slot, names, found) if slot in ("factor", "source", "sector", "agent") and slot not in found \
        else out  # fmt: skip


def _misspelt(text: str, slot: str, names: Mapping[str, str], found: dict[str, list[str]]) -> str:
    """A word of six letters or more that is one letter off a name of one word."""
    single = [name for name in names if len(name) >= 6 and " " not in name]
    for word in re.findall(r"[a-zA-Z][\w-]{5,}", text):
        if word.lower() in _COMMON:
            continue
        near = difflib.get_close_matches(word.lower(), single, n=1, cutoff=0.86)
        if near:
            found.setdefault(slot, []).append(names[near[0]])
            return text.replace(word, f"[{slot}]", 1)
    return text


_COMMON = frozenset(("stress", "factor", "factors", "sector", "sectors", "source", "sources", "validation", "signal"))


@cache
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    parts = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in names)
    return re.compile(rf"(?<![\w&\[-])(?:{parts})(?:'s)?(?![\w&\]]|-\w)".replace("(?:'s)?", ""), re.IGNORECASE)


def _rows(text: str, found: dict[str, list[str]], known: Known) -> str:
    del known
    found["row"] = [f"E{number}" for number in _ROW.findall(text)]
    return _ROW.sub("[row]", text)


def _runs(text: str, found: dict[str, list[str]], known: Known) -> str:
    found["run"] = _RUN.findall(text)
    return _by_name(_RUN.sub("[run]", text), "run", found, known)


def _moves(text: str, found: dict[str, list[str]], known: Known) -> str:
    """A move is a number with a unit; its sign is written, or said by a word before it."""
    del known
    found["move"] = []

    def take(match: re.Match[str]) -> str:
        before = text[max(0, match.start() - 40) : match.start()]
        said = (match["sign"] or "") + (match["sign2"] or "")
        down = _DOWN.search(said) or (not said and _DOWN.search(before))
        found["move"].append(f"{'-' if down else '+'}{match['number'].replace(',', '.')}{_unit(match['unit'])}")
        return " [move]"

    return _MOVE.sub(take, text)


def _unit(said: str) -> str:
    small = said.lower()
    if small in ("%", "percent", "per cent", "pct"):
        return "%"
    return "bp" if small.startswith(("bp", "basis")) else "points" if small.startswith(("po", "pt")) else "sigma"


def _losses(text: str, found: dict[str, list[str]], known: Known) -> str:
    """An amount, or a share of the book: a number of four digits or more, or one with a scale."""
    del known

    def take(match: re.Match[str]) -> str:
        number, scale = match["number"].strip(".,").replace(",", "").replace("_", ""), (match["scale"] or "").lower()
        try:
            amount = float(number) * _SCALES.get(scale, 1.0)
        except ValueError:
            return match[0]
        if amount < 1000 or (not scale and 1900 <= amount <= 2100):  # a year, or no amount of money
            return match[0]
        found.setdefault("loss", []).append(f"{amount:.0f}")
        return "[loss]"

    return _LOSS.sub(take, text)


def _whens(text: str, found: dict[str, list[str]], known: Known) -> str:
    del known
    found["when"] = [said.lower() for said in _WHEN.findall(text)]
    return _WHEN.sub("[when]", text)


_PATTERNS = {"row": _rows, "run": _runs, "move": _moves, "loss": _losses, "when": _whens}
