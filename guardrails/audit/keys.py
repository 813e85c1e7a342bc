"""The ed25519 key that signs a log's checkpoints: from the environment, from a file, or made once; never shown."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from finllm.errors import InputError
from finllm.files import check_secret, exclusive, sync
from finllm.settings import Settings

_SEED = 32
_FIX = "give 32 random bytes in base64, as 'head -c 32 /dev/urandom | base64' prints them"


class SigningKey:
    """A private key that shows itself neither when printed nor when pickled."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return "SigningKey(**********)"

    def __reduce__(self) -> str:
        raise TypeError("a signing key is not to be copied out of its process")


def signing_key(settings: Settings) -> SigningKey:
    """The key of `FINLLM_AUDIT_KEY`, else of `audit_key_file`, else the one at `$FINLLM_HOME/audit.key`, made once.

    Errors: InputError for a key that cannot be read, with the variable or the file but nothing of its content.
    """
    if settings.audit_key is not None:
        return _decoded(settings.audit_key.get_secret_value(), "FINLLM_AUDIT_KEY")
    if settings.audit_key_file is not None:
        return read_key(settings.audit_key_file)
    return own_key(settings.default_audit_key_file)


def own_key(path: Path) -> SigningKey:
    """The key in a file that nobody else may read, made on first use. Errors: InputError, OSError."""
    with exclusive(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            temporary = path.with_name(f".{path.name}.new")
            temporary.unlink(missing_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(base64.b64encode(secrets.token_bytes(_SEED)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
            sync(path.parent)
    return read_key(path)


def read_key(path: Path) -> SigningKey:
    """The key in a file that only this user may read. Errors: InputError."""
    try:
        check_secret(path, "the signing key")
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"cannot read the signing key {str(path)!r}: {reason}", fix=_FIX) from None
    return _decoded(text, repr(str(path)))


def _decoded(text: str, where: str) -> SigningKey:
    try:
        seed = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        seed = b""
    if len(seed) != _SEED:
        raise InputError(f"the signing key in {where} is no ed25519 key", fix=_FIX) from None
    return SigningKey(seed)
