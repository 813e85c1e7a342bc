#!/usr/bin/env python3
"""Verify a bundle of audit records offline: `python verify.py --vkey KEY --witness-vkey KEY`.

It travels with every exported bundle and reads nothing but the folder that it lies in, so an examiner needs no finllm:
only Python 3.9 or newer and the package `cryptography`.
Since it travels with what it checks, hold its own sha256 against what `finllm audit verifier` prints elsewhere.
Exit codes: 0 all holds, 1 something does not, 2 the bundle cannot be read.
"""

from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import json
import math
import operator
import re
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LARGEST = 64 << 20
"""Bytes of the largest file that is read: a bundle of one run has none near it."""
NOT_MONEY = ["return", "bp", "points", "sigma", "ratio", "years", "probability", "days", "count", "text"]
"""Units that are no currency: money holds whole cents, so that each term of a sum may be off by half of one."""
DEEPEST = 64
"""Levels of the deepest JSON that is read: deeper is made to exhaust the reader."""


class Bad(Exception):
    """Something in the bundle does not hold."""


def read(path: Path) -> bytes:
    """A file of the bundle. Errors: OSError; ValueError for one of more than `LARGEST` bytes."""
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path.name} has more than {LARGEST} bytes")
    return path.read_bytes()


def decoded(data: bytes, what: str) -> Any:
    """The value of JSON bytes. Errors: ValueError for no JSON, or for one nested deeper than `DEEPEST`."""
    depth, inside, escaped = 0, False, False
    for byte in data:
        if inside:
            inside, escaped = escaped or byte != 0x22, byte == 0x5C and not escaped
        elif byte == 0x22:
            inside = True
        elif byte in b"[{":
            depth += 1
            if depth > DEEPEST:
                raise ValueError(f"{what} is nested deeper than {DEEPEST} levels")
        elif byte in b"]}":
            depth -= 1
    return json.loads(data)


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


def signatures(note: str) -> list[tuple[str, bytes, bytes]]:
    """Name, id and value of each signature under a note, not checked."""
    found: list[tuple[str, bytes, bytes]] = []
    for line in note.rpartition("\n\n")[2].splitlines():
        dash, signer, encoded = line.split(" ", 2)
        raw = base64.b64decode(encoded, validate=True)
        if dash == "—":
            found.append((signer, raw[:4], raw[4:]))
    return found


def check_note(note: str, key: tuple[str, bytes, int, bytes]) -> tuple[str, int, bytes]:
    """Origin, size and root of a checkpoint that the key has signed."""
    text = note.rpartition("\n\n")[0] + "\n"
    name, id, kind, public = key
    for signer, signer_id, value in signatures(note):
        if (signer, signer_id) != (name, id):
            continue
        signed, timed = text.encode(), 8 if kind == 4 else 0
        if timed:
            signed = f"cosignature/v1\ntime {int.from_bytes(value[:8], 'big')}\n{text}".encode()
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(value[timed:], signed)
        except InvalidSignature:
            raise Bad(f"the signature of {name} is wrong") from None
        origin, size, root = text.split("\n")[:3]
        return origin, int(size), base64.b64decode(root, validate=True)
    raise Bad(f"the checkpoint is not signed by {name}")


class Keys:
    """Which key signs the log, from which record on: each change is a record that the key before it has signed."""

    def __init__(self, bundle: Path, proofs: Any, log_key: str) -> None:
        self.changes = proofs.get("keys", [])
        self.lines = read(bundle / "keys.jsonl").split(b"\n")[:-1] if self.changes else []
        if len(self.lines) != len(self.changes):
            raise Bad(f"{len(self.changes)} changes of the log's key are promised, {len(self.lines)} are there")
        bodies = [decoded(line, "a change of the log's key")["body"] for line in self.lines]
        self.steps: list[tuple[int, str, str | None]] = [(-1, bodies[0]["before"] if bodies else log_key, None)]
        for at, body in enumerate(bodies):
            self._follow(self.changes[at]["index"], body["statement"])
        if self.steps[-1][1] != log_key:
            raise Bad(f"the log's key is {self.steps[-1][1]} by its records, and the bundle says {log_key}")

    def _follow(self, index: int, statement: str) -> None:
        _, before, too = self.steps[-1]
        said, *more = statement.rpartition("\n\n")[0].split("\n")[3:]
        signs, others = said[len("signs ") :], [line[len("signs-too ") :] for line in more]
        wording = [f"signs {signs}", *(f"signs-too {one}" for one in others)] == [said, *more]
        if not wording or others not in ([], [too if signs == before else before]):
            raise Bad(f"record {index} does not say which key signs the log")
        if signs != before and signs in self.ever():
            raise Bad(f"record {index} lets a retired key sign again")
        for key in (before, signs):
            origin, size, _ = check_note(statement, read_key(key))
            if (origin, size) != (read_key(key)[0], index):
                raise Bad(f"record {index} changes the key of another place")
        self.steps.append((index, signs, others[0] if others else None))

    def ever(self) -> set[str]:
        """Every key that signs or signed."""
        return {signs for _, signs, _ in self.steps}

    def at(self, size: int) -> str:
        """The key that signs a checkpoint of so many records."""
        return next(signs for index, signs, _ in reversed(self.steps) if index < size)

    def check(self, note: str, size: int, root: bytes) -> None:
        """Each change is under the checkpoint, and no retired key has signed that."""
        for at, line in enumerate(self.lines):
            index, leaf = self.changes[at]["index"], hashlib.sha256(b"\0" + line).digest()
            proof = [base64.b64decode(hash, validate=True) for hash in self.changes[at]["proof"]]
            if not 0 <= index < size or root_from(leaf, index, size, proof) != root:
                raise Bad(f"record {index}, which changes the log's key, is not under the checkpoint")
        used = [(name, id) for name, id, _ in signatures(note)]
        for key in self.ever() - set(self.steps[-1][1:]):
            if read_key(key)[:2] in used:
                raise Bad(f"the checkpoint carries the signature of a retired key, {key}")

    def known(self, vkey: str, notes: list[str]) -> None:
        """Whether the key that somebody knows signs the log, or did until a record that it signed."""
        now = self.steps[-1][1]
        if vkey not in self.ever():
            raise Bad(f"the bundle's key {now} is not the one given")
        if vkey != now:
            last = max(at for at, step in enumerate(self.steps) if step[1] == vkey)
            notes.append(f"the key given signed until record {self.steps[last + 1][0]}, which it signed too; learn the "
                         f"one that signs now: {now}")  # fmt: skip


def check(bundle: Path, vkey: str | None, witness_vkey: str | None = None) -> dict[str, Any]:
    """Check everything; what was found. Errors: Bad, OSError, ValueError, KeyError."""
    notes: list[str] = []
    log_key = read(bundle / "log.vkey").decode("ascii").strip()
    if vkey is None:
        notes.append("the log's key was taken from the bundle itself; give the one you know with --vkey")
    proofs = decoded(read(bundle / "proofs.json"), "proofs.json")
    keys = Keys(bundle, proofs, log_key)
    if vkey is not None:
        keys.known(vkey.strip(), notes)
    note = read(bundle / "checkpoint").decode()
    origin, size, root = check_note(note, read_key(log_key))
    keys.check(note, size, root)
    named = _check_records(bundle, proofs, size, root)
    for folder, known in (("blobs", named.blobs), ("texts", named.texts), ("report", set(named.report))):
        stray = {path.name for path in (bundle / folder).iterdir()} - known if (bundle / folder).is_dir() else set()
        if stray:
            raise Bad(f"{len(stray)} files in {folder}/ are named by no record, such as {min(stray)!r}")
    report = _check_report(bundle, named)
    cited, sums = _check_rows(bundle, named)
    witnessed = _check_witnessed(bundle, keys, witness_vkey, origin, size, root, proofs, notes)
    return {"ok": True, "run": proofs["run"], "origin": origin, "records": len(proofs["inclusion"]),
            "blobs": len(named.blobs), "texts": len(named.texts), "files": report, "cited": cited, "sums": sums,
            "size": size, "witnessed": witnessed, "notes": notes,
            "witness_known": witnessed is not None and witness_vkey is not None}  # fmt: skip


class Named:
    """What the records name: blobs and texts by sha256, and the digests that each report file was written with."""

    def __init__(self) -> None:
        self.blobs: set[str] = set()
        self.texts: set[str] = set()
        self.report: dict[str, set[str]] = {}
        self.result: str | None = None

    def take(self, body: Any, index: int) -> None:
        for digest in (*body.get("blobs", ()), *body.get("texts", ())):
            if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                raise Bad(f"record {index} names {digest!r}, which is no sha256")
        self.blobs.update(body.get("blobs", ()))
        self.texts.update(body.get("texts", ()))
        for name, digest in body.get("files", {}).items():
            self.report.setdefault(name, set()).add(digest)
        if body["action"] in ("run.finished", "run.blocked"):
            self.result = body.get("content")


def _check_report(bundle: Path, named: Named) -> int:
    """Hold each report file that is here against the records; how many there are."""
    here = sorted(path.name for path in (bundle / "report").iterdir()) if (bundle / "report").is_dir() else []
    for name in here:
        if hashlib.sha256(read(bundle / "report" / name)).hexdigest() not in named.report[name]:
            raise Bad(f"report/{name} is not the file that the run wrote")
    return len(here)


def again(formula: str, rows: dict[str, Any]) -> float | None:
    """What arithmetic over rows gives, such as `sum(E1, E2) / E3`; None for a formula that names a method."""
    known = {"sum": lambda *of: math.fsum(of), "min": min, "max": max, "abs": abs}
    signs = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}

    def value(part: Any) -> float:
        if isinstance(part, ast.Name):
            return float(rows[part.id]["value"])
        if isinstance(part, ast.BinOp):
            return signs[type(part.op)](value(part.left), value(part.right))
        if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.USub):
            return -value(part.operand)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and not part.keywords:
            return known[part.func.id](*(value(one) for one in part.args))
        return float(vars(part)["value"])

    try:
        return value(ast.parse(formula.replace("×", "*").replace("−", "-"), mode="eval").body)
    except (SyntaxError, KeyError, AttributeError, TypeError, ValueError, ZeroDivisionError, RecursionError):
        return None


def _check_rows(bundle: Path, named: Named) -> tuple[int, int]:
    """Hold the report's rows of evidence against the texts that they name places in, and do their arithmetic again; how
    many there are of either."""
    result = decoded(read(bundle / "blobs" / named.result), "the report") if named.result in named.blobs else {}
    rows, places, sums = {row["id"]: row for row in result.get("evidence", ())}, 0, 0
    for row in rows.values():
        found, terms = again(row.get("formula") or "", rows), len(re.findall(r"\bE\d+\b", row.get("formula") or ""))
        if found is not None and terms:
            sums, near = sums + 1, 1e-12 if row["unit"] in NOT_MONEY else 0.005 * (terms + 1)
            if not math.isclose(found, row["value"], rel_tol=1e-9, abs_tol=near):
                raise Bad(f"row {row['id']} says {row['value']}, and its formula {row['formula']!r} gives {found}")
        source = row.get("source") or {}
        if source.get("sha256") not in named.texts:
            continue
        text = read(bundle / "texts" / source["sha256"]).decode()
        match = re.fullmatch(r"characters (\d+)\u2013(\d+)( of what is read)?", source.get("pointer", ""))
        if match and not 0 <= int(match[1]) <= int(match[2]) <= len(text):
            raise Bad(f"row {row['id']} names characters of a text that has no more than {len(text)}")
        places += 1
    return places, sums


def _check_records(bundle: Path, proofs: Any, size: int, root: bytes) -> Named:
    """Hold each record against its proof, and its blobs and texts against their names; what they name."""
    lines = read(bundle / "records.jsonl").split(b"\n")
    if lines[-1] or len(lines) - 1 != len(proofs["inclusion"]):
        raise Bad(f"{len(proofs['inclusion'])} records are promised, {len(lines) - 1} are there")
    if not proofs["inclusion"]:
        raise Bad("the bundle holds no record, so it shows nothing")
    named = Named()
    before = -1
    for at, one in enumerate(proofs["inclusion"]):
        line = lines[at]
        index, leaf = one["index"], hashlib.sha256(b"\0" + line).digest()
        if type(index) is not int or not before < index < size:
            raise Bad(f"record {index!r} comes after record {before}: records are in the log's order, each once")
        before = index
        if root_from(leaf, index, size, [base64.b64decode(hash, validate=True) for hash in one["proof"]]) != root:
            raise Bad(f"record {index} is not under the checkpoint")
        record = decoded(line, f"record {index}")
        if record["seq"] != index or record["body"].get("run") != proofs["run"]:
            raise Bad(f"record {index} says that it is record {record['seq']} of run {record['body'].get('run')}")
        named.take(record["body"], index)
        for folder, what in (("blobs", "blob"), ("texts", "text")):
            for digest in record["body"].get(folder, ()):
                if hashlib.sha256(read(bundle / folder / digest)).hexdigest() != digest:
                    raise Bad(f"record {index}: {what} {digest} has other content")
    return named


def _check_witnessed(
    bundle: Path, keys: Keys, witness_vkey: str | None, origin: str, size: int, root: bytes,
    proofs: Any, notes: list[str],
) -> int | None:  # fmt: skip
    """How many records a witness saw. Whoever holds the log's key can make a witness: its key must be known."""
    if not (bundle / "witnessed").exists():
        if witness_vkey is not None:
            raise Bad("a witness's key was given, and the bundle has no witnessed checkpoint")
        notes.append("no witness: the log may have been rewritten by whoever holds its key")
        return None
    note = read(bundle / "witnessed").decode()
    theirs = read(bundle / "witness.vkey").decode("ascii").strip()
    if witness_vkey is None:
        notes.append("UNKNOWN WITNESS: its key was taken from the bundle, and whoever holds the log's key can make "
                     "one; give the key that you know with --witness-vkey")  # fmt: skip
    elif witness_vkey.strip() != theirs:
        raise Bad(f"the bundle's witness {theirs} is not the one given")
    witness = read_key(theirs)
    if witness[3] in [read_key(signs)[3] for signs in keys.ever()]:
        raise Bad("the witness signs with the log's own key, so it witnesses nothing")
    saw_origin, saw, saw_root = check_note(note, read_key(keys.at(int(note.split("\n")[1]))))
    check_note(note, witness)
    proof = [base64.b64decode(hash, validate=True) for hash in proofs["consistency"]]
    if saw_origin != origin or not consistent(saw, saw_root, size, root, proof):
        raise Bad(f"the checkpoint does not continue the {saw} records that the witness saw")
    last = proofs["inclusion"][-1]["index"]
    if last >= saw:
        notes.append(f"the witness saw the log up to record {saw - 1}; the bundle goes to {last}")
    return saw


def main() -> int:
    parser = argparse.ArgumentParser(description="Verify this bundle of audit records, offline.")
    parser.add_argument("bundle", nargs="?", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--vkey", help="the log's verifier key, as you know it from elsewhere")
    parser.add_argument("--witness-vkey", help="the witness's verifier key, as you know it from elsewhere")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    code, found = 0, {}
    try:
        found = check(options.bundle, options.vkey, options.witness_vkey)
    except Bad as error:
        code, found = 1, {"ok": False, "error": str(error)}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        code, found = 2, {"ok": False, "error": f"the bundle cannot be read: {type(error).__name__}: {error}"}
    if options.json:
        print(json.dumps(found, indent=2))
    elif found["ok"]:
        print(f"ok: {found['records']} records and {found['blobs']} blobs of run {found['run']} are under the "
              f"checkpoint of {found['size']} records of {found['origin']}")  # fmt: skip
        print(f"    {found['texts']} texts are whole, {found['cited']} rows name a place in one, {found['sums']} sums "
              f"come out again; {found['files']} report files are as the run wrote them")  # fmt: skip
        for note in found["notes"]:
            print(f"NOTE: {note}")
    else:
        print(f"NOT OK: {found['error']}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
