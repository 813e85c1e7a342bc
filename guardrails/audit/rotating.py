"""Another key for a log: the file of keys first, then the record, so that a death in between leaves keys that sign."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finllm.errors import InputError, RecordError
from finllm.files import exclusive
from finllm.guardrails.audit.keychain import KeyChain, Signers
from finllm.guardrails.audit.keys import Keyring, SigningKey, key_file, keyring, read_keys, write_keys
from finllm.guardrails.audit.log import AuditLog
from finllm.guardrails.audit.reader import LogReader
from finllm.guardrails.audit.records import moment
from finllm.settings import Settings


@dataclass(frozen=True)
class Changed:
    """A change of a log's keys: its record, None where none was needed, who signs now, and the file of keys written.

    `elsewhere`: that is not where the settings read the keys from.
    """

    record: int | None
    signers: Signers
    file: Path | None
    elsewhere: bool = False


def rotate(settings: Settings, to: Path | None = None, *, overlap: bool = True) -> Changed:
    """Let a new key sign the home's log from here on, and the one before it too until `retire`, if there is an overlap.

    The new key is the one in `to`, which is made where there is none; else one in front of the key in use that the log
    has not had yet; else one that is made and put in front of it in the file that the keys are read from. `to` then
    holds both.

    Errors: InputError where there is no log, an overlap goes on already, or no file is there to put a key into;
    RecordError.
    """
    with _opened(settings) as (log, keys, chain):
        if log.signers.too is not None:
            raise InputError("the key before signs too, since the last change of the log's key",
                             fix="run 'finllm audit retire' once every verifier has learnt the new one")  # fmt: skip
        before = _in_use(keys, log.signers)
        new, file = _new_key(settings, to, keys, chain)
        if file is not None:
            _write(file, [new, before])
        keys.add(new)
        record = log.change_keys(new, before if overlap else None, _about())
        if file is not None and not overlap:
            _write(file, [new])
        return Changed(record, log.signers, file, elsewhere=file is not None and file != key_file(settings))


def retire(settings: Settings) -> Changed:
    """End the overlap: the key before signs no more, and is taken out of the file that the keys are read from.

    Errors: InputError where there is nothing to end; RecordError.
    """
    with _opened(settings) as (log, keys, _):
        signs, record = _in_use(keys, log.signers), None
        if log.signers.too is not None:
            record = log.change_keys(signs, None, _about())
        gone = {key.public for key in log.signers.retired}
        left = [key for key in keys.keys if key.public not in gone]
        if record is None and len(left) == len(keys.keys):
            raise InputError("no key but the log's own signs", fix="begin a change of key with 'finllm audit rotate'")
        file = key_file(settings) if len(left) < len(keys.keys) else None
        if file is not None:
            _write(file, left)
        return Changed(record, log.signers, file)


@dataclass(frozen=True)
class Fit:
    """How the keys of this process and those of the log fit: what to say, and the mend where something is amiss."""

    detail: str
    fix: str | None = None
    signs: bool = True


def fit(settings: Settings, reader: LogReader) -> Fit:
    """Errors: InputError for keys that cannot be read; OSError."""
    keys, signers = keyring(settings), reader.keys.now
    retired = {key.public for key in signers.retired}
    if keys.holding(signers.signs.public) is None:
        return Fit(f"the log is signed with another key, {signers.signs}",
                   "give that key in FINLLM_AUDIT_KEY or FINLLM_AUDIT_KEY_FILE", signs=False)  # fmt: skip
    if signers.too is not None and keys.holding(signers.too.public) is None:
        return Fit("the key before is to sign too and is not here: who knows only that one cannot verify",
                   "put it back behind the new one, or run 'finllm audit retire'")  # fmt: skip
    if any(key.public in retired for key in keys.keys):
        return Fit("a retired key is still kept here", "run 'finllm audit retire', or take it out")
    if signers.too is not None:
        return Fit(f"the key before signs too since record {reader.keys.places[-1]}, until 'finllm audit retire'")
    return Fit("the log's own")


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[tuple[AuditLog, Keyring, KeyChain]]:
    """The log, its writer's keys and its chain of keys; one change of them at a time."""
    folder = LogReader(settings.audit_dir).layout.folder
    with exclusive(folder / "keys.lock"):
        chain, keys = LogReader(folder).keys, keyring(settings)
        with contextlib.closing(AuditLog(folder, keys)) as log:
            yield log, keys, chain


def _in_use(keys: Keyring, signers: Signers) -> SigningKey:
    key = keys.holding(signers.signs.public)
    assert key is not None, "a log that is open has its key"
    return key


def _new_key(settings: Settings, to: Path | None, keys: Keyring, chain: KeyChain) -> tuple[SigningKey, Path | None]:
    """The new key, and the file to put it into, if that is not where it came from."""
    known = {key.public for key in chain.ever}
    if to is not None:
        if not to.resolve().parent.is_dir():
            raise InputError(f"there is no folder {str(to.resolve().parent)!r} for --to {str(to)!r}",
                             fix="correct the path, or make the folder first")  # fmt: skip
        given = read_keys(to)[0] if to.exists() else SigningKey.made()
        if given.public in known:
            raise InputError(f"the key in --to {str(to)!r} has signed this log before", fix="name a new file")
        return given, to
    unused = next((key for key in keys.keys if key.public not in known), None)
    if unused is not None:
        return unused, None
    file = key_file(settings)
    if file is None:
        raise InputError("the key comes from FINLLM_AUDIT_KEY, which a command cannot change",
                         fix="give --to FILE for both keys and set FINLLM_AUDIT_KEY_FILE to it afterwards, or put a "
                             "new key in front of the old one there")  # fmt: skip
    return SigningKey.made(), file


def _write(file: Path, keys: list[SigningKey]) -> None:
    try:
        write_keys(file, keys)
    except OSError as error:
        raise RecordError(f"cannot write the signing keys into {str(file)!r}: {error}",
                          fix="mend its permissions, or give --to FILE") from error  # fmt: skip


def _about() -> dict[str, Any]:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return {"actor": {"kind": "person", "name": name}, "at": moment()}
