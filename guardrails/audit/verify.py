"""Verification of a whole log: every record, every blob, the log's own checkpoint, and a witnessed one.

Without a witnessed checkpoint nobody can tell that the log was not rolled back, cut or rewritten by whoever holds its
key; `complete` is then False.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from finllm.errors import InputError
from finllm.guardrails.audit.keychain import KeyChain
from finllm.guardrails.audit.merkle import root_of
from finllm.guardrails.audit.note import Checkpoint, Note, VerifierKey
from finllm.guardrails.audit.reader import Extent, extent_of
from finllm.guardrails.audit.scan import Damage, Scan, scan_segment
from finllm.guardrails.audit.storage import Layout, Meta, shared_lock
from finllm.guardrails.audit.tree import LogTree, unpacked
from finllm.guardrails.audit.witness import Witnessed
from finllm.interrupts import ignore_interrupts

PARALLEL_FROM = 8
"""Segments from which on a second process is worth its start."""


@dataclass(frozen=True)
class Verification:
    """What verification found. `damage` is in the records' order; `witnessed`: records that a witness saw."""

    size: int
    signed: int
    witnessed: int | None
    damage: tuple[Damage, ...]
    notes: tuple[str, ...] = ()
    origin: str | None = None

    @property
    def first(self) -> Damage | None:
        return self.damage[0] if self.damage else None

    @property
    def status(self) -> Literal["damaged", "unproven", "intact"]:
        """`unproven`: nothing is damaged, and no witness says that nothing is missing or was written anew."""
        if self.damage:
            return "damaged"
        return "unproven" if self.witnessed is None else "intact"

    @property
    def complete(self) -> bool:
        """No damage, and a witness vouches for the log up to the size it saw."""
        return not self.damage and self.witnessed is not None


@dataclass
class _Findings:
    damage: list[Damage] = field(default_factory=list[Damage])
    notes: list[str] = field(default_factory=list[str])

    def add(self, index: int, kind: str, what: str) -> None:
        self.damage.append(Damage(index, kind, what))  # type: ignore[arg-type]

    def verdict(self, size: int, signed: int, witnessed: int | None, origin: str | None = None) -> Verification:
        """The damage in order; of one record, what was found first, which is the closest look at it."""
        ordered = sorted(self.damage, key=lambda one: one.index)
        return Verification(size, signed, witnessed, tuple(ordered), tuple(self.notes), origin)


def verify_log(
    folder: Path, witnessed: Witnessed | None = None, vkey: VerifierKey | None = None, *, processes: int | None = None
) -> Verification:
    """Verify the log in `folder`. `vkey`: the log's key, where it is known from elsewhere.

    Errors: InputError where there is nothing at all; everything else is damage.
    """
    layout = Layout(folder)
    found = _Findings()
    if not layout.folder.is_dir() or not any(layout.folder.iterdir()):
        if witnessed is None:
            raise InputError(
                f"there is no audit log in {str(folder)!r}", fix="'finllm run' keeps one; or name another --log"
            )
        found.add(0, "rolled back", f"the log is gone; a witness saw {witnessed.checkpoint.size} records")
        return found.verdict(0, 0, witnessed.checkpoint.size)
    try:
        with shared_lock(layout):
            extent = extent_of(layout)
            meta = Meta.parse(layout.meta.read_bytes())
            note = _read_note(layout, found)
            sealed = unpacked(layout.sealed.read_bytes()) if layout.sealed.exists() else []
    except (OSError, ValueError) as error:
        found.add(0, "unreadable", f"log.json cannot be read: {error}")
        return found.verdict(0, 0, None if witnessed is None else witnessed.checkpoint.size)
    scans = _scan(layout, extent, meta, processes)
    leaves, roots = _gathered(scans, extent, meta, found)
    tree = LogTree(meta.segment_records, roots, lambda segment: _of_segment(leaves, segment, meta.segment_records))
    keys = _check_changes(scans, meta, tree, found)
    signed = _check_own(note, meta, keys, len(leaves), found)
    if vkey is not None:
        _check_known(vkey, keys, found)
    if scans and isinstance(scans[-1], Scan) and scans[-1].torn:
        behind = max(signed, witnessed.checkpoint.size if witnessed else 0)
        if len(leaves) < behind:
            torn = Damage(len(leaves), "torn", "the last record ends in the middle")
            found.damage.insert(0, torn)  # a closer look than that records are missing
        else:
            found.notes.append(f"an unfinished line follows record {len(leaves) - 1}: a writer died; none was accepted")
    if witnessed is not None:
        _check_witnessed(witnessed, meta, keys, signed, leaves, tree, found)
    intact = witnessed.checkpoint.size if witnessed else 0
    _check_signed_root(note if signed else None, signed, tree, leaves, sealed, meta.segment_records, intact, found)
    if len(leaves) > signed and not found.damage:
        found.notes.append(f"{len(leaves) - signed} records are not under a signed checkpoint yet")
    size = witnessed.checkpoint.size if witnessed else None
    return found.verdict(len(leaves), signed, size, meta.origin)


def _read_note(layout: Layout, found: _Findings) -> Note | None:
    try:
        return Note.parse(layout.checkpoint.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found.notes.append(f"the checkpoint cannot be read: {error}")
        return None


def scan_file(layout: Layout, extent: Extent, meta: Meta, segment: int) -> Scan | Damage:
    """Scan one segment; Damage where its file cannot be read."""
    first = segment * meta.segment_records
    try:
        data, pack = extent.records(layout, segment), extent.blobs(layout, segment)
    except OSError as error:
        return Damage(first, "missing", f"the file of the records from {first} on cannot be read: {error}")
    return scan_segment(data, pack, first, meta.log)


def _scan(layout: Layout, extent: Extent, meta: Meta, processes: int | None) -> Sequence[Scan | Damage]:
    scanner = partial(scan_file, layout, extent, meta)
    wanted = min(processes or os.cpu_count() or 1, 8)
    if extent.segments < PARALLEL_FROM or wanted == 1:
        return [scanner(segment) for segment in range(extent.segments)]
    with ProcessPoolExecutor(wanted, get_context("spawn"), ignore_interrupts) as pool:
        return list(pool.map(scanner, range(extent.segments)))


def _gathered(
    scans: Sequence[Scan | Damage], extent: Extent, meta: Meta, found: _Findings
) -> tuple[list[bytes], list[bytes]]:
    """All leaf hashes in order and the roots of full segments; the segments' damage goes to `found`."""
    leaves: list[bytes] = []
    roots: list[bytes] = []
    width = meta.segment_records
    for segment, scan in enumerate(scans):
        if isinstance(scan, Damage):
            found.damage.append(scan)
            continue
        if scan.damage is not None:
            found.damage.append(scan.damage)
        hashes = unpacked(scan.leaves)
        last = segment == extent.segments - 1
        if scan.count > width or (scan.count < width and not last):
            at = segment * width + min(scan.count, width)
            what = f"its segment holds {scan.count} records instead of {width}"
            found.add(at, "deleted" if scan.count < width else "inserted", what)
        if len(hashes) == width and len(roots) == segment:
            roots.append(root_of(hashes))
        leaves.extend(hashes)
    return leaves, roots


def _of_segment(leaves: Sequence[bytes], segment: int, width: int) -> Sequence[bytes]:
    return leaves[segment * width : (segment + 1) * width]


def _check_changes(scans: Sequence[Scan | Damage], meta: Meta, tree: LogTree, found: _Findings) -> KeyChain:
    """The log's keys as its records say, each change signed by the key before it, over the records before it."""
    keys = KeyChain(meta.vkey)
    changes = [change for scan in scans if isinstance(scan, Scan) for change in scan.changes]
    for index, body in changes:
        try:
            keys.follow(index, body)
            if not found.damage and tree.root(index) != Checkpoint.of(Note.parse(body["statement"])).root:
                raise ValueError("it was signed over other records than those before it")
        except ValueError as error:
            found.add(index, "key", f"the change of the log's key does not hold: {error}")
            return keys
        if index not in meta.changes:
            found.add(index, "key", "the record changes the log's key, and log.json does not name it")
    return keys


def _check_known(vkey: VerifierKey, keys: KeyChain, found: _Findings) -> None:
    """Hold the key that somebody knows from elsewhere against those that sign or signed."""
    try:
        until = keys.until(vkey)
    except ValueError as error:
        found.add(0, "key", str(error))
        return
    if until is not None:
        found.notes.append(f"the key given signed until record {until}, which it signed too; learn the key that signs "
                           f"now: {keys.now.signs}")  # fmt: skip


def _check_own(note: Note | None, meta: Meta, keys: KeyChain, size: int, found: _Findings) -> int:
    """Look at the log's own checkpoint; the size that is signed, 0 where that cannot be told."""
    if note is None:
        found.add(size, "checkpoint", "the log has no checkpoint that can be read")
        return 0
    try:
        checkpoint = Checkpoint.of(note)
        keys.at(checkpoint.size).check(note)
        if checkpoint.origin != meta.origin:
            raise ValueError(f"it is of another log, {checkpoint.origin!r}")
    except ValueError as error:
        found.add(size, "checkpoint", f"the log's checkpoint does not hold: {error}")
        return 0
    if checkpoint.size > size:
        found.add(size, "truncated", f"the log's own checkpoint counts {checkpoint.size} records, {size} are there")
    return checkpoint.size


def _check_signed_root(
    note: Note | None, signed: int, tree: LogTree, leaves: Sequence[bytes], sealed: Sequence[bytes], width: int,
    intact: int, found: _Findings,
) -> None:  # fmt: skip
    """Where nothing closer was found: whether the records are those that the log's checkpoint was signed over.

    The first `intact` records are vouched for by a witness.
    """
    if note is None or found.damage or tree.root(signed) == Checkpoint.of(note).root:
        return
    bad = (at for at, root in enumerate(sealed) if root != root_of(_of_segment(leaves, at, width)))
    first = max(next(bad, min(len(sealed), max(signed - 1, 0) // width)) * width, intact)
    found.add(first, "rewritten", f"a record from {first} on is not what the log's own checkpoint was signed over")


def _check_witnessed(
    witnessed: Witnessed, meta: Meta, keys: KeyChain, signed: int, leaves: Sequence[bytes], tree: LogTree,
    found: _Findings,
) -> None:  # fmt: skip
    """Hold the records against what the witness saw."""
    saw, size = witnessed.checkpoint, len(leaves)
    if saw.origin != meta.origin:
        found.add(0, "forked", f"this is the log {meta.origin!r}, and the witness saw {saw.origin!r}")
        return
    vkey = keys.at(saw.size).signs
    if witnessed.vkey is not None and witnessed.vkey != vkey:
        found.add(0, "key", f"the log's key was {vkey} then, and the witness saw it signed with {witnessed.vkey}")
    elif witnessed.vkey is None and not witnessed.signed_by(vkey):
        found.add(0, "key", f"the witnessed checkpoint is not signed with the log's key, {vkey}")
    if size >= saw.size and tree.root(saw.size) == saw.root:
        return
    first = witnessed.first_difference(leaves)
    if first is None:
        if not any(one.kind != "key" for one in found.damage):
            low = 0 if size >= saw.size else size
            what = "the log does not begin with what the witness saw; without its hashes the record is unknown"
            found.add(low, "rewritten" if size >= saw.size else "truncated", what)
    elif first >= size:
        whole = signed <= size
        what = f"a witness saw {saw.size} records, {size} are there"
        found.add(size, "rolled back" if whole else "truncated", what)
    elif witnessed.differs_to_the_end(leaves, first):
        found.add(first, "forked", f"from record {first} on this is not the history that a witness saw")
    else:
        found.add(first, "rewritten", f"record {first} is not the one that a witness saw")
