"""Which version answers runs: the model and adapter that were promoted last, those before, and the candidate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from finllm.errors import InputError
from finllm.files import exclusive, write_atomically
from finllm.models.cards import AUTO, NONE, adapter_for
from finllm.models.lora import open_adapter
from finllm.models.registry import default_source, find_entry
from finllm.settings import Settings, served_path


class Version(BaseModel):
    """A model (None: as the settings have it without a deployment) with its adapter, as settings write them, and the
    digests that both had: sha256 of the model's file, and of the adapter's where there is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None
    adapter: str
    sha256: str
    adapter_sha256: str | None = None

    @property
    def words(self) -> str:
        told = f"{self.model or 'the model of the settings'} ({self.sha256[:12]})"
        return f"{told}, adapter {self.adapter}" + (f" ({self.adapter_sha256[:12]})" if self.adapter_sha256 else "")

    def on(self, settings: Settings) -> Settings:
        """The settings with this version."""
        model = None if self.model is None else Path(self.model)
        return settings.model_copy(update={"model": model, "adapter": self.adapter})


class Served(BaseModel):
    """The file: `served` is None where nothing was ever promoted; `before`: what was, the newest last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    served: Version | None = None
    before: tuple[Version, ...] = ()
    candidate: Version | None = None


def read_served(settings: Settings) -> Served:
    """What is served. Errors: InputError for a file that cannot be read."""
    path = served_path(settings.home)
    try:
        return Served.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else Served()
    except (OSError, ValidationError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="move it away, and deploy again") from error


def change_served(settings: Settings, change: Callable[[Served], Served]) -> Served:
    """Put a changed file in place whole, one process at a time; what it holds then. Errors: InputError, OSError."""
    path = served_path(settings.home)
    with exclusive(path.with_suffix(".lock")):
        found = change(read_served(settings))
        write_atomically(path, found.model_dump_json(indent=2))
    return found


def current(settings: Settings) -> Version:
    """The version that the settings lead to, with the digests of its files now. Errors: InputError."""
    source = default_source(settings)
    adapter, _card = adapter_for(source, settings, settings.edge_precision)
    return Version(model=None if settings.model is None else str(settings.model), adapter=settings.adapter,
                   sha256=source.sha256, adapter_sha256=None if adapter is None else adapter.sha256)  # fmt: skip


def version_of(target: str, settings: Settings) -> Version:
    """The version that a name means: a registered model, a GGUF model or LoRA adapter by path, `auto` or `none` for the
    adapter of the model that is served. Errors: InputError where it is none of these."""
    path = Path(target).expanduser()
    if target in (AUTO, NONE):
        wanted = {"adapter": target}
    elif path.is_file():
        wanted = _of_file(path.absolute(), settings)
    else:
        wanted = {"model": Path(find_entry(target, settings).name), "adapter": AUTO}
    return current(settings.model_copy(update=wanted))


def _of_file(path: Path, settings: Settings) -> dict[str, Path | str]:
    try:
        open_adapter(path, settings)
    except InputError:
        return {"model": path, "adapter": AUTO}
    return {"adapter": str(path)}
