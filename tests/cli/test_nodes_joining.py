"""`finllm nodes add` and `remove`, and the doctor's typed question, against servers on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from finllm.scheduler.backends.joined import Joined, join, joined
from finllm.settings import Settings
from tests.cli.conftest import Cli
from tests.scheduler.chat_server import MODEL, ChatServer, serving

ADD = ("nodes", "add")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(ChatServer(say={"oil": {"up": 0.8, "down": 0.15, "flat": 0.05}})) as made:
        yield made


def test_a_server_is_added_listed_asked_by_the_doctor_and_removed(cli: Cli, home: Path, server: ChatServer) -> None:
    added = cli(*ADD, server.url, "--name", "mine", "--usd-per-mtok", "0.15,0.60")
    assert added.code == 0, added.err
    assert "mine: added, deep tier, BF16" in added.out
    assert "oil up, 80%" in added.out
    row = next(one for one in cli("nodes", "--json").json["backends"] if one["name"] == "mine")
    assert (row["kind"], row["runs"], row["where"], row["probabilities"]) == ("openai", "remote", server.url, "its own")
    check = next(c for c in cli("doctor", "--json").json["checks"] if c["name"] == f"openai at {server.url}")
    assert check["status"] == "ok"
    assert "probabilities are its own log-probabilities; a typed question answered in" in check["detail"]
    assert cli("nodes", "remove", "mine").code == 0
    assert "mine" not in cli("nodes").out
    assert json.loads((home / "nodes.json").read_text()) == {"nodes": []}


def test_adding_again_changes_nothing_and_adding_otherwise_changes_it(cli: Cli, home: Path, server: ChatServer) -> None:
    assert cli(*ADD, server.url, "--name", "mine", "--json").json["changed"] is True
    before = (home / "nodes.json").read_bytes()
    assert cli(*ADD, f"{server.url}/v1/", "--name", "mine", "--json").json["changed"] is False
    assert (home / "nodes.json").read_bytes() == before
    assert cli(*ADD, server.url, "--name", "mine", "--tier", "edge", "--json").json["changed"] is True
    assert len(joined(Settings(home=home))) == 1
    twice = cli(*ADD, server.url, "--name", "other")
    assert twice.code == 2
    assert "finllm nodes remove mine" in twice.err


def test_a_server_without_log_probabilities_is_added_and_what_that_means_is_said(cli: Cli, server: ChatServer) -> None:
    server.logprobs = False
    said = cli(*ADD, server.url, "--votes", "5")
    assert "its probabilities are shares of 5 sampled answers" in said.out
    rows = cli("nodes", "--json").json["backends"]
    assert rows[-1]["probabilities"] == "shares of 5 answers"
    assert rows[-1]["name"].startswith("deep:as-served@127.0.0.1")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--model", "other"), f"it serves '{MODEL}' fix: name one of them with --model"),
        (("--kind", "telepathy"), "use one of vllm, openai"),
        (("--usd-per-mtok", "cheap"), "such as 0.15,0.60"),
        (("--precision", "Q3"), "not one of pruned, Q4_0"),
        (("--api-key-env", "NOT_SET_KEY"), "set NOT_SET_KEY to it"),
        (("--votes", "1"), "votes"),
        (("--name", "a b"), "name"),
    ],
)
def test_what_cannot_be_added_is_named_with_its_mend(
    options: tuple[str, str], told: str, cli: Cli, home: Path, server: ChatServer
) -> None:
    said = cli(*ADD, server.url, *options)
    assert said.code in (1, 2)
    assert told in " ".join(said.err.split())
    assert not (home / "nodes.json").exists()


def test_a_url_with_a_password_is_refused_and_a_server_that_is_away_needs_no_check(cli: Cli, home: Path) -> None:
    assert "--api-key-env" in cli(*ADD, "http://me:geheim@localhost:1").err
    away = cli(*ADD, "http://127.0.0.1:9")
    assert away.code == 1
    assert "no OpenAI-compatible server answers at http://127.0.0.1:9" in " ".join(away.err.split())
    assert cli(*ADD, "http://127.0.0.1:9", "--no-check").code == 0
    assert joined(Settings(home=home))[0].scores is None
    checks = {check["name"]: check for check in cli("doctor", "--json").json["checks"]}
    assert checks["openai at http://127.0.0.1:9"]["status"] == "missing"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"choices": [{"message": {"content": "{\\"oil\\": \\"up\\"}"}, "logprobs": '
         b'{"content": [{"token": "x", "logprob": NaN}]}}], "usage": {"prompt_tokens": 1}}', "NaN"),
        (b'{"choices": [{"message": {"content": "Oil went up, I think."}}], "usage": {"prompt_tokens": 1}}',
         "outside the schema"),
        (b"<html>proxy</html>", "did not answer as OpenAI-compatible servers do"),
        (b"", "did not answer as OpenAI-compatible servers do"),
    ],
)  # fmt: skip
def test_a_server_that_answers_nonsense_is_not_well(
    body: bytes, told: str, cli: Cli, home: Path, server: ChatServer
) -> None:
    join(Settings(home=home), Joined(name="mine", kind="openai", url=server.url))
    server.raw = body
    said = cli("doctor", "--json")
    check = next(check for check in said.json["checks"] if check["name"] == f"openai at {server.url}")
    assert said.code == 1
    assert check["status"] in ("failed", "missing")
    assert told in check["detail"]
    assert check["fix"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"nodes": [{}]}', '{"nodes": [{"name": "a", "kind": "none", "url": "http://x"}]}']
)
def test_a_file_that_is_wrong_is_named(text: str, cli: Cli, home: Path) -> None:
    home.mkdir()
    (home / "nodes.json").write_text(text)
    said = cli("nodes")
    assert said.code == 2
    assert "nodes.json" in said.err or "no kind of server is called 'none'" in said.err


def test_a_vllm_server_is_added_as_such_beside_those_of_the_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINLLM_VLLM_URLS", "http://127.0.0.1:8")
    assert cli(*ADD, "http://127.0.0.1:9", "--kind", "vllm", "--name", "gpu", "--no-check").code == 0
    rows = [one for one in cli("nodes", "--json").json["backends"] if one["kind"] == "vllm"]
    assert [(row["name"], row["where"]) for row in rows] == [
        ("deep:as served@127.0.0.1:8", "http://127.0.0.1:8"), ("gpu", "http://127.0.0.1:9"),
    ]  # fmt: skip


def test_removing_what_was_not_added_says_what_was(cli: Cli) -> None:
    said = cli("nodes", "remove", "mine")
    assert said.code == 2
    assert "known: none" in " ".join(said.err.split())


def test_a_key_comes_from_its_variable_and_is_written_nowhere(
    cli: Cli, home: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "geheim"
    monkeypatch.setenv("MY_KEY", "geheim")
    said = cli(*ADD, server.url, "--api-key-env", "MY_KEY")
    assert said.code == 0
    monkeypatch.setenv("MY_KEY", "verraten")
    doctor = cli("doctor", "--json")
    assert "give it the key in MY_KEY" in doctor.out
    written = "".join(path.read_text(errors="replace") for path in home.rglob("*") if path.is_file())
    for secret in ("geheim", "verraten"):
        assert secret not in said.out + said.err + doctor.out + doctor.err + written
