"""The home is its user's own, and a key that others may read, or that is another's, is refused before it is used."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from finllm.cli.doctor_checks import all_checks
from finllm.errors import InputError
from finllm.files import exclusive, write_atomically
from finllm.guardrails.audit.keys import read_keys
from finllm.guardrails.audit.recorder import open_recorder
from finllm.memory.ledger import Ledger
from finllm.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def lock(home: Path) -> None:
    with exclusive(home / "models" / "lock"):
        pass


FIRST: dict[str, Callable[[Path], object]] = {
    "recorder": lambda home: open_recorder(Settings(home=home)).close(),
    "ledger": lambda home: Ledger(home / "ledger.sqlite").close(),
    "file": lambda home: write_atomically(home / "nodes.json", "{}"),
    "lock": lock,
}
"""What may be the first to write into a home."""


@pytest.mark.parametrize("first", FIRST)
def test_the_home_is_made_for_its_user_alone_whoever_makes_it(first: str, tmp_path: Path) -> None:
    FIRST[first](tmp_path / "some" / "home")
    assert (mode(tmp_path / "some" / "home"), mode(tmp_path / "some")) == (0o700, 0o700)


def test_a_file_for_others_lies_in_a_folder_for_others(tmp_path: Path) -> None:
    write_atomically(tmp_path / "out" / "junit.xml", "<testsuite/>", mode=0o644)
    assert (mode(tmp_path / "out"), mode(tmp_path / "out" / "junit.xml")) == (0o755, 0o644)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    with closing(open_recorder(Settings(home=home))):
        return home / "audit.key"


@pytest.mark.parametrize("loose", [0o640, 0o604, 0o644])
def test_a_key_that_others_can_read_is_refused_with_its_mend(loose: int, key: Path) -> None:
    key.chmod(loose)
    with pytest.raises(InputError, match="can be read by others") as caught:
        open_recorder(Settings(home=key.parent))
    assert caught.value.fix.startswith(f"chmod 600 {key}")
    key.chmod(0o600)
    open_recorder(Settings(home=key.parent)).close()


def test_a_key_of_another_user_is_refused(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: key.stat().st_uid + 1)
    with pytest.raises(InputError, match="belongs to user"):
        read_keys(key)


def test_settings_with_a_secret_are_refused_where_others_can_read_them(tmp_path: Path) -> None:
    (config := tmp_path / "config.toml").write_text('vllm_api_key = "hush"\n')
    config.chmod(0o644)
    with pytest.raises(InputError, match="sets 'vllm_api_key'") as caught:
        load_settings({"FINLLM_HOME": str(tmp_path)})
    assert "hush" not in str(caught.value)
    config.write_text("threads = 2\n")
    assert load_settings({"FINLLM_HOME": str(tmp_path)}).settings.threads == 2


def test_doctor_names_a_loose_home_and_a_loose_key_with_their_mends(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key.parent.chmod(0o755)
    key.chmod(0o644)
    monkeypatch.setenv("FINLLM_HOME", str(key.parent))
    found = {one.name: one for one in all_checks()}
    assert (found["FINLLM_HOME"].status, found["FINLLM_HOME"].fix) == ("warning", f"chmod 700 {key.parent}")
    assert found["signing key"].status == "failed"
    assert (found["signing key"].fix or "").startswith(f"chmod 600 {key}")
