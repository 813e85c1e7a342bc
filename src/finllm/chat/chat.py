"""The chat itself: a question understood by the catalogue, answered from rows, or refused with what comes near it.

No language model is asked. Names and numbers are found by rules, the kind of question by a small calibrated head; every
sentence that is answered has passed the grounding guard. What computes something new asks first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finllm.chat.catalogue import NONE, Kind, catalogue
from finllm.chat.intent import Intent
from finllm.chat.qualifiers import unapplied
from finllm.chat.readers import READERS
from finllm.chat.slots import Slots, find_slots
from finllm.chat.table import Answer, Table, Teller, said
from finllm.plain_text import clean
from finllm.tools.data.factors import FACTOR_IDS
from finllm.tools.evidence import Evidence

LONGEST = 500
"""Characters of a question that are read."""
NEAR = 3
"""Kinds that are offered where it is not sure."""
LEAST = 0.03
"""Probability from which on a kind is offered."""
REFUSED = "I cannot answer that: nothing on record says so."
_YES = re.compile(r"(?:y|yes|yes please|go|go on|do it|start it|please do|sure|ok go|ja)[.!]?", re.IGNORECASE)
_SMALL = frozenset(re.findall(r"\w+", (
    "and for what about how the an same with at on of in to is it its our now also then or names name stocks ones "
    "one positions position sector factor us if please you me does do by go goes be were was change a"
)))  # fmt: skip
"""Words that a follow-up has besides its names."""
_DEFINES = re.compile(
    r"(?:what is|what's|whats|what are|define|explain|what does|meaning of|what is meant by|what's meant by) "
    r"(?:an? |the word |the term )?(?!my |our |your |its |this |that |the )"
    r"(?:\[factor\]|[\w&-]+(?: [\w&-]+)?)(?: mean| stand for)? ?[?.]?",
    re.IGNORECASE,
)
"""A question for a word: one that names the run's own (`the horizon`) asks for that."""
_OF_SLOT = {"row": "row", "position": "position", "sector": "by_sector", "factor": "by_factor",
            "source": "source_said"}  # fmt: skip
"""What a name alone asks for, where what was on the table cannot take it."""
_NOT_APPLIED = "Not applied: [[said]]. This is the answer as if that had not been said."
_WHICH = "Which [[slot]]? There are: [[names]]."


@dataclass(frozen=True)
class Understood:
    """What a question was taken for: the kind, the names in it, and how probably that is what was meant."""

    kind: str
    slots: Slots
    probability: float

    @property
    def words(self) -> str:
        """In a line, for the person to correct."""
        named = ", ".join(f"{slot} {value}" for slot, values in self.slots.values.items() for value in values)
        return catalogue()[self.kind].says + (f" ({named})" if named else "")


@dataclass(frozen=True)
class Reply:
    """A question's answer. `near`: kinds that it might have meant instead, the likeliest first; `abstained`: none of
    them was sure enough to be answered; `asks`: it would compute something, and waits for a yes. `not_applied`: what
    the question said besides, which the answer does not take into account, as its first line says."""

    text: str
    run: str
    understood: Understood | None
    lines: tuple[str, ...]
    rows: tuple[Evidence, ...]
    command: str | None
    near: tuple[tuple[str, float], ...] = ()
    abstained: bool = False
    asks: bool = False
    not_applied: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        got = self.understood
        return {
            "question": self.text, "run": self.run,
            "understood": None if got is None else {"kind": got.kind, "says": catalogue()[got.kind].says,
                                                    "slots": got.slots.to_json(),
                                                    "probability": round(got.probability, 4)},
            "answer": "\n".join(self.lines), "rows": [row.model_dump(mode="json") for row in self.rows],
            "command": self.command,
            "near": [{"kind": kind, "says": catalogue()[kind].says, "probability": round(odds, 4)}
                     for kind, odds in self.near],
            "abstained": self.abstained, "asks": self.asks,
            "not_applied": list(self.not_applied),
        }  # fmt: skip


class Chat:
    """A talk about one run on the table. What was asked last stays on the table for what follows."""

    def __init__(self, table: Table, intent: Intent) -> None:
        self.table, self._intent = table, intent
        self._last: tuple[str, Understood] | None = None
        self._offered: tuple[str, ...] = ()
        self._waiting: tuple[str, Understood] | None = None

    def ask(self, text: str, *, confirmed: bool = False) -> Reply:
        """Answer a question, or a number that chooses what was offered, or a yes. Errors: BackendError, RecordError."""
        text = clean(text).strip()[:LONGEST]
        if self._waiting is not None and _YES.fullmatch(text):
            asked, understood = self._waiting
            return self._answered(asked, understood, confirmed=True)
        if text.isdigit() and 0 < int(text) <= len(self._offered) and self._last is not None:
            kind, (asked, before) = self._offered[int(text) - 1], self._last
            return self._answered(asked, replace(before, kind=kind, probability=1.0), confirmed=confirmed)
        slots = find_slots(text, self.table.known)
        understood, near = self._understood(text, slots)
        self._last = text, understood or Understood(near[0][0] if near else NONE, slots, 0.0)
        self._waiting = None
        if understood is None:
            self._offered = tuple(kind for kind, _ in near)
            return Reply(text, self.table.run.id, None, (REFUSED,), (), None, near, abstained=True)
        return self._answered(text, understood, near, confirmed=confirmed)

    def tell(self, kind: str, slots: Mapping[str, Sequence[str]], *, confirmed: bool = False, text: str = "") -> Reply:
        """Answer a kind of question by its id, with its names given: what programs ask.

        Errors: KeyError for a kind that there is none of.
        """
        given = Slots({slot: tuple(values) for slot, values in slots.items() if values}, "")
        return self._answered(text or catalogue()[kind].says, Understood(kind, given, 1.0), confirmed=confirmed)

    def _understood(self, text: str, slots: Slots) -> tuple[Understood | None, tuple[tuple[str, float], ...]]:
        """What is meant, if it is clear enough, and what comes near where it is not sure."""
        if slots.all("row") and slots.masked.strip(" ?.!") == "[row]":
            return Understood("row", slots, 1.0), ()
        if slots.values and _DEFINES.fullmatch(slots.masked) and (slots.all("term") or slots.all("factor")):
            return Understood("term", slots, 1.0), ()
        if (followed := self._followed(slots)) is not None:
            return followed, ()
        card, odds = self._intent.card, self._intent.kinds_of(text, slots)
        kind, probability = odds[0]
        near = tuple((one, p) for one, p in odds if one != NONE and p >= LEAST)
        if not any(character.isalnum() for character in text) or kind == NONE or probability < card.answers:
            return None, near[:NEAR]
        found = Understood(kind, self._with_the_last(catalogue()[kind], slots), probability)
        return found, () if probability >= card.sure else near[1 : NEAR + 1]

    def _followed(self, slots: Slots) -> Understood | None:
        """A question that only names something else, bound to what is on the table."""
        if self._last is None or not slots.values or self._last[1].kind == NONE:
            return None
        rest = set(re.findall(r"[a-z']+", re.sub(r"\[\w+\]", " ", slots.masked.lower())))
        if not rest <= _SMALL or not rest & {"and", "same", "about", "for", "with", "or", "also"}:
            return None
        last = self._last[1]
        if slots.all("move") and (slots.all("factor") or last.slots.all("factor")):
            return Understood("what_if_shock", slots.with_those_of(last.slots, ["factor"]), 0.9)
        if any(slot in catalogue()[last.kind].slots for slot in slots.values):
            return Understood(last.kind, slots.with_those_of(last.slots, catalogue()[last.kind].needs), 0.9)
        kind = next((_OF_SLOT[slot] for slot in slots.values if slot in _OF_SLOT), None)
        return None if kind is None else Understood(kind, slots, 0.8)

    def _with_the_last(self, kind: Kind, slots: Slots) -> Slots:
        """The names of the question, and of the one before those that the kind cannot do without."""
        return slots if self._last is None else slots.with_those_of(self._last[1].slots, kind.needs)

    def _answered(self, text: str, got: Understood, near: tuple[tuple[str, float], ...] = (), *,
                  confirmed: bool = False) -> Reply:  # fmt: skip
        kind = catalogue()[got.kind]
        teller = Teller(kind, self.table, got.slots, text, confirmed=confirmed)
        lacking = next((slot for slot in kind.needs if not got.slots.all(slot)), None)
        answer = READERS[kind.id](teller) if lacking is None else self._asked_back(teller, lacking)
        self._last, self._waiting = (text, got), (text, got) if answer.asks else None
        self._offered = tuple(one for one, _ in near)
        extra = unapplied(kind, got.slots, self.table.report.currency)
        told = [said(_NOT_APPLIED, self.table.rows, {"said": one}) for one in extra]
        return Reply(text, self.table.run.id, got, (*told, *answer.lines), answer.rows, answer.command, near,
                     asks=answer.asks, not_applied=extra)  # fmt: skip

    def _asked_back(self, teller: Teller, slot: str) -> Answer:
        """Which of the names is meant, where none was given."""
        known = FACTOR_IDS if slot == "factor" else sorted(set(self.table.known.of(slot).values()))
        if slot == "position":
            known = [one.id for one in self.table.request.portfolio.positions]
        names = ", ".join(known) or "none"
        line = said(_WHICH, self.table.rows, {"slot": slot, "names": names})
        return Answer((line,), (), teller.done().command)
