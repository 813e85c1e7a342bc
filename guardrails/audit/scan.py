"""Checks one segment file of the audit log line by line, and names the first record that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from finllm.guardrails.audit.canonical import parse_canonical
from finllm.guardrails.audit.keychain import change_in
from finllm.guardrails.audit.storage import SCHEMA, read_pack, whole_lines
from finllm.guardrails.audit.tree import packed

DamageKind = Literal[
    "edited", "deleted", "inserted", "duplicated", "reordered", "foreign", "torn", "missing", "blob",
    "truncated", "rolled back", "rewritten", "forked", "key", "checkpoint", "format", "unreadable",
]  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """The first bad record of a place that was looked at, and what was done to it as far as that can be told."""

    index: int
    kind: DamageKind
    what: str


@dataclass(frozen=True)
class Scan:
    """A segment: its records' leaf hashes one after another, its damage, the bytes of an unfinished last line, and the
    records that change the log's keys.
    """

    leaves: bytes
    damage: Damage | None
    torn: int
    changes: tuple[tuple[int, Mapping[str, Any]], ...] = ()

    @property
    def count(self) -> int:
        return len(self.leaves) // 32


def scan_segment(data: bytes, pack_data: bytes, first: int, log: str) -> Scan:
    """Look at every line and blob of a segment whose first record has the index `first`."""
    lines, torn = whole_lines(data)
    pack = read_pack(pack_data, check=True)
    bad_blobs = pack.spoilt
    digests: list[bytes] = []
    damage: Damage | None = None
    changes: list[tuple[int, Mapping[str, Any]]] = []
    for index, line in enumerate(lines, first):
        record = line[65:]
        leaf = sha256(b"\0" + record)
        digests.append(leaf.digest())
        if (change := change_in(record)) is not None:
            changes.append((index, change))
        if damage is None:
            if line[:64] != leaf.hexdigest().encode() or line[64:65] != b" ":
                damage = Damage(index, "edited", "the record does not have the hash written beside it")
                continue
            damage = _record_damage(record, index, log)
            if damage is not None and damage.kind == "deleted":
                damage = _out_of_order(damage, lines, digests, index, record)
            elif damage is None and b'"blobs":[' in record:
                damage = _blob_damage(record, index, pack.places.keys(), bad_blobs)
    return Scan(packed(digests), damage, len(torn), tuple(changes))


def _record_damage(record: bytes, index: int, log: str) -> Damage | None:
    try:
        value: Any = parse_canonical(record)
        if value.keys() != {"body", "log", "seq", "v"} or not isinstance(value["body"], dict):
            raise ValueError("it has other fields than a record")
        if value["v"] != SCHEMA:
            return Damage(index, "format", f"the record's schema is {value['v']}, and this finllm reads {SCHEMA}")
        if value["log"] != log:
            return Damage(index, "foreign", f"the record is of another log, {value['log']!r}")
        if value["seq"] != index:
            return Damage(index, "deleted", f"record {value['seq']} stands where {index} belongs")
    except (ValueError, AttributeError, RecursionError) as error:
        return Damage(index, "edited", f"it is no record: {error}")
    return None


def _out_of_order(found: Damage, lines: list[bytes], digests: list[bytes], index: int, record: bytes) -> Damage:
    """Which of the four it is when a record stands in another's place."""
    seq = parse_canonical(record)["seq"]
    if digests[-1] in digests[:-1]:
        return Damage(index, "duplicated", found.what)
    if not isinstance(seq, int) or seq < index:
        return Damage(index, "inserted", found.what)
    wanted = b',"seq":%d,"v":' % index
    if any(wanted in line[-64:] for line in lines[len(digests) :]):
        return Damage(index, "reordered", found.what)
    return found


def _blob_damage(record: bytes, index: int, held: Any, spoilt: frozenset[str]) -> Damage | None:
    for digest in parse_canonical(record)["body"].get("blobs", ()):
        if digest in spoilt:
            return Damage(index, "blob", f"blob {digest} does not have the content that its name says")
        if digest not in held:
            return Damage(index, "blob", f"blob {digest} is missing")
    return None
