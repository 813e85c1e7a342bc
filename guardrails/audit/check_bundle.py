#!/usr/bin/env python3
"""Verify a bundle of audit records offline: `python verify.py [--vkey KEY] [--json]`. Needs only `cryptography`.

It travels with every exported bundle and reads nothing but the folder that it lies in, so an examiner needs no finllm.
Exit codes: 0 all holds, 1 something does not, 2 the bundle cannot be read.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Bad(Exception):
    """Something in the bundle does not hold."""


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def root_from(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """The root that an inclusion proof leads to (RFC 9162, 2.1.3.2)."""
    at, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise Bad(f"record {index}: its proof is too long")
        if at % 2 or at == last:
            found = node(sibling, found)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node(found, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise Bad(f"record {index}: its proof is too short")
    return found


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: list[bytes]) -> bool:
    """Whether the old tree is the beginning of the new one (RFC 9162, 2.1.4.2)."""
    if old == new:
        return old_root == new_root
    if not 0 < old < new or not proof:
        return False
    path = [old_root, *proof] if old & (old - 1) == 0 else proof
    at, last = old - 1, new - 1
    while at % 2:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for one in path[1:]:
        if last == 0:
            return False
        if at % 2 or at == last:
            first, second = node(one, first), node(one, second)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node(second, one)
        at, last = at >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def read_key(text: str) -> tuple[str, bytes, int, bytes]:
    """Name, id, signature type and public key of a verifier key."""
    name, _, rest = text.strip().partition("+")
    id, _, encoded = rest.partition("+")
    raw = base64.b64decode(encoded, validate=True)
    expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if len(raw) != 33 or id != expected.hex():
        raise Bad("a verifier key cannot be read")
    return name, expected, raw[0], raw[1:]


def check_note(note: str, key: tuple[str, bytes, int, bytes]) -> tuple[str, int, bytes]:
    """Origin, size and root of a checkpoint that the key has signed."""
    text, _, lines = note.rpartition("\n\n")
    text += "\n"
    name, id, kind, public = key
    for line in lines.splitlines():
        dash, signer, encoded = line.split(" ", 2)
        raw = base64.b64decode(encoded, validate=True)
        if (dash, signer, raw[:4]) != ("—", name, id):
            continue
        signed, value = text.encode(), raw[4:]
        if kind == 4:
            signed, value = f"cosignature/v1\ntime {int.from_bytes(value[:8], 'big')}\n{text}".encode(), value[8:]
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(value, signed)
        except InvalidSignature:
            raise Bad(f"the signature of {name} is wrong") from None
        origin, size, root = text.split("\n")[:3]
        return origin, int(size), base64.b64decode(root, validate=True)
    raise Bad(f"the checkpoint is not signed by {name}")


def check(bundle: Path, vkey: str | None) -> dict[str, Any]:
    """Check everything; what was found. Errors: Bad, OSError, ValueError, KeyError."""
    notes: list[str] = []
    log_key = (bundle / "log.vkey").read_text(encoding="ascii").strip()
    if vkey is None:
        notes.append("the log's key was taken from the bundle itself; give the one you know with --vkey")
    elif vkey.strip() != log_key:
        raise Bad(f"the bundle's key {log_key} is not the one given")
    key = read_key(log_key)
    origin, size, root = check_note((bundle / "checkpoint").read_text(encoding="utf-8"), key)
    proofs = json.loads((bundle / "proofs.json").read_text(encoding="utf-8"))
    lines = (bundle / "records.jsonl").read_bytes().split(b"\n")
    if lines[-1] or len(lines) - 1 != len(proofs["inclusion"]):
        raise Bad(f"{len(proofs['inclusion'])} records are promised, {len(lines) - 1} are there")
    named: set[str] = set()
    for line, one in zip(lines[:-1], proofs["inclusion"], strict=True):
        index, leaf = one["index"], hashlib.sha256(b"\0" + line).digest()
        if root_from(leaf, index, size, [base64.b64decode(hash, validate=True) for hash in one["proof"]]) != root:
            raise Bad(f"record {index} is not under the checkpoint")
        record = json.loads(line)
        if record["seq"] != index or record["body"].get("run") != proofs["run"]:
            raise Bad(f"record {index} says that it is record {record['seq']} of run {record['body'].get('run')}")
        for digest in record["body"].get("blobs", ()):
            named.add(digest)
            content = (bundle / "blobs" / digest).read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise Bad(f"record {index}: blob {digest} has other content")
    witnessed = _check_witnessed(bundle, key, origin, size, root, proofs, notes)
    return {"ok": True, "run": proofs["run"], "origin": origin, "records": len(proofs["inclusion"]),
            "blobs": len(named), "size": size, "witnessed": witnessed, "notes": notes}  # fmt: skip


def _check_witnessed(
    bundle: Path, key: tuple[str, bytes, int, bytes], origin: str, size: int, root: bytes, proofs: Any, notes: list[str]
) -> int | None:
    path = bundle / "witnessed"
    if not path.exists():
        notes.append("no witness: the log may have been rewritten by whoever holds its key")
        return None
    note = path.read_text(encoding="utf-8")
    saw_origin, saw, saw_root = check_note(note, key)
    check_note(note, read_key((bundle / "witness.vkey").read_text(encoding="ascii")))
    proof = [base64.b64decode(hash, validate=True) for hash in proofs["consistency"]]
    if saw_origin != origin or not consistent(saw, saw_root, size, root, proof):
        raise Bad(f"the checkpoint does not continue the {saw} records that the witness saw")
    last = max((one["index"] for one in proofs["inclusion"]), default=-1)
    if last >= saw:
        notes.append(f"the witness saw the log up to record {saw - 1}; the bundle goes to {last}")
    return saw


def main() -> int:
    parser = argparse.ArgumentParser(description="Verify this bundle of audit records, offline.")
    parser.add_argument("bundle", nargs="?", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--vkey", help="the log's verifier key, as you know it from elsewhere")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    code, found = 0, {}
    try:
        found = check(options.bundle, options.vkey)
    except Bad as error:
        code, found = 1, {"ok": False, "error": str(error)}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        code, found = 2, {"ok": False, "error": f"the bundle cannot be read: {type(error).__name__}: {error}"}
    if options.json:
        print(json.dumps(found, indent=2))
    elif found["ok"]:
        print(f"ok: {found['records']} records and {found['blobs']} blobs of run {found['run']} are under the "
              f"checkpoint of {found['size']} records of {found['origin']}")  # fmt: skip
        for note in found["notes"]:
            print(f"note: {note}")
    else:
        print(f"NOT OK: {found['error']}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
