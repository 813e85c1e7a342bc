"""`finllm audit rotate` and `retire`: files of keys, deaths half way, and what somebody with the old key still sees."""

from __future__ import annotations

import contextlib
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from finllm.cli.doctor_checks import all_checks
from finllm.errors import FinllmError, InputError, RecordError
from finllm.guardrails.audit import LogReader, open_recorder, read_witnessed, verify_log, witness_log
from finllm.guardrails.audit.keys import SigningKey, keyring, read_keys, write_keys
from finllm.guardrails.audit.rotating import Fit, fit, retire, rotate
from finllm.settings import Settings


def session(settings: Settings, run: str = "run-1") -> None:
    with contextlib.closing(open_recorder(settings)) as ledger:
        ledger.start_run(run, {"scenario": {"title": run}})
        ledger.end_run(run, "stopped", None)


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path / "home")
    session(made)
    return made


def vkey(home: Settings) -> str:
    return str(LogReader(home.audit_dir).vkey)


def test_a_key_made_in_the_home_is_replaced_there_and_both_sign_until_retire(home: Settings) -> None:
    before = vkey(home)
    changed = rotate(home)
    file = home.default_audit_key_file
    assert (changed.file, changed.elsewhere, str(changed.signers.too)) == (file, False, before)
    assert (stat.S_IMODE(file.stat().st_mode), len(read_keys(file))) == (0o600, 2)
    session(home, "run-2")
    assert [len(LogReader(home.audit_dir).note.signatures), vkey(home) != before] == [2, True]
    with pytest.raises(InputError, match="signs too") as caught:
        rotate(home)
    assert "audit retire" in caught.value.fix
    changed = retire(home)
    assert (changed.signers.too, len(read_keys(file))) == (None, 1)
    session(home, "run-3")
    assert len(LogReader(home.audit_dir).note.signatures) == 1
    assert verify_log(home.audit_dir).damage == ()
    with pytest.raises(InputError, match="no key but the log's own signs"):
        retire(home)


def test_a_stolen_key_is_out_at_once(home: Settings) -> None:
    stolen = read_keys(home.default_audit_key_file)[0]
    changed = rotate(home, overlap=False)
    assert (changed.signers.too, len(read_keys(home.default_audit_key_file))) == (None, 1)
    assert stolen.public in {key.public for key in changed.signers.retired}
    write_keys(home.default_audit_key_file, [stolen])
    with pytest.raises(RecordError, match="another signing key"):
        session(home, "run-2")


def test_a_key_of_the_environment_goes_to_a_file_or_is_given_there(tmp_path: Path, home: Settings) -> None:
    old = home.default_audit_key_file.read_text().strip()
    by_value = home.model_validate({"home": home.home, "audit_key": old})
    with pytest.raises(InputError, match="FINLLM_AUDIT_KEY") as caught:
        rotate(by_value)
    assert "--to FILE" in caught.value.fix
    (tmp_path / "elsewhere").mkdir()
    changed = rotate(by_value, tmp_path / "elsewhere" / "key")
    assert changed.elsewhere
    with pytest.raises(RecordError, match="another signing key") as refused:
        session(by_value, "run-2")
    assert "FINLLM_AUDIT_KEY_FILE" in refused.value.fix
    by_file = home.model_validate({"home": home.home, "audit_key_file": tmp_path / "elsewhere" / "key"})
    session(by_file, "run-2")
    retire(by_file)
    third = SigningKey.made()
    both = f"{third.encoded().decode()},{read_keys(tmp_path / 'elsewhere' / 'key')[0].encoded().decode()}"
    ready = home.model_validate({"home": home.home, "audit_key": both})
    session(ready, "run-3")
    assert rotate(ready).signers.signs.public == third.public
    session(ready, "run-4")
    assert verify_log(home.audit_dir).damage == ()


def test_a_key_that_signed_before_is_refused_and_nothing_is_written(tmp_path: Path, home: Settings) -> None:
    write_keys(tmp_path / "same", read_keys(home.default_audit_key_file))
    before = {path: path.read_bytes() for path in home.audit_dir.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="has signed this log before"):
        rotate(home, tmp_path / "same")
    (tmp_path / "rubbish").write_text("rubbish")
    (tmp_path / "rubbish").chmod(0o600)
    with pytest.raises(InputError, match="is no ed25519 key"):
        rotate(home, tmp_path / "rubbish")
    after = {path: path.read_bytes() for path in home.audit_dir.rglob("*") if path.is_file() and path in before}
    assert after == before


def test_without_a_log_there_is_no_key_to_change(tmp_path: Path) -> None:
    for change in (rotate, retire):
        with pytest.raises(InputError, match="there is no audit log"):
            change(Settings(home=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def told(home: Settings) -> Fit:
    return fit(home, LogReader(home.audit_dir))


def test_what_doctor_tells_of_how_the_keys_fit_the_log(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home.default_audit_key_file
    old = read_keys(file)[0]
    assert told(home) == Fit("the log's own")
    rotate(home)
    new = read_keys(file)[0]
    assert (told(home).fix, "until 'finllm audit retire'" in told(home).detail) == (None, True)
    write_keys(file, [new])
    assert "put it back" in (told(home).fix or "")
    write_keys(file, [new, old])
    retire(home)
    write_keys(file, [new, old])
    assert told(home).detail == "a retired key is still kept here"
    assert retire(home).record is None
    assert told(home) == Fit("the log's own")
    write_keys(file, [old])
    assert not told(home).signs
    monkeypatch.setenv("FINLLM_HOME", str(home.home))
    assert next(one for one in all_checks() if one.name == "signing key").status == "failed"


DIES = """
import os, shutil, signal, sys
from pathlib import Path
from finllm.guardrails.audit import rotating
from finllm.settings import Settings

what, made, work = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
for n in range(1, 100):
    home = work / str(n)
    shutil.copytree(made, home)
    child = os.fork()
    if not child:
        left = [n]
        def dying(call):
            def called(*arguments, **named):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **named)
            return called
        for name in ("fsync", "fdatasync", "replace", "write", "open", "rename", "chmod"):
            setattr(os, name, dying(getattr(os, name)))
        getattr(rotating, what)(Settings(home=home))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(n)
        break
"""


@pytest.mark.parametrize("what", ["rotate", "retire"])
def test_a_change_of_key_that_dies_anywhere_leaves_a_log_that_goes_on(
    what: str, home: Settings, tmp_path: Path
) -> None:
    """Killed before each call that writes, one after another: the key is the one of before or the one of after."""
    witness_log(LogReader(home.audit_dir), tmp_path / "witness")
    known = LogReader(home.audit_dir).vkey
    if what == "retire":
        rotate(home)
    done = subprocess.run([sys.executable, "-c", DIES, what, home.home, tmp_path / "dies"], capture_output=True,
                          text=True, timeout=120, check=True)  # fmt: skip
    assert int(done.stdout) > 10, "it died at each of its writes"
    changed = 0
    for n in range(1, int(done.stdout)):
        left = Settings(home=tmp_path / "dies" / str(n))
        session(left, "run-2")
        verdict = verify_log(left.audit_dir, read_witnessed(tmp_path / "witness"), known)
        assert verdict.status == "intact", (n, verdict.damage)
        changed += bool(LogReader(left.audit_dir).keys.places)
        with contextlib.suppress(InputError):  # it had come to its end already
            (rotate if what == "rotate" else retire)(left)
        session(left, "run-3")
        assert len(LogReader(left.audit_dir).keys.places) == (1 if what == "rotate" else 2)
        assert verify_log(left.audit_dir, read_witnessed(tmp_path / "witness"), known).status == "intact"
        assert len(keyring(left).keys) == (2 if what == "rotate" else 1)
    assert changed


def test_a_disk_that_takes_no_key_file_changes_nothing(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("finllm.guardrails.audit.rotating.write_keys", full)
    with pytest.raises(FinllmError, match="cannot write the signing keys"):
        rotate(home)
    session(home, "run-2")
    assert LogReader(home.audit_dir).keys.places == ()


def test_the_record_of_a_change_says_who_made_it_and_holds_no_secret(home: Settings) -> None:
    rotate(home)
    reader = LogReader(home.audit_dir)
    record = json.loads(reader.record(reader.keys.places[0]))["body"]
    assert (record["action"], record["actor"]["kind"], record["signs"]) == ("key.changed", "person", vkey(home))
    secrets = [key.encoded() for key in read_keys(home.default_audit_key_file)]
    assert not [path for path in home.audit_dir.rglob("*") if path.is_file() and any(
        secret in path.read_bytes() for secret in secrets)]  # fmt: skip
