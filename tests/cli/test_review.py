"""`finllm users` and `finllm review` as people meet them: phrases from stdin, who by login, bundles that verify."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finllm.cli import identity
from finllm.guardrails.audit.recorder import open_recorder
from finllm.memory.review_rows import REVIEW
from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import Entry
from finllm.settings import Settings
from tests.cli.conftest import Cli, Shown
from tests.memory.desks import PHRASE, home_at

NEW = f"{PHRASE}\n{PHRASE}\n"
Typing = Callable[..., Shown]


@pytest.fixture
def typing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Typing:
    """Run a command with what stdin holds, at the login of somebody."""

    def run(*arguments: str, stdin: str = "", login: str = "nobody-here") -> Shown:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setattr(identity, "login", lambda: login)
        return cli(*arguments)

    return run


@pytest.fixture
def item(home: Path) -> str:
    """A version that waits for review, of a home with users."""
    with home_at(home) as one:
        return one.put("run-1", breaches=["energy"])


def test_users_are_added_with_two_lines_and_never_with_an_argument(typing: Typing, home: Path) -> None:
    assert typing("users", "list").out == "None.\n"
    assert typing("users", "add", "boss", "--role", "admin", stdin=NEW).code == 0
    differ = typing("users", "add", "rev1", "--role", "reviewer", stdin="one two three four\nfour three two one\n",
                    login="boss")  # fmt: skip
    assert (differ.code, "differ" in differ.err) == (2, True)
    assert typing("users", "add", "rev1", "--role", "reviewer", stdin=NEW, login="boss").code == 0
    refused = typing("users", "add", "rev2", "--role", "admin", stdin=NEW, login="rev1")
    assert (refused.code, "ask an admin: boss" in refused.err) == (1, True)
    assert typing("users", "add", "rev2", "--role", "king", stdin=NEW, login="boss").code == 2
    assert typing("users", "role", "rev1", "auditor", login="boss").code == 0
    assert typing("users", "disable", "rev1", login="boss").code == 0
    assert "rev1 auditor login rev1 disabled" in typing("users", "list").out
    assert typing("users", "phrase", "boss", stdin=f"{PHRASE}\n{NEW}", login="boss").code == 0
    listed = typing("users", "list", "--json").json["users"]
    assert {one["name"]: one["role"] for one in listed} == {"boss": "admin", "rev1": "auditor"}


def test_no_command_takes_a_pass_phrase_as_an_argument(cli: Cli) -> None:
    for command in (("users", "add"), ("users", "phrase"), ("review", "sign")):
        told = cli(*command, "--help").out
        assert "--phrase" not in told
        assert "--pass" not in told


def test_a_day_of_reviewing(typing: Typing, item: str) -> None:
    assert "waiting" in typing("review", "list", login="rev1").out
    assert typing("review", "claim", item, login="rev1").out.startswith(f"{item}: claimed until")
    shown = typing("review", "show", item, login="rev1").out
    assert "needs 2: limit breached: energy" in shown
    assert "looked: rev1" in shown
    assert typing("review", "sign", item, "--because", "x", stdin="the wrong words\n", login="rev1").code == 1
    signed = typing("review", "sign", item, "--because", "each row opens", stdin=f"{PHRASE}\n", login="rev1")
    assert "signed, 1 of 2 signatures" in signed.out
    other = typing("review", "sign", item, "--because", "so do I", "--as", "rev2", stdin=f"{PHRASE}\n", login="rev1")
    assert "approved, 2 of 2 signatures" in other.out
    assert typing("review", "list", login="rev1").out == "None.\n"
    assert "approved" in typing("review", "list", "--all", login="rev1").out


def test_the_maker_and_a_login_without_a_user_are_refused(typing: Typing, item: str) -> None:
    refused = typing("review", "sign", item, "--because", "x", "--json", stdin=f"{PHRASE}\n", login="risk1").json
    assert refused["error"]["rule"] == "four-eyes"
    assert typing("review", "list", login="ghost").code == 1
    assert typing("review", "list", "--as", "rev1", stdin="guess guess guess\n", login="ghost").code == 1
    empty = typing("review", "send-back", item, "--about", "limit", "--because", " ", login="rev1")
    assert (empty.code, "takes a reason" in empty.err) == (1, True)


def test_identity_is_not_taken_from_the_environment(item: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "rev1")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert cli("review", "claim", item).code == 1


def test_an_exported_item_verifies_offline(typing: Typing, item: str, tmp_path: Path) -> None:
    typing("review", "sign", item, "--because", "fine", stdin=f"{PHRASE}\n", login="rev1")
    out = tmp_path / "bundle"
    assert typing("review", "export", item, "--out", str(out), login="rev1").code == 0
    for part in ("run", "review"):
        command = [sys.executable, "-I", str(out / part / "verify.py")]
        assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    assert any(b"signs report" in path.read_bytes() for path in (out / "review" / "blobs").iterdir())


def test_audit_verify_names_a_signature_that_no_rule_let_through(typing: Typing, item: str, home: Path) -> None:
    before: Any = typing("audit", "verify", "--json").json
    assert (before["status"], [one["file"] for one in before["held"]][1]) == ("unproven", "reviews")
    ledger = open_recorder(Settings(home=home))
    said = {"what": "signed", "by": "risk1", "role": "risk", "at": "2030-01-01T00:00:00.000+00:00", "reason": "mine"}
    place = {"number": 1, "row": 0}
    ledger.record(Entry(key_of("review", place), REVIEW, "risk1", place, said), run_id=item, node="review")
    ledger.close()
    after: Any = typing("audit", "verify", "--json").json
    assert after["status"] == "damaged"
    assert any("signed by risk1" in problem for one in after["held"] for problem in one["problems"])
