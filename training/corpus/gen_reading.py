"""Generated reading items: an event works through its channel on factors; frames state, imply, reverse or deny it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from training.corpus.grammar import digest, fill, joined, parts, plural, portion, rows, styled
from training.corpus.schema import Split

Way = Literal["up", "down", "none"]
_MARK: dict[str, Way] = {"+": "up", "-": "down", "0": "none"}
OPPOSITE: dict[Way, Way] = {"up": "down", "down": "up", "none": "none"}
KINDS = ("stated", "implied", "expect", "contrary", "ended", "denied", "priced", "past")
_SHARE = {"stated": 30, "implied": 14, "expect": 10, "contrary": 12, "ended": 11, "denied": 7, "priced": 6, "past": 10}


@dataclass(frozen=True)
class Channel:
    """An event and what it does by itself: `core` is implied by telling it, `more` only where the text states it."""

    name: str
    event: str
    severity: str
    horizon: str
    stance: str
    core: dict[str, Way]
    more: dict[str, Way]
    places: list[tuple[str, str]]
    texts: dict[str, list[str]]


@dataclass
class Told:
    """What a text says of the factors: the words, each factor's direction, and the sizes that words give."""

    words: str
    factors: dict[str, Way]
    sizes: dict[str, str] = field(default_factory=dict)


@cache
def channels() -> list[Channel]:
    found = []
    for name, c in parts("reading")["channels"].items():
        event, severity, horizon, stance = c["label"].split()
        found.append(
            Channel(name, event, severity, horizon, stance, _moves(c["core"]), _moves(c["more"]),
                    list(c["places"].items()), {key: c[key] for key in ("E", "M", "END")})
        )  # fmt: skip
    return found


def _moves(text: str) -> dict[str, Way]:
    return {token[:-1]: _MARK[token[-1]] for token in text.split()}


def clause(factor: str, way: Way, rng: random.Random, *, form: int = 0) -> tuple[str, str]:
    """A clause that says how a factor moved (form 0) or is to move (form 1), and the size its words give or ""."""
    p = parts("reading")
    nouns = p["markets"][factor]
    inverse = bool(nouns["~"]) and rng.random() < 0.35
    noun, _many = plural(rng.choice(nouns["~" if inverse else "="]))
    verbs = p["spread_moves" if factor == "CREDIT_BAA_AAA" else "moves"]
    past, infinitive, size = rng.choice(verbs[OPPOSITE[way] if inverse else way]).split("~")
    return (f"{noun} to {infinitive}" if form else f"{noun} {past}"), size


def told(factors: dict[str, Way], rng: random.Random, *, form: int = 0) -> Told:
    """The factors in one phrase."""
    said, sizes = [], {}
    for factor, way in factors.items():
        text, size = clause(factor, way, rng, form=form)
        said.append(text)
        if size:
            sizes[factor] = size
    return Told(joined(said), dict(factors), sizes)


def reading_items(split: Split, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """`count` items of a split. Channel and place make the event; events, frames and tell-tale phrases are held out."""
    known = channels()
    events = {c.name: portion(c.places, split, lambda place: place[0]) for c in known}
    frames = {
        kind: portion([row for row in rows(parts("reading")["frames"]) if row[0] == kind], split, lambda r: r[3], 0.2)
        for kind in KINDS
    }
    kinds, weights = zip(*_SHARE.items(), strict=True)
    for _ in range(count):
        channel = rng.choice(known)
        place, region = rng.choice(events[channel.name])
        kind: str = rng.choices(kinds, weights)[0]
        if kind in ("contrary", "ended", "denied", "past") and "none" in channel.core.values():
            kind = "stated"
        _kind, register, case, frame = rng.choice(frames[kind])
        say, slots = _told(channel, kind, place, split, rng)
        text = styled(fill(frame, {key: (lambda value=value: value) for key, value in slots.items()}), register, rng)
        yield {
            "event": f"g-{channel.name}-{re.sub('[^a-z0-9]+', '-', place.lower())}",
            "frame": f"reading-{digest(frame)}",
            "inputs": {"text": text},
            "labels": _labels(channel, region, kind, say),
            "register": register,
            "slice": None if case == "-" else case,
        }


def happenings(split: Split) -> list[str]:
    """What happened, as a clause, in every event of a split."""
    return [
        text.replace("{p}", place)
        for channel in channels()
        for place, _region in portion(channel.places, split, lambda place: place[0])
        for text in portion(channel.texts["E"], split)
    ]


def _told(channel: Channel, kind: str, place: str, split: Split, rng: random.Random) -> tuple[Told, dict[str, str]]:
    typical = channel.core | channel.more
    count = min(len(typical), rng.choice((1, 2, 2, 3, 3, 4)))
    chosen: dict[str, Way] = {factor: typical[factor] for factor in rng.sample(sorted(typical), count)}
    if kind == "implied":
        chosen = dict(channel.core)
    elif kind in ("ended", "denied", "past"):
        moving = [factor for factor in sorted(typical) if typical[factor] != "none"]
        chosen = {f: OPPOSITE[typical[f]] for f in rng.sample(moving, min(len(moving), count))}
    elif kind == "priced":
        chosen = dict.fromkeys(chosen, "none")
    elif kind == "contrary":
        chosen = {f: OPPOSITE[w] if w != "none" else rng.choice(("up", "down")) for f, w in chosen.items()}
    elif kind == "stated" and rng.random() < 0.2 and "none" not in channel.core.values():
        chosen = {f: rng.choice(("up", "down", "none")) for f in chosen}
    say = told(chosen, rng, form=1 if kind == "expect" else 0)
    before = told({f: OPPOSITE[w] for f, w in chosen.items()}, rng)
    texts = {key: rng.choice(portion(channel.texts[key], split)).replace("{p}", place) for key in ("E", "M", "END")}
    slots = texts | {"K": say.words, "KF": say.words, "KR": before.words, "src": rng.choice(parts("reading")["src"])}
    if kind == "implied":
        say.sizes.clear()
    return say, slots


def _labels(channel: Channel, region: str, kind: str, say: Told) -> dict[str, Any]:
    labels: dict[str, Any] = {"region": region, "factors": say.factors}
    if channel.event != "-" and kind not in ("ended", "denied", "priced"):
        labels["event"] = channel.event
    if kind in ("stated", "implied", "expect"):
        labels |= {"severity": channel.severity, "horizon": channel.horizon}
        if channel.stance != "-":
            labels["stance"] = channel.stance
    if say.sizes:
        labels["sizes"] = say.sizes
    return labels
