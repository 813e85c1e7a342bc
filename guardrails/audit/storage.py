"""How the log lies on disk: one line per record with its hash, packs of blobs, and the few files around them.

`log.json` (schema, origin, id, records per segment, the first verifier key, and which records changed it),
`checkpoint`, `segments/NNNNNNNN.log`: lines of `<hex leaf hash> <canonical JSON>`, `segments/NNNNNNNN.blobs`:
`<hex sha256> <length>`, the bytes, a line end, and `sealed`: the roots of the full segments, 32 bytes each, which can
always be made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from finllm.errors import InputError, RecordError
from finllm.guardrails.audit.canonical import canonical_bytes, parse_canonical
from finllm.guardrails.audit.merkle import leaf_hash
from finllm.guardrails.audit.note import VerifierKey

SCHEMA = 1
"""Of a record; and of a log whose key was never changed. A finllm that knows of no change refuses a log with one."""
CHANGED_SCHEMA = 2
"""Of `log.json` where it names changes of the key."""
SEGMENT_RECORDS = 16_384
"""Records of a segment: a power of two, so that each full one is a whole subtree. About 10 MB."""

_LINE_HEAD = 65


@dataclass(frozen=True)
class Meta:
    """What a log says of itself. `vkey` is the key that it began with, `changes` the records that changed it."""

    schema: int
    origin: str
    log: str
    segment_records: int
    vkey: VerifierKey
    changes: tuple[int, ...] = ()

    @classmethod
    def new(cls, public: bytes, segment_records: int = SEGMENT_RECORDS) -> Meta:
        """A log's own name is random: two logs never share one, and a record names its log."""
        log = secrets.token_hex(8)
        origin = f"finllm.invalid/audit/{log}"
        return cls(SCHEMA, origin, log, segment_records, VerifierKey(origin, 1, public))

    def to_bytes(self) -> bytes:
        said = {**vars(self), "vkey": str(self.vkey)}
        if not self.changes:
            del said["changes"]
        return canonical_bytes(said)

    def with_changes(self, changes: Sequence[int]) -> Meta:
        return replace(self, schema=CHANGED_SCHEMA if changes else SCHEMA, changes=tuple(changes))

    @classmethod
    def parse(cls, data: bytes) -> Meta:
        """Errors: ValueError."""
        try:
            found: dict[str, Any] = parse_canonical(data)
            if found.get("schema") not in (SCHEMA, CHANGED_SCHEMA):
                raise ValueError(f"its schema is {found.get('schema')}, and this finllm reads up to {CHANGED_SCHEMA}")
            changes = tuple(found.get("changes", ()))
            if any(type(at) is not int or at < 0 for at in changes):
                raise ValueError("the records that changed its key are no numbers")
            meta = cls(**{**found, "vkey": VerifierKey.parse(found["vkey"]), "changes": changes})
            if meta.segment_records < 1 or meta.segment_records & (meta.segment_records - 1):
                raise ValueError("the size of its segments is no power of two")
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"log.json lacks or misnames something: {error}") from error
        return meta


@dataclass(frozen=True)
class Layout:
    """Where the parts of the log in `folder` lie."""

    folder: Path

    @property
    def meta(self) -> Path:
        return self.folder / "log.json"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def sealed(self) -> Path:
        return self.folder / "sealed"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def sessions(self) -> Path:
        return self.folder / "sessions"

    @property
    def segments(self) -> Path:
        return self.folder / "segments"

    def records(self, segment: int) -> Path:
        return self.segments / f"{segment:08}.log"

    def blobs(self, segment: int) -> Path:
        return self.segments / f"{segment:08}.blobs"

    def count(self) -> int:
        """How many segments there are: up to the highest number, also where one between is missing."""
        try:
            numbers = [int(path.stem) for path in self.segments.glob("*.log") if path.stem.isdigit()]
        except OSError:
            return 0
        return max(numbers, default=-1) + 1


def read_meta(layout: Layout) -> Meta:
    """Errors: InputError where there is no log, RecordError for one that cannot be read."""
    try:
        return Meta.parse(layout.meta.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"there is no audit log in {str(layout.folder)!r}",
            fix="a log begins with the first run: 'finllm run SCENARIO'",
        ) from error
    except (OSError, ValueError) as error:
        raise RecordError(
            f"cannot read {str(layout.meta)!r}: {error}", fix="run 'finllm audit verify', and restore the log's folder"
        ) from error


@contextlib.contextmanager
def shared_lock(layout: Layout) -> Iterator[None]:
    """Hold off the writer while a reader looks how far the log goes. A copy without the lock file has no writer."""
    try:
        descriptor = os.open(layout.lock, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def record_json(log: str, seq: int, body: bytes) -> bytes:
    """The canonical JSON of a record around its canonical body."""
    return b'{"body":%b,"log":"%b","seq":%d,"v":%d}' % (body, log.encode(), seq, SCHEMA)


def record_line(record: bytes, leaf: bytes) -> bytes:
    return leaf.hex().encode() + b" " + record + b"\n"


def record_of(line: bytes) -> bytes:
    """The record of a line without its end; the hash before it is not looked at."""
    return line[_LINE_HEAD:]


def leaf_of(line: bytes) -> bytes | None:
    """The leaf hash of a line's record, or None where the line says another one."""
    leaf = leaf_hash(line[_LINE_HEAD:])
    return leaf if line[:_LINE_HEAD] == leaf.hex().encode() + b" " else None


def whole_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """The lines without their ends, and what follows the last end: a line that was not finished."""
    lines = data.split(b"\n")
    return lines[:-1], lines[-1]


def frame(content: bytes, digest: str) -> bytes:
    """A blob as its pack holds it."""
    return b"%b %d\n%b\n" % (digest.encode(), len(content), content)


@dataclass(frozen=True)
class Pack:
    """A pack as it was read: where each blob lies, which do not have the content that their name says, its end."""

    places: dict[str, tuple[int, int]]
    spoilt: frozenset[str]
    end: int


def read_pack(data: bytes, *, check: bool) -> Pack:
    """Walk the frames of a pack. Reading ends at the first that is none; `check` hashes every blob."""
    places: dict[str, tuple[int, int]] = {}
    spoilt: set[str] = set()
    at = 0
    while (head := data.find(b"\n", at, at + 96)) >= 0:
        name, _, length = data[at:head].partition(b" ")
        start = head + 1
        end = start + int(length) if length.isdigit() and len(name) == 64 else len(data)
        if data[end : end + 1] != b"\n":
            break
        digest = name.decode("ascii", "replace")
        places.setdefault(digest, (start, end))
        if check and sha256(data[start:end]).hexdigest() != digest:
            spoilt.add(digest)
        at = end + 1
    return Pack(places, frozenset(spoilt), at)


def bytes_between(descriptor: int, start: int, end: int) -> bytes:
    """The bytes of a file from `start` to `end`, however many one call reads. Errors: OSError."""
    parts = bytearray()
    while start + len(parts) < end and (part := os.pread(descriptor, end - start - len(parts), start + len(parts))):
        parts += part
    return bytes(parts)
