"""Full-text search over the traces and the source texts of the runs on record, with the place of each hit.

The index is SQLite's FTS5, a file of the home that is made from the ledger: what lacks is added when somebody searches,
and one that is damaged, or may not be written, is made anew. A hit is opened in the record, which is held to the log.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import sqlite3
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from finllm.errors import FinllmError, InputError, RecordError
from finllm.files import make_private
from finllm.graphs.report import Report
from finllm.memory.reading import LedgerReader, RunHead, RunRow
from finllm.plain_text import clean
from finllm.review.trace_tables import tables_of
from finllm.settings import Settings

MOST = 20
"""Hits that are told unless asked otherwise."""
LONGEST, MOST_WORDS = 300, 16
"""Characters and words of what is sought."""
AT_ONCE = 500
"""Runs that are taken into the index by one search, the newest first; the next one goes on."""
_LOOKED_AT = 1_000
"""Hits that are put together where the same stands in several runs."""
_BEGIN, _END = "\x02", "\x03"
_FORM = 1
"""Of the index: another one is made anew."""
_NOISE = frozenset(("placed", "refused", "evidence"))
"""Tables whose rows are not sought in: costs and numbers. What a row of evidence is about stands in the others."""
_WORD = re.compile(r'"([^"]+)"|(\S+)')
_SCHEMA = """
CREATE TABLE IF NOT EXISTS taken (run TEXT PRIMARY KEY, created_ns INTEGER NOT NULL, title TEXT NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE IF NOT EXISTS place USING fts5 (
    body, run UNINDEXED, kind UNINDEXED, name UNINDEXED, row UNINDEXED, digest UNINDEXED,
    tokenize = "unicode61 remove_diacritics 2"
);
"""


class FoundPiece(BaseModel):
    """A part of the words around a hit; `hit`: what was sought."""

    model_config = ConfigDict(frozen=True)

    text: str
    hit: bool = False


class Found(BaseModel):
    """A hit: the newest run that has it, the place in it, and the words around it.

    `kind`: `event`, `source`, `summary`, or the name of a table of the trace; `place` in words, such as `source
    hrz-wire-1`. `row`: the row of evidence or the call that the place is, where it is one. `also`: further runs that
    say the very same.
    """

    model_config = ConfigDict(frozen=True)

    run: str
    title: str
    when: dt.datetime
    kind: str
    place: str
    row: str | None
    words: tuple[FoundPiece, ...]
    also: int = 0


class FoundAll(BaseModel):
    """The best hits; `more` that are not told, and `unsearched` runs that the index does not hold yet."""

    model_config = ConfigDict(frozen=True)

    found: tuple[Found, ...]
    more: int
    unsearched: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Place:
    kind: str
    name: str
    body: str
    row: str | None = None


def search(
    text: str, ledger: LedgerReader, settings: Settings, limit: int = MOST, *, at_once: int = AT_ONCE
) -> FoundAll:  # fmt: skip
    """The places that have each of these words; words in quotes stand side by side, `word*` is a beginning.

    `at_once`: how many runs that the index lacks are taken into it first.

    Errors: InputError for nothing to seek, or too much of it; RecordError.
    """
    query = query_of(text)
    with _opened(settings.search_path) as index:
        left, notes = _take_in(index, ledger, at_once)
        found = _hits(index, query)
    return FoundAll(found=tuple(found[:limit]), more=max(len(found) - limit, 0), unsearched=left, notes=tuple(notes))


def take_in(ledger: LedgerReader, settings: Settings, at_once: int = AT_ONCE) -> int:
    """Take runs that the index lacks into it, the newest first; how many are left then. Errors: RecordError."""
    with _opened(settings.search_path) as index:
        return _take_in(index, ledger, at_once)[0]


def query_of(text: str) -> str:
    """What is sought in FTS5's own language, every word quoted: nobody's text is a query. Errors: InputError."""
    text = clean(text)
    if len(text) > LONGEST:
        raise InputError(f"{len(text)} characters are sought", fix=f"give at most {LONGEST}")
    words = [match[1] or match[2] for match in _WORD.finditer(text) if re.search(r"\w", match[1] or match[2])]
    if not words:
        raise InputError(f"there is no word in {text!r}", fix="give a word that sources, judgements or reasons have")
    if len(words) > MOST_WORDS:
        raise InputError(f"{len(words)} words are sought", fix=f"give at most {MOST_WORDS}")
    quoted = (f'"{word.rstrip("*").replace(chr(34), chr(34) * 2)}"' + ("*" if word.endswith("*") else "")
              for word in words)  # fmt: skip
    return " AND ".join(quoted)


@contextlib.contextmanager
def _opened(path: Path) -> Generator[sqlite3.Connection]:
    """The index, made anew where it is of another form or damaged; in memory where it may not be written."""
    db = _connected(path)
    try:
        yield db
    except sqlite3.Error as error:
        raise RecordError(f"cannot search {str(path)!r}: {error}", fix=f"remove {str(path)!r}: it is made again") from (
            error
        )
    finally:
        db.close()


def _connected(path: Path) -> sqlite3.Connection:
    try:
        make_private(path.parent)
        db = sqlite3.connect(path, timeout=5.0, isolation_level=None)
        if db.execute("PRAGMA user_version").fetchone()[0] not in (0, _FORM):
            raise sqlite3.DatabaseError("another form")
        db.executescript(_SCHEMA)
        db.execute("SELECT count(*) FROM taken").fetchone()
        db.execute(f"PRAGMA user_version = {_FORM}")
    except sqlite3.OperationalError:  # it may not be written
        db = sqlite3.connect(":memory:", isolation_level=None)
        db.executescript(_SCHEMA)
    except sqlite3.DatabaseError:
        path.unlink(missing_ok=True)
        db = sqlite3.connect(path, timeout=5.0, isolation_level=None)
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {_FORM}")
    except OSError:
        db = sqlite3.connect(":memory:", isolation_level=None)
        db.executescript(_SCHEMA)
    return db


def _take_in(index: sqlite3.Connection, ledger: LedgerReader, at_once: int) -> tuple[int, list[str]]:
    """Put the runs that ended and are not in the index into it; how many are left, and which could not be read."""
    known = {row[0] for row in index.execute("SELECT run FROM taken")}
    heads = [head for head in ledger.runs() if head.id not in known and head.status in ("finished", "blocked")]
    notes: list[str] = []
    for head in heads[:at_once]:
        try:
            row = ledger.run(head.id)
            places = [] if row is None else list(_places(row, ledger))
        except FinllmError as error:
            notes.append(f"run {head.id!r} is not searched: {error.message}")
            continue
        _add(index, head, places)
    return max(len(heads) - at_once, 0), notes


def _add(index: sqlite3.Connection, head: RunHead, places: list[_Place]) -> None:
    index.execute("BEGIN IMMEDIATE")
    added = index.execute("INSERT OR IGNORE INTO taken VALUES (?, ?, ?)", (head.id, head.created_ns, head.title))
    if added.rowcount:
        index.executemany("INSERT INTO place VALUES (?, ?, ?, ?, ?, ?)", [
            (one.body, head.id, one.kind, one.name, one.row, sha256(f"{one.name}\0{one.body}".encode()).hexdigest())
            for one in places
        ])  # fmt: skip
    index.execute("COMMIT")


def _places(run: RunRow, ledger: LedgerReader) -> Iterator[_Place]:
    """What can be found of a run: its texts whole, its summary, and the rows of its trace's tables."""
    scenario = run.request.get("scenario", {})
    yield _Place("event", "the event as it is told", clean(str(scenario.get("narrative", ""))))
    for source in scenario.get("sources", ()):
        yield _Place("source", f"source {source['id']}", clean(f"{source['publisher']}: {source['text']}"))
    if run.result is not None:
        report = Report.model_validate(run.result)
        yield from (_Place("summary", "summary", clean(line)) for line in (report.title, *report.summary))
    for table in tables_of(run, ledger):
        if table.name in _NOISE:
            continue
        yield from (_Place(table.name, table.title, clean(note)) for note in table.notes)
        for row in table.rows:
            body = " · ".join(text for cell in row.cells if (text := clean(cell.text)))
            yield _Place(table.name, table.title, body, row.key)


def _hits(index: sqlite3.Connection, query: str) -> list[Found]:
    """The hits, the best first; of what several runs say, the newest run's."""
    rows = index.execute(
        "SELECT place.run, taken.title, taken.created_ns, kind, name, row, digest, "
        "snippet(place, 0, ?, ?, '…', 24) FROM place JOIN taken ON taken.run = place.run "
        "WHERE place MATCH ? ORDER BY rank, taken.created_ns DESC LIMIT ?", (_BEGIN, _END, query, _LOOKED_AT),
    )  # fmt: skip
    found: dict[str, list[Found]] = {}
    for run, title, created_ns, kind, name, row, digest, around in rows:
        when = dt.datetime.fromtimestamp(created_ns / 1e9, dt.UTC)
        one = Found(run=run, title=title, when=when, kind=kind, place=name, row=row, words=_pieces(around))
        found.setdefault(digest, []).append(one)
    newest = (max(same, key=lambda one: one.when).model_copy(update={"also": len({one.run for one in same}) - 1})
              for same in found.values())  # fmt: skip
    return list(newest)


def _pieces(around: str) -> tuple[FoundPiece, ...]:
    parts = re.split(f"{_BEGIN}(.*?){_END}", around)
    return tuple(FoundPiece(text=part, hit=bool(at % 2)) for at, part in enumerate(parts) if part)
