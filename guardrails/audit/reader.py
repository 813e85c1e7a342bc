"""Reading the audit log as it stood at one moment: records, blobs, roots and proofs; the writer goes on meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from finllm.errors import RecordError
from finllm.guardrails.audit.canonical import parse_canonical
from finllm.guardrails.audit.keychain import change_in, read_keychain
from finllm.guardrails.audit.merkle import includes, root_of
from finllm.guardrails.audit.note import Checkpoint, Note, VerifierKey
from finllm.guardrails.audit.storage import (
    Layout,
    Meta,
    leaf_of,
    read_meta,
    read_pack,
    record_of,
    shared_lock,
    whole_lines,
)
from finllm.guardrails.audit.tree import Frontier, LogTree, unpacked


@dataclass(frozen=True)
class Extent:
    """How far the log goes: its segments, and the bytes of the last one's records and blobs."""

    segments: int
    records_end: int
    blobs_end: int

    def records(self, layout: Layout, segment: int) -> bytes:
        """A segment's lines, without what came later. Errors: OSError."""
        return _bytes(layout.records(segment), self.records_end if segment == self.segments - 1 else None)

    def blobs(self, layout: Layout, segment: int) -> bytes:
        """A segment's pack, empty where there is none. Errors: OSError."""
        path = layout.blobs(segment)
        return _bytes(path, self.blobs_end if segment == self.segments - 1 else None) if path.exists() else b""


def extent_of(layout: Layout) -> Extent:
    """Call it under `shared_lock`. Errors: OSError."""
    count = layout.count()
    if not count:
        return Extent(0, 0, 0)
    pack = layout.blobs(count - 1)
    return Extent(count, layout.records(count - 1).stat().st_size, pack.stat().st_size if pack.exists() else 0)


def load_leaves(layout: Layout, segment: int) -> list[bytes]:
    """The leaf hashes of a segment's records. Errors: OSError; ValueError where a line is not what was written."""
    return leaves_of(whole_lines(layout.records(segment).read_bytes())[0], segment)


def leaves_of(lines: Sequence[bytes], segment: int) -> list[bytes]:
    """The leaf hashes of the lines of a segment. Errors: ValueError where a line is not what was written."""
    leaves = [leaf for leaf in map(leaf_of, lines) if leaf is not None]
    if len(leaves) != len(lines):
        raise ValueError(f"segment {segment} holds a record that is not what was written")
    return leaves


class LogReader:
    """The log in `folder` as it stands now, held against its own checkpoint only as far as it is read.

    Errors, here and of all methods: InputError where there is no log, RecordError where it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder)
        self._proven: set[int] = set()
        try:
            self._look()
            self._whole = lru_cache(maxsize=2)(lambda segment: _lines_in(self._extent, self.layout, segment))
            self._leaves = lru_cache(maxsize=4)(lambda segment: leaves_of(self._lines(segment), segment))
            self._newest = _Newest(self._extent.segments - 1)
            self._take_in()
            self.tree = LogTree(self.meta.segment_records, self._sealed_roots, self.leaves)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def catch_up(self) -> None:
        """See how far the log goes now: what was read stays as it was, what was added is read and held against the
        checkpoint signed since. Errors: RecordError, for a log that has become shorter or is another one too."""
        before, log = self._extent, self.meta.log
        try:
            self._look()
            if self.meta.log != log or self._extent.segments < before.segments:
                raise ValueError("it is not the log that it was")
            if self._extent.segments != before.segments:  # the last one was filled: what of it was read is read again
                self._whole.cache_clear()
                self._leaves.cache_clear()
                self._proven.discard(before.segments - 1)
                self._newest = _Newest(self._extent.segments - 1)
            self._take_in()
            self.tree = LogTree(self.meta.segment_records, self._sealed_roots, self.leaves)
            if self._proven:
                self._prove_checkpoint()
        except (OSError, ValueError) as error:
            self._extent = before  # so that it is looked at, and refused, each time
            raise self._unreadable(error) from error

    def _look(self) -> None:
        """How far the log goes, by what was signed of it. Errors: OSError, ValueError; those of `read_meta`."""
        with shared_lock(self.layout):
            self.meta: Meta = read_meta(self.layout)
            self.keys = read_keychain(self.layout, self.meta)
            self._extent = extent_of(self.layout)
            self.note = Note.parse(self.layout.checkpoint.read_text(encoding="utf-8"))
            sealed = self.layout.sealed.read_bytes() if self.layout.sealed.exists() else b""
        self.checkpoint = Checkpoint.of(self.note)
        if self.checkpoint.origin != self.meta.origin:
            raise ValueError("the checkpoint is of another log")
        try:
            self.keys.at(self.checkpoint.size).check(self.note)
        except ValueError as error:
            raise ValueError(f"the checkpoint does not hold: {error}") from error
        self._sealed_roots = unpacked(sealed)[: max(self._extent.segments - 1, 0)]

    def _take_in(self) -> None:
        """Read what the last segment has beyond what was read of it."""
        newest = self._newest
        if newest.segment >= 0:
            newest.take_in(self.layout.records(newest.segment), self._extent.records_end)
        self.size = max(newest.segment, 0) * self.meta.segment_records + len(newest.leaves)

    def leaves(self, segment: int) -> Sequence[bytes]:
        """The leaf hashes of a segment. Errors: OSError; ValueError where a line is not what was written."""
        return self._newest.leaves if segment == self._newest.segment else self._leaves(segment)

    def _lines(self, segment: int) -> Sequence[bytes]:
        return self._newest.lines if segment == self._newest.segment else self._whole(segment)

    @property
    def vkey(self) -> VerifierKey:
        """The key that signs the checkpoint."""
        return self.keys.at(self.checkpoint.size).signs

    def changes_in(self, segment: int) -> list[int]:
        """The records of a segment, up to the checkpoint, that say they change the log's keys."""
        first = segment * self.meta.segment_records
        lines = self._lines(segment)[: max(self.checkpoint.size - first, 0)]
        return [index for index, line in enumerate(lines, first) if change_in(record_of(line)) is not None]

    def record(self, index: int) -> bytes:
        """The canonical JSON of a record. `0 <= index < size`."""
        segment, within = divmod(index, self.meta.segment_records)
        try:
            return record_of(self._lines(segment)[within])
        except (OSError, IndexError) as error:
            raise self._unreadable(error) from error

    def grown(self) -> bool:
        """Whether records were added since this was opened."""
        last = self._extent.segments - 1
        try:
            return last < 0 or self.layout.count() > last + 1 or (
                self.layout.records(last).stat().st_size > self._extent.records_end
            )  # fmt: skip
        except OSError as error:
            raise self._unreadable(error) from error

    def proven(self, index: int) -> bytes:
        """A record of `prove_segment`'s kind. Errors: RecordError."""
        self.prove_segment(index // self.meta.segment_records)
        return self.record(index)

    def proven_of(self, run_id: str, first: int) -> list[bytes]:
        """The records of a run from the segment of record `first` on, all of which are proven."""
        needle, found = b'"run":"%b"' % run_id.encode(), list[bytes]()
        try:
            for segment in range(first // self.meta.segment_records, self._extent.segments):
                self.prove_segment(segment)
                found += [record_of(line) for line in self._lines(segment) if needle in line]
        except OSError as error:
            raise self._unreadable(error) from error
        return [data for data in found if _run_of(data) == run_id]

    def prove_segment(self, segment: int) -> None:
        """Its records are under the log's signed checkpoint, or were written since and are not signed yet.

        Each segment is hashed once. Errors: RecordError where it is not what was signed.
        """
        try:
            if not self._proven:
                self._prove_checkpoint()
            if segment not in self._proven:
                kept = self._sealed_roots[segment : segment + 1]
                if kept and root_of(self.leaves(segment)) != kept[0]:
                    raise ValueError(f"segment {segment} is not what was written")
                self._proven.add(segment)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def _prove_checkpoint(self) -> None:
        """Errors: ValueError where what was read is not what was signed."""
        first = self._newest.segment * self.meta.segment_records
        if len(self._sealed_roots) == max(self._newest.segment, 0) and first < self.checkpoint.size <= self.size:
            root = self._newest.root(self.checkpoint.size - first, self._sealed_roots)
        else:
            root = self.tree.root(self.checkpoint.size)
        if root != self.checkpoint.root:
            raise ValueError("it does not hold what its own checkpoint was signed over")

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Every record with its index."""
        try:
            for segment in range(self._extent.segments):
                lines, _torn = whole_lines(self._extent.records(self.layout, segment))
                yield from enumerate(map(record_of, lines), segment * self.meta.segment_records)
        except OSError as error:
            raise self._unreadable(error) from error

    def newest_first(self) -> Iterator[bytes]:
        """Every record, the last one first."""
        try:
            for segment in reversed(range(self._extent.segments)):
                lines, _torn = whole_lines(self._extent.records(self.layout, segment))
                yield from map(record_of, reversed(lines))
        except OSError as error:
            raise self._unreadable(error) from error

    def records_of(self, run_id: str) -> list[tuple[int, bytes]]:
        """The records of one run."""
        needle = b'"run":"%b"' % run_id.encode()
        return [(index, data) for index, data in self.records() if needle in data and _run_of(data) == run_id]

    def blob(self, digest: str, index: int) -> bytes:
        """The blob that the record at `index` names. Errors: RecordError where it is missing or has other content."""
        segment = index // self.meta.segment_records
        try:
            data = self._extent.blobs(self.layout, segment)
        except OSError as error:
            raise self._unreadable(error) from error
        start, end = read_pack(data, check=False).places.get(digest, (0, -1))
        if end < start or sha256(data[start:end]).hexdigest() != digest:
            raise self._unreadable(ValueError(f"blob {digest} of record {index} is missing or not what was written"))
        return data[start:end]

    def inclusion(self, index: int) -> list[bytes]:
        """The proof that a record is under the checkpoint. `index < checkpoint.size`."""
        try:
            proof = self.tree.inclusion(index, self.checkpoint.size)
            leaf = self.tree.leaf(index)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        if not includes(leaf, index, self.checkpoint.size, proof, self.checkpoint.root):
            raise self._unreadable(ValueError(f"record {index} is not under the log's own checkpoint"))
        return proof

    def _unreadable(self, error: Exception) -> RecordError:
        return RecordError(
            f"cannot read the audit log {str(self.layout.folder)!r}: {error}",
            fix="run 'finllm audit verify' to see the first bad record",
        )


class _Newest:
    """The segment that is being written, as far as it was read: each line is read and hashed once."""

    def __init__(self, segment: int) -> None:
        self.segment = segment
        self.lines: list[bytes] = []
        self.leaves: list[bytes] = []
        self._end = 0
        self._signed, self._pushed = Frontier(), 0

    def take_in(self, path: Path, end: int) -> None:
        """Read up to byte `end`. Errors: OSError; ValueError for a line that is not what was written."""
        if end < self._end:
            raise ValueError("it has become shorter")
        with path.open("rb") as file:
            file.seek(self._end)
            lines, _torn = whole_lines(file.read(end - self._end))
        self.leaves += leaves_of(lines, self.segment)
        self.lines += lines
        self._end += sum(map(len, lines)) + len(lines)

    def root(self, size: int, sealed: Sequence[bytes]) -> bytes:
        """The root over the full segments before it and its own first `size` records; of a size that only grows."""
        if size < self._pushed:
            self._signed, self._pushed = Frontier(), 0
        for leaf in self.leaves[self._pushed : size]:
            self._signed.push(leaf)
        self._pushed = size
        full = Frontier()
        for root in sealed:
            full.push(root)
        return Frontier([*full.stack, *self._signed.stack]).root()


def _lines_in(extent: Extent, layout: Layout, segment: int) -> Sequence[bytes]:
    return whole_lines(extent.records(layout, segment))[0]


def _run_of(data: bytes) -> Any:
    try:
        return parse_canonical(data)["body"].get("run")
    except (ValueError, KeyError, AttributeError):
        return None


def _bytes(path: Path, end: int | None) -> bytes:
    with path.open("rb") as file:
        return file.read(-1 if end is None else end)
