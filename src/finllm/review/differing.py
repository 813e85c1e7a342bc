"""Two versions of a report file beside each other: each number and text that differs, with where it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html.parser import HTMLParser
from itertools import zip_longest
from typing import Any, cast

_NUMBER = re.compile(r"[+\-−]?\d[\d,.]*(?:[eE][+\-]?\d+)?")
_HIDDEN = ("style", "script", "title")
LONGEST = 120
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class Change:
    """Something that differs: where it stands, what the file says there and what the record has; None: nothing."""

    where: str
    says: str | None
    record: str | None

    @property
    def words(self) -> str:
        says, record = ("nothing" if one is None else one for one in (self.says, self.record))
        return f"{self.where}: it says {says}, and the record has {record}"


def changes(name: str, says: bytes, record: bytes) -> list[Change]:
    """What differs between a file and what the record gives, by the form that the record's `name` tells.

    Pictures have no text, so there is nothing to name. What cannot be read as its form is compared by lines.
    """
    if name.endswith(".png"):
        return []
    mine, theirs = says.decode("utf-8", "replace"), record.decode("utf-8", "replace")
    try:
        if name.endswith(".json"):
            return list(_values("", json.loads(mine), json.loads(theirs)))
        if name.endswith(".jsonl"):
            rows = zip_longest(*([json.loads(line) for line in one.splitlines()] for one in (mine, theirs)))
            return [one for at, (a, b) in enumerate(rows, 1) for one in _values(f"line {at}", a, b)]
    except (ValueError, RecursionError):
        return list(_texts(mine.splitlines(), theirs.splitlines()))
    if name.endswith(".html"):
        return list(_texts(shown_texts(mine), shown_texts(theirs)))
    return list(_texts(mine.splitlines(), theirs.splitlines()))


def shown_texts(page: str) -> list[str]:
    """The pieces of text that a page shows, in order, those of its drawings too."""
    found: list[str] = []

    class Reader(HTMLParser):
        inside: str | None = None

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            del attrs
            self.inside = tag if tag in _HIDDEN else self.inside

        def handle_endtag(self, tag: str) -> None:
            self.inside = None if tag == self.inside else self.inside

        def handle_data(self, data: str) -> None:
            if self.inside is None and data.strip():
                found.append(" ".join(data.split()))

    reader = Reader()
    reader.feed(page)
    reader.close()
    return found


def _values(where: str, says: Any, record: Any) -> Iterator[Change]:
    """Leaves of two JSON values that differ, each with its path."""
    if type(says) is type(record) and isinstance(says, dict):
        mine, theirs = cast("dict[str, Any]", says), cast("dict[str, Any]", record)
        for name in dict.fromkeys((*theirs, *mine)):
            yield from _values(f"{where}.{name}".lstrip("."), mine.get(name, _NOTHING), theirs.get(name, _NOTHING))
    elif type(says) is type(record) and isinstance(says, list):
        pairs = zip_longest(cast("list[Any]", says), cast("list[Any]", record), fillvalue=_NOTHING)
        for at, (a, b) in enumerate(pairs):
            yield from _values(f"{where}[{at}]{_named(b)}", a, b)
    elif says != record or isinstance(says, bool) is not isinstance(record, bool):
        yield Change(where or "the whole file", _leaf(says), _leaf(record))


def _named(row: Any) -> str:
    """Which row of a list it is, where that says so itself: an evidence id, a factor."""
    if isinstance(row, dict):
        named = cast("dict[str, Any]", row)
        name = next((named[key] for key in ("id", "factor") if isinstance(named.get(key), str)), None)
        return f" ({name})" if name else ""
    return ""


_NOTHING = object()


def _leaf(value: Any) -> str | None:
    return None if value is _NOTHING else _cut(json.dumps(value, ensure_ascii=False))


def _texts(says: Sequence[str], record: Sequence[str]) -> Iterator[Change]:
    """Pieces of text that differ, each with the text before it; of two that are alike, the numbers alone."""
    start = 0
    while start < min(len(says), len(record)) and says[start] == record[start]:
        start += 1
    end = 0
    while end < min(len(says), len(record)) - start and says[-1 - end] == record[-1 - end]:
        end += 1
    mine, theirs = says[start : len(says) - end], record[start : len(record) - end]
    for kind, a, b, c, d in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        for at, (one, other) in enumerate(zip_longest(mine[a:b], theirs[c:d])):
            before = start + c + at - 1
            where = f"after {_cut(record[before])!r}" if 0 <= before < len(record) else "at its beginning"
            yield from _pieces(where, one, other)


def _pieces(where: str, says: str | None, record: str | None) -> Iterator[Change]:
    if says is not None and record is not None and _NUMBER.sub("#", says) == _NUMBER.sub("#", record):
        for a, b in zip(_NUMBER.findall(says), _NUMBER.findall(record), strict=True):
            if a != b:
                yield Change(where if says.startswith(a) else f"{where}, in {_cut(record)!r}", a, b)
        return
    yield Change(where, None if says is None else _cut(says), None if record is None else _cut(record))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
