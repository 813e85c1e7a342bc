"""The digest of the code and packages that make a thing: what is remembered of it holds for that digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path


def made_by(code: Iterable[Path], packages: Iterable[str] = ()) -> str:
    """Hex sha256 of source files, of all Python files of folders, and of the versions of installed packages."""
    digest = hashlib.sha256()
    for path in code:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.name}\0".encode())
            digest.update(file.read_bytes())
    for name in packages:
        digest.update(f"{name} {metadata.version(name)}\0".encode())
    return digest.hexdigest()
