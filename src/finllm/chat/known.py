"""What a question may name: factors, sectors, agents and words by the house's names, and what the run on the table has.

A source is known by its id, its publisher, and each word of either that no other source shares ("the navy").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from finllm.chat.slots import Known, house_names
from finllm.desk.request import RunRequest
from finllm.memory.reading import RunHead
from finllm.tools.data.factors import factor_table
from finllm.tools.data.scenario import SourceText

GLOSSARY = Path(__file__).with_name("glossary.yaml")
_NO_NAME = frozenset(("of", "the", "and", "for", "in", "on", "at", "by", "an", "affairs", "public", "news", "daily",
                      "weekly"))  # fmt: skip
_PLAIN = frozenset(("what", "wire", "note", "trade", "street", "live", "desk", "market", "markets", "position",
                    "research", "sources", "source", "run"))  # fmt: skip


@cache
def glossary() -> Mapping[str, str]:
    """Every word that is explained, with what it means."""
    import yaml

    held = yaml.load(GLOSSARY.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return {**held["market"], **held["house"]}


def known_names(
    request: RunRequest | None = None, others: Iterable[RunHead] = (), factors: Iterable[str] = ()
) -> Known:
    """The names for a run on the table; without one those of the house, and of the scenario that is trained with."""
    house = house_names()
    names = {slot: {name: id for id, row in house[f"{slot}s"].items() for name in (id.lower(), *row)}
             for slot in ("factor", "agent", "sector", "position", "episode", "term")}  # fmt: skip
    names["factor"] |= {id.lower(): id for id in (*factor_table(), *factors)}
    names["term"] |= {one.lower(): word for word in glossary() for one in _written(word)}
    if request is not None:
        held = {one.id: one for one in request.portfolio.positions}
        names["position"] |= {id.lower(): id for id in held}
        names["position"] |= {one.name.lower(): id for id, one in held.items() if one.name}
        names["sector"] |= {one.sector.lower(): one.sector
                            for one in held.values() if one.sector}  # fmt: skip
    told = source_names(request.scenario.sources if request is not None else _trained_with())
    taken = {name for slot in names for name in names[slot]}
    names["source"] = {name: id for name, id in told.items() if name.removeprefix("the ") not in taken}
    names["run"] = run_names(others)
    return Known(names)


def source_names(sources: Iterable[SourceText]) -> dict[str, str]:
    """Names of each source: its id, its publisher, and each of their words that is no other's."""
    found, words = {}, Counter()
    told = list(sources)
    for one in told:
        words.update({*_words(one.id), *_words(one.publisher)})
    for one in told:
        for word in {*_words(one.id), *_words(one.publisher)}:
            if words[word] == 1 and len(word) > 3 and word not in _PLAIN:
                found[word] = one.id
                found[f"the {word}"] = one.id
        found[one.publisher.lower()] = one.id
        found[one.id.lower()] = one.id
    return found


def run_names(runs: Iterable[RunHead]) -> dict[str, str]:
    """Names of other runs: their titles, and `the … run` for each word of a title."""
    found: dict[str, str] = {}
    for one in reversed(list(runs)):  # the newest last, whose name stands
        for word in _words(one.title):
            if len(word) > 3:
                found[f"the {word} run"] = found[f"{word} run"] = one.id
        if one.title:
            found[one.title.lower()] = one.id
    return found or {"the hawkish run": "hawkish", "the ceasefire run": "ceasefire"}


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]+", text.lower()) if word not in _NO_NAME}


def _written(word: str) -> tuple[str, ...]:
    """A word of the glossary, each of several in one row, and its plural."""
    parts = [part.strip() for part in word.split(",")]
    return tuple(name for part in parts for name in (part, f"{part}s"))


@cache
def _trained_with() -> tuple[SourceText, ...]:
    from finllm.scenarios import SCENARIOS_DIR
    from finllm.tools.data.scenario import load_scenario

    return load_scenario(SCENARIOS_DIR / "hormuz-blockade.yaml").sources
