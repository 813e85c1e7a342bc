"""The books and starts that a browser may name: shipped ones and those in the home's folder `books`; never a path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finllm.errors import InputError

if TYPE_CHECKING:
    from finllm.settings import Settings

SUFFIXES = (".csv", ".parquet", ".xlsx")


def books_of(settings: Settings) -> dict[str, Path]:
    """The books by name; one in the home takes the place of a shipped one of that name."""
    from finllm.scenarios import PORTFOLIOS_DIR

    own = settings.home / "books"
    found = {path.stem: path for path in sorted(PORTFOLIOS_DIR.glob("*.csv"))}
    if own.is_dir():
        found |= {path.stem: path for path in sorted(own.iterdir()) if path.suffix in SUFFIXES and path.is_file()}
    return found


def start_of(kind: str, text: str, book: str, settings: Settings) -> tuple[dict[str, str], str]:
    """What a session is asked to start from, checked: a shipped scenario by name, or a story in plain words.

    Errors: InputError for what is neither; a path is never read.
    """
    from finllm.sessions.requests import shipped_scenarios

    known = books_of(settings)
    if book not in known:
        raise InputError(f"no book {book[:40]!r}", fix=f"choose one of {', '.join(known)}")
    portfolio = str(known[book])
    text = " ".join(text.split())
    if kind == "scenario":
        if text not in shipped_scenarios():
            raise InputError(f"no scenario {text[:40]!r}", fix="choose one of the list")
        return {"start": text, "portfolio": portfolio}, text
    if kind != "story" or len(text.split()) < 4:
        raise InputError("a story has four words or more", fix="tell what happens, in a sentence")
    if len(text) < 4096 and (Path(text).exists() or text.startswith(("/", "~", "."))):
        raise InputError("a story is told in words", fix="tell what happens, in a sentence")
    return {"start": text, "portfolio": portfolio}, text[:80]
