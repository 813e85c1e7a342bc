"""The home held against its audit log: every row of the ledger, every report, the texts, and the report files.

`held.py` compares what is about to be used; here everything is, so that what was changed, added or taken away is named.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from finllm.errors import RecordError
from finllm.guardrails.audit.held import ENDED, Said, digest
from finllm.guardrails.audit.reader import LogReader
from finllm.guardrails.audit.records import CLUSTER, FILES
from finllm.memory.audits import drawn
from finllm.memory.held import UseRow
from finllm.memory.reading import LedgerReader
from finllm.memory.review_record import ReviewRecord, broken
from finllm.memory.rows import LedgerRows, RunText
from finllm.memory.texts import Texts
from finllm.memory.users import users_broken

NOT_HELD = ("users.sqlite", "checkpoints.sqlite", "knowledge", "calibrations", "models", "values.json")
"""What else a home has: of pass phrases the ledger names the hash that counts; a checkpoint is held against the
recorded states when its run goes on; the rest answers nothing by itself, and what a run read of it is on record with
the run."""
STARTED_WITHIN = 600
"""Seconds between the record of a run's start and its row: a machine may stand still in between."""


@dataclass(frozen=True)
class Held:
    """A file of the home: how many of its rows (or files) were compared, what differs, and what to know."""

    file: str
    compared: int
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WrittenFile:
    """A file as record `seq` of the log has it: the run or batch that wrote it, where to, and its sha256."""

    seq: int
    run: str
    path: Path
    digest: str


@dataclass
class _Findings:
    problems: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class _Row:
    """What the log says of one use: the number of its record, and digests of whose it is and of what it says."""

    seq: int
    whose: bytes
    request: str
    response: str


@dataclass
class _Log:
    """What the whole log says of the ledger."""

    uses: dict[int, _Row] = field(default_factory=dict[int, _Row])
    begun: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    """By run: the digest of its request, and when it was recorded, ns."""
    ended: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """By run: the status that each of its reports was recorded with, by digest."""
    places: dict[str, int] = field(default_factory=dict[str, int])
    steps: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Numbers of the records that the clock was set, and by how many ns."""
    twice: list[str] = field(default_factory=list[str])


def verify_home(
    log: Path, ledger: Path | None, elsewhere: Iterable[Path] = (), texts: Texts | None = None
) -> list[Held]:  # fmt: skip
    """Hold a ledger, the texts and the report files against the log, which has to be whole; without a ledger, files
    alone.

    Errors: InputError, RecordError.
    """
    reader = LogReader(log)
    rows = [check_ledger(ledger, reader)] if ledger is not None and ledger.exists() else []
    if ledger is not None and not rows and any(not body["action"].startswith(CLUSTER) for body in _records(reader)):
        rows = [Held(ledger.name, 0, ("it is gone",))]
    if rows and ledger is not None and not rows[0].problems:
        rows += [one for one in [check_reviews(ledger, reader)] if one.compared]
    kept = [check_texts(texts, reader)] if texts is not None else []
    return [*rows, *kept, *check_files(reader, elsewhere, home=ledger is not None)]


def check_ledger(path: Path, reader: LogReader) -> Held:
    """Hold every row of a ledger against the log. The log itself has to be whole. Errors: RecordError."""
    said, found = _read(reader), _Findings()
    found.problems += said.twice
    with LedgerRows(path) as ledger:
        compared = _check_uses(ledger.uses(), said, found) + _check_runs(ledger.runs(), said, found)
        if loose := ledger.loose_uses():
            found.problems.append(f"{loose} rows lead to an entry that is gone")
        if spare := ledger.unused_entries():
            found.notes.append(f"{spare} entries that no run uses, which are not believed")
        through, places = ledger.places(reader.meta.log)
        due = {name: seq for name, seq in said.places.items() if seq < through}
        wrong = sorted({name for name, _ in due.items() ^ places.items()})
        if wrong or through > reader.size:
            found.problems.append(f"its index over the log is not what it was{_some(wrong)}")
    return Held(path.name, compared, tuple(found.problems), tuple(found.notes))


def check_reviews(path: Path, reader: LogReader) -> Held:
    """Hold the reviews of a ledger against their own rules, and each draw of an audit against the log's root then."""
    with contextlib.closing(LedgerReader(path)) as ledger:
        record = ReviewRecord(ledger)
        items = list(record.items().values())
        problems = [*broken(ledger), *users_broken(ledger)]
    for item in items:
        audit = item.row.audit
        if audit is None or audit.kind != "drawn":
            continue
        root = reader.tree.root(audit.size).hex() if audit.size <= reader.size else None
        if root != audit.root or audit.of != drawn(audit.root, audit.among):
            problems.append(f"audit {item.id} was not drawn by the log's root")
    return Held("reviews", len(items), tuple(problems))


def check_texts(texts: Texts, reader: LogReader) -> Held:
    """Hold the texts in the home against the runs that read them: each is there, with the bytes of its digest."""
    named: dict[str, str] = {}
    for body in _records(reader):
        for name in body.get("texts", ()):
            named.setdefault(name, body["run"])
    found = _Findings()
    for name, run in named.items():
        try:
            if texts.read(name) is None:
                found.problems.append(f"the text {name[:12]} that run {run!r} read is gone")
        except RecordError as error:
            found.problems.append(f"the text {name[:12]} that run {run!r} read is not what it was: {error.message}")
    if spare := len(set(texts.names()) - named.keys()):
        found.notes.append(f"{spare} texts that no run on record reads: their process died before its record")
    return Held(texts.folder.name, len(named), tuple(found.problems), tuple(found.notes))


def check_files(reader: LogReader, elsewhere: Iterable[Path] = (), *, home: bool = True) -> list[Held]:
    """Hold the report files on record against the disk, and files `elsewhere` against all that was ever written."""
    on_record = list(written_files(reader))
    newest = {one.path: (one.run, one.digest) for one in on_record}
    written = {one.digest: one.run for one in on_record}
    found: list[Held] = []
    for folder in dict.fromkeys(path.parent for path in newest) if home else ():
        one = _Findings()
        names = {path: newest[path] for path in newest if path.parent == folder}
        for path, (run, was) in names.items():
            there = _digest_of(path)
            if there is None:
                one.notes.append(f"{path.name} is not there any more")
            elif there != was:
                one.problems.append(f"{path.name} is not the file that run {run!r} wrote")
        found.append(Held(str(folder), len(names), tuple(one.problems), tuple(one.notes)))
    for path in elsewhere:
        digest = _digest_of(path)
        known = written.get(digest or "")
        problem = () if known else ("no run on record wrote this file, or it was changed since",)
        found.append(Held(str(path), 1, problem, (f"as run {known!r} wrote it",) if known else ()))
    return found


def written_files(reader: LogReader) -> Iterator[WrittenFile]:
    """Every file that a run or a batch put on record, in order; one that was written again comes again."""
    for seq, data in enumerate(_records(reader)):
        if data["action"].startswith(f"{FILES}."):
            for name, digest in data["files"].items():
                yield WrittenFile(seq, data["run"], Path(data["folder"], name), digest)


def _read(reader: LogReader) -> _Log:
    said = _Log()
    contents: dict[str, tuple[int, str | None, str | None]] = {}
    for seq, body in enumerate(_records(reader)):
        one = Said.of(body)
        if one.action == "clock.stepped":
            said.steps.append((seq, int(body["by_ns"])))
        if one.run is not None:
            said.places.setdefault(f"run {one.run}", seq)
        if one.task is not None:
            said.places.setdefault(one.task, seq)
            first = contents.setdefault(one.task, (seq, one.request, one.response))
            if (one.request, one.response) != first[1:]:
                said.twice.append(f"record {seq} says otherwise of the entry {one.task[:12]} than record {first[0]}")
        if one.use is not None and one.task is not None:
            row = _Row(seq, _whose(one, str(body["at"]["ns"])), one.request or "", one.response or "")
            said.uses.setdefault(one.use, row)
        if one.run is not None and one.content is not None:
            if one.action == "run.started":
                said.begun.setdefault(one.run, (one.content, int(body["at"]["ns"])))
            elif one.action in ENDED:
                said.ended.setdefault(one.run, {})[one.content] = one.action.removeprefix("run.")
    return said


def _check_uses(rows: Iterator[tuple[str, int, UseRow]], said: _Log, found: _Findings) -> int:
    compared, unproven = 0, 0
    missing = dict(said.uses)
    for run, at_ns, row in rows:
        record = missing.pop(row.id, None)
        if record is None:
            unproven += 1
            continue
        compared += 1
        entry = row.entry
        about = f"row {row.id} of run {run!r}, {entry.kind} at {row.node!r} (record {record.seq})"
        action = f"{entry.kind}.{'reused' if row.reused else 'recorded'}"
        if _whose(Said(action, run, row.node, entry.key, actor=entry.actor), str(at_ns)) != record.whose:
            found.problems.append(f"{about}: whose it is, or when it was, is not what it was")
        if digest(entry.request) != record.request:
            found.problems.append(f"{about}: its question is not what it was")
        if digest(entry.response) != record.response:
            found.problems.append(f"{about}: its answer is not what it was")
    found.problems += [f"row {id} is gone (record {row.seq})" for id, row in missing.items()]
    if unproven:
        found.notes.append(f"{unproven} rows have no record: their process died before it, or somebody put them there; "
                           "they are not believed")  # fmt: skip
    return compared


def _check_runs(rows: Iterator[RunText], said: _Log, found: _Findings) -> int:
    compared = 0
    missing = dict(said.begun)
    for row in rows:
        begun = missing.pop(row.id, None)
        if begun is None:
            found.problems.append(f"run {row.id!r} has no record of its start")
            continue
        compared += 1
        if digest(row.request) != begun[0]:
            found.problems.append(f"the request of run {row.id!r} is not what it was")
        if abs(apart := row.created_ns - begun[1]) > STARTED_WITHIN * 10**9:
            after = said.places[f"run {row.id}"]
            if any(seq > after and abs(apart - by) <= STARTED_WITHIN * 10**9 for seq, by in said.steps):
                found.notes.append(
                    f"the clock was set by {apart / 1e9:+,.0f} s as run {row.id!r} began, which is on record"
                )
            else:
                found.problems.append(f"when run {row.id!r} began is not what it was")
        if row.title is not None and row.title != _title_of(row.request):
            found.problems.append(f"the title of run {row.id!r} in lists is not its own")
        ended = said.ended.get(row.id, {})
        result = None if row.result is None else digest(row.result)
        if result is not None and ended.get(result) != row.status:
            what = "report" if result not in ended else "status"
            found.problems.append(f"the {what} of run {row.id!r} is not what it was")
        elif row.result is None and ended:
            found.notes.append(f"the report of run {row.id!r} is on record and not in the ledger: resume it")
    for id in missing:
        if id in said.ended:
            found.problems.append(f"run {id!r} is gone")
        else:
            found.notes.append(f"run {id!r} has a record of its start and no row: its process died in between")
    return compared


def _whose(said: Said, ns: str) -> bytes:
    told = (said.action, said.run, said.node, said.task, said.actor, ns)
    return sha256(json.dumps(told).encode()).digest()[:16]


def _title_of(request: str) -> str | None:
    try:
        return str(json.loads(request)["scenario"]["title"])
    except (ValueError, KeyError, TypeError):
        return None


def _records(reader: LogReader) -> Iterator[Mapping[str, Any]]:
    for _, data in reader.records():
        yield json.loads(data)["body"]


def _digest_of(path: Path) -> str | None:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f" ({', '.join(name[:40] for name in names[:3])}{more})" if names else ""
