"""The registry: models by name, with origin, licence, digest and what their files say; and the model that runs use."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finllm.errors import InputError
from finllm.files import exclusive, write_atomically
from finllm.models.inspection import Inspection
from finllm.models.source import EMBEDDED_NAME, ModelSource, cached_digest, check_gguf, embedded_source
from finllm.settings import Settings

__all__ = [
    "ModelEntry",
    "ModelSource",
    "add_entry",
    "check_name",
    "default_source",
    "entry_source",
    "find_entry",
    "read_entries",
    "remove_entry",
]

UNKNOWN_LICENCE = "unknown"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class PulledFrom(BaseModel):
    """Where a pulled file comes from: a file of a hub's repository at one commit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    repository: str
    file: str
    revision: str

    @property
    def url(self) -> str:
        return f"{self.endpoint}/{self.repository}/resolve/{self.revision}/{self.file}"


class ModelEntry(BaseModel):
    """A registered model. `licence`: an SPDX expression, or `unknown`; `origin`: None for a file added by hand.

    `found` is what the file said when it was added: chat template, context, tokenizer, and the judgement fields whose
    values start alike in that tokenizer and are therefore scored whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: Path
    origin: PulledFrom | None = None
    licence: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int
    found: Inspection


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    models: tuple[ModelEntry, ...] = ()


def default_source(settings: Settings) -> ModelSource:
    """The model that runs use: `settings.model` (a registered name, or a path), else the embedded one. Loads no model.

    Errors: InputError where the file is missing, is not GGUF or is not the one that was registered or installed.
    """
    if settings.model is None:
        return embedded_source(settings)
    wanted = str(settings.model)
    if wanted == EMBEDDED_NAME:
        return embedded_source(settings)
    path = settings.model.expanduser().absolute()
    entries = read_entries(settings)
    entry = next((e for e in entries if e.name == wanted), None) or next((e for e in entries if e.path == path), None)
    if entry is not None:
        return entry_source(entry, settings)
    check_gguf(path)
    digest = cached_digest(path, settings)
    return ModelSource(name=path.stem, path=path, licence=UNKNOWN_LICENCE, sha256=digest)


def entry_source(entry: ModelEntry, settings: Settings) -> ModelSource:
    """The file of an entry. Errors: InputError where it is missing or its digest is not the registered one."""
    if not entry.path.is_file():
        raise InputError(f"the file of model {entry.name!r} is missing: {str(entry.path)!r}", fix=mend(entry))
    digest = cached_digest(entry.path, settings)
    if digest != entry.sha256:
        raise InputError(
            f"the file of model {entry.name!r} is not the registered one: {str(entry.path)!r} has sha256 {digest}, "
            f"registered is {entry.sha256}",
            fix=mend(entry),
        )
    return ModelSource(name=entry.name, path=entry.path, licence=entry.licence, sha256=entry.sha256)


def mend(entry: ModelEntry) -> str:
    """What to do about a file that is missing or is another."""
    if entry.origin is not None:
        return f"fetch it again with 'finllm models pull {entry.name}'"
    return (
        "put the registered file back; or, if the new one is right, run "
        f"'finllm models remove {entry.name}' and 'finllm models add {entry.name} FILE'"
    )


def read_entries(settings: Settings) -> tuple[ModelEntry, ...]:
    """The registered models, by name; the embedded one is not among them. Errors: InputError for a spoilt registry."""
    path = _path(settings)
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise InputError(
            f"cannot read the registry {str(path)!r}: {error}", fix="check the file's permissions"
        ) from error
    try:
        return _File.model_validate_json(text).models
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"the registry {str(path)!r} is spoilt: {where}: {first['msg']}",
            fix="correct it, or remove it and add the models again",
        ) from error


def find_entry(name: str, settings: Settings) -> ModelEntry:
    """Errors: InputError for a name that is not registered."""
    entries = read_entries(settings)
    for entry in entries:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in entries) or "none"
    raise InputError(f"no model is registered as {name!r} (registered: {known})", fix="run 'finllm models list'")


def check_name(name: str) -> None:
    """Errors: InputError for a name that could be taken for a path, or is the embedded model's."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a model", fix="use letters, digits, '.', '_' and '-'")
    if name == EMBEDDED_NAME:
        raise InputError(f"{name!r} is the embedded model's name", fix="choose another name")


def add_entry(entry: ModelEntry, settings: Settings, *, replace: bool = False) -> None:
    """Register a model, atomically. Errors: InputError for a name in use (unless `replace`) or an unwritable home."""
    check_name(entry.name)

    def change(entries: dict[str, ModelEntry]) -> None:
        if entry.name in entries and not replace:
            raise InputError(
                f"a model is already registered as {entry.name!r}",
                fix=f"choose another name, or run 'finllm models remove {entry.name}' first",
            )
        entries[entry.name] = entry

    _change(settings, change)


def remove_entry(name: str, settings: Settings) -> ModelEntry:
    """Forget a model, with the rungs derived from it and, if it was pulled, its file; one added by hand stays.

    Errors: InputError for a name that is not registered.
    """
    removed = find_entry(name, settings)
    _change(settings, lambda entries: entries.pop(name, None))
    left = read_entries(settings)
    if removed.origin is not None and all(entry.path != removed.path for entry in left):
        removed.path.unlink(missing_ok=True)
    if all(entry.sha256 != removed.sha256 for entry in left) and embedded_source(settings).sha256 != removed.sha256:
        shutil.rmtree(settings.models_dir / removed.sha256[:16], ignore_errors=True)
    return removed


def _change(settings: Settings, change: Callable[[dict[str, ModelEntry]], object]) -> None:
    path = _path(settings)
    try:
        with exclusive(path.with_name(".registry.lock")):
            entries = {entry.name: entry for entry in read_entries(settings)}
            change(entries)
            models = tuple(entries[name] for name in sorted(entries))
            write_atomically(path, _File(models=models).model_dump_json(indent=1))
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error}", fix="set FINLLM_HOME to a writable folder") from error


def _path(settings: Settings) -> Path:
    return settings.models_dir / "registry.json"
