"""A GGUF file as a Hugging Face folder in BF16, which is what vLLM serves."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from finllm.errors import BackendError, InputError
from finllm.files import sha256_of_file, sync, write_atomically
from finllm.models.registry import ModelSource

MANIFEST = "finllm.json"
"""File of the folder that says what it was made of; a folder that has it may be replaced."""
PRECISION = "BF16"
_FIX = "serve the model's original folder, or export a llama-like GGUF file"


class Exported(BaseModel):
    """The folder written. `weights_sha256` is made of weights, configuration and tokenizer; `bytes`: all of it."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    precision: str
    source_sha256: str
    weights_sha256: str
    architecture: str
    parameters: int
    bytes: int


def export_hf(source: ModelSource, out: Path) -> Exported:
    """Write `source` to the folder `out`: dequantised, in BF16, with its tokenizer and chat template.

    Dequantising does not bring back what quantising lost. The folder appears whole or not at all; one that an earlier
    export wrote is replaced. Reads no hub. Errors: InputError for a folder that holds something else or cannot be
    written, or a file that transformers cannot read; BackendError where a package is missing.
    """
    out = out.expanduser().absolute()
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{str(out)!r} exists and is no earlier export", fix="name a folder that does not exist yet")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            partial = Path(scratch) / "export"
            architecture, parameters = _write(source, partial)
            manifest = {
                "weights_sha256": _digest(partial),
                "source_sha256": source.sha256,
                "source": source.name,
                "precision": PRECISION,
            }
            write_atomically(partial / MANIFEST, json.dumps(manifest, indent=1))
            size = sum(path.stat().st_size for path in partial.iterdir())
            _replace(partial, out, Path(scratch) / "old")
    except OSError as error:
        fix = "free some space there, or name a writable folder"
        raise InputError(f"cannot write the export to {str(out)!r}: {error}", fix=fix) from error
    return Exported(
        folder=out,
        precision=PRECISION,
        source_sha256=source.sha256,
        weights_sha256=manifest["weights_sha256"],
        architecture=architecture,
        parameters=parameters,
        bytes=size,
    )


def _write(source: ModelSource, folder: Path) -> tuple[str, int]:
    """Write weights, configuration and tokenizer; the model's class and how many parameters it has."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": source.path.name, "local_files_only": True}
    with _quiet():
        try:
            read = AutoModelForCausalLM.from_pretrained(str(source.path.parent), dtype=torch.bfloat16, **where)
            tokenizer = AutoTokenizer.from_pretrained(str(source.path.parent), **where)
        except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"transformers cannot read {str(source.path)!r}: {error}", fix=_FIX) from error
        except ImportError as error:
            raise BackendError(f"the export lacks a package: {error}", fix="pip install accelerate gguf") from error
        config: Any = read.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # what the file was; the weights read from it are no longer quantised
        config._name_or_path = source.name
        with torch.device("meta"):
            plain: Any = type(read)(config)
        plain.load_state_dict(read.state_dict(), assign=True)
        plain.tie_weights()
        plain.to(torch.bfloat16)
        plain.save_pretrained(str(folder))
        for key in ("is_local", "local_files_only"):
            tokenizer.init_kwargs.pop(key, None)
        tokenizer.save_pretrained(str(folder))
    return type(plain).__name__, sum(parameter.numel() for parameter in plain.parameters())


def _digest(folder: Path) -> str:
    files = {path.name: sha256_of_file(path) for path in sorted(folder.iterdir())}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _replace(new: Path, out: Path, aside: Path) -> None:
    for path in new.iterdir():
        path.chmod(0o644)
        sync(path)
    if out.exists():
        shutil.move(str(out), str(aside))
    new.rename(out)
    sync(out.parent)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and advice off the terminal."""
    from transformers.utils import logging

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
