"""What of a text steers a machine where no rule saw it: cut where the judge was fitted, flagged where it was not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from finllm.guardrails import languages
from finllm.guardrails.languages import ENGLISH, language_of, name_of
from finllm.made_by import made_by
from finllm.models import injection
from finllm.models.injection import pieces


class Judge(Protocol):
    """Names those of some sentences in English that it takes for instructions to a machine."""

    def instructions(self, parts: Sequence[str]) -> list[str]: ...


class Steering(BaseModel):
    """`cut`: parts of the text as they stand there. `unread`: by language, sentences that the rules alone read."""

    model_config = ConfigDict(frozen=True)

    cut: tuple[str, ...] = ()
    unread: dict[str, int] = {}

    @property
    def flag(self) -> str | None:
        """What a reader is told of the sentences that the judge may not judge."""
        if not self.unread:
            return None
        told = ", ".join(f"{count} in {name_of(code)}" for code, count in self.unread.items())
        return (f"flagged, not cut: sentences in a language that the second opinion was not fitted on ({told}); "
                "the rules alone looked for instructions there")  # fmt: skip


def steering(text: str, judge: Judge) -> Steering:
    """Read a sanitised text sentence by sentence, each in its own language. Errors: those of the judge."""
    whole = language_of(text)
    english: list[str] = []
    unread: dict[str, int] = {}
    for part in pieces(text) or ([text] if text else []):
        code = language_of(part, whole)
        if code == ENGLISH:
            english.append(part)
        else:
            unread[code] = unread.get(code, 0) + 1
    found = judge.instructions(english) if english else []
    return Steering(cut=tuple(dict.fromkeys(found)), unread=unread)


@cache
def steering_digest() -> str:
    """What a reading follows from beside the text and the judge's weights."""
    return made_by([Path(str(one)) for one in (__file__, languages.__file__, injection.__file__)], ["py3langid"])
