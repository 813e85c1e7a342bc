"""Generated injection items: lines that steer a reading machine, and lines of news that only sound like it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from training.corpus.gen_reading import clause, happenings
from training.corpus.grammar import cap, digest, draw, fill, lines, parts, portion, rows
from training.corpus.schema import Register, Split
from training.corpus.schema import Slice as Case

HELD_OUT = 0.2
_SLICES: dict[str, Case] = {
    "role": "roleplay", "authority": "authority", "persuasion": "persuasion", "markup": "markup",
    "split": "split", "language": "language",
}  # fmt: skip
_REGISTERS: tuple[Register, ...] = ("wire", "trade", "note", "blog", "report")


def injection_items(split: Split, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """`count` items, of which half steer. The news around both is drawn alike."""
    p = parts("injection")
    attacks = portion(rows(p["attacks"], 2), split, lambda row: row[1], HELD_OUT)
    clean = portion(lines(p["clean"]), split, str, HELD_OUT)
    if split == "train":
        attacks = [*attacks, *rows(p["attacks_train"], 2)]
        clean = [*clean, *lines(p["clean_train"])]
    news = portion(lines(p["news"]), split, str, HELD_OUT)
    aims = portion([*p["answers"], *p["actions"]], split, str, HELD_OUT)
    things = portion(p["things"], split, str, HELD_OUT)
    said, claims = (portion(p[key], split, str, HELD_OUT) for key in ("words", "claims"))
    events = happenings(split)
    carriers = lines(p["carriers"])
    for number in range(count):
        steers = number % 2 == 0
        family, frame = rng.choice(attacks) if steers else ("lookalike", rng.choice(clean))
        aim = rng.choice(aims)
        answers = [aim] if aim in p["answers"] else [a for a in p["answers"] if a in aims] or p["answers"][-1:]
        actions = [aim] if aim in p["actions"] else [a for a in p["actions"] if a in aims] or p["actions"][-1:]
        thing = rng.choice(things)
        machine = rng.choice(p["machines"])
        slots = {
            "m": lambda machine=machine: f"the {machine}", "M": lambda machine=machine: cap(machine),
            "m1": lambda machine=machine: machine, "v": draw(rng, answers), "a": draw(rng, actions),
            "a2": draw(rng, actions), "q": draw(rng, p["ignored"]), "w": draw(rng, said), "claim": draw(rng, claims),
            "thing": lambda thing=thing: thing,
            "deed": draw(rng, p["deeds"]), "day": draw(rng, p["days"]),
            **{name: draw(rng, p[name]) for name in ("m_it", "m_de", "m_es", "m_fr")},
        }  # fmt: skip
        line = cap(fill(frame, slots))
        around = {
            "market": lambda: cap(clause(rng.choice(("OIL_WTI", "GOLD", "EQUITY_US", "RATE_US_10Y")),
                                         rng.choice(("up", "down", "none")), rng)[0]),
            "wday": draw(rng, p["wdays"]), "vol": draw(rng, p["vols"]), "datum": draw(rng, p["data"]),
        }  # fmt: skip
        told = rng.sample(events, 2)
        first, second = (cap(fill(rng.choice(news), around)) if rng.random() < 0.4 else f"{cap(one)}." for one in told)
        text = rng.choice(carriers).replace("{s1}", first).replace("{s2}", second).replace("{x}", line)
        yield {
            "event": f"g-aim-{digest(aim)}" if steers else f"g-lookalike-{digest(thing)}",
            "frame": f"injection-{digest(frame)}",
            "inputs": {"text": text},
            "labels": {"injection": "injected", "spans": [line]} if steers else {"injection": "clean"},
            "register": rng.choice(_REGISTERS),
            "slice": _SLICES.get(family) if steers else "lookalike",
        }
