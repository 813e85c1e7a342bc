"""`finllm models`: what the registry takes in, shows, checks and lets go."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from finllm.models import hub as hub_module
from finllm.settings import Settings
from tests.models.hub_server import Hub, running
from tests.models.tiny import write_tiny_model

from .conftest import Cli


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


@pytest.fixture
def hub(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(hub_module, "BACKOFF", 0.001)
    with running(Hub({"tiny.gguf": tiny.read_bytes()})) as started:
        monkeypatch.setenv("HF_ENDPOINT", started.url)
        yield started


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))


def test_an_added_model_is_listed_with_what_its_file_says(cli: Cli, tiny: Path, home: Path) -> None:
    added = cli("models", "add", "mine", tiny, "--licence", "apache-2.0")
    assert added.code == 0, added.err
    assert "use it with FINLLM_MODEL=mine" in added.out
    assert "whole values will be scored, which is slower, for: market-signal.regime" in added.out
    rows = {row["name"]: row for row in cli("models", "list", "--json").json["models"]}
    embedded, mine = rows["SmolLM2-135M-Instruct"], rows["mine"]
    assert (embedded["used"], embedded["scored_whole"], embedded["licence"]) == (True, [], "Apache-2.0")
    assert (mine["used"], mine["licence"], mine["context"], mine["state"]) == (False, "Apache-2.0", 512, "ok")
    assert mine["sha256"] == hashlib.sha256(tiny.read_bytes()).hexdigest()
    assert "narrative.stance" not in mine["scored_whole"]
    assert "narrative.severity" not in mine["scored_whole"]
    assert "narrative.event" in mine["scored_whole"]
    assert json.loads((home / "models" / "registry.json").read_text())["models"][0]["path"] == str(tiny)
    assert "mine" in cli("models", "list").out


def test_a_registered_name_or_its_path_is_the_model_that_runs_use(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("models", "add", "mine", tiny, "--licence", "MIT")
    for named in ("mine", str(tiny)):
        monkeypatch.setenv("FINLLM_MODEL", named)
        rows = {row["name"]: row["used"] for row in cli("models", "list", "--json").json["models"]}
        assert rows == {"SmolLM2-135M-Instruct": False, "mine": True}


def test_a_model_whose_file_has_changed_is_refused_at_load_and_found_by_verify(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("models", "add", "mine", tiny)
    monkeypatch.setenv("FINLLM_MODEL", "mine")
    assert cli("models", "verify", "mine", "--json").json["healthy"]
    spoil(tiny)
    said = cli("read", "The central bank raises rates.", "--json")
    assert said.code == 2
    assert "is not the registered one" in said.json["error"]["message"]
    assert "finllm models remove mine" in said.json["error"]["fix"]
    said = cli("models", "verify", "--json")
    assert said.code == 1
    assert {(f["model"], f["what"]): f["status"] for f in said.json["files"]} == {
        ("SmolLM2-135M-Instruct", "model"): "ok",
        ("mine", "model"): "changed",
    }
    assert next(row for row in cli("models", "list", "--json").json["models"] if row["name"] == "mine")["state"] == (
        "changed"
    )
    tiny.unlink()
    assert cli("models", "verify", "mine", "--json").json["files"][0]["status"] == "missing"


def test_verify_finds_a_derived_file_that_has_changed_behind_the_same_size_and_time(
    cli: Cli, tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finllm.models import default_source, ensure_rung

    cli("models", "add", "mine", tiny)
    settings = Settings(home=home, model=Path("mine"))
    rung = ensure_rung(default_source(settings), "Q8_0", settings)
    listed = cli("models", "list", "--rungs", "--json").json["rungs"]
    assert [(row["model"], row["precision"], row["tensor_mix"]) for row in listed] == [
        ("mine", "Q8_0", rung.tensor_mix)
    ]
    assert "Q8_0" in cli("models", "list", "--rungs").out
    stat = rung.path.stat()
    spoil(rung.path)
    os.utime(rung.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    said = cli("models", "verify", "mine", "--json")
    assert [(file["what"], file["status"]) for file in said.json["files"]] == [("model", "ok"), ("Q8_0", "changed")]
    assert said.code == 1


def test_removing_forgets_the_model_and_what_was_derived_and_leaves_the_user_s_file(
    cli: Cli, tiny: Path, home: Path
) -> None:
    from finllm.models import default_source, ensure_rung

    cli("models", "add", "mine", tiny)
    settings = Settings(home=home, model=Path("mine"))
    rung = ensure_rung(default_source(settings), "Q8_0", settings)
    assert cli("models", "remove", "mine").code == 0
    assert not rung.path.exists()
    assert tiny.is_file()
    again = cli("models", "remove", "mine", "--json")
    assert (again.code, again.json["error"]["fix"]) == (2, "run 'finllm models list'")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a/b", "cannot name a model"),
        ("SmolLM2-135M-Instruct", "embedded model's name"),
        ("mine", "already registered"),
    ],
)
def test_a_name_that_is_taken_or_could_be_a_path_is_refused(cli: Cli, tiny: Path, name: str, says: str) -> None:
    cli("models", "add", "mine", tiny)
    assert says in cli("models", "add", name, tiny, "--json").json["error"]["message"]


def test_a_file_that_is_no_use_is_not_registered(cli: Cli, tiny: Path, tmp_path: Path, home: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny.read_bytes()[:-100])
    base = write_tiny_model(tmp_path / "base.gguf", chat_template=None)
    for arguments, says in (
        ((cut,), "cannot be loaded"),
        ((base,), "has no chat template"),
        ((tmp_path / "absent.gguf",), "no model at"),
        ((tiny, "--sha256", "0" * 64), "not 000"),
        ((tiny, "--licence", "do what you like"), "no SPDX licence"),
    ):
        said = cli("models", "add", "bad", *arguments, "--json")
        assert said.code == 2
        assert says in said.json["error"]["message"]
    assert not (home / "models" / "registry.json").exists()


def test_a_pulled_model_is_registered_mended_and_removed_with_its_file(cli: Cli, hub: Hub, home: Path) -> None:
    hub.drops = [3_000]
    said = cli("models", "pull", "owner/tiny", "--json")
    assert said.code == 0, said.out
    row = said.json["model"]
    assert (row["name"], row["licence"], row["bytes"]) == ("tiny", "Apache-2.0", len(hub.files["tiny.gguf"]))
    assert row["url"].startswith(f"{hub.url}/owner/tiny/resolve/")
    assert '"kind": "progress"' in said.err
    path = Path(row["path"])
    assert path.is_relative_to(home)
    spoil(path)
    assert cli("models", "verify", "tiny", "--json").json["files"][0]["fix"].endswith("'finllm models pull tiny'")
    assert cli("models", "pull", "tiny", "--quiet").code == 0
    assert cli("models", "verify", "tiny").code == 0
    assert "was pulled, and is deleted" in cli("models", "remove", "tiny").out
    assert not path.exists()


def test_a_pulled_file_that_is_not_the_one_promised_is_not_registered(cli: Cli, hub: Hub, home: Path) -> None:
    hub.promised = "0" * 64
    said = cli("models", "pull", "owner/tiny", "--json")
    assert said.code == 2
    assert "promised was 000" in said.json["error"]["message"]
    assert not (home / "models" / "registry.json").exists()
    assert not list(home.rglob("tiny.gguf"))


def test_pulling_offline_says_how_to_add_a_file_by_hand(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = cli("models", "pull", "owner/tiny", "--json")
    assert said.code == 1
    assert "finllm models add NAME FILE" in said.json["error"]["fix"]


def test_a_spoilt_registry_is_not_overwritten(cli: Cli, tiny: Path, home: Path) -> None:
    cli("models", "add", "mine", tiny)
    registry = home / "models" / "registry.json"
    registry.write_text('{"version": 1, "models": [{"name": 3}]}')
    said = cli("models", "add", "other", tiny, "--json")
    assert said.code == 2
    assert "is spoilt: models.0" in said.json["error"]["message"]
    assert "other" not in registry.read_text()
