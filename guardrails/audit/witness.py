"""A witness: a folder elsewhere that remembers the newest checkpoint it has seen, and signs none that contradicts it.

The folder holds `checkpoint` (signed by the log, cosigned by the witness), `leaves` (the hash of each record, so that a
changed one can be named), `log.vkey`, `witness.vkey` and `witness.key`. A log's checkpoint alone is a witness too, but
a weaker one: it shows that something was changed, and not which record.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finllm.errors import FinllmError, InputError
from finllm.files import exclusive, sync, write_atomically
from finllm.guardrails.audit.keys import own_key
from finllm.guardrails.audit.merkle import consistent, root_of
from finllm.guardrails.audit.note import COSIGNER, Checkpoint, Note, VerifierKey
from finllm.guardrails.audit.reader import LogReader
from finllm.guardrails.audit.tree import packed, unpacked

NAME = "finllm.invalid/witness"


class WitnessRefused(FinllmError):
    """The log contradicts what the witness saw of it before."""

    kind = "witness_refused"


@dataclass(frozen=True)
class Witnessed:
    """What a witness vouches for. `leaves` is empty and `vkey` None where only a checkpoint was kept."""

    note: Note
    checkpoint: Checkpoint
    leaves: Sequence[bytes] = ()
    vkey: VerifierKey | None = None
    at: int | None = None

    def signed_by(self, vkey: VerifierKey) -> bool:
        try:
            return self.note.signed_by(vkey) is not None
        except ValueError:
            return False

    def first_difference(self, leaves: Sequence[bytes]) -> int | None:
        """The first record that is not, or not any more, what the witness saw; None where it kept no hashes."""
        if not self.leaves:
            return None
        pairs = enumerate(zip(self.leaves, leaves, strict=False))
        return next((at for at, (saw, now) in pairs if saw != now), min(len(self.leaves), len(leaves)))

    def differs_to_the_end(self, leaves: Sequence[bytes], first: int) -> bool:
        """Whether nothing from `first` on is what the witness saw, and it is not a single record."""
        pairs = list(zip(self.leaves[first:], leaves[first:], strict=False))
        return len(pairs) > 1 and all(saw != now for saw, now in pairs)


def read_witnessed(path: Path) -> Witnessed:
    """A witness's folder, or a checkpoint kept as a file. Errors: InputError for what is neither."""
    try:
        if not path.is_dir():
            note = Note.parse(path.read_text(encoding="utf-8"))
            return Witnessed(note, Checkpoint.of(note))
        note = Note.parse((path / "checkpoint").read_text(encoding="utf-8"))
        checkpoint = Checkpoint.of(note)
        vkey = VerifierKey.parse((path / "log.vkey").read_text(encoding="ascii"))
        witness = VerifierKey.parse((path / "witness.vkey").read_text(encoding="ascii"))
        at = note.signed_by(witness)
        if note.signed_by(vkey) is None or at is None:
            raise ValueError("its checkpoint lacks the log's signature or the witness's")
        leaves = unpacked((path / "leaves").read_bytes())[: checkpoint.size]
        if root_of(leaves) != checkpoint.root:
            raise ValueError("its hashes are not those under its checkpoint")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} is no witness of an audit log: {error}",
            fix="name a folder that 'finllm audit witness' has filled, or a checkpoint's file",
        ) from error
    return Witnessed(note, checkpoint, leaves, vkey, at)


def witness_log(reader: LogReader, folder: Path, clock: Callable[[], float] = time.time) -> Witnessed:
    """Let the witness in `folder` see the log: its checkpoint is cosigned and kept with the hashes under it.

    The first time it takes the log's key as it is; a change of it only through a record that the key before has signed.
    Errors: InputError for a folder that is no witness's,
    WitnessRefused for a log that is another, has shrunk or was rewritten; nothing is written then.
    """
    _check_place(reader, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / "lock"):
            before = read_witnessed(folder) if (folder / "checkpoint").exists() else None
            if before is not None:
                _check_grown(before, reader)
            elif any(path.name not in ("lock", "leaves") and not path.name.startswith((".", "witness.", "log."))
                     for path in folder.iterdir()):  # fmt: skip
                raise InputError(f"{str(folder)!r} holds other files", fix="name a new folder for the witness")
            return _keep(reader, folder, before, int(clock()))
    except OSError as error:
        raise FinllmError(f"cannot write the witness {str(folder)!r}: {error}", fix="free space, or name another folder"
                          ) from error  # fmt: skip


def _check_place(reader: LogReader, folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file", fix="name a folder for the witness")
    if folder.resolve().is_relative_to(reader.layout.folder.resolve()):
        raise InputError(
            f"the witness {str(folder)!r} would lie in the log that it watches",
            fix="name a folder elsewhere, best on another machine or on a disk that is taken out",
        )


def _check_grown(before: Witnessed, reader: LogReader) -> None:
    saw, now = before.checkpoint, reader.checkpoint
    if saw.origin != now.origin:
        raise _refused(f"it watches {saw.origin!r}, and this log is {now.origin!r}")
    if before.vkey != (vkey := reader.keys.at(saw.size).signs):
        raise _refused(f"the log signed with {vkey} at {saw.size} records, and the witness knows {before.vkey}")
    if now.size < saw.size:
        raise _refused(f"the log's checkpoint counts {now.size} records, and the witness saw {saw.size}")
    proof = reader.tree.consistency(saw.size, now.size)
    if not consistent(saw.size, saw.root, now.size, now.root, proof):
        raise _refused(f"the log's {now.size} records do not begin with the {saw.size} that the witness saw")


def _refused(why: str) -> WitnessRefused:
    return WitnessRefused(f"the witness refuses the log: {why}",
                          fix="run 'finllm audit verify --witness' to see the first bad record")  # fmt: skip


def _keep(reader: LogReader, folder: Path, before: Witnessed | None, at: int) -> Witnessed:
    """The hashes go first: a checkpoint never counts more of them than are there."""
    checkpoint, width = reader.checkpoint, reader.meta.segment_records
    known = list(before.leaves) if before else []
    kept = list(known)
    for segment in range(len(kept) // width, (checkpoint.size + width - 1) // width):
        leaves = reader.leaves(segment)
        kept[segment * width :] = leaves
        if unnamed := set(reader.changes_in(segment)) - set(reader.keys.places):
            raise _refused(f"record {min(unnamed)} changes the log's key, and log.json does not name it")
    del kept[checkpoint.size :]
    if kept[: len(known)] != known or root_of(kept) != checkpoint.root:
        raise _refused("its records are not those under its checkpoint")
    with open(os.open(folder / "leaves", os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        file.truncate(32 * len(known))
        file.seek(0, os.SEEK_END)
        file.write(packed(kept[len(known) :]))
        file.flush()
        os.fsync(file.fileno())
    key = own_key(folder / "witness.key")
    name = f"{NAME}/{key.public.hex()[:16]}"
    for file_name, vkey in (("log.vkey", reader.vkey), ("witness.vkey", VerifierKey.of(key, name, COSIGNER))):
        write_atomically(folder / file_name, f"{vkey}\n")
    note = Note(reader.note.text, tuple(s for s in reader.note.signatures if s.name == reader.vkey.name))
    note = note.cosigned(key, name, at)
    write_atomically(folder / "checkpoint", str(note))
    sync(folder)
    return Witnessed(note, checkpoint, kept, reader.vkey, at)
