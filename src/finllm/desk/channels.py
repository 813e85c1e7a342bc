"""What reads transmission channels at a desk: the one method that a run asks of it, and its place in a replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from finllm.errors import BackendError
from finllm.tools.channels import Opened


class SaidOfText(Protocol):
    """The channels that a text opens, the likeliest first, and by field of the event the odds of its values."""

    @property
    def opened(self) -> Sequence[Opened]: ...

    @property
    def fields(self) -> Mapping[str, Mapping[str, float]]: ...


class ReadsChannels(Protocol):
    """Reads texts; `digest` names all that its answers follow from, and `note`, once that was asked for, what a run has
    to say of the reader. Errors: BackendError where it cannot.
    """

    @property
    def digest(self) -> str: ...

    @property
    def note(self) -> str | None: ...

    def read(self, texts: Sequence[str]) -> Sequence[SaidOfText]: ...


@dataclass(frozen=True)
class OnRecord:
    """A reader that is only a digest: what it once said is in the record, and it says nothing new."""

    digest: str
    note: None = None

    def read(self, texts: Sequence[str]) -> Sequence[SaidOfText]:
        del texts
        raise BackendError("what the channel reader said of a text is not on record", fix="a replay asks no model")
