"""Which key signs a log, and from which record on: each change is a record that the key before it has signed.

The record holds a statement, a C2SP signed note: the checkpoint of the records before it, then which key signs and
which signs too. It is signed by the key that signed until then and by the one that signs from there on, so nobody
without the first can change it, and nobody can name a key that they do not have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finllm.guardrails.audit.note import LOG, Checkpoint, Note, VerifierKey
from finllm.guardrails.audit.storage import Layout, Meta, record_of, whole_lines

CHANGED = "key.changed"
"""The action of such a record."""
MARK = b'"action":"%b"' % CHANGED.encode()
"""What the line of such a record holds; others may hold it too."""
_SIGNS, _TOO = "signs ", "signs-too "


@dataclass(frozen=True)
class Signers:
    """Who signs checkpoints: `signs` each of them, `too` as well while verifiers learn `signs`; `retired` none."""

    signs: VerifierKey
    too: VerifierKey | None = None
    retired: frozenset[VerifierKey] = frozenset()

    def check(self, note: Note) -> None:
        """Errors: ValueError for a checkpoint that `signs` has not signed, or that a retired key has."""
        if note.signed_by(self.signs) is None:
            raise ValueError(f"it is not signed with the log's key, {self.signs}")
        used = {(signature.name, signature.id) for signature in note.signatures}
        for key in self.retired:
            if (key.name, key.id) in used:
                raise ValueError(f"it carries the signature of a retired key, {key}")

    def followed_by(self, index: int, body: Mapping[str, Any]) -> Signers:
        """The signers after the change in record `index`. Errors: ValueError for one that does not hold."""
        note = Note.parse(str(body.get("statement")))
        place, (signs, too) = Checkpoint.of(note), _named(note)
        if (place.origin, place.size) != (self.signs.name, index):
            raise ValueError(f"its statement is of record {place.size} of {place.origin!r}")
        if note.signed_by(self.signs) is None:
            raise ValueError(f"the key that signed until then, {self.signs}, has not signed it")
        if note.signed_by(signs) is None:
            raise ValueError(f"the key that it names, {signs}, has not signed it")
        before = self.too if signs == self.signs else self.signs
        if signs in self.retired or signs == self.too or too not in (None, before):
            raise ValueError("a retired key would sign again")
        gone = {self.signs, self.too} - {signs, too, None}
        return Signers(signs, too, self.retired | {key for key in gone if key is not None})


class KeyChain:
    """The signers of a log from its first record on, as its changes of keys say."""

    def __init__(self, first: VerifierKey) -> None:
        self._steps: list[tuple[int, Signers]] = [(-1, Signers(first))]

    @property
    def now(self) -> Signers:
        return self._steps[-1][1]

    @property
    def places(self) -> tuple[int, ...]:
        """The records that changed the keys."""
        return tuple(index for index, _ in self._steps[1:])

    @property
    def ever(self) -> frozenset[VerifierKey]:
        """Every key that signs or signed."""
        return frozenset(signers.signs for _, signers in self._steps)

    def at(self, size: int) -> Signers:
        """The signers of a checkpoint of `size` records."""
        return next(signers for index, signers in reversed(self._steps) if index < size)

    def until(self, key: VerifierKey) -> int | None:
        """The record that changed the keys so that `key` did not sign on its own any more; None where it still does.

        Errors: ValueError for a key that never signed here.
        """
        for at, (_, signers) in enumerate(self._steps):
            if signers.signs == key:
                later = [index for index, one in self._steps[at + 1 :] if one.signs != key]
                return later[0] if later else None
        raise ValueError(f"the log's key is {self.now.signs}, not the expected one")

    def follow(self, index: int, body: Mapping[str, Any]) -> None:
        """Take in the change of record `index`. Errors: ValueError for one that does not hold; nothing is changed."""
        self._steps.append((index, self.now.followed_by(index, body)))


def statement(before: Checkpoint, signs: VerifierKey, too: VerifierKey | None) -> Note:
    """What a change's record has signed: the checkpoint of the records before it, and who signs from there on."""
    extensions = [f"{_SIGNS}{signs}", *([f"{_TOO}{too}"] if too is not None else [])]
    return Note(before.note().text + "".join(f"{line}\n" for line in extensions), ())


def change_in(record: bytes) -> Mapping[str, Any] | None:
    """The body of a record that changes the keys, None for any other."""
    if MARK not in record:
        return None
    try:
        body = json.loads(record)["body"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return body if isinstance(body, dict) and body.get("action") == CHANGED else None


def read_keychain(layout: Layout, meta: Meta) -> KeyChain:
    """The log's keys by the records that `log.json` names. A record that is not there, or changes no key, was announced
    by a process that died before it was written.

    Errors: OSError; ValueError for a change that does not hold.
    """
    chain = KeyChain(meta.vkey)
    for index, record in _records(layout, meta):
        if (body := change_in(record)) is not None:
            try:
                chain.follow(index, body)
            except ValueError as error:
                raise ValueError(f"the change of its key in record {index} does not hold: {error}") from error
    return chain


def _records(layout: Layout, meta: Meta) -> Iterator[tuple[int, bytes]]:
    kept: tuple[int, Sequence[bytes]] = (-1, ())
    for index in meta.changes:
        segment, within = divmod(index, meta.segment_records)
        if segment != kept[0]:
            path = layout.records(segment)
            kept = segment, whole_lines(path.read_bytes())[0] if path.exists() else ()
        if within < len(kept[1]):
            yield index, record_of(kept[1][within])


def _named(note: Note) -> tuple[VerifierKey, VerifierKey | None]:
    """Errors: ValueError."""
    origin, _size, _root, *lines = note.text.rstrip("\n").split("\n")
    keys = [VerifierKey.parse(line.removeprefix(prefix)) for line, prefix in zip(lines, (_SIGNS, _TOO), strict=False)
            if line.startswith(prefix)]  # fmt: skip
    if not keys or len(keys) != len(lines) or any(key.kind != LOG or key.name != origin for key in keys):
        raise ValueError("its statement does not say which key signs")
    return keys[0], keys[1] if len(keys) > 1 else None
