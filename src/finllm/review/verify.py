"""Report files held against the record: as a run wrote them, changed since and where, or on no record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from finllm.errors import InputError
from finllm.guardrails.audit.home import WrittenFile
from finllm.memory.reading import LedgerReader
from finllm.review.differing import Change, changes

FileStatus = Literal["intact", "changed", "unknown"]
MOST_READ = 1 << 24
"""Bytes of a file in which the run that it names is sought."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+[A-Za-z0-9]")


@dataclass(frozen=True)
class FileVerdict:
    """How a file stands to the record. `record`: the number of the log's record that has its digest, or that of the
    file that it was; `seems`: the name of that file.

    `differing` names what differs from what the record gives when it is rendered again.
    """

    file: str
    status: FileStatus
    sha256: str
    run: str | None = None
    seems: str | None = None
    record: int | None = None
    differing: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Verifier:
    """What the log and the ledger know of report files; a run is rendered again once. Loads no model."""

    def __init__(self, written: Sequence[WrittenFile], ledger: LedgerReader | None) -> None:
        self._written = written
        self._ledger = ledger
        self._again: dict[tuple[str, bool], dict[str, bytes]] = {}

    @cached_property
    def _by_digest(self) -> dict[str, WrittenFile]:
        return {one.digest: one for one in self._written}

    @cached_property
    def _runs(self) -> frozenset[str]:
        return frozenset(one.run for one in self._written)

    def verify(self, path: Path) -> FileVerdict:
        """Hold one file against the record. Errors: InputError where it cannot be read; RecordError."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{str(path)!r} cannot be read: {error.strerror}",
                             fix="name a report file, or the folder of a run's files") from error  # fmt: skip
        digest = sha256(data).hexdigest()
        if (known := self._by_digest.get(digest)) is not None:
            return FileVerdict(str(path), "intact", digest, known.run, known.path.name, known.seq)
        was = self._what_it_was(path, data)
        if was is None:
            why = "no file on record has its digest, and it names no run that wrote one"
            return FileVerdict(str(path), "unknown", digest, notes=(why,))
        differing, notes = self._compared(data, was)
        return FileVerdict(str(path), "changed", digest, was.run, was.path.name, was.seq, differing, notes)

    def _what_it_was(self, path: Path, data: bytes) -> WrittenFile | None:
        """The newest file on record that was written there; else that of this form by the run that the file names."""
        there = path.resolve()
        if at := [one for one in self._written if one.path == there]:
            return at[-1]
        words = _ID.findall(data[:MOST_READ].decode("utf-8", "replace"))
        run = next((word for word in words if word in self._runs), None)
        if run is None:
            return None
        name, theirs = _form(path.name, data), [one for one in self._written if one.run == run]
        mine = [one for one in theirs if one.path.name == name]
        if not mine:  # a batch's map or summary, whose name its user gave
            mine = [one for one in theirs if one.path.suffix.lower() == path.suffix.lower()]
            mine = mine if len({one.path for one in mine}) == 1 else []
        return mine[-1] if mine else None

    def _compared(self, data: bytes, was: WrittenFile) -> tuple[tuple[Change, ...], tuple[str, ...]]:
        """What differs from the file as the record gives it: the one with the recorded digest, else the nearest."""
        name, notes = was.path.name, list[str]()
        given = [one[name] for one in self._renderings(was.run) if name in one]
        if not given:
            return (), ("the record does not tell what stood in it, so what was changed cannot be named",)
        proven = [one for one in given if sha256(one).hexdigest() == was.digest]
        if not proven:
            notes.append("rendered again, the file is not the one on record (another version of finllm wrote it): "
                         "what differs may be of that")  # fmt: skip
        found = min((changes(name, data, one) for one in proven or given), key=len)
        if not found:
            notes.append("no number and no text that it shows differs: only how it is written, or what is drawn")
        return tuple(found), tuple(notes)

    def _renderings(self, run_id: str) -> list[dict[str, bytes]]:
        """A run's files made again from its record, without an explanation and with it; none of a batch's."""
        from finllm.graphs.report import Report
        from finllm.review.explanation import explanation_on_record
        from finllm.review.outputs import run_files
        from finllm.review.trace import trace_rows

        row = self._ledger.run(run_id) if self._ledger else None
        if self._ledger is None or row is None or row.result is None:
            return []
        explained = explanation_on_record(run_id, self._ledger)
        for told in (None, explained) if explained else (None,):
            if (run_id, told is not None) not in self._again:
                report = Report.model_validate(row.result)
                made = run_files(report, trace_rows(run_id, self._ledger), told)
                self._again[run_id, told is not None] = made.contents
        return [made for (run, _), made in self._again.items() if run == run_id]


def _form(name: str, data: bytes) -> str:
    """The name under which a run writes a file of this form."""
    start = data[:512].lstrip()
    if start.startswith(b"\x89PNG"):
        return name
    if start[:15].lower() == b"<!doctype html>":
        return "report.html"
    if start.startswith(b"{"):
        if data.count(b"\n{") and b'"kind"' in start:
            return "trace.jsonl"
        return "explanation.json" if b'"removals"' in data and b'"shocks"' not in data else "report.json"
    return "report.md" if start.startswith(b"# ") else name


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and of folders all that is in them. Errors: InputError where there is none."""
    found = [one for path in paths for one in (sorted(path.iterdir()) if path.is_dir() else [path])]
    files = [one for one in found if not one.is_dir()]
    if not files:
        raise InputError(f"there is no file in {', '.join(repr(str(path)) for path in paths)}",
                         fix="name a report file, or the folder of a run's files")  # fmt: skip
    return files
