"""Reads a text by word lists, without a model: which factors it says moved, and which way."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict

from finllm.made_by import made_by
from finllm.tools.data.factors import FACTOR_IDS, Direction, FactorId

WORDS_PATH = Path(__file__).parent / "lexical.yaml"

Balance = Literal["up", "down", "none", "mixed"]
Mood = Literal["stated", "expected", "supposed"]
"""`stated`: the text says that it moved; `expected`: that it would or could; `supposed`: it says "if"."""


class Mention(BaseModel):
    """A factor and its move as the text puts them: `span` is the text from `start` to `end` (characters).

    `direction` is that of the factor, not of the instrument named: Treasuries that fall are a rate that rises. It is
    `none` where the text says that nothing moved, or denies a move (`negated`).
    """

    model_config = ConfigDict(frozen=True)

    factor: FactorId
    direction: Direction
    start: int
    end: int
    span: str
    negated: bool
    mood: Mood = "stated"


@dataclass(frozen=True)
class _Noun:
    factor: FactorId
    sign: int
    start: int
    end: int


@dataclass(frozen=True)
class _Move:
    role: str
    sign: int
    start: int
    end: int
    text: str
    factor: FactorId | None = None


@dataclass(frozen=True)
class _Words:
    nouns: tuple[tuple[FactorId, int, re.Pattern[str]], ...]
    barred: dict[FactorId, tuple[re.Pattern[str], re.Pattern[str]]]
    moves: tuple[tuple[str, int, FactorId | None, re.Pattern[str]], ...]


_SENTENCE_END = re.compile(r"(?<!U\.S)(?<!\d)[.!?](?=[\"'”’)]*(?:\s|\Z))|(?<=\d)[.!?](?=\s|\Z)|[;\n]")
_COMMA = re.compile(r",(?!\d)|:| [-–—] |[()]")
_CLAUSE = re.compile(
    r"\b(?:while|whereas|but|although|though|as|after|before|because|since|amid|despite|when|which|who|that|if|unless|"
    r"with|until|on (?:fears|hopes|news|signs|worries))\b",
    re.IGNORECASE,
)
_AND = re.compile(r"\band\b", re.IGNORECASE)
_JOINT = re.compile(
    r"\s*(?:,|and|&|or|nor|as well as|along with|, and|then)\s*(?:(?:both|also|the|us|u\.s\.|global|world|most)\s+)*",
    re.IGNORECASE,
)
_LINK = re.compile(r"\s*(?:(?!and\b|as\b)[\w-]+\s+){0,3}?(?:in|of|for|against)\s+(?:[\w.-]+\s+){0,2}", re.IGNORECASE)
_ATTRIBUTE = re.compile(
    r"\s*(?:(?:the|a|us|u\.s\.|global|world|both|already|sharply|long-term|demand for)\s+){0,3}", re.IGNORECASE
)
_PASSIVE = re.compile(r"\b(?:was|were|been|being|is|are|be|got)(?:\s+\w+ly)?\s*\Z", re.IGNORECASE)
_DONE_TO = re.compile(r"\s*(?:by\b|[,.!]|\Z)", re.IGNORECASE)
_AGAINST = re.compile(r"\b(?:against|versus|vs\.?|to) (?:a |the )?(?:\w+er )?\Z", re.IGNORECASE)
_NOT = re.compile(
    r"\b(?:not(?! only| just)|never|no(?! doubt)|nor|neither|hardly|barely|without|fail(?:s|ed|ing)? to|unable to|"
    r"refus(?:es|ed) to|instead of|rather than|far from|ruled out|den(?:ies|ied)|prevent(?:ed|s)?|cannot|\w+n't)\b",
    re.IGNORECASE,
)
_IF = re.compile(r"\b(?:if|unless|whether|suppose|were [\w ]{1,20} to|should [\w ]{1,20}\Z)\b", re.IGNORECASE)
_WOULD = re.compile(
    r"\b(?:would|could|may|might|will|can|should|likely|expect\w*|forecast\w*|set to|poised to|risks? of|fears?|"
    r"fearing|threaten\w*|predict\w*|warn\w*|hopes?|bets?|aims?|plans?)\b"
)

_REACH = 60
"""The farthest, in characters and penalties, that a word of movement may stand from its noun."""
_LONGEST = 600
_COMMA_COST, _CLAUSE_COST, _NOUN_COST, _INVERTED_COST = 12, 30, 30, 10


def read_factors(text: str) -> dict[FactorId, tuple[Mention, ...]]:
    """The moves that `text` states for each factor, in its order; a factor without a stated move has no entry.

    English only. Each noun phrase of a factor takes the nearest word of movement in its sentence, by characters with
    penalties for each clause and each other noun between; a phrase that no such word reaches says nothing.
    """
    found: dict[FactorId, list[Mention]] = {}
    start = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]:
        for cut in range(start, end, _LONGEST):  # a source may be one endless sentence, on purpose
            for mention in _read_sentence(text[cut : min(cut + _LONGEST, end)], cut):
                found.setdefault(mention.factor, []).append(mention)
        start = end
    return {factor: tuple(found[factor]) for factor in FACTOR_IDS if factor in found}


def balance(mentions: Iterable[Mention]) -> Balance:
    """What the mentions of one factor come to: stated moves, or expected ones where none is stated."""
    told = [mention for mention in mentions if mention.mood != "supposed"]
    stated = [mention for mention in told if mention.mood == "stated" and mention.direction != "none"]
    directions: set[Balance] = {mention.direction for mention in stated or told}
    directions.discard("none")
    return "mixed" if len(directions) > 1 else directions.pop() if directions else "none"


def stands_still(mentions: Iterable[Mention]) -> bool:
    """Whether all that is said of one factor is that it does not move; what is supposed does not count."""
    told = [mention for mention in mentions if mention.mood != "supposed"]
    return bool(told) and all(mention.direction == "none" for mention in told)


def _read_sentence(sentence: str, offset: int) -> list[Mention]:
    nouns, moves = _nouns(sentence), _moves(sentence)
    costs = {(noun, move): _cost(sentence, nouns, noun, move) for noun in nouns for move in moves}
    mentions = []
    for noun in nouns:
        ranked = sorted((costs[noun, move], move.start, move) for move in moves if costs[noun, move] <= _REACH)
        for cost, _, move in ranked:
            taken = any(costs[other, move] < cost for other in nouns if other.factor != noun.factor)
            if cost < _CLAUSE_COST or not taken:  # another clause's word is free only where no noun there needs it
                mentions.append(_mention(sentence, offset, noun, move, _joined(sentence, nouns, noun)[0].start))
                break
    return mentions


def _mention(sentence: str, offset: int, noun: _Noun, move: _Move, joined_from: int) -> Mention:
    clause = max((match.start() for match in _CLAUSE.finditer(sentence, 0, move.start)), default=0)
    comma = max((match.end() for match in _COMMA.finditer(sentence, 0, move.start)), default=0)
    joint = 0  # "may wait and stocks fell": what stands before "and" is not said of the noun after it
    if joined_from < move.start:
        joint = max((match.end() for match in _AND.finditer(sentence, 0, joined_from)), default=0)
    before = sentence[max(clause, comma, joint) : move.start].replace("’", "'")
    negated = move.sign != 0 and _NOT.search(before[-45:]) is not None
    sign = 0 if negated else move.sign * noun.sign
    direction: Direction = "up" if sign > 0 else "down" if sign < 0 else "none"
    mood: Mood = "supposed" if _IF.search(before) else "expected" if _WOULD.search(before) else "stated"
    start, end = min(noun.start, move.start), max(noun.end, move.end)
    return Mention(
        factor=noun.factor, direction=direction, start=offset + start, end=offset + end,
        span=sentence[start:end], negated=negated, mood=mood,
    )  # fmt: skip


def _cost(sentence: str, nouns: list[_Noun], noun: _Noun, move: _Move) -> int:
    """How far `move` stands from `noun`, or from the nouns that it is joined with ("stocks and oil fell")."""
    joined = _joined(sentence, nouns, noun)
    first, last = joined[0].start, joined[-1].end
    if (first < move.end and move.start < last) or move.factor not in (None, noun.factor):
        return _REACH + 1
    is_after = move.start >= last
    begin, end = (last, move.start) if is_after else (move.end, first)
    if end - begin > _REACH:
        return _REACH + 1
    between = sentence[begin:end]
    cost = len(between) + _COMMA_COST * len(_COMMA.findall(between)) + _CLAUSE_COST * len(_CLAUSE.findall(between))
    cost += _NOUN_COST * sum(begin <= other.start and other.end <= end for other in nouns if other not in joined)
    if move.role == "pushers":
        passive = _PASSIVE.search(sentence, 0, move.start) or _DONE_TO.match(sentence, move.end)
        right_side = bool(passive) or not is_after
    elif move.role == "markers" or is_after:
        right_side = True
    else:
        right_side = bool(_LINK.fullmatch(between) or _ATTRIBUTE.fullmatch(between))
        cost += _INVERTED_COST if right_side and not move.text.endswith("ing") else 0
    return cost if right_side else _REACH + 1


def _joined(sentence: str, nouns: list[_Noun], noun: _Noun) -> list[_Noun]:
    """The nouns of a list such as "stocks, oil and bond yields" that `noun` stands in, in order."""
    at = nouns.index(noun)
    first = last = at
    while first > 0 and _JOINT.fullmatch(sentence, nouns[first - 1].end, nouns[first].start):
        first -= 1
    while last + 1 < len(nouns) and _JOINT.fullmatch(sentence, nouns[last].end, nouns[last + 1].start):
        last += 1
    return nouns[first : last + 1]


def _nouns(sentence: str) -> list[_Noun]:
    words = _words()
    found = []
    for factor, sign, pattern in words.nouns:
        before, after = words.barred[factor]
        for match in pattern.finditer(sentence):
            if before.search(sentence, 0, match.start()) or after.match(sentence, match.end()):
                continue
            inverted = factor == "USD_BROAD" and _AGAINST.search(sentence[: match.start()])
            found.append(_Noun(factor, -sign if inverted else sign, match.start(), match.end()))
    return _longest(found)


def _moves(sentence: str) -> list[_Move]:
    found = [
        _Move(role, sign, match.start(), match.end(), match[0].lower(), factor)
        for role, sign, factor, pattern in _words().moves
        for match in pattern.finditer(sentence)
    ]
    return _longest(found)


_Span = TypeVar("_Span", _Noun, _Move)


def _longest(spans: list[_Span]) -> list[_Span]:
    """Those that remain, in order, where of two that overlap the longer one stays."""
    kept: list[_Span] = []
    for span in sorted(spans, key=lambda item: (item.start - item.end, item.start)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda item: item.start)


@cache
def _words() -> _Words:
    table = yaml.load(WORDS_PATH.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)

    def word(pattern: str) -> re.Pattern[str]:
        return re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)

    signs = {"up": 1, "down": -1, "flat": 0}
    moves: list[tuple[str, int, FactorId | None, re.Pattern[str]]] = [
        (role, signs[side], None, word(pattern))
        for side, roles in table["moves"].items()
        for role, patterns in roles.items()
        for pattern in patterns
    ]
    nouns: list[tuple[FactorId, int, re.Pattern[str]]] = []
    barred: dict[FactorId, tuple[re.Pattern[str], re.Pattern[str]]] = {}
    for factor in FACTOR_IDS:
        entry = table["nouns"][factor]
        for side in ("up", "down"):
            nouns.extend((factor, signs[side], word(pattern)) for pattern in entry.get(side, ()))
            moves.extend(
                ("movers", signs[side], factor, word(pattern)) for pattern in entry.get("moves", {}).get(side, ())
            )
        barred[factor] = (
            re.compile(rf"(?<!\w){entry['before']}[ -]?\Z", re.IGNORECASE),
            re.compile(entry["after"], re.IGNORECASE),
        )
    return _Words(tuple(nouns), barred, tuple(moves))


@cache
def words_digest() -> str:
    """What is read of a text follows from this beside it: the words and the code that reads them."""
    return made_by([Path(__file__), WORDS_PATH])
