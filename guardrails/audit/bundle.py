"""One run taken out of the log: its records, their proofs, the checkpoint, blobs, texts, report files, a verifier."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from finllm.errors import InputError, RecordError
from finllm.guardrails.audit.canonical import parse_canonical
from finllm.guardrails.audit.merkle import consistent
from finllm.guardrails.audit.reader import LogReader
from finllm.guardrails.audit.witness import WitnessRefused, read_witnessed
from finllm.memory.texts import Texts

_READ_ME = """\
Audit records of run {run}.

  python verify.py                  needs Python 3.9 or newer and the package 'cryptography'; no network, no finllm
  python verify.py --vkey KEY --witness-vkey KEY
                                    with the verifier keys of log and witness as you know them from elsewhere

records.jsonl  one record per line, canonical JSON; its hash is sha256(0x00 || line)
proofs.json    for each record its index and its RFC 6962 inclusion proof under 'checkpoint'
checkpoint     how far the log went, signed (c2sp.org/tlog-checkpoint)
log.vkey       the key that signed it; a bundle cannot vouch for its own key
keys.jsonl     where present: the records that changed the log's key, each signed by the key before it, so that --vkey
               may also be a key that signed earlier
verify.py      sha256 {script}
               it travels with what it checks: hold it against what 'finllm audit verifier' prints elsewhere
blobs/         what the records name, each file under its sha256
texts/         the event and the sources as the run read them, whole, each under its sha256
report/        the report files as the run wrote them, where they were still there; their digests are in the records
witnessed      where present: what a witness saw, and proofs.json shows that the log continues it
"""


def bundle_of(
    reader: LogReader, run_id: str, witness: Path | None = None, texts: Texts | None = None
) -> dict[str, bytes]:  # fmt: skip
    """The files of a bundle, by name. Every proof was checked. `texts`: where the texts that the run read are.

    Errors: InputError for a run that is not in the log, RecordError for damage, WitnessRefused for a log that does not
    continue what the witness in `witness` saw.
    """
    records = reader.records_of(run_id)
    if not records:
        raise InputError(f"no record of run {run_id!r} is in the audit log", fix="'finllm runs list' shows the runs")
    if records[-1][0] >= reader.checkpoint.size:
        raise RecordError(
            f"record {records[-1][0]} is not under a signed checkpoint yet",
            fix="run the command where the signing key is: it signs one",
        )
    proofs = {
        "run": run_id,
        "size": reader.checkpoint.size,
        "inclusion": [{"index": index, "proof": _encoded(reader.inclusion(index))} for index, _ in records],
        "consistency": list[str](),
        "keys": [{"index": index, "proof": _encoded(reader.inclusion(index))} for index in _changes(reader)],
    }
    files = {
        "records.jsonl": b"".join(data + b"\n" for _, data in records),
        "checkpoint": str(reader.note).encode(),
        "log.vkey": f"{reader.vkey}\n".encode(),
        "verify.py": verifier(),
        "README.txt": _READ_ME.format(run=run_id, script=sha256(verifier()).hexdigest()).encode(),
    }
    if changes := _changes(reader):
        files["keys.jsonl"] = b"".join(reader.record(index) + b"\n" for index in changes)
    for index, data in records:
        for digest in parse_canonical(data)["body"].get("blobs", ()):
            files[f"blobs/{digest}"] = reader.blob(digest, index)
        files |= _texts(data, texts) | _written(data)
    if witness is not None:
        files |= _witnessed(reader, witness, proofs)
    return {**files, "proofs.json": (json.dumps(proofs, indent=1) + "\n").encode()}


def _texts(record: bytes, texts: Texts | None) -> dict[str, bytes]:
    """The texts that a record names. Errors: RecordAltered for one that was changed, RecordError where one is gone."""
    found: dict[str, bytes] = {}
    for digest in parse_canonical(record)["body"].get("texts", ()):
        data = texts.read(digest) if texts is not None else None
        if data is None:
            raise RecordError(f"the text {digest[:12]}, which the run read, is not in the home",
                              fix="restore the home's folder 'texts' from a copy, or export without --log")  # fmt: skip
        found[f"texts/{digest}"] = data
    return found


def _written(record: bytes) -> dict[str, bytes]:
    """The report files that a record names, as far as they are where they were written and are what was written."""
    body = parse_canonical(record)["body"]
    found: dict[str, bytes] = {}
    for name, digest in body.get("files", {}).items():
        with contextlib.suppress(OSError):
            data = Path(body["folder"], name).read_bytes()
            if sha256(data).hexdigest() == digest:
                found[f"report/{name}"] = data
    return found


def verifier() -> bytes:
    """The script that verifies a bundle, as every bundle carries it."""
    return Path(__file__).with_name("check_bundle.py").read_bytes()


def proof_text(reader: LogReader, index: int) -> str:
    """The proof that a record is in the log, in the format of c2sp.org/tlog-proof."""
    lines = ["c2sp.org/tlog-proof@v1", f"index {index}", *_encoded(reader.inclusion(index)), "", str(reader.note)]
    return "\n".join(lines)


def _changes(reader: LogReader) -> list[int]:
    """The records under the checkpoint that changed the log's key."""
    return [index for index in reader.keys.places if index < reader.checkpoint.size]


def _witnessed(reader: LogReader, folder: Path, proofs: dict[str, object]) -> dict[str, bytes]:
    witnessed, now = read_witnessed(folder), reader.checkpoint
    saw = witnessed.checkpoint
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no witness, only a checkpoint", fix="name a witness's folder")
    proof = reader.tree.consistency(saw.size, now.size) if 0 < saw.size < now.size else []
    if saw.origin != now.origin or not consistent(saw.size, saw.root, now.size, now.root, proof):
        raise WitnessRefused(
            "the log does not continue what the witness saw",
            fix="run 'finllm audit verify --witness' to see the first bad record",
        )
    proofs["consistency"] = _encoded(proof)
    return {"witnessed": str(witnessed.note).encode(), "witness.vkey": (folder / "witness.vkey").read_bytes()}


def _encoded(proof: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(hash).decode() for hash in proof]
