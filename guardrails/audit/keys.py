"""The ed25519 keys that sign a log's checkpoints: from the environment, from a file, or made once; never shown."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from finllm.errors import InputError
from finllm.files import check_secret, exclusive, write_atomically
from finllm.settings import Settings

_SEED = 32
_FIX = "give 32 random bytes in base64, as 'head -c 32 /dev/urandom | base64' prints them"


class Keys(Protocol):
    """What a log's writer signs with."""

    @property
    def newest(self) -> SigningKey: ...

    def holding(self, public: bytes) -> SigningKey | None:
        """The private key of a public one, None where it is not among them. Errors: InputError."""
        ...


class SigningKey:
    """A private key that shows itself neither when printed nor when pickled."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def made(cls) -> SigningKey:
        """A new key."""
        return cls(secrets.token_bytes(_SEED))

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self._key.public_key().public_bytes_raw()

    @property
    def newest(self) -> SigningKey:
        return self

    def holding(self, public: bytes) -> SigningKey | None:
        return self if self.public == public else None

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)

    def encoded(self) -> bytes:
        """The secret itself, as a file of keys holds it: 32 bytes in base64."""
        return base64.b64encode(self._key.private_bytes_raw())

    def __repr__(self) -> str:
        return "SigningKey(**********)"

    def __reduce__(self) -> str:
        raise TypeError("a signing key is not to be copied out of its process")


class Keyring:
    """The keys of this process, the newest first, read again where one is asked for that is not among them."""

    def __init__(self, read: Callable[[], Sequence[SigningKey]]) -> None:
        self._read = read
        self.keys = read()

    @property
    def newest(self) -> SigningKey:
        return self.keys[0]

    def add(self, key: SigningKey) -> None:
        """Hold a new key too, whatever is read again."""
        read = self._read
        self._read = lambda: [key, *(one for one in read() if one.public != key.public)]
        self.keys = self._read()

    def holding(self, public: bytes) -> SigningKey | None:
        found = _held(self.keys, public)
        if found is None:
            self.keys = self._read()
            found = _held(self.keys, public)
        return found


def keyring(settings: Settings) -> Keyring:
    """The keys of `FINLLM_AUDIT_KEY`, else of the file that `key_file` names, where that of the home is made once.

    Errors: InputError for keys that cannot be read, with the variable or the file but nothing of its content; OSError.
    """
    if settings.audit_key is not None:
        given = settings.audit_key.get_secret_value()
        return Keyring(lambda: _decoded(given, "FINLLM_AUDIT_KEY"))
    if settings.audit_key_file is None:
        make_key(settings.default_audit_key_file)
    path = key_file(settings) or settings.default_audit_key_file
    return Keyring(lambda: read_keys(path))


def key_file(settings: Settings) -> Path | None:
    """The file that the keys are read from, None where they come from `FINLLM_AUDIT_KEY`."""
    return None if settings.audit_key is not None else settings.audit_key_file or settings.default_audit_key_file


def make_key(path: Path) -> None:
    """Put a new key into a file that nobody else may read, where there is none. Errors: OSError."""
    with exclusive(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            write_keys(path, [SigningKey.made()])


def own_key(path: Path) -> SigningKey:
    """The key in a file that nobody else may read, made on first use. Errors: InputError, OSError."""
    make_key(path)
    return read_keys(path)[0]


def read_keys(path: Path) -> list[SigningKey]:
    """The keys, one a line, in a file that only this user may read. Errors: InputError."""
    try:
        check_secret(path, "the signing key")
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"cannot read the signing key {str(path)!r}: {reason}", fix=_FIX) from None
    return _decoded(text, repr(str(path)))


def write_keys(path: Path, keys: Sequence[SigningKey]) -> None:
    """Replace a file of keys whole, for nobody else to read; of a link, what it leads to. Errors: OSError."""
    write_atomically(path.resolve(), b"".join(key.encoded() + b"\n" for key in keys))


def _held(keys: Sequence[SigningKey], public: bytes) -> SigningKey | None:
    return next((key for key in keys if key.public == public), None)


def _decoded(text: str, where: str) -> list[SigningKey]:
    keys: list[SigningKey] = []
    for word in text.replace(",", " ").split() or [""]:
        try:
            seed = base64.b64decode(word, validate=True)
        except (binascii.Error, ValueError):
            seed = b""
        if len(seed) != _SEED:
            raise InputError(f"the signing key in {where} is no ed25519 key", fix=_FIX) from None
        keys.append(SigningKey(seed))
    return keys
