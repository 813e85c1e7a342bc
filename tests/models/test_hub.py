"""Pulling from a hub that drops the connection, does not continue files, or serves what it did not promise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from finllm.errors import FinllmError, InputError
from finllm.models import hub as hub_module
from finllm.models.hub import DigestMismatch, fetch, find_file
from finllm.settings import Settings

from .hub_server import COMMIT, Hub, running

BODY = b"GGUF" + bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "BACKOFF", 0.001)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running(Hub({"README.md": b"hello", "q4/tiny.gguf": BODY})) as started:
        monkeypatch.setenv("HF_ENDPOINT", started.url)
        yield started


def partials(settings: Settings) -> list[Path]:
    return list((settings.models_dir / "pulled").rglob("*.partial"))


def test_a_file_is_pulled_with_its_progress_digest_and_licence(hub: Hub, home: Settings) -> None:
    seen: list[tuple[int, int]] = []
    remote = find_file("owner/tiny", None)
    path = fetch(remote, home, lambda done, total: seen.append((done, total)))
    assert path == home.models_dir / "pulled" / "owner" / "tiny" / "q4" / "tiny.gguf"
    assert path.read_bytes() == BODY
    assert remote.licence == "Apache-2.0"
    assert remote.sha256 == hashlib.sha256(BODY).hexdigest()
    assert remote.origin.url == f"{hub.url}/owner/tiny/resolve/{COMMIT}/q4/tiny.gguf"
    assert seen[-1] == (len(BODY), len(BODY))
    assert partials(home) == []


def test_a_dropped_connection_is_continued_where_it_broke_off(hub: Hub, home: Settings) -> None:
    hub.drops = [1_000, 30_000]
    assert fetch(find_file("owner/tiny", None), home).read_bytes() == BODY
    assert hub.ranges == ["", "bytes=1000-", "bytes=31000-"]


def test_what_came_before_a_command_gave_up_is_continued_by_the_next(hub: Hub, home: Settings) -> None:
    hub.drops = [5_000] + [0] * hub_module.ATTEMPTS
    with pytest.raises(FinllmError, match=r"stopped: .*run the same command again, it goes on from there"):
        fetch(find_file("owner/tiny", None), home)
    (kept,) = partials(home)
    assert kept.read_bytes() == BODY[:5_000]
    hub.ranges.clear()
    assert fetch(find_file("owner/tiny", None), home).read_bytes() == BODY
    assert hub.ranges == ["bytes=5000-"]
    assert partials(home) == []


def test_a_hub_that_does_not_continue_files_is_asked_for_the_whole(hub: Hub, home: Settings) -> None:
    hub.drops, hub.continues = [5_000], False
    assert fetch(find_file("owner/tiny", None), home).read_bytes() == BODY


def test_a_file_that_is_not_the_one_promised_is_refused_and_not_kept(hub: Hub, home: Settings) -> None:
    hub.promised = "0" * 64
    with pytest.raises(DigestMismatch, match=f"promised was {'0' * 64}; the file is not kept; pull it again"):
        fetch(find_file("owner/tiny", None), home)
    assert not [path for path in (home.models_dir / "pulled").rglob("*tiny.gguf*") if path.suffix != ".lock"]


def test_a_user_s_own_digest_counts_beside_the_hub_s(hub: Hub, home: Settings) -> None:
    with pytest.raises(DigestMismatch):
        fetch(find_file("owner/tiny", None), home, sha256="1" * 64)
    hub.promised = "an-etag-that-is-no-digest"
    remote = find_file("owner/tiny", None)
    assert remote.sha256 is None
    assert fetch(remote, home, sha256=hashlib.sha256(BODY).hexdigest()).read_bytes() == BODY


def test_a_file_that_is_already_here_is_not_fetched_again(hub: Hub, home: Settings) -> None:
    fetch(find_file("owner/tiny", None), home)
    hub.ranges.clear()
    fetch(find_file("owner/tiny", None), home)
    assert hub.ranges == []


def test_what_is_left_of_another_version_is_not_continued(hub: Hub, home: Settings) -> None:
    hub.drops = [5_000] + [0] * hub_module.ATTEMPTS
    with pytest.raises(FinllmError):
        fetch(find_file("owner/tiny", None), home)
    hub.files["q4/tiny.gguf"] = BODY[::-1]
    assert fetch(find_file("owner/tiny", None), home).read_bytes() == BODY[::-1]
    assert partials(home) == []


def test_of_several_files_one_has_to_be_named(hub: Hub, home: Settings) -> None:
    hub.files["q8.gguf"] = BODY[:100]
    with pytest.raises(InputError, match=r"has 2 GGUF files; name one of: q4/tiny\.gguf, q8\.gguf"):
        find_file("owner/tiny", None)
    assert fetch(find_file("owner/tiny", "q8.gguf"), home).read_bytes() == BODY[:100]
    with pytest.raises(InputError, match=r"no GGUF file 'q2\.gguf'"):
        find_file("owner/tiny", "q2.gguf")


def test_a_name_that_leaves_the_folder_is_not_offered(hub: Hub) -> None:
    hub.files["../../evil.gguf"] = BODY
    assert find_file("owner/tiny", None).origin.file == "q4/tiny.gguf"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("name", "says"), [("owner/none", "check the name"), ("a/b/c", "write it as OWNER/NAME")])
def test_a_repository_that_is_not_there_names_the_mend(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        find_file(name, None)


def test_offline_it_says_so_and_how_to_add_a_file_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FinllmError, match=r"cannot be reached: .*offline, .*run 'finllm models add NAME FILE'"):
        find_file("owner/tiny", None)


@pytest.mark.parametrize(
    ("stated", "spdx"),
    [("mit", "MIT"), ("apache-2.0", "Apache-2.0"), ("llama3.2", "LicenseRef-llama3.2"), ("other", "unknown"),
     (None, "unknown")],
)  # fmt: skip
def test_licences_are_stated_by_their_spdx_names(hub: Hub, stated: str | None, spdx: str) -> None:
    hub.licence = stated
    assert find_file("owner/tiny", None).licence == spdx
