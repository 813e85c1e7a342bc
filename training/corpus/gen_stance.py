"""Generated stance items: clauses about prices, jobs, demand and policy in frames of many registers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from training.corpus.grammar import digest, divide, draw, fill, parts, plural, rows, styled
from training.corpus.schema import Split

Sign = Literal["up", "down"]
"""`up`: hawkish, `down`: dovish."""
LABEL: dict[Sign, str] = {"up": "hawkish", "down": "dovish"}
_FLAT = ("little changed", "broadly stable", "close to the average", "flat", "much the same as before")


@dataclass(frozen=True)
class Topic:
    """Something that rises and falls; `sign` is +1 where its rise is hawkish."""

    name: str
    verbs: dict[str, list[str]]
    sign: int
    subjects: list[tuple[str, bool]]

    def clause(self, stance: Sign, form: str, rng: random.Random) -> str:
        """A clause that has the stance. Forms: C past, P progressive, H perfect, W past progressive, I infinitive."""
        rises = (stance == "up") == (self.sign > 0)
        past, gerund, infinitive = rng.choice(self.verbs["up" if rises else "down"]).split("~")
        subject, many = rng.choice(self.subjects)
        adverb = rng.choice(parts("stance")["adverbs"])
        verb = {
            "C": past,
            "P": f"{'are' if many else 'is'} {gerund}",
            "H": f"{'have' if many else 'has'} been {gerund}",
            "W": f"{'were' if many else 'was'} {gerund}",
            "I": f"to {infinitive}",
        }[form]
        return f"{subject} {verb} {adverb if form == 'C' else ''}".strip()

    def flat(self, rng: random.Random) -> str:
        subject, many = rng.choice(self.subjects)
        return f"{subject} {'were' if many else 'was'} {rng.choice(_FLAT)}"


def topics() -> list[Topic]:
    found = []
    for name, verbs, sign, subjects in rows(parts("stance")["topics"]):
        forms = {way: text.split(", ") for way, text in parts("stance")["verbs"][verbs].items()}
        found.append(Topic(name, forms, 1 if sign == "+" else -1, [plural(s) for s in subjects.split(", ")]))
    return found


def stance_items(split: Split, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """`count` items of a split, two fifths neutral. Bank and topic make the event; events and frames are held out."""
    known, banks = topics(), rows(parts("stance")["banks"])
    events = divide(f"{bank[2]}/{topic.name}" for bank in banks for topic in known)
    pairs = [(b, t) for b in banks for t in known if events[f"{b[2]}/{t.name}"] == split]
    frames = {kind: _frames(kind, split) for kind in ("signed", "neutral")}
    for number in range(count):
        kind = "neutral" if number % 5 in (0, 1) else "signed"
        bank, topic = rng.choice(pairs)
        register, case, frame = rng.choice(frames[kind])
        sign: Sign = "up" if number % 2 else "down"
        text = styled(fill(frame, _slots(bank, topic, known, sign, rng)), register, rng)
        yield {
            "event": f"g-{bank[2].lower().replace(' ', '-')}-{topic.name}",
            "frame": f"stance-{digest(frame)}",
            "inputs": {"text": text},
            "labels": {"stance": LABEL[sign] if kind == "signed" else "neutral"},
            "register": register,
            "slice": None if case == "-" else case,
        }


def _frames(kind: str, split: Split) -> list[list[str]]:
    found = rows(parts("stance")[kind])
    of = divide((row[2] for row in found), 0.15)
    return [row for row in found if of[row[2]] == split]


def _slots(
    bank: list[str], topic: Topic, known: list[Topic], sign: Sign, rng: random.Random
) -> dict[str, Callable[[], str]]:
    other: Sign = "down" if sign == "up" else "up"
    second, third = rng.sample([t for t in known if t.name != topic.name], 2)
    p = parts("stance")
    name, rate, short, currency = bank
    clauses: dict[str, Callable[[], str]] = {}
    for form in "CPHWI":
        clauses[form] = _later(topic, sign, form, rng)
        clauses[f"O{form}"] = _later(second, other, form, rng)
        clauses[f"X{form}"] = _later(topic, other, form, rng)
    acts = {way: [act.replace("{rate}", rate) for act in p["act"][way]] for way in ("up", "down")}
    size = rng.choice(p["sizes"])
    return clauses | {
        "D2": _later(third, sign, "C", rng),
        "F": lambda: topic.flat(rng),
        "F2": lambda: second.flat(rng),
        "pol": draw(rng, p["policy"][sign]),
        "opol": draw(rng, p["policy"][other]),
        "sn": draw(rng, p["stance_noun"][sign]),
        "osn": draw(rng, p["stance_noun"][other]),
        "act": lambda: rng.choice(acts[sign]).replace("{size}", size),
        "oact": lambda: rng.choice(acts[other]).replace("{size}", size),
        "who": draw(rng, p["who"]["minutes"]),
        "rep": draw(rng, p["who"]["report"]),
        "mkt": draw(rng, p["who"]["market"]),
        "Bank": lambda: name,
        "Short": lambda: short,
        "rate": lambda: rate,
        "cur": lambda: currency,
        **{slot: draw(rng, p[slot]) for slot in ("neutral_did", "neutral_do", "neutral_thing", "neutral_subject")},
        "neutral_op": draw(rng, p["neutral_op"]),
    }


def _later(topic: Topic, sign: Sign, form: str, rng: random.Random) -> Callable[[], str]:
    return lambda: topic.clause(sign, form, rng)
