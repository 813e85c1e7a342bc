"""Reading model files whole, to see whether they are still what was registered, installed or derived."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finllm.errors import FinllmError, InputError
from finllm.files import sha256_of_file
from finllm.models.ladder import derived_rungs
from finllm.models.registry import mend, read_entries
from finllm.models.source import EMBEDDED_NAME, embedded_source, forget_digest
from finllm.settings import Settings


@dataclass(frozen=True)
class FileCheck:
    """One file, read whole. `what`: `model`, or the rung's precision."""

    model: str
    what: str
    path: Path
    status: Literal["ok", "missing", "changed"]
    fix: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, "what": self.what, "path": str(self.path), "status": self.status, "fix": self.fix}


def verify_files(names: Sequence[str], settings: Settings) -> list[FileCheck]:
    """Check the files of these models, or of all, with the rungs derived from them.

    Errors: InputError for a name that is not registered.
    """
    known = {EMBEDDED_NAME, *(entry.name for entry in read_entries(settings))}
    for name in names:
        if name not in known:
            raise InputError(f"no model is registered as {name!r}", fix="run 'finllm models list'")
    return [check for check in _all(settings) if not names or check.model in names]


def _all(settings: Settings) -> Iterator[FileCheck]:
    try:
        forget_digest(settings)
        source = embedded_source(settings)
        yield FileCheck(EMBEDDED_NAME, "model", source.path, "ok")
        yield from _rungs(EMBEDDED_NAME, source.sha256, settings)
    except FinllmError as error:
        yield FileCheck(EMBEDDED_NAME, "model", Path(), "changed", error.fix)
    for entry in read_entries(settings):
        if not entry.path.is_file():
            yield FileCheck(entry.name, "model", entry.path, "missing", mend(entry))
        elif sha256_of_file(entry.path) != entry.sha256:
            yield FileCheck(entry.name, "model", entry.path, "changed", mend(entry))
        else:
            yield FileCheck(entry.name, "model", entry.path, "ok")
        yield from _rungs(entry.name, entry.sha256, settings)


def _rungs(model: str, source_sha256: str, settings: Settings) -> Iterator[FileCheck]:
    for rung in derived_rungs(source_sha256, settings):
        what = rung.precision if rung.adapter_sha256 is None else f"{rung.precision} + {rung.adapter_sha256[:12]}"
        if sha256_of_file(rung.path) == rung.sha256:
            yield FileCheck(model, what, rung.path, "ok")
        else:
            yield FileCheck(model, what, rung.path, "changed", "delete the file: it is derived again on its next use")
