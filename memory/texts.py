"""Source texts kept whole, each under its sha256: what a run read stands there as it was published, and once.

Plain files in the home's folder `texts/`, which nobody else may enter: `ab/<sha256>`. A text is on disk before the
record that names it, and none is ever taken away.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finllm.errors import RecordAltered, RecordError
from finllm.files import write_atomically

_NAME = re.compile(r"[0-9a-f]{64}")


class Texts:
    """The folder of texts. Thread-safe; several processes may use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, texts: Iterable[str]) -> None:
        """Put each text in place whole and durably; one that is there stays. Errors: RecordError."""
        for text in dict.fromkeys(texts):
            data = text.encode()
            path = self._path(hashlib.sha256(data).hexdigest())
            try:
                if not path.is_file() or path.read_bytes() != data:
                    write_atomically(path, data)
            except OSError as error:
                raise RecordError(
                    f"cannot keep a source's text in {str(self.folder)!r}: {error}; nothing was decided without it",
                    fix="free disk space or mend its permissions, then start the run again",
                ) from error

    def read(self, sha256: str) -> bytes | None:
        """The bytes of a text, UTF-8; None where it is not here. Errors: RecordAltered for bytes of another digest;
        RecordError where they cannot be read."""
        path = self._path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordError(f"cannot read the text {str(path)!r}: {error}", fix="mend its permissions") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RecordAltered(f"the text {sha256[:12]} was changed since it was kept: {str(path)!r} has other bytes",
                                fix="see all that differs with 'finllm audit verify', and restore it from a copy or an "
                                "exported bundle")  # fmt: skip
        return data

    def names(self) -> Iterator[str]:
        """The digests under which a text is here."""
        if self.folder.is_dir():
            yield from sorted(path.name for path in self.folder.glob("??/*") if _NAME.fullmatch(path.name))

    def _path(self, sha256: str) -> Path:
        if not _NAME.fullmatch(sha256):
            raise RecordError(f"{sha256!r} is no sha256 of a text", fix="give the 64 digits that a row of evidence has")
        return self.folder / sha256[:2] / sha256


def texts_of(request: Mapping[str, Any]) -> list[str]:
    """The texts that a run's request holds: the event as it is told, and each source."""
    scenario: Mapping[str, Any] = request.get("scenario") or {}
    told = [scenario.get("narrative"), *(source.get("text") for source in scenario.get("sources", ()))]
    return [text for text in told if isinstance(text, str)]
