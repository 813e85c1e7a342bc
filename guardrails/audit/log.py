"""The writer of the audit log: an append returns when its record is on disk, after a write and fsync shared by all.

Several processes may write one log: each commit is made under the log's lock, after taking in what others wrote. After
a failed write nothing more is taken: what the disk then holds is not known, so the log has to be opened again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finllm.errors import RecordError
from finllm.files import make_private, sync, write_atomically
from finllm.guardrails.audit.canonical import canonical_bytes
from finllm.guardrails.audit.commit import BATCH, GroupCommit, Item, Waiting
from finllm.guardrails.audit.keychain import CHANGED, MARK, Signers, change_in, read_keychain, statement
from finllm.guardrails.audit.keys import Keys, SigningKey
from finllm.guardrails.audit.merkle import leaf_hash, root_of
from finllm.guardrails.audit.note import Checkpoint, Note, VerifierKey
from finllm.guardrails.audit.reader import load_leaves
from finllm.guardrails.audit.storage import (
    SEGMENT_RECORDS,
    Layout,
    Meta,
    bytes_between,
    frame,
    leaf_of,
    read_meta,
    read_pack,
    record_json,
    record_line,
    record_of,
    whole_lines,
)
from finllm.guardrails.audit.tree import HASH, Frontier, LogTree, packed, unpacked

CHECKPOINT_EVERY = 1.0
"""Seconds between the checkpoints of a log that is being written."""


class Disk:
    """The two calls that can fail late. Tests pass one whose calls do fail."""

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of `data`. Errors: OSError."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def sync(self, descriptor: int) -> None:
        """Errors: OSError."""
        os.fdatasync(descriptor)


class AuditLog:
    """The log in `folder`, made if it is not there.

    `keys` hold the one that signs it; a new log begins with their newest. Errors: RecordError for a log that cannot be
    read or written, that another key signs, or that does not hold what its own checkpoint says.
    """

    def __init__(
        self, folder: Path, keys: Keys, *, segment_records: int = SEGMENT_RECORDS, disk: Disk | None = None
    ) -> None:
        self._layout = Layout(folder)
        self._keys = keys
        self._disk = disk or Disk()
        self._writing = threading.Lock()
        self._group = GroupCommit(self._commit, lambda error: self._failed("write", error))
        self._records = self._blobs = -1
        try:
            make_private(self._layout.segments)
            self._lock = os.open(self._layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            with self._locked():
                self._meta = self._begun(segment_records)
                self._learn_keys()
                self._load()
        except OSError as error:
            raise self._failed("open", error) from error

    @property
    def size(self) -> int:
        """Records that are durable, as far as this process knows."""
        return len(self._sealed) * self._meta.segment_records + len(self._leaves)

    def behind(self) -> bool:
        """Whether another process has written since this one looked. Errors: RecordError."""
        try:
            return os.fstat(self._records).st_size != self._records_end
        except OSError as error:
            raise self._failed("read", error) from error

    @property
    def meta(self) -> Meta:
        return self._meta

    @property
    def signers(self) -> Signers:
        """Which keys sign it now, as far as this process knows."""
        return self._chain.now

    def append(self, body: Mapping[str, Any], blobs: Mapping[str, bytes] | None = None) -> int:
        """Add a record and the blobs (sha256 → content) that it names; its index. Durable when this returns.

        Errors: RecordError, from then on for every further append too.
        """
        return self._group.add([(body, blobs or {})])

    def append_many(self, items: Sequence[Item]) -> None:
        """Add records, up to `BATCH` to a commit. Errors: as `append`; what was committed before stays."""
        for at in range(0, len(items), BATCH):
            self._group.add(items[at : at + BATCH])

    def checkpoint(self) -> Checkpoint:
        """Sign and publish how far the log goes. Errors: RecordError."""
        try:
            with self._locked():
                self._take_in()
                return self._publish()
        except OSError as error:
            raise self._failed("write", error) from error

    def change_keys(self, signs: SigningKey, too: SigningKey | None, about: Mapping[str, Any]) -> int:
        """Put on record that `signs` signs from here on, and `too` as well; the record's index, which is durable then.

        `about`: what else the record says. Where it dies half way, the keys are those of before or those of after.
        Errors: RecordError, also for a change that nobody would follow, such as one to a retired key.
        """
        if self._keys.holding(signs.public) is None:
            raise self._refused("the writer of the log does not hold the key that is to sign")
        try:
            with self._locked():
                self._take_in()
                at, chain = self.size, self._chain
                keys = [VerifierKey.of(key, self._meta.origin) for key in (signs, too) if key is not None]
                said = statement(self._tip(), keys[0], keys[1] if too is not None else None)
                for key in {key.public: key for key in (self._signing(), signs)}.values():
                    said = said.signed(key, self._meta.origin)
                body = {**about, "action": CHANGED, "before": str(chain.now.signs), "signs": str(keys[0]),
                        "signs_too": str(keys[1]) if too is not None else None, "statement": str(said)}  # fmt: skip
                chain.now.followed_by(at, body)
                self._put(self._layout.meta, self._meta.with_changes((*chain.places, at)).to_bytes().decode())
                self._write([(canonical_bytes(body), {})])
                self._learn_keys()
                if len(self._leaves) == self._meta.segment_records:
                    self._seal()
                self._publish()
                return at
        except OSError as error:
            self._group.broken = self._failed("write", error)
            raise self._group.broken from error
        except ValueError as error:
            raise self._refused(str(error)) from error

    def close(self) -> None:
        """Publish a last checkpoint, where there is something new, and let go of the files."""
        try:
            if self._group.broken is None and self._published != self.size:
                self.checkpoint()
        finally:
            for descriptor in (self._records, self._blobs, self._lock):
                os.close(descriptor)

    def _commit(self, batch: Sequence[Waiting]) -> None:
        with self._locked():
            self._take_in()
            rest: list[tuple[bytes, Mapping[str, bytes]]] = []
            for one in batch:
                one.first = self.size + len(rest)
                rest.extend(one.items)
            while rest:
                room = self._meta.segment_records - len(self._leaves)
                self._write(rest[:room])
                rest = rest[room:]
                if len(self._leaves) == self._meta.segment_records:
                    self._seal()
            if time.monotonic() - self._published_at >= CHECKPOINT_EVERY:
                self._publish()

    def _write(self, items: Sequence[tuple[bytes, Mapping[str, bytes]]]) -> None:
        """The blobs first: a record never names what is not there."""
        fresh = {digest: content for _, blobs in items for digest, content in blobs.items() if digest not in self._held}
        if fresh:
            data = b"".join(frame(content, digest) for digest, content in fresh.items())
            self._through(self._blobs, data, self._blobs_end)
            self._blobs_end += len(data)
            self._held |= fresh.keys()
        records = [record_json(self._meta.log, seq, body) for seq, (body, _) in enumerate(items, self.size)]
        leaves = [leaf_hash(record) for record in records]
        data = b"".join(map(record_line, records, leaves))
        self._through(self._records, data, self._records_end)
        self._records_end += len(data)
        self._grow(leaves)

    def _grow(self, leaves: Sequence[bytes]) -> None:
        for leaf in leaves:
            self._open.push(leaf)
        self._leaves.extend(leaves)

    def _through(self, descriptor: int, data: bytes, end: int) -> None:
        try:
            self._disk.write(descriptor, data)
            self._disk.sync(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):  # where even that fails, the next opening cuts the torn line off
                os.ftruncate(descriptor, end)
            raise

    def _tip(self) -> Checkpoint:
        full = Frontier()
        for root in self._sealed:
            full.push(root)
        return Checkpoint(self._meta.origin, self.size, Frontier([*full.stack, *self._open.stack]).root())

    def _publish(self) -> Checkpoint:
        made = self._tip()
        note = made.note().signed(self._signing(), self._meta.origin)
        if self._too is not None:
            note = note.signed(self._too, self._meta.origin)
        self._put(self._layout.checkpoint, str(note))
        self._published, self._published_at = made.size, time.monotonic()
        return made

    def _seal(self) -> None:
        """Keep the root of the full segment, and begin the next."""
        self._sealed.append(self._open.root())
        with self._layout.sealed.open("ab") as file:
            file.truncate(HASH * (len(self._sealed) - 1))
            file.write(self._sealed[-1])
        self._enter(len(self._sealed))

    def _take_in(self) -> None:
        """What other processes wrote since this one last looked, and what one that died left unfinished."""
        while True:
            self._take_in_segment()
            if len(self._leaves) < self._meta.segment_records:
                return
            self._seal()

    def _take_in_segment(self) -> None:
        end = os.fstat(self._records).st_size
        if end < self._records_end:
            raise self._damaged("it has become shorter")
        if end > self._records_end:
            added = bytes_between(self._records, self._records_end, end)
            lines, torn = whole_lines(added)
            leaves = [leaf_of(line) for line in lines]
            good = next((at for at, leaf in enumerate(leaves) if leaf is None), len(leaves))
            if any(leaves[good:]) or ((good < len(lines) or torn) and self.size + good < self._floor):
                raise self._damaged(f"record {self.size + good} is not what was written")
            if good < len(lines) or torn:
                self._cut(sum(len(line) + 1 for line in lines[:good]), added)
            self._records_end = os.fstat(self._records).st_size
            self._grow([leaf for leaf in leaves[:good] if leaf is not None])
            if MARK in added:
                self._learn_keys()
                changes = [at for at, line in enumerate(lines[:good], self.size - good) if change_in(record_of(line))]
                if not set(changes) <= set(self._chain.places):
                    raise self._damaged("a record changes its key, and log.json does not name it")
        pack_end = os.fstat(self._blobs).st_size
        if pack_end < self._blobs_end:  # another process cut off what a dying one left
            self._blobs_end, self._held = 0, set()
        if pack_end > self._blobs_end:
            added = read_pack(bytes_between(self._blobs, self._blobs_end, pack_end), check=False)
            self._blobs_end += added.end
            self._held |= added.places.keys()
            if self._blobs_end < pack_end:
                os.ftruncate(self._blobs, self._blobs_end)

    def _cut(self, good: int, added: bytes) -> None:
        """Put aside what a dying writer left unfinished: no append had returned for it."""
        at = self._records_end + good
        aside = self._layout.records(len(self._sealed)).with_suffix(f".torn-{at}")
        aside.write_bytes(added[good:])
        os.ftruncate(self._records, at)
        os.fsync(self._records)

    def _enter(self, segment: int) -> None:
        """Open a segment's files, making them where they are not there; nothing of it is taken in yet."""
        for descriptor in (self._records, self._blobs):
            if descriptor >= 0:
                os.close(descriptor)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._records = os.open(self._layout.records(segment), flags, 0o644)
        self._blobs = os.open(self._layout.blobs(segment), flags, 0o644)
        sync(self._layout.segments)
        self._leaves: list[bytes] = []
        self._open = Frontier()
        self._held: set[str] = set()
        self._records_end = self._blobs_end = 0

    def _load(self) -> None:
        """Take up the log where its files end, and hold it against its own checkpoint."""
        full = max(self._layout.count() - 1, 0)
        self._sealed = unpacked(self._layout.sealed.read_bytes() if self._layout.sealed.exists() else b"")[:full]
        try:
            checkpoint = self._own_checkpoint()
            self._floor = checkpoint.size
            if len(self._sealed) < full or not self._holds(checkpoint):
                self._sealed = [root_of(load_leaves(self._layout, segment)) for segment in range(full)]
                self._layout.sealed.write_bytes(packed(self._sealed))
                if not self._holds(checkpoint):
                    raise self._damaged("it does not hold what its own checkpoint says")
        except ValueError as error:
            raise self._damaged(str(error)) from error
        self._published, self._published_at = checkpoint.size, time.monotonic()

    def _holds(self, checkpoint: Checkpoint) -> bool:
        self._enter(len(self._sealed))
        self._take_in()
        tree = LogTree(self._meta.segment_records, self._sealed, self._leaves_of)
        return checkpoint.size <= self.size and tree.root(checkpoint.size) == checkpoint.root

    def _leaves_of(self, segment: int) -> Sequence[bytes]:
        return self._leaves if segment == len(self._sealed) else load_leaves(self._layout, segment)

    def _own_checkpoint(self) -> Checkpoint:
        try:
            note = Note.parse(self._layout.checkpoint.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError("its checkpoint is missing") from error
        checkpoint = Checkpoint.of(note)
        self._chain.at(checkpoint.size).check(note)
        return checkpoint

    def _learn_keys(self) -> None:
        """Which keys sign now; another process may have changed them. Errors: RecordError where those are not here."""
        try:
            self._meta = read_meta(self._layout)
            self._chain = read_keychain(self._layout, self._meta)
        except ValueError as error:
            raise self._damaged(str(error)) from error
        now = self._chain.now
        self._signing()
        self._too = None if now.too is None else self._keys.holding(now.too.public)

    def _signing(self) -> SigningKey:
        now = self._chain.now.signs
        key = self._keys.holding(now.public)
        if key is None:
            changed = self._chain.places
            since = f"since record {changed[-1]} " if changed else ""
            raise RecordError(
                f"the audit log {str(self._layout.folder)!r} is signed {since}with another signing key, {now}",
                fix="give that key in FINLLM_AUDIT_KEY or FINLLM_AUDIT_KEY_FILE, or move the folder away to begin anew",
            )
        return key

    def _begun(self, segment_records: int) -> Meta:
        if not self._layout.meta.exists():
            if self._layout.count():
                raise self._damaged("log.json is missing")
            key = self._keys.newest
            meta = Meta.new(key.public, segment_records)
            empty = Checkpoint(meta.origin, 0, root_of(())).note().signed(key, meta.origin)
            staged = self._layout.folder / ".log.json.new"  # log.json comes last: with it the log exists
            self._put(staged, meta.to_bytes().decode())
            self._put(self._layout.checkpoint, str(empty))
            staged.rename(self._layout.meta)
            sync(self._layout.folder)
        return read_meta(self._layout)

    def _put(self, path: Path, text: str) -> None:
        """Replace a small file whole; whoever may read the records may read it."""
        write_atomically(path, text)
        shutil.copymode(self._layout.lock, path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._writing:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _failed(self, verb: str, error: Exception) -> RecordError:
        return RecordError(
            f"cannot {verb} the audit log {str(self._layout.folder)!r}: {error}; nothing was decided without it",
            fix="free disk space or mend its permissions, then resume the run",
        )

    def _refused(self, why: str) -> RecordError:
        return RecordError(
            f"the key of the audit log {str(self._layout.folder)!r} is not changed: {why}",
            fix="give a key that has not signed this log before",
        )

    def _damaged(self, what: str) -> RecordError:
        return RecordError(
            f"the audit log {str(self._layout.folder)!r} is damaged: {what}",
            fix="run 'finllm audit verify', keep the folder as evidence, and move it away to begin a new log",
        )
