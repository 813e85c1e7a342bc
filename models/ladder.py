"""The quantisation ladder: rungs of other precisions derived once from a source file and kept by its digest."""

from __future__ import annotations

import ctypes
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from finllm.errors import BackendError, InputError
from finllm.files import exclusive, sha256_of_file, sync, write_atomically
from finllm.models.llama_lock import LLAMA_LOCK
from finllm.models.llama_log import ERROR_LEVEL, listening
from finllm.models.lora import Adapter, merge_adapter
from finllm.models.source import ModelSource
from finllm.settings import Settings

PRUNED = "pruned"
"""The rung of fewer layers, at Q4_0: its adapter says which are kept, and was trained on what is left."""
PRECISIONS: dict[str, str] = {
    "BF16": "LLAMA_FTYPE_MOSTLY_BF16",
    "F16": "LLAMA_FTYPE_MOSTLY_F16",
    "Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
    "Q4_K_M": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
    "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
    PRUNED: "LLAMA_FTYPE_MOSTLY_Q4_0",
}
"""Precisions that can be derived, best first, with llama.cpp's name of the file type."""

RungProgress = Callable[[str, int, int], None]
"""`progress(what, done, total)`, called for every tensor; both counts are tensors."""

_TENSOR_LINE = re.compile(r"^\[\s*(\d+)/\s*(\d+)\]")
_TIGHT_SPACE = 64 << 20


class Rung(BaseModel):
    """One file of the ladder.

    `precision` is the label asked for; `tensor_mix` (tensor type → number of tensors) is what the file really holds:
    at widths that a K-quant does not divide, most tensors fall back to another type. `bytes` is the file's size.
    `adapter_sha256`: the LoRA adapter merged into it, if any.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    precision: str
    sha256: str
    source_sha256: str
    tensor_mix: dict[str, int]
    bytes: int
    adapter_sha256: str | None = None


class _Manifest(BaseModel):
    """Written after the rung's file, so that a rung with a manifest is whole. `mtime_ns` makes re-use cheap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rung: Rung
    mtime_ns: int


def ensure_rung(
    source: ModelSource,
    precision: str,
    settings: Settings,
    progress: RungProgress | None = None,
    *,
    adapter: Adapter | None = None,
    verify: bool = False,
) -> Rung:
    """The rung of `source` at `precision`, derived on first use (about a second for the embedded model).

    With an `adapter`, its changes are merged into the weights first; such rungs have a folder of their own. A rung
    already there is re-used when its size and modification time are those of its manifest; `verify` reads the whole
    file and compares its digest too. One that does not match is derived again.

    Errors: InputError for an unknown precision, `PRUNED` without an adapter of fewer layers or another rung with one,
    a source that llama.cpp cannot read whole, an adapter made for another model, or a folder that cannot be written;
    BackendError where the disk is full.
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}", fix=f"use one of {', '.join(PRECISIONS)}")
    if (precision == PRUNED) != (adapter is not None and adapter.layers is not None):
        why = f"there is no adapter of fewer layers for {source.name}"
        if adapter is not None:
            why = f"{str(adapter.path)!r} is an adapter of {'all' if adapter.layers is None else 'fewer'} layers"
        raise InputError(
            f"no rung {precision!r}: {why}",
            fix=f"give {PRUNED!r}, and no other rung, an adapter of fewer layers; FINLLM_ADAPTER=auto has one for the "
            "embedded model",
        )
    wanted = _Wanted(source, precision, adapter)
    folder = wanted.folder(settings)
    try:
        with exclusive(folder / f".{precision}.lock"):
            found = _reusable(folder, wanted, verify=verify)
            return found if found is not None else _derive(folder, wanted, settings.threads, progress)
    except OSError as error:
        raise InputError(
            f"cannot write the {precision} rung under {str(folder)!r}: {error}",
            fix="free some space there, or set FINLLM_HOME to a writable folder",
        ) from error


def derived_rungs(source_sha256: str, settings: Settings) -> tuple[Rung, ...]:
    """The rungs that are there, best first, those with an adapter after those without. Derives nothing."""
    folder = settings.models_dir / source_sha256[:16]
    rungs: list[Rung] = []
    for place in (folder, *sorted(folder.glob("adapter-*"))):
        for precision in PRECISIONS:
            rung = _manifested(place, precision)
            if rung is not None and rung.source_sha256 == source_sha256:
                rungs.append(rung)
    return tuple(rungs)


@dataclass(frozen=True)
class _Wanted:
    source: ModelSource
    precision: str
    adapter: Adapter | None

    @property
    def adapter_sha256(self) -> str | None:
        return self.adapter.sha256 if self.adapter is not None else None

    def folder(self, settings: Settings) -> Path:
        plain = settings.models_dir / self.source.sha256[:16]
        return plain if self.adapter is None else plain / f"adapter-{self.adapter.sha256[:16]}"


def _manifested(folder: Path, precision: str) -> Rung | None:
    """The rung whose manifest is there and fits its file's size and modification time."""
    try:
        manifest = _Manifest.model_validate_json((folder / f"{precision}.json").read_bytes())
        rung = manifest.rung.model_copy(update={"path": folder / f"{precision}.gguf"})  # the folder may have moved
        stat = rung.path.stat()
    except (OSError, ValidationError):
        return None
    return rung if (rung.bytes, manifest.mtime_ns) == (stat.st_size, stat.st_mtime_ns) else None


def _reusable(folder: Path, wanted: _Wanted, *, verify: bool) -> Rung | None:
    rung = _manifested(folder, wanted.precision)
    if rung is None:
        return None
    made_of = (rung.precision, rung.source_sha256, rung.adapter_sha256)
    if made_of != (wanted.precision, wanted.source.sha256, wanted.adapter_sha256):
        return None
    if verify and sha256_of_file(rung.path) != rung.sha256:
        return None
    return rung


def _derive(folder: Path, wanted: _Wanted, threads: int, progress: RungProgress | None) -> Rung:
    precision = wanted.precision
    path, manifest = folder / f"{precision}.gguf", folder / f"{precision}.json"
    partial = folder / f".{precision}.partial"  # under the lock, so a partial file is a dead process's and is ours
    merged = folder / f".{precision}.merged"
    manifest.unlink(missing_ok=True)
    try:
        weights = wanted.source.path
        if wanted.adapter is not None:
            merge_adapter(weights, wanted.adapter, merged)
            weights = merged
        _quantise(wanted.source, weights, precision, partial, threads, progress)
        mix = _tensor_mix(partial)
        digest = sha256_of_file(partial)
        sync(partial)
        partial.replace(path)
        sync(folder)
    finally:
        partial.unlink(missing_ok=True)
        merged.unlink(missing_ok=True)
    stat = path.stat()
    rung = Rung(
        path=path,
        precision=precision,
        sha256=digest,
        source_sha256=wanted.source.sha256,
        tensor_mix=mix,
        bytes=stat.st_size,
        adapter_sha256=wanted.adapter_sha256,
    )
    write_atomically(manifest, _Manifest(rung=rung, mtime_ns=stat.st_mtime_ns).model_dump_json(indent=1))
    return rung


def _quantise(
    source: ModelSource, weights: Path, precision: str, out: Path, threads: int, progress: RungProgress | None
) -> None:
    import llama_cpp

    errors: list[str] = []
    raised: list[BaseException] = []
    what = f"deriving {precision} from {source.name}"

    def listen(level: int, text: str) -> None:
        if level == ERROR_LEVEL:
            errors.append(text.strip())
        match = _TENSOR_LINE.match(text)
        if match and progress is not None and not raised:
            try:
                progress(what, int(match[1]), int(match[2]))
            except BaseException as error:  # noqa: BLE001  C cannot carry it: raised again after the call
                raised.append(error)

    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = getattr(llama_cpp, PRECISIONS[precision])
    params.allow_requantize = True
    with LLAMA_LOCK, listening(listen):
        status = llama_cpp.llama_model_quantize(str(weights).encode(), str(out).encode(), ctypes.pointer(params))
    if raised:
        raise raised[0]
    if status == 0:
        return
    why = errors[-1] if errors else f"status {status}"
    if shutil.disk_usage(out.parent).free < _TIGHT_SPACE:
        raise BackendError(
            f"no space left for the {precision} rung under {str(out.parent)!r}: {why}",
            fix="free some space there, or set FINLLM_HOME to another disk",
        )
    raise InputError(
        f"llama.cpp cannot derive {precision} from {str(source.path)!r}: {why}",
        fix="fetch the model file again, or set FINLLM_MODEL to another GGUF file",
    )


def _tensor_mix(path: Path) -> dict[str, int]:
    from gguf import GGUFReader

    counts = Counter(tensor.tensor_type.name for tensor in GGUFReader(path).tensors)
    return dict(sorted(counts.items()))


def take_rung(rung: Rung, settings: Settings, fetch: Callable[[Path], None]) -> Rung:
    """Put a rung that another machine derived in place: `fetch` writes its file, whose digest is checked here too.

    Errors: those of `fetch`; BackendError for a file of another digest.
    """
    folder = settings.models_dir / rung.source_sha256[:16]
    if rung.adapter_sha256 is not None:
        folder /= f"adapter-{rung.adapter_sha256[:16]}"
    path = folder / f"{rung.precision}.gguf"
    with exclusive(folder / f".{rung.precision}.lock"):
        (folder / f"{rung.precision}.json").unlink(missing_ok=True)
        fetch(path)
        if sha256_of_file(path) != rung.sha256:
            path.unlink()
            raise BackendError(f"the {rung.precision} rung that came has another digest", fix="fetch it again")
        sync(path)
        stat = path.stat()
        here = rung.model_copy(update={"path": path, "bytes": stat.st_size})
        manifest = _Manifest(rung=here, mtime_ns=stat.st_mtime_ns)
        write_atomically(folder / f"{rung.precision}.json", manifest.model_dump_json(indent=1))
    return here
