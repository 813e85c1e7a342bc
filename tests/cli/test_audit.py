"""`finllm audit` as a person and as a script meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

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
    assert shown.code == 4
    assert "completeness unproven" in shown.out
    shown = cli("audit", "verify", "--json")
    assert (shown.code, shown.json["status"], shown.json["ok"], shown.json["witnessed"]) == (4, "unproven", True, None)


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
    witness = (tmp_path / "witness" / "witness.vkey").read_text().strip()
    done = verify_bundle(out, "--json", "--vkey", vkey, "--witness-vkey", witness)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout) | {"notes": []}
    assert found == {"ok": True, "run": "run-1", "records": 8, "size": 17, "notes": [],
        "blobs": shown.json["blobs"], "texts": shown.json["texts"], "files": shown.json["files"], "cited": 0,
        "sums": 0, "witnessed": 17, "witness_known": True,
        "origin": vkey.split("+")[0]}  # fmt: skip
    assert json.loads(done.stdout)["notes"] == []
    assert verify_bundle(out, "--vkey", vkey[:-4] + "AAAA").returncode == 1


def test_a_witness_made_with_the_logs_key_is_found_by_the_key_that_is_known(
    cli: Cli, logged: Path, tmp_path: Path
) -> None:
    """Whoever holds the log's key rewrites the log and lets a witness of their own see it."""
    cli("audit", "witness", tmp_path / "witness")
    known = (tmp_path / "witness" / "witness.vkey").read_text().strip()
    cli("audit", "witness", tmp_path / "forged")
    assert cli("audit", "export", "run-1", "-o", tmp_path / "b", "-w", tmp_path / "forged").code == 0
    unknown = verify_bundle(tmp_path / "b")
    assert unknown.returncode == 0
    assert "NOTE: UNKNOWN WITNESS" in unknown.stdout
    refused = verify_bundle(tmp_path / "b", "--witness-vkey", known)
    assert (refused.returncode, "is not the one given" in refused.stderr) == (1, True)
    (tmp_path / "b" / "witnessed").unlink()
    assert verify_bundle(tmp_path / "b", "--witness-vkey", known).returncode == 1


def _without_records(bundle: Path, proofs: dict[str, Any]) -> None:
    (bundle / "records.jsonl").write_bytes(b"")
    proofs["inclusion"] = []


def _a_record_twice(bundle: Path, proofs: dict[str, Any]) -> None:
    lines = (bundle / "records.jsonl").read_bytes().splitlines(keepends=True)
    (bundle / "records.jsonl").write_bytes(b"".join([lines[0], *lines]))
    proofs["inclusion"].insert(0, proofs["inclusion"][0])


def _backwards(bundle: Path, proofs: dict[str, Any]) -> None:
    lines = (bundle / "records.jsonl").read_bytes().splitlines(keepends=True)
    (bundle / "records.jsonl").write_bytes(b"".join(reversed(lines)))
    proofs["inclusion"].reverse()


def _a_proof_less(bundle: Path, proofs: dict[str, Any]) -> None:
    proofs["inclusion"].pop()


def _a_proof_cut_short(bundle: Path, proofs: dict[str, Any]) -> None:
    proofs["inclusion"][0]["proof"].pop()


def _nested(bundle: Path, proofs: dict[str, Any]) -> None:
    proofs["inclusion"][0]["proof"] = "NEST"


def _a_stray_blob(bundle: Path, proofs: dict[str, Any]) -> None:
    (bundle / "blobs" / ("a" * 64)).write_bytes(b"not named")


@pytest.mark.parametrize(
    "change",
    [_without_records, _a_record_twice, _backwards, _a_proof_less, _a_proof_cut_short, _nested, _a_stray_blob],
    ids=lambda change: change.__name__.strip("_"),
)
def test_a_bundle_that_shows_nothing_or_another_order_is_refused(
    change: Callable[[Path, dict[str, Any]], None], cli: Cli, logged: Path, tmp_path: Path
) -> None:
    assert cli("audit", "export", "run-1", "-o", tmp_path / "b").code == 0
    proofs = json.loads((tmp_path / "b" / "proofs.json").read_text())
    change(tmp_path / "b", proofs)
    text = json.dumps(proofs).replace('"NEST"', "[" * 100_000 + "]" * 100_000)
    (tmp_path / "b" / "proofs.json").write_text(text)
    done = verify_bundle(tmp_path / "b")
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("NOT OK")
    assert "Traceback" not in done.stderr


def test_the_script_that_checks_a_bundle_can_be_checked_itself(cli: Cli, logged: Path, tmp_path: Path) -> None:
    assert cli("audit", "export", "run-1", "-o", tmp_path / "b").code == 0
    digest = sha256((tmp_path / "b" / "verify.py").read_bytes()).hexdigest()
    assert cli("audit", "verifier", "--json").json["sha256"] == digest
    assert cli("audit", "verifier", "-o", tmp_path / "mine.py").out == f"{digest}  verify.py\n"
    assert (tmp_path / "mine.py").read_bytes() == (tmp_path / "b" / "verify.py").read_bytes()
    assert digest in (tmp_path / "b" / "README.txt").read_text()


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
