"""The grounding guard on made-up narratives: seven mutations each, caught or not, and false refusals of clean ones."""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.made_up_table import SECTORS, TICKERS
from benchmarks.narratives import (
    FRESH,
    PHRASINGS,
    Narrative,
    Piece,
    held_out,
    is_directed,
    names_of,
    narrative,
    report_narrative,
)
from finllm.guardrails.grounding import ungrounded
from finllm.tools.evidence import Evidence, EvidenceTable

Mutation = Callable[[Narrative, random.Random], Narrative | None]
FOREIGN = ("Tesla", "TSLA", "copper", "the Nikkei", "Bitcoin", "NVDA", "sterling", "Utilities")
BARS = {"digit": 1.0, "million/billion": 1.0, "%/bp": 1.0, "sign": 1.0, "period": 0.95, "entity": 0.95, "formula": 0.95}
_SWAP = {"million": "billion", "billion": "million", "m": "bn", "bn": "m"}
_OPPOSITE = {
    "gains": "loses", "adds": "sheds", "makes": "loses", "earns": "gives up", "loses": "gains", "gives up": "earns",
    "sheds": "adds", "drops": "gains", "gain": "lose", "add": "shed", "make": "lose", "lose": "gain", "give up": "make",
    "shed": "add", "profit": "loss", "loss": "gain", "drawdown": "profit", "up": "down", "higher": "lower",
    "down": "up", "lower": "higher", "rising": "falling", "climbing": "dropping", "falling": "rising",
    "dropping": "climbing", "has gained": "has lost", "gained": "lost", "has lost": "has gained", "lost": "gained",
    "rises": "falls", "climbs": "drops", "jumps": "slides", "is up": "is down", "falls": "rises", "slides": "climbs",
    "is down": "is up", "rise": "fall", "jump": "drop", "fall": "rise", "drop": "jump", "decline": "rise",
    "rose": "fell", "climbed": "slid", "fell": "rose", "slid": "climbed",
}  # fmt: skip


def _pick(
    told: Narrative, draw: random.Random, wanted: Callable[[Piece], bool], change: Callable[[Piece], str | None]
) -> Narrative | None:
    """The narrative with one of the wanted pieces changed, the first in random order whose text does change."""
    places = [(i, j) for i, sentence in enumerate(told.sentences) for j, piece in enumerate(sentence) if wanted(piece)]
    draw.shuffle(places)
    for i, j in places:
        piece = told.sentences[i][j]
        text = change(piece)
        if text is not None and text != piece.text:
            return told.with_piece(i, j, replace(piece, text=text))
    return None


def digit(told: Narrative, draw: random.Random) -> Narrative | None:
    def change(piece: Piece) -> str:
        at = draw.choice([m.start() for m in re.finditer(r"\d", piece.text)])
        other = draw.choice([d for d in "0123456789" if d != piece.text[at]])
        return piece.text[:at] + other + piece.text[at + 1 :]

    return _pick(told, draw, lambda p: p.kind == "number", change)


def scale(told: Narrative, draw: random.Random) -> Narrative | None:
    """million for billion, or three more noughts."""

    def change(piece: Piece) -> str:
        swapped = re.sub(r"(?<=[\d ])(million|billion|bn|m)\b", lambda m: _SWAP[m[0]], piece.text, count=1)
        return swapped if swapped != piece.text else re.sub(r"(\d[\d,]*)", r"\1,000", piece.text, count=1)

    return _pick(told, draw, lambda p: p.kind == "number" and p.unit == "usd", change)


def unit(told: Narrative, draw: random.Random) -> Narrative | None:
    def change(piece: Piece) -> str:
        if piece.unit == "bp":
            return re.sub(r"(bps?|basis points)$", "%", piece.text)
        return re.sub(r"(%|per ?cent)$", "bp", piece.text)

    return _pick(told, draw, lambda p: p.kind == "number" and p.unit in ("return", "bp", "probability"), change)


def sign(told: Narrative, draw: random.Random) -> Narrative | None:
    def change(piece: Piece) -> str | None:
        if piece.kind == "verb":
            return _OPPOSITE.get(piece.text)
        if "+" in piece.text:
            return piece.text.replace("+", draw.choice("-−"), 1)
        return re.sub(r"[-−]", "+", piece.text, count=1)

    def wanted(piece: Piece) -> bool:
        return is_directed(piece) or (piece.kind == "number" and bool(re.search(r"[+−-]\$?\d", piece.text)))

    return _pick(told, draw, wanted, change)


def period(told: Narrative, draw: random.Random) -> Narrative | None:
    def change(piece: Piece) -> str:
        dates = list(re.finditer(r"\d{4}", piece.text))
        if dates:
            year, moved = draw.choice(dates), draw.choice((-9, -2, -1, 1, 3))
            return f"{piece.text[: year.start()]}{int(year[0]) + moved}{piece.text[year.end() :]}"
        if draw.random() < 0.4:
            return re.sub(r"(trading )?(days|steps)", draw.choice(("weeks", "months", "years")), piece.text)
        return re.sub(
            r"\b(\d+|five|ten|twenty-one|twenty|sixty)\b", str(draw.choice((1, 2, 3, 7, 15, 30, 45, 90))), piece.text
        )

    return _pick(told, draw, lambda p: p.kind == "period", change)


def entity(told: Narrative, draw: random.Random) -> Narrative | None:
    def change(piece: Piece) -> str:
        own = told.table[piece.row].entity
        others = [row.entity for row in told.table if names_of(row.entity) != names_of(own) and row.unit != "text"]
        named = [name for other in others if other != "scenario" for name in names_of(other)]
        pool = named if draw.random() < 0.7 else [*FOREIGN, *(n for n in (*SECTORS, *TICKERS) if n != own)]
        other = draw.choice(pool)
        return other[:1].upper() + other[1:] if piece.text[:1].isupper() else other

    return _pick(told, draw, lambda p: p.kind == "entity", change)


def formula(told: Narrative, draw: random.Random) -> Narrative | None:
    """The narrative as it was, over a table in which a derived row that it uses no longer follows from its formula."""
    shown = {p.row for s in told.sentences for p in s if p.kind == "number"}
    derived = [row for row in told.table if row.id in shown and re.match(r"sum\(|E\d+ / ", row.formula or "")]
    if not derived:
        return None
    row = draw.choice(derived)
    ids = re.findall(r"E\d+", row.formula or "")
    if "/" in (row.formula or ""):
        text = draw.choice((f"{ids[1]} / {ids[0]}", f"{ids[0]} × {ids[1]}", f"{ids[0]} − {ids[1]}"))
        return replace(told, table=_rows(told.table, row.id, formula=text))
    term = draw.choice(ids)
    if draw.random() < 0.5:
        return replace(told, table=_rows(told.table, row.id, formula=f"sum({', '.join(i for i in ids if i != term)})"))
    return replace(told, table=_rows(told.table, term, value=float(told.table[term].value) * 1.01 + 1))


def _rows(table: EvidenceTable, id: str, **changes: object) -> EvidenceTable:
    return EvidenceTable(Evidence.model_validate(r.model_dump() | changes) if r.id == id else r for r in table)


MUTATIONS: dict[str, Mutation] = {
    "digit": digit, "million/billion": scale, "%/bp": unit, "sign": sign, "period": period, "entity": entity,
    "formula": formula,
}  # fmt: skip


def refused(told: Narrative, *, cited: bool) -> list[str]:
    return [f"{text}  <- {found}" for text in told.texts(cited=cited) for found in ungrounded(text, told.table)]


def measure(
    phrasings: Sequence[str] | None, count: int, seed: int, *, cited: bool, show: int = 0
) -> dict[str, tuple[int, int]]:
    """Per mutation how many were caught of how many made, and under `clean` how many clean ones were refused.

    Without phrasings, the narratives are the summaries of reports.
    """
    draw = random.Random(seed)
    hits: Counter[str] = Counter()
    made: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    while min((made[name] for name in MUTATIONS), default=0) < count:
        told = report_narrative(draw) if phrasings is None else narrative(draw, phrasings)
        bad = refused(told, cited=cited)
        made["clean"] += 1
        hits["clean"] += bool(bad)
        if bad:
            shown["clean"] += 1
            if shown["clean"] <= show:
                print("FALSE", bad[0], file=sys.stderr)
            continue
        for name, mutate in MUTATIONS.items():
            wrong = mutate(told, draw) if made[name] < count else None
            if wrong is None:
                continue
            made[name] += 1
            caught = bool(refused(wrong, cited=cited))
            hits[name] += caught
            if not caught:
                shown[name] += 1
                if shown[name] <= show:
                    changed = [
                        (a, b) for a, b in zip(told.texts(cited=cited), wrong.texts(cited=cited), strict=True) if a != b
                    ]
                    print("MISSED", name, changed or wrong.texts(cited=cited), file=sys.stderr)
    return {name: (hits[name], made[name]) for name in ("clean", *MUTATIONS)}


def main() -> int:
    """Print the table; exit code 1 where a bar is missed."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--count", type=int, default=1000, help="narratives for each mutation")
    parse.add_argument("--seed", type=int, default=1)
    parse.add_argument("--show", type=int, default=0, help="print so many misses of each kind")
    parse.add_argument("--only", choices=("report", "developed", "held-out", "fresh"), help="one set of phrasings")
    options = parse.parse_args()
    sets: dict[str, Sequence[str] | None] = {
        "report": None,
        "developed": [p for p in PHRASINGS if not held_out(p)],
        "held-out": [p for p in PHRASINGS if held_out(p)],
        "fresh": FRESH,
    }
    failed = False
    print(f"{'phrasings':10} {'numbers':8} " + " ".join(f"{name:>16}" for name in ("clean refused", *MUTATIONS)))
    for half, phrasings in sets.items():
        if options.only not in (None, half):
            continue
        for cited in (True, False):
            found = measure(phrasings, options.count, options.seed, cited=cited, show=options.show)
            cells = [f"{hits}/{made} {hits / made:.1%}" for hits, made in found.values()]
            print(f"{half:10} {'cited' if cited else 'bare':8} " + " ".join(f"{cell:>16}" for cell in cells))
            failed |= found["clean"][0] > 0.01 * found["clean"][1]
            failed |= any(hits < BARS[name] * made for name, (hits, made) in found.items() if name in BARS)
    print("a bar is missed" if failed else "every bar is met")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
