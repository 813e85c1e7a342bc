"""Fourteen attacks on an audit log by somebody who may have its signing key, for the tests and the benchmark.

An attack changes the log in a folder and says which record a verification has to name, and in what words. `resign`
gives the log a fresh checkpoint with the attacker's means: everything but a witness is then in order again.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from finllm.guardrails.audit.canonical import canonical_bytes
from finllm.guardrails.audit.keys import Keyring, SigningKey
from finllm.guardrails.audit.log import AuditLog
from finllm.guardrails.audit.merkle import leaf_hash, node_hash, root_of
from finllm.guardrails.audit.note import Checkpoint, VerifierKey
from finllm.guardrails.audit.reader import LogReader
from finllm.guardrails.audit.storage import Layout, Meta, record_line, record_of
from finllm.guardrails.audit.tree import packed
from finllm.guardrails.audit.witness import witness_log

WIDTH = 8
KEY = SigningKey(sha256(b"the log's key").digest())
OTHER_KEY = SigningKey(sha256(b"the attacker's key").digest())


@dataclass(frozen=True)
class Expected:
    """What a verification has to say: the first bad record, and one of these words for the damage."""

    index: int
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Victim:
    """A log with a witness that saw the first `seen` records of it."""

    folder: Path
    witness: Path
    size: int
    seen: int
    random: random.Random

    @property
    def layout(self) -> Layout:
        return Layout(self.folder)

    def pick(self, spare: int = 0) -> int:
        """A record that the witness saw, and that is not among the last `spare` of them."""
        return self.random.randrange(self.seen - spare)


def body(index: int, source: random.Random) -> tuple[dict[str, object], dict[str, bytes]]:
    """A record's body as a run leaves it, and its blob; some blobs are named twice."""
    content = json.dumps({"text": "x" * source.randrange(40), "of": index // 2 * 2}).encode()
    digest = sha256(content).hexdigest()
    said = {"action": "call.recorded", "run": f"run-{index % 3}", "blobs": [digest], "note": source.randrange(10**9)}
    return said, {digest: content}


def build(
    folder: Path, seed: int, *, key: SigningKey = KEY, fewest: int = 6, before: SigningKey | None = None
) -> Victim:
    """A log of up to forty records over segments of eight, in one or two sessions; a witness saw most of it.

    `before`: another key signed it until one of its first records.
    """
    source = random.Random(seed)
    size = source.randrange(fewest, 40)
    seen = source.randrange(max(fewest, size - 6), size + 1)
    log_folder, witness = folder / "audit", folder / "witness"
    changed = source.randrange(min(seen, 4)) if before is not None else seen
    log = AuditLog(log_folder, before or key, segment_records=WIDTH)
    log.append_many([body(index, source) for index in range(changed)])
    if before is not None:
        log.close()
        ring = Keyring(lambda: [key, before])
        log = AuditLog(log_folder, ring)
        log.change_keys(key, None, {})
    log.append_many([body(index, source) for index in range(changed + 1, seen)])
    log.close()
    witness_log(LogReader(log_folder), witness, clock=lambda: 1_700_000_000.0)
    if size > seen:
        log = AuditLog(log_folder, key)
        for index in range(seen, size):
            log.append(*body(index, source))
        log.close()
    return Victim(log_folder, witness, size, seen, source)


def lines_of(victim: Victim) -> list[bytes]:
    """Every line with its end."""
    layout = victim.layout
    return [line for at in range(layout.count()) for line in layout.records(at).read_bytes().splitlines(keepends=True)]


def put_lines(victim: Victim, lines: list[bytes]) -> None:
    """Lay the lines out over segments of the right length; blobs stay, and new segments have all of them."""
    layout = victim.layout
    packs = b"".join(layout.blobs(at).read_bytes() for at in range(layout.count()))
    for path in layout.segments.glob("*.log"):
        path.unlink()
    for at in range(max((len(lines) + WIDTH - 1) // WIDTH, 1)):
        layout.records(at).write_bytes(b"".join(lines[at * WIDTH : (at + 1) * WIDTH]))
        layout.blobs(at).write_bytes(packs)


def rewritten(line: bytes, seq: int | None = None, **changes: object) -> bytes:
    """The line of a changed record, with the hash that fits it."""
    record = json.loads(record_of(line.rstrip(b"\n")))
    record["body"] |= changes
    if seq is not None:
        record["seq"] = seq
    data = canonical_bytes(record)
    return record_line(data, leaf_hash(data))


def renumbered(lines: list[bytes]) -> list[bytes]:
    return [rewritten(line, seq=at) for at, line in enumerate(lines)]


def resign(victim: Victim, key: SigningKey = KEY) -> None:
    """Make everything that lies with the log fit its records again."""
    layout = victim.layout
    leaves = [leaf_hash(record_of(line.rstrip(b"\n"))) for line in lines_of(victim)]
    full = len(leaves) // WIDTH
    layout.sealed.write_bytes(packed([root_of(leaves[at * WIDTH : (at + 1) * WIDTH]) for at in range(full)]))
    meta = Meta.parse(layout.meta.read_bytes())
    note = Checkpoint(meta.origin, len(leaves), root_of(leaves)).note().signed(key, meta.origin)
    layout.checkpoint.write_text(str(note), encoding="utf-8")


def byte_edit(victim: Victim) -> Expected:
    lines, at = lines_of(victim), victim.pick()
    line = bytearray(lines[at])
    line[victim.random.randrange(len(line) - 1)] ^= 1 << victim.random.randrange(7)
    lines[at] = bytes(line)
    data = b"".join(lines)
    segment = at // WIDTH
    before = sum(map(len, lines[: segment * WIDTH]))
    victim.layout.records(segment).write_bytes(data[before : before + sum(map(len, lines[segment * WIDTH :][:WIDTH]))])
    return Expected(at, ("edited",))


def edit_with_rehash(victim: Victim) -> Expected:
    lines, at = lines_of(victim), victim.pick()
    lines[at] = rewritten(lines[at], note=-1)
    put_lines(victim, lines)
    if victim.random.random() < 0.7:
        resign(victim)
    return Expected(at, ("rewritten",) if at + 1 < victim.seen else ("rewritten", "forked"))


def delete(victim: Victim) -> Expected:
    lines, at = lines_of(victim), victim.pick(spare=1)
    del lines[at]
    return _laid_out(victim, lines, at, ("deleted",))


def insert(victim: Victim) -> Expected:
    lines, at = lines_of(victim), victim.pick()
    lines.insert(at, rewritten(lines[at], note=-2))
    return _laid_out(victim, lines, at, ("inserted", "rewritten", "forked"))


def reorder(victim: Victim) -> Expected:
    lines, at = lines_of(victim), victim.pick(spare=1)
    other = victim.random.randrange(at + 1, victim.seen)
    lines[at], lines[other] = lines[other], lines[at]
    return _laid_out(victim, lines, at, ("reordered", "deleted"))


def duplicate(victim: Victim) -> Expected:
    lines, at = lines_of(victim), victim.pick(spare=1)
    lines.insert(at + 1, lines[at])
    return _laid_out(victim, lines, at + 1, ("duplicated", "inserted"))


def truncate(victim: Victim) -> Expected:
    left = victim.pick()
    put_lines(victim, lines_of(victim)[:left])
    if victim.random.random() < 0.5:
        resign(victim)
    return Expected(left, ("truncated", "rolled back"))


def rollback(victim: Victim) -> Expected:
    """The whole folder as it honestly was, earlier; also gone altogether."""
    left = victim.pick()
    put_lines(victim, lines_of(victim)[:left])
    resign(victim)
    if left == 0 and victim.random.random() < 0.5:
        shutil.rmtree(victim.folder)
    return Expected(left, ("rolled back",))


def splice(victim: Victim) -> Expected:
    """Records of another log in the place of this one's, its name put in where the attacker thought of it."""
    lines, at = lines_of(victim), victim.pick()
    other = build(victim.folder.parent / "other", victim.random.randrange(10**6), fewest=victim.size)
    theirs = lines_of(other)
    named = victim.random.random() < 0.5
    log = Meta.parse(victim.layout.meta.read_bytes()).log
    for index in range(at, min(at + victim.random.randrange(1, 4), victim.seen)):
        line = theirs[index]
        if named:
            record = {**json.loads(record_of(line.rstrip(b"\n"))), "log": log}
            line = record_line(canonical_bytes(record), leaf_hash(canonical_bytes(record)))
        lines[index] = line
    put_lines(victim, lines)
    resign(victim)
    return Expected(at, ("rewritten", "forked", "blob") if named else ("foreign",))


def fork(victim: Victim) -> Expected:
    """Another history from some record on, as long or longer, in perfect order."""
    lines, at = lines_of(victim), victim.pick(spare=2)
    lines = [*lines[:at], *(rewritten(line, note=-3) for line in lines[at:])]
    put_lines(victim, lines)
    resign(victim)
    return Expected(at, ("forked",))


def blob_swap(victim: Victim) -> Expected:
    lines, at = lines_of(victim), victim.pick()
    while b'"blobs":' not in lines[at]:  # a change of key names none
        at = victim.pick()
    segment = at // WIDTH
    digest = json.loads(record_of(lines[at].rstrip(b"\n")))["body"]["blobs"][0]
    first = next(index for index in range(segment * WIDTH, at + 1) if digest.encode() in lines[index])
    path = victim.layout.blobs(segment)
    data = path.read_bytes()
    head = data.index(digest.encode())
    start = data.index(b"\n", head) + 1
    swapped = bytes([data[start] ^ 1]) + data[start + 1 :]
    end = start + int(data[head + 65 : start - 1])
    fitting = sha256(swapped[: end - start]).hexdigest().encode()
    path.write_bytes(data[:head] + victim.random.choice([digest.encode(), fitting]) + data[head + 64 : start] + swapped)
    return Expected(first, ("blob",))


def key_swap(victim: Victim) -> Expected:
    """Everything signed anew with another key, which the log now calls its own."""
    meta = Meta.parse(victim.layout.meta.read_bytes())
    swapped = replace(meta, vkey=VerifierKey.of(OTHER_KEY, meta.origin))
    victim.layout.meta.write_bytes(swapped.to_bytes())
    resign(victim, OTHER_KEY)
    return Expected(0, ("key",))


def torn_tail(victim: Victim) -> Expected:
    """The file ends in the middle of a record that was accepted."""
    lines, at = lines_of(victim), victim.pick()
    line = lines[at]
    put_lines(victim, [*lines[:at], line[: victim.random.randrange(1, len(line))]])
    return Expected(at, ("torn", "truncated", "rolled back"))


def second_preimage(victim: Victim) -> Expected:
    """Two records replaced by one whose content is what their common node was hashed from."""
    lines = lines_of(victim)
    at = victim.pick(spare=1) // 2 * 2
    left, right = (leaf_hash(record_of(line.rstrip(b"\n"))) for line in lines[at : at + 2])
    made = b"\1" + left + right if victim.random.random() < 0.5 else left + right
    hash = victim.random.choice([node_hash(left, right), leaf_hash(made)])
    lines[at : at + 2] = [record_line(made.replace(b"\n", b" "), hash)]
    put_lines(victim, lines)
    if victim.random.random() < 0.5:
        resign(victim)
    return Expected(at, ("edited",))


def _laid_out(victim: Victim, lines: list[bytes], at: int, kinds: tuple[str, ...]) -> Expected:
    """The lines as they are, or numbered anew and signed anew: then only the witness can tell."""
    way = victim.random.randrange(3)
    put_lines(victim, renumbered(lines) if way == 0 else lines)
    if way < 2:
        resign(victim)
    return Expected(at, (*kinds, "rewritten", "forked", "rolled back", "truncated") if way == 0 else kinds)


ATTACKS: dict[str, Callable[[Victim], Expected]] = {
    "byte edit": byte_edit,
    "edit with rehash": edit_with_rehash,
    "delete": delete,
    "truncate": truncate,
    "insert": insert,
    "reorder": reorder,
    "duplicate": duplicate,
    "splice": splice,
    "fork": fork,
    "rollback": rollback,
    "blob swap": blob_swap,
    "key swap": key_swap,
    "torn tail": torn_tail,
    "second preimage": second_preimage,
}
