"""Files: digests, writes that are whole or not at all, folders that can be written, a lock between processes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from finllm.errors import FinllmError, InputError

_CHUNK = 1 << 20


def sha256_of_file(path: Path) -> str:
    """Hex sha256 of a file, read in chunks of 1 MiB. Errors: OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Force a file or a folder's entries to disk, so that a rename after it never exposes an empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, so that nobody else may enter them. Errors: OSError."""
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def looser_than(path: Path, mode: int) -> bool:
    """Whether others may do more with a file or folder than `mode` grants them. Errors: OSError."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077 & ~mode)


def check_secret(path: Path, what: str) -> None:
    """Nobody else may read the file, and it is this user's own. Errors: InputError that calls it `what`; OSError."""
    owner, me = path.stat().st_uid, os.geteuid()
    if owner != me:
        raise InputError(f"{what} {str(path)!r} belongs to user {owner}, and this is user {me}",
                         fix=f"chown {me} {shlex.quote(str(path))}, or make a new one")  # fmt: skip
    if looser_than(path, 0o600):
        raise InputError(f"{what} {str(path)!r} can be read by others",
                         fix=f"chmod 600 {shlex.quote(str(path))}, or a new one if it was read")  # fmt: skip


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Replace `path` (text in UTF-8): a reader sees the old file or the new one, never a part. Errors: OSError.

    A missing folder is made private unless others may read the file.
    """
    if mode & 0o077:
        path.parent.mkdir(parents=True, exist_ok=True)
    else:
        make_private(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_file(path: Path, content: bytes, *, fix: str) -> None:
    """Put one file in place whole, for everybody to read. Errors: FinllmError with `fix` where it cannot be written."""
    try:
        write_atomically(path, content, mode=0o644)
    except OSError as error:
        raise FinllmError(f"cannot write {str(path)!r}: {error}", fix=fix) from error


def write_files(
    folder: Path, contents: Mapping[str, bytes], *, fix: str = "free some space or give another folder"
) -> None:
    """Put the files into the folder in their order, each in place whole; where one cannot be written, none is replaced.

    Errors: FinllmError with `fix` where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))  # inside, so that a replace is a rename
        try:
            for name, content in contents.items():
                for base in (partial, folder):
                    (base / name).parent.mkdir(exist_ok=True)
                with (partial / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for name in contents:
                os.replace(partial / name, folder / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise FinllmError(f"cannot write the files into {str(folder)!r}: {error}", fix=fix) from error


def check_folder(folder: Path, what: str) -> None:
    """The folder is there and writable, or could be made. Makes nothing. Errors: InputError that calls it `what`."""
    fix = f"give {what} a folder that you may write to"
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise InputError(f"{what} {str(folder)!r}: {str(existing)!r} is not a folder", fix=fix)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{what} {str(folder)!r}: {str(existing)!r} cannot be written", fix=fix)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` against other threads and processes; a process that dies releases it."""
    make_private(path.parent)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
