"""Why a request is not answered as asked: each with the status that a browser is given."""

from __future__ import annotations

from finllm.errors import FinllmError, InputError


class Refused(FinllmError):
    """Not done, with an HTTP status."""

    kind = "refused"

    def __init__(self, status: int, title: str, message: str, fix: str) -> None:
        super().__init__(message, fix=fix)
        self.status, self.title = status, title


class NotFound(InputError):
    """There is none, or none that this person may see: the answer is the same."""

    kind = "not_found"


def not_found(what: str) -> NotFound:
    return NotFound(f"there is no such {what} here", fix="go back, and take one from a list")
