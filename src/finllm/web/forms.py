"""Forms and queries, parsed within bounds: url-encoded only, so many fields, so long; no uploads, no nesting."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

MOST_BYTES = 64 * 1024
"""Of a form's body."""
MOST_QUERY = 4 * 1024
"""Bytes of an address behind its question mark: a provider's code can have two thousand."""
MOST_FIELDS = 40
LONGEST_NAME = 64
LONGEST_VALUE = 20_000
"""Characters of a value: as many as a line of a session may have."""


class BadForm(ValueError):
    """A form that is not read, with the status that says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


def parse_form(body: bytes, most: int = MOST_BYTES) -> dict[str, str]:
    """The fields of an url-encoded body; each once. Errors: BadForm for one that is too long, spoilt or ambiguous."""
    if len(body) > most:
        raise BadForm(413, f"a form of more than {most:,} bytes")
    if not body:
        return {}
    if body.count(b"&") >= MOST_FIELDS:
        raise BadForm(400, f"more than {MOST_FIELDS} fields")
    found: dict[str, str] = {}
    for field in body.split(b"&"):
        name, _, value = field.partition(b"=")
        key = _text(name)
        if not key or len(key) > LONGEST_NAME:
            raise BadForm(400, "a field without a name, or with too long a one")
        if key in found:
            raise BadForm(400, f"the field {key!r} twice")
        said = _text(value).replace("\r\n", "\n")
        if len(said) > LONGEST_VALUE:
            raise BadForm(413, f"more than {LONGEST_VALUE:,} characters in {key!r}")
        found[key] = said
    return found


def _text(part: bytes) -> str:
    try:
        text = unquote_to_bytes(part.replace(b"+", b" ")).decode()
    except UnicodeDecodeError as error:
        raise BadForm(400, "text that is not UTF-8") from error
    if "\x00" in text:
        raise BadForm(400, "a NUL character")
    return text
