"""Licences by their SPDX names."""

from __future__ import annotations

import re

from finllm.errors import InputError

UNKNOWN = "unknown"


def spdx(text: str) -> str:
    """A licence as a person writes it, as an SPDX expression. Errors: InputError for what is none."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    if text == UNKNOWN:
        return UNKNOWN
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression as error:
        raise InputError(
            f"{text!r} is no SPDX licence expression",
            fix="write it as Apache-2.0, MIT or LicenseRef-NAME, or leave it out",
        ) from error


def stated(text: str | None) -> str:
    """A licence as a file or a hub states it: SPDX where it can be, else a LicenseRef of it; `unknown` for nothing."""
    cleaned = re.sub(r"[^A-Za-z0-9.-]+", "-", text or "").strip("-")
    if not cleaned or cleaned.lower() in (UNKNOWN, "other"):
        return UNKNOWN
    try:
        return spdx(cleaned)
    except InputError:
        return f"LicenseRef-{cleaned}"
