"""C2SP's signed notes, checkpoints of a log, and a witness's timed cosignatures: texts with ed25519 signatures.

Formats: c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature. All errors here are ValueError.
"""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from finllm.guardrails.audit.keys import SigningKey

LOG, COSIGNER = 1, 4
"""Signature types: ed25519 over the text, and ed25519 over a header, a time and the text."""


@dataclass(frozen=True)
class VerifierKey:
    """A public key with the name it signs under; written as `name+id+base64`, the id in hex."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{_b64(bytes([self.kind]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        parts = text.strip().split("+", 2)
        if len(parts) != 3:
            raise ValueError("a verifier key is written as name+id+base64")
        raw = _unb64(parts[2])
        key = cls(parts[0], raw[0] if raw else 0, raw[1:])
        if not parts[0] or len(raw) != 33 or key.kind not in (LOG, COSIGNER) or key.id.hex() != parts[1]:
            raise ValueError("it is no ed25519 verifier key, or its id does not fit")
        return key

    @classmethod
    def of(cls, key: SigningKey, name: str, kind: int = LOG) -> VerifierKey:
        return cls(name, kind, key.public)


@dataclass(frozen=True)
class Signature:
    name: str
    id: bytes
    value: bytes


@dataclass(frozen=True)
class Note:
    """A text, which ends in a newline, and the signatures under it, checked or not."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(f"— {s.name} {_b64(s.id + s.value)}\n" for s in self.signatures)

    @classmethod
    def parse(cls, raw: str) -> Note:
        text, blank, lines = raw.rpartition("\n\n")
        if not blank or not lines.endswith("\n") or any(char < " " and char != "\n" for char in raw):
            raise ValueError("it is no signed note")
        return cls(text + "\n", tuple(_signature(line) for line in lines[:-1].split("\n")))

    def signed_by(self, key: VerifierKey) -> int | None:
        """The time (s, UTC) of the key's signature, 0 for one without a time, None where there is none.

        Errors: ValueError for a signature of this key that is wrong.
        """
        for signature in self.signatures:
            if (signature.name, signature.id) == (key.name, key.id):
                return _checked(self.text, signature.value, key)
        return None

    def signed(self, key: SigningKey, name: str) -> Note:
        """This note with a log's signature."""
        made = Signature(name, VerifierKey.of(key, name).id, key.sign(self.text.encode()))
        return Note(self.text, (*self.signatures, made))

    def cosigned(self, key: SigningKey, name: str, at: int) -> Note:
        """This note with a witness's signature of the time `at` (s, UTC)."""
        value = struct.pack(">Q", at) + key.sign(_cosigned_text(self.text, at))
        return Note(self.text, (*self.signatures, Signature(name, VerifierKey.of(key, name, COSIGNER).id, value)))


@dataclass(frozen=True)
class Checkpoint:
    """A log's name for itself, how many records it holds, and the root of the tree over them."""

    origin: str
    size: int
    root: bytes

    def note(self) -> Note:
        return Note(f"{self.origin}\n{self.size}\n{_b64(self.root)}\n", ())

    @classmethod
    def of(cls, note: Note) -> Checkpoint:
        origin, size, root, *_extensions = [*note.text.split("\n"), "", ""]
        checkpoint = cls(origin, int(size) if size.isascii() and size.isdigit() else -1, _unb64(root))
        if not origin or str(checkpoint.size) != size or len(checkpoint.root) != 32:
            raise ValueError("the note is no checkpoint")
        return checkpoint


def _signature(line: str) -> Signature:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    raw = _unb64(encoded)
    if dash != "—" or not name or "+" in name or len(raw) < 5:
        raise ValueError("a signature line of the note cannot be read")
    return Signature(name, raw[:4], raw[4:])


def _checked(text: str, value: bytes, key: VerifierKey) -> int:
    at, signed = 0, text.encode()
    if key.kind == COSIGNER:
        if len(value) != 72:
            raise ValueError("a cosignature has another length")
        at = int(struct.unpack(">Q", value[:8])[0])
        value, signed = value[8:], _cosigned_text(text, at)
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(value, signed)
    except InvalidSignature as error:
        raise ValueError(f"the signature of {key.name!r} is wrong") from error
    return at


def _cosigned_text(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{text[:20]!r} is not base64") from error
