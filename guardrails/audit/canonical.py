"""Canonical JSON: the one sequence of bytes a record has, a subset of RFC 8785 without floating-point numbers.

Keys are ASCII, so that RFC 8785's order (UTF-16 code units) is Python's order of strings. Whole numbers stay within
±(2^53 − 1), what every JSON reader keeps exactly; nanoseconds and other large or fractional numbers are strings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from finllm.errors import RecordError

LARGEST = 2**53 - 1

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def canonical_bytes(value: Any) -> bytes:
    """The bytes of a value. Errors: RecordError for what this subset of JSON cannot say."""
    _check(value, "record")
    try:
        return _encode(value).encode()
    except UnicodeEncodeError as error:
        raise _refused("record", f"a text that is not Unicode: {error.reason}") from error


def parse_canonical(data: bytes) -> Any:
    """The value of canonical bytes. Errors: ValueError where they are no JSON, or not in the canonical form."""
    value = _decode(data.decode())
    if _encode(value).encode() != data:
        raise ValueError("it is JSON, but not in the canonical form")
    return value


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"it holds the number {text}, and only whole ones are allowed")


_decode = json.JSONDecoder(parse_float=_no_float, parse_constant=_no_float).decode


_PLAIN = frozenset({str, bool, type(None)})
"""Types of which every value is fine: most values of a record, told before anything slower is asked."""


def _check(value: Any, where: str) -> None:
    if isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101  the abstract class answers slowly
        for key, inner in value.items():
            if not (isinstance(key, str) and key.isascii()):
                raise _refused(where, f"the key {key!r}")
            if type(inner) not in _PLAIN:
                _check(inner, key)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            if type(inner) not in _PLAIN:
                _check(inner, where)
    elif isinstance(value, int):
        if not -LARGEST <= value <= LARGEST:
            raise _refused(where, "a whole number beyond 2^53 − 1")
    elif not (value is None or isinstance(value, str)):
        raise _refused(where, f"a {type(value).__name__}")


def _refused(where: str, what: str) -> RecordError:
    return RecordError(
        f"{where!r} cannot be put into the audit log: it holds {what}",
        fix="report this as a fault of finllm; nothing was decided on it",
    )
