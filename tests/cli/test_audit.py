"""`finllm audit` as a person and as a script meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finllm.guardrails.audit import open_recorder
from finllm.settings import Settings
from tests.cli.conftest import Cli
from tests.guardrails.audit.test_recorder import call, placement


@pytest.fixture
def logged(home: Path) -> Path:
    """A home whose audit log holds two runs."""
    ledger = open_recorder(Settings(home=home))
    for run in ("run-1", "run-2"):
        ledger.start_run(run, {"scenario": {"title": run}})
        for n in range(3):
            ledger.record(placement(n), run_id=run, node="narrative")
            ledger.record(call(n), run_id=run, node="narrative")
        ledger.end_run(run, "finished", {"total": -0.5})
    ledger.close()
    return home


def verify_bundle(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(folder / "verify.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_without_a_witness_completeness_is_unproven_and_the_exit_code_says_so(cli: Cli, logged: Path) -> None:
    shown = cli("audit", "verify")
    assert shown.code == 1
    assert "completeness unproven" in shown.out
    shown = cli("audit", "verify", "--json")
    assert (shown.code, shown.json["ok"], shown.json["complete"], shown.json["witnessed"]) == (1, True, False, None)


def test_with_a_witness_a_whole_log_is_ok_and_a_changed_one_named(cli: Cli, logged: Path, tmp_path: Path) -> None:
    saw = cli("audit", "witness", tmp_path / "witness", "--json").json
    assert saw["size"] == 17
    shown = cli("audit", "verify", "--witness", tmp_path / "witness", "--json")
    assert (shown.code, shown.json["complete"], shown.json["damage"]) == (0, True, [])
    assert "ok: 17 records" in cli("audit", "verify", "-w", tmp_path / "witness").out
    path = logged / "audit" / "segments" / "00000000.log"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[5] = lines[5].replace(b'"node":"narrative"', b'"node":"validator"')
    path.write_bytes(b"".join(lines))
    shown = cli("audit", "verify", "-w", tmp_path / "witness", "--json")
    assert shown.code == 1
    assert shown.json["damage"][0] == {"index": 5, "kind": "edited", "what": shown.json["damage"][0]["what"]}
    assert "DAMAGED at record 5: edited" in cli("audit", "verify", "-w", tmp_path / "witness").out


def test_a_bundle_is_verified_offline_by_its_own_script(cli: Cli, logged: Path, tmp_path: Path) -> None:
    cli("audit", "witness", tmp_path / "witness")
    out = tmp_path / "bundle"
    shown = cli("audit", "export", "run-1", "--out", out, "--witness", tmp_path / "witness", "--json")
    assert (shown.code, shown.json["records"], shown.json["witnessed"]) == (0, 8, True)
    vkey = (logged / "audit" / "log.json").read_text().split('"vkey":"')[1].split('"')[0]
    done = verify_bundle(out, "--json", "--vkey", vkey)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout) | {"notes": []}
    assert found == {"ok": True, "run": "run-1", "records": 8, "size": 17, "notes": [],
        "blobs": shown.json["blobs"], "witnessed": 17, "origin": vkey.split("+")[0]}  # fmt: skip
    assert verify_bundle(out, "--vkey", vkey[:-4] + "AAAA").returncode == 1


@pytest.mark.parametrize("name", ["records.jsonl", "checkpoint", "blobs", "proofs.json", "witnessed", "witness.vkey"])
def test_a_bundle_that_was_changed_does_not_verify(name: str, cli: Cli, logged: Path, tmp_path: Path) -> None:
    cli("audit", "witness", tmp_path / "witness")
    assert cli("audit", "export", "run-2", "-o", tmp_path / "b", "-w", tmp_path / "witness").code == 0
    path = tmp_path / "b" / name
    if name == "blobs":
        path = next(path.iterdir())
    data = bytearray(path.read_bytes())
    at = data.index(b'"index": ') + 9 if name == "proofs.json" else len(data) // 2
    data[at] ^= 1
    path.write_bytes(bytes(data))
    done = verify_bundle(tmp_path / "b")
    assert done.returncode in (1, 2)
    assert "NOT OK" in done.stderr


def test_a_record_is_proved_in_the_format_that_others_read(cli: Cli, logged: Path) -> None:
    shown = cli("audit", "prove", "4")
    assert shown.out.startswith("c2sp.org/tlog-proof@v1\nindex 4\n")
    proved = cli("audit", "prove", "4", "--json").json
    assert proved["record"]["seq"] == 4
    assert len(proved["proof"]) == 5


@pytest.mark.parametrize(
    "arguments",
    [("verify",), ("prove", "0"), ("export", "run-1", "--out", "b"), ("witness", "w"), ("verify", "--key", "rubbish"),
     ("verify", "--witness", "nowhere")],
)  # fmt: skip
def test_without_a_log_each_command_says_what_to_do_and_writes_nothing(
    arguments: tuple[str, ...], cli: Cli, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = cli("audit", *arguments, "--json")
    assert (shown.code, shown.json["error"]["kind"]) == (2, "bad_input")
    assert not home.exists()
    assert not list(tmp_path.iterdir())


def test_bad_input_is_named_and_nothing_written(cli: Cli, logged: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("mine")
    for arguments in (
        ("prove", "17"), ("prove", "-1"), ("prove", "x"), ("export", "run-9", "--out", tmp_path / "b"),
        ("export", "run-1", "--out", tmp_path / "full"), ("export", "run-1"), ("witness", tmp_path / "full"),
        ("witness", tmp_path / "full" / "letter"), ("witness", logged / "audit" / "w"),
        ("verify", "--witness", tmp_path / "full"), ("export", "run-1", "-o", tmp_path / "b", "-w", tmp_path / "full"),
    ):  # fmt: skip
        shown = cli("audit", *arguments)
        assert (shown.code, shown.out) == (2, ""), arguments
        assert "fix: " in shown.err
    assert not (tmp_path / "b").exists()


def test_a_witness_refuses_a_log_that_contradicts_it(cli: Cli, logged: Path, tmp_path: Path) -> None:
    cli("audit", "witness", tmp_path / "witness")
    for path in (logged / "audit").rglob("*"):
        if path.is_file():
            path.unlink()
    open_recorder(Settings(home=logged)).close()
    shown = cli("audit", "witness", tmp_path / "witness", "--json")
    assert (shown.code, shown.json["error"]["kind"]) == (1, "witness_refused")


def test_settings_never_show_the_signing_key(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINLLM_AUDIT_KEY", "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I=")
    for arguments in (("config", "show"), ("config", "show", "--json")):
        shown = cli(*arguments)
        assert shown.code == 0
        assert "c2VjcmV0" not in shown.out + shown.err
