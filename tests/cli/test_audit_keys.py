"""A change of the log's key as a person, a script, a witness and an examiner with a bundle meet it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finllm.guardrails.audit.keys import SigningKey, read_keys
from finllm.guardrails.audit.note import Note, VerifierKey
from tests.cli.conftest import Cli
from tests.cli.test_audit import logged, verify_bundle

__all__ = ["logged"]


def finllm(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finllm.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ | env)


def vkey(home: Path) -> str:
    return str(json.loads((home / "audit" / "log.json").read_text())["vkey"])


@pytest.mark.slow
def test_a_key_is_changed_while_a_witness_and_an_examiner_know_only_the_old_one(logged: Path, tmp_path: Path) -> None:
    """Real processes all the way: rotate, verify, witness, export, retire, and the old key refused."""
    old, witness = vkey(logged), tmp_path / "witness"
    (kept := tmp_path / "old.key").write_bytes((logged / "audit.key").read_bytes())
    kept.chmod(0o600)
    assert finllm("audit", "witness", witness).returncode == 0
    told = finllm("audit", "rotate")
    assert (told.returncode, told.stderr) == (0, "")
    assert f"signs too, until 'finllm audit retire': {old}" in told.stdout
    for name, end in (("overlap", False), ("after", True)):
        if end:
            assert finllm("audit", "retire").returncode == 0
        checked = finllm("audit", "verify", "--witness", witness, "--key", old)
        assert (checked.returncode, checked.stdout[:3]) == (0, "ok:")
        assert "learn the key that signs now" in " ".join(checked.stdout.split())
        assert finllm("audit", "witness", witness).returncode == 0
        assert finllm("audit", "export", "run-1", "-o", tmp_path / name, "-w", witness).returncode == 0
        known = (witness / "witness.vkey").read_text()
        done = verify_bundle(tmp_path / name, "--vkey", old, "--witness-vkey", known)
        assert (done.returncode, "learn the one that signs now" in done.stdout) == (0, True), done.stderr
        new = (tmp_path / name / "log.vkey").read_text()
        done = verify_bundle(tmp_path / name, "--vkey", new, "--witness-vkey", known)
        assert (done.returncode, "NOTE" in done.stdout) == (0, False)
    refused = finllm("audit", "rotate", "--json", FINLLM_AUDIT_KEY_FILE=str(kept))
    assert refused.returncode == 1
    assert "with another signing key" in json.loads(refused.stdout)["error"]["message"]


def test_a_proof_carries_both_signatures_during_the_overlap(cli: Cli, logged: Path) -> None:
    old = VerifierKey.parse(vkey(logged))
    changed = cli("audit", "rotate", "--json").json
    proved = cli("audit", "prove", "4", "--json").json
    assert (proved["key"], proved["key_changes"]) == (changed["signs"], [changed["record"]])
    for key in (old, VerifierKey.parse(changed["signs"])):
        assert Note.parse(proved["checkpoint"]).signed_by(key) == 0
    assert cli("audit", "prove", str(changed["record"]), "--json").json["record"]["body"]["before"] == str(old)
    cli("audit", "retire")
    note = Note.parse(cli("audit", "prove", "4", "--json").json["checkpoint"])
    assert [note.signed_by(old), len(note.signatures)] == [None, 1]


def test_bad_input_is_named(cli: Cli, logged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rubbish").write_text("rubbish")
    (tmp_path / "rubbish").chmod(0o600)
    key = read_keys(logged / "audit.key")[0].encoded().decode()
    for arguments, env in (
        (("retire",), {}), (("rotate",), {"FINLLM_AUDIT_KEY": key}),
        (("rotate", "--to", tmp_path / "missing" / "key"), {}),
        (("rotate", "--to", tmp_path / "rubbish"), {}), (("rotate", "--to", logged / "audit.key"), {}),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            shown = cli("audit", *arguments)
        assert (shown.code, shown.out, "fix: " in shown.err) == (2, "", True), arguments
        assert key not in shown.err
    assert '"schema":1' in (logged / "audit" / "log.json").read_text()


def _no_change(bundle: Path, proofs: dict[str, Any]) -> None:
    proofs["keys"] = []


def _another_statement(bundle: Path, proofs: dict[str, Any]) -> None:
    _edited(bundle, lambda body: body | {"statement": body["statement"].replace("signs-too", "signs", 1)})


def _signed_by_somebody(bundle: Path, proofs: dict[str, Any]) -> None:
    """The change as an attacker would have it: from the known key to their own, which they sign alone."""
    mine, name = SigningKey(b"x" * 32), (bundle / "log.vkey").read_text().split("+")[0]

    def forged(body: dict[str, Any]) -> dict[str, Any]:
        text = body["statement"].rpartition("\n\n")[0].splitlines(keepends=True)[:3]
        note = Note("".join([*text, f"signs {VerifierKey.of(mine, name)}\n"]), ()).signed(mine, name)
        return body | {"statement": str(note)}

    _edited(bundle, forged)
    (bundle / "log.vkey").write_text(f"{VerifierKey.of(mine, name)}\n")
    note = Note.parse((bundle / "checkpoint").read_text())
    (bundle / "checkpoint").write_text(str(Note(note.text, ()).signed(mine, name)))


def _the_old_key_alone(bundle: Path, proofs: dict[str, Any]) -> None:
    """As if the key had never been changed: the old one's signature is under the checkpoint of the overlap."""
    proofs["keys"] = []
    (bundle / "log.vkey").write_text(json.loads((bundle / "keys.jsonl").read_text().splitlines()[0])["body"]["before"])


def _edited(bundle: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    line, *rest = (bundle / "keys.jsonl").read_text().splitlines()
    record = json.loads(line)
    record["body"] = change(record["body"])
    (bundle / "keys.jsonl").write_text("".join(f"{one}\n" for one in (json.dumps(record), *rest)))


@pytest.mark.parametrize(
    "change",
    [_no_change, _another_statement, _signed_by_somebody, _the_old_key_alone],
    ids=lambda change: change.__name__.strip("_"),
)
def test_a_bundle_whose_change_of_key_does_not_hold_is_refused(
    change: Callable[[Path, dict[str, Any]], None], cli: Cli, logged: Path, tmp_path: Path
) -> None:
    old = vkey(logged)
    cli("audit", "rotate")
    cli("audit", "retire")
    assert cli("audit", "export", "run-1", "-o", tmp_path / "b").code == 0
    assert verify_bundle(tmp_path / "b", "--vkey", old).returncode == 0
    proofs = json.loads((tmp_path / "b" / "proofs.json").read_text())
    change(tmp_path / "b", proofs)
    (tmp_path / "b" / "proofs.json").write_text(json.dumps(proofs))
    done = verify_bundle(tmp_path / "b", "--vkey", old)
    assert (done.returncode, done.stderr.startswith("NOT OK")) == (1, True), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
