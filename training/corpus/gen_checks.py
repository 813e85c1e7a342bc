"""Generated items for the agents that check: sources among others, readings against measurements, findings of rules."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from training.corpus.gen_reading import OPPOSITE, Way
from training.corpus.grammar import cap, digest, divide, draw, fill, lines, parts, portion, rows, styled
from training.corpus.schema import Split

HELD_OUT = 0.2
"""Share of the lines of a kind that go to validation and to test each: kinds here have few lines."""
VERDICTS = ("credible", "doubtful", "contradicted", "coordinated", "injected")
CAUSES = ("lagging", "priced", "drain", "single", "data")
COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
_NAMES = {
    "OIL_WTI": ("crude", "oil", "WTI"), "EQUITY_US": ("US shares", "shares", "equities"), "GOLD": ("gold", "bullion"),
    "RATE_US_10Y": ("Treasury yields", "the ten-year yield", "yields"), "USD_BROAD": ("the dollar",),
    "VIX": ("implied volatility", "the VIX"), "CREDIT_BAA_AAA": ("credit spreads", "spreads"),
}  # fmt: skip
_WAYS: dict[Way, tuple[str, ...]] = {
    "up": ("up", "up", "higher", "rising"), "down": ("down", "down", "lower", "falling"),
    "none": ("unchanged", "unchanged", "flat", "as before"),
}  # fmt: skip
_TYPICAL: dict[str, dict[str, Way]] = {
    "blockade": {"OIL_WTI": "up", "EQUITY_US": "down", "VIX": "up"},
    "war": {"GOLD": "up", "EQUITY_US": "down", "RATE_US_10Y": "down"},
    "policy": {"RATE_US_10Y": "up", "USD_BROAD": "up", "EQUITY_US": "down"},
    "run": {"EQUITY_US": "down", "CREDIT_BAA_AAA": "up", "RATE_US_10Y": "down"},
    "default": {"CREDIT_BAA_AAA": "up", "EQUITY_US": "down"},
    "pandemic": {"OIL_WTI": "down", "EQUITY_US": "down", "VIX": "up"},
    "outage": {"VIX": "up", "EQUITY_US": "down"},
    "tariffs": {"EQUITY_US": "down", "OIL_WTI": "down"},
    "ceasefire": {"OIL_WTI": "down", "GOLD": "down", "EQUITY_US": "up"},
    "routine": {"EQUITY_US": "none", "RATE_US_10Y": "none"},
}
_REGIONS = ("us", "europe", "asia", "mideast", "global")


def sanity_items(split: Split, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """`count` items. Which of a story's two accounts is true is drawn, so that only the context decides."""
    p = parts("sanity")
    stories = portion(rows(p["stories"]), split, lambda row: row[0])
    texts = {kind: portion(rows(p[kind]), split, lambda row: row[-1], HELD_OUT) for kind in ("sober", "opinion")}
    texts["dubious"] = portion(rows(p["dubious"]), split, lambda row: row[-1], HELD_OUT)
    said = {
        kind: portion(lines(p[kind]), split, str, HELD_OUT)
        for kind in ("attack", "confirm", "deny", "silent", "twins", "marked")
    }
    for number in range(count):
        verdict = VERDICTS[number % len(VERDICTS)]
        one, other, wild, knows = rng.choice(stories)
        true, false = rng.sample((one, other), 2)
        kind = "dubious" if verdict == "doubtful" else "sober"
        if verdict == "credible" and rng.random() < 0.25:
            kind = "opinion"
        register, publisher, frame = rng.choice(texts[kind])
        account = false if verdict == "contradicted" else rng.choice((true, false))
        if verdict in ("credible", "injected"):
            account = true
        attack = rng.choice(said["attack"]) if verdict == "injected" else None
        slots = {"x": account, "X": cap(account), "w": wild, "W": cap(wild), "t": true, "k": knows, "K": cap(knows)}
        word = rng.choice(COUNTS)
        slots |= {"n": word, "N": cap(word)}
        asked, counts = _company(verdict, rng)
        fixed = {key: (lambda value=value: value) for key, value in slots.items()}
        others = rng.choice(said[asked])
        shown = attack or frame
        case = "lookalike" if asked == "marked" else None
        yield {
            "event": f"g-story-{digest(one)}",
            "frame": f"sanity-{digest(shown)}+{digest(others)}",
            "inputs": {
                "publisher": publisher, "text": styled(fill(shown, fixed), register, rng),
                "others": styled(fill(others, fixed), "report", rng), **counts,
            },
            "labels": {"verdict": verdict},
            "register": register,
            "slice": case,
        }  # fmt: skip


def _company(verdict: str, rng: random.Random) -> tuple[str, dict[str, int]]:
    """Which kind of line tells what the others say, and the counts that go with it."""
    counts = {"agreeing": 0, "opposing": 0, "twins": 0, "injections": 0}
    if verdict == "contradicted":
        return "deny", counts | {"opposing": rng.randint(1, 4), "agreeing": 0}
    if verdict == "doubtful":
        return "silent", counts
    if verdict == "coordinated":
        return "twins", counts | {"twins": rng.choice((0, 2, 3, 4, 5, 6)), "agreeing": rng.randint(0, 1)}
    if verdict == "injected":
        found = counts | {"injections": rng.randint(1, 2)}
        return ("silent", found) if rng.random() < 0.5 else ("confirm", found | {"agreeing": rng.randint(1, 3)})
    if rng.random() < 0.15:
        return "marked", counts | {"twins": rng.randint(1, 3), "agreeing": rng.randint(1, 3)}
    return "confirm", counts | {"agreeing": rng.randint(1, 4), "opposing": rng.choice((0, 0, 0, 1))}


def validator_items(split: Split, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """`count` items by kind of note. Notes of `fine` go with both verdicts, so that only comparing decides."""
    p = parts("validator")
    events = portion([f"{event}/{region}" for event in _TYPICAL for region in _REGIONS], split)
    frames = {key: portion(lines(p[key]), split, str, HELD_OUT) for key in ("readings", "markets")}
    notes = {key: portion(lines(p[key]), split, str, HELD_OUT) for key in (*CAUSES, "fine", "puzzle", "noise")}
    kinds = (
        *(("aligned", "fine"), ("unresolved", "fine")) * 3,
        *(("aligned", "noise"), ("unresolved", "puzzle")) * 2,
        *(("diverged", cause) for cause in CAUSES),
    )
    for number in range(count):
        verdict, kind = kinds[number % len(kinds)]
        event, region = rng.choice(events).split("/")
        read, measured = _compared(event, kind if verdict == "diverged" else verdict, rng)
        note = rng.choice(notes[kind])
        slots = {
            "r": lambda read=read: _phrase(read, rng), "m": lambda measured=measured: _phrase(measured, rng),
            "ev": lambda event=event: p["events"][event], "region": lambda region=region: region,
            "sev": draw(rng, ("low", "medium", "high")), "regime": draw(rng, ("calm", "uneasy", "stressed")),
            "n": draw(rng, p["numbers"]), "t": draw(rng, p["hours"]),
        }  # fmt: skip
        reading, market = rng.choice(frames["readings"]), rng.choice(frames["markets"])
        labels = {"verdict": verdict, "cause": "none"} if verdict == "aligned" else {"verdict": verdict}
        if verdict == "diverged":
            labels["cause"] = kind
        inputs = {"reading": cap(fill(reading, slots)), "market": cap(fill(market, slots)),
                  "notes": cap(fill(note, slots))}  # fmt: skip
        is_agents = split == "train" and rng.random() < 0.3
        if is_agents:
            bare = kind == "fine" and rng.random() < 0.7
            inputs = _as_the_agent_sees_it(event, region, read, measured, "" if bare else inputs["notes"], rng)
        yield {
            "event": f"g-compared-{event}-{region}",
            "frame": f"validator-{digest(reading)}+{digest(market)}+{digest(note)}",
            "inputs": inputs,
            "labels": labels,
            "register": "agent" if is_agents else "note",
            "slice": None,
        }


def _as_the_agent_sees_it(
    event: str, region: str, read: dict[str, Way], measured: dict[str, Way], note: str, rng: random.Random
) -> dict[str, str]:
    """The wording that the graph gives the agent, with the note after the checks; it is in training only."""
    checks = []
    for factor, way in read.items():
        words = way if measured[factor] == way else measured[factor]
        heard = rng.choice((words, words, "none"))
        support = (
            "supported" if measured[factor] == way else "contradicted" if measured[factor] != "none" else "unsupported"
        )
        checks.append(f"{factor} read {way}, the sources' words {words}, precedents {heard}: {support}")
    leaning = measured.get("EQUITY_US", rng.choice(("up", "down", "none")))
    return {
        "reading": f"{event} in {region}, severity {rng.choice(('low', 'medium', 'high', 'extreme'))}",
        "market": f"{rng.choice(('calm', 'uneasy', 'stressed'))}, equities leaning {leaning}, "
                  f"confidence {rng.choice(('low', 'medium', 'high'))}",
        "notes": "; ".join([*checks, note] if note else checks),
    }  # fmt: skip


def _compared(event: str, kind: str, rng: random.Random) -> tuple[dict[str, Way], dict[str, Way]]:
    """What was read and what was measured, for a verdict or the cause of a divergence."""
    typical = _TYPICAL[event]
    read: dict[str, Way] = {f: typical[f] for f in rng.sample(sorted(typical), rng.randint(1, len(typical)))}
    if event in ("policy", "tariffs", "war") and rng.random() < 0.4:
        read = {factor: OPPOSITE[way] for factor, way in read.items()}
    still: dict[str, Way] = dict.fromkeys(read, "none")
    turned: dict[str, Way] = {f: OPPOSITE[w] if w != "none" else rng.choice(("up", "down")) for f, w in read.items()}
    if kind == "aligned":
        missing = rng.choice(sorted(read)) if len(read) > 2 and rng.random() < 0.25 else None
        return read, {factor: "none" if factor == missing else way for factor, way in read.items()}
    if kind in ("drain", "priced") and rng.random() < 0.8:
        return read, still
    if kind in ("lagging", "data", "unresolved") and event != "routine" and rng.random() < 0.4:
        return read, still
    return read, turned


def _phrase(moves: dict[str, Way], rng: random.Random) -> str:
    return ", ".join(f"{rng.choice(_NAMES[factor])} {rng.choice(_WAYS[way])}" for factor, way in moves.items())


def compliance_items(split: Split, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """`count` items of one to five rules. The rule book's own wording is in training only."""
    p = parts("compliance")
    events = portion([f"{name}/{thing}" for name in p["names"] for thing in p["things"]], split)
    of = {rule: {verdict: _findings(block, split) for verdict, block in p[rule].items()} for rule in p["order"]}
    for _ in range(count):
        name, thing = rng.choice(events).split("/")
        picked = rng.sample(p["order"], rng.choice((1, 1, 2, 3, 5)))
        chosen = [rule for rule in p["order"] if rule in picked]
        word = rng.choice(COUNTS)
        slots = {
            "n": lambda name=name: name, "n2": draw(rng, [other for other in p["names"] if other != name]),
            "k": lambda thing=thing: thing, "c": lambda word=word: word, "C": lambda word=word: cap(word),
            "d": draw(rng, p["days"]),
        }  # fmt: skip
        verdicts = {rule: rng.choice(sorted(of[rule])) for rule in chosen}
        drawn = {rule: rng.choice(of[rule][verdict]) for rule, verdict in verdicts.items()}
        yield {
            "event": f"g-finding-{digest(f'{name}/{thing}')}",
            "frame": "compliance-" + "+".join(digest(line) for line in drawn.values()),
            "inputs": {"findings": {rule: fill(line, slots) for rule, line in drawn.items()}},
            "labels": {"rules": verdicts},
            "register": "note",
            "slice": None,
        }


def _findings(block: str, split: Split) -> list[str]:
    canonical, *others = lines(block)
    of = divide(others, HELD_OUT)
    return [line for line in others if of[line] == split] + ([canonical] if split == "train" else [])
