"""The writer: what it acknowledged is there, whatever stops it; what it cannot write, it refuses."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from finllm.errors import FinllmError, InputError, RecordError
from finllm.guardrails.audit import AuditLog, LogReader, read_witnessed, verify_log, witness_log
from finllm.guardrails.audit.keys import SigningKey, keyring
from finllm.guardrails.audit.log import Disk
from finllm.guardrails.audit.merkle import leaf_hash, root_of
from finllm.guardrails.audit.witness import WitnessRefused
from finllm.settings import Settings, load_settings
from tests.guardrails.audit.attacks import KEY, OTHER_KEY, build

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "audit-v1"
"""A log and its witness as schema 1 wrote them: nineteen records over three segments of eight."""


def bodies(folder: Path) -> list[bytes]:
    return [data for _, data in LogReader(folder).records()]


def test_a_new_log_is_under_a_signed_checkpoint_from_the_start(tmp_path: Path) -> None:
    AuditLog(tmp_path / "audit", KEY).close()
    reader = LogReader(tmp_path / "audit")
    assert (reader.size, reader.checkpoint.size, reader.checkpoint.root) == (0, 0, root_of([]))


def test_records_come_back_and_every_one_is_proved(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", KEY, segment_records=4)
    assert [log.append({"n": n}) for n in range(11)] == list(range(11))
    log.close()
    reader = LogReader(tmp_path / "audit")
    assert root_of([leaf_hash(data) for data in bodies(tmp_path / "audit")]) == reader.checkpoint.root
    for index in range(11):
        reader.inclusion(index)
        assert b'"n":%d}' % index in reader.record(index)


def test_many_threads_share_commits_and_each_gets_its_own_index(tmp_path: Path) -> None:
    class Counting(Disk):
        syncs = 0

        def sync(self, descriptor: int) -> None:
            Counting.syncs += 1
            super().sync(descriptor)

    log = AuditLog(tmp_path / "audit", KEY, segment_records=16, disk=Counting())
    indices: list[int] = []
    threads = [
        threading.Thread(target=lambda: indices.extend(log.append({"n": n}) for n in range(25))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert sorted(indices) == list(range(200))
    assert Counting.syncs < 200 + 13
    assert verify_log(tmp_path / "audit").damage == ()


def test_two_writers_of_one_log_take_turns(tmp_path: Path) -> None:
    one, two = (AuditLog(tmp_path / "audit", KEY, segment_records=4) for _ in range(2))
    for n in range(10):
        assert (one.append({"n": n}), two.append({"n": n})) == (2 * n, 2 * n + 1)
    two.close()
    one.close()
    assert verify_log(tmp_path / "audit").damage == ()
    assert LogReader(tmp_path / "audit").checkpoint.size == 20


def test_a_reader_sees_a_whole_log_while_it_grows(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", KEY, segment_records=4)
    for n in range(13):
        log.append({"n": n})
        assert LogReader(tmp_path / "audit").size == n + 1
        assert verify_log(tmp_path / "audit").damage == ()
    log.close()


class Failing(Disk):
    """A disk that fails from the nth call of one kind on."""

    def __init__(self, call: str, after: int, code: int, part: int = 0) -> None:
        self.call, self.left, self.code, self.part = call, after, code, part

    def write(self, descriptor: int, data: bytes) -> None:
        if self.call == "write" and self._over():
            os.write(descriptor, data[: self.part])
            raise OSError(self.code, os.strerror(self.code))
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        if self.call == "sync" and self._over():
            raise OSError(self.code, os.strerror(self.code))
        super().sync(descriptor)

    def _over(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(
    ("call", "code", "part"),
    [("write", errno.ENOSPC, 0), ("write", errno.ENOSPC, 70), ("write", errno.EIO, 3), ("sync", errno.EIO, 0),
     ("write", errno.EROFS, 0), ("write", errno.EFBIG, 90)],
)  # fmt: skip
def test_a_failing_disk_stops_every_further_record_and_loses_none(
    call: str, code: int, part: int, tmp_path: Path
) -> None:
    log = AuditLog(tmp_path / "audit", KEY, segment_records=4, disk=Failing(call, 6, code, part))
    acknowledged = 6
    for n in range(acknowledged):
        assert log.append({"n": n}) == n
    for _again in range(3):
        with pytest.raises(RecordError, match="nothing was decided without it"):
            log.append({"n": 6})
    log.close()
    again = AuditLog(tmp_path / "audit", KEY)
    assert acknowledged <= again.size <= acknowledged + 1
    again.append({"n": "after"})
    again.close()
    assert verify_log(tmp_path / "audit").damage == ()
    assert [b'"n":%d}' % n in data for n, data in enumerate(bodies(tmp_path / "audit")[:acknowledged])] == [True] * 6


def test_a_log_that_cannot_be_opened_for_writing_is_a_record_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecordError, match="cannot open the audit log"):
        AuditLog(tmp_path / "file" / "audit", KEY)


WRITER = """
import sys
from pathlib import Path
from finllm.guardrails.audit.keys import SigningKey
from finllm.guardrails.audit.log import AuditLog
log = AuditLog(Path(sys.argv[1]), SigningKey(b"k" * 32), segment_records=16)
while True:
    print(log.append({"text": "x" * 300}), flush=True)
"""


@pytest.mark.slow
def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    """The benchmark kills two hundred times, and with a ledger beside the log."""
    folder, acknowledged = tmp_path / "audit", -1
    for kill in range(6):
        command = [sys.executable, "-c", WRITER, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _line in range(1 + 7 * kill):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(one) for one in process.stdout.read().split("\n")[:-1])])
        verdict = verify_log(folder)
        assert verdict.damage == ()
        assert verdict.size > acknowledged
    AuditLog(folder, SigningKey(b"k" * 32)).close()
    assert LogReader(folder).checkpoint.size > acknowledged


@pytest.mark.parametrize("rubbish", [b"abc", b"0" * 64 + b" {}\n", b"\0" * 5000, b"x\n\0\0"])
def test_what_a_dying_writer_left_is_put_aside_and_named(rubbish: bytes, tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", KEY)
    log.append({"n": 0})
    log.close()
    path = tmp_path / "audit" / "segments" / "00000000.log"
    with path.open("ab") as file:
        file.write(rubbish)
    log = AuditLog(tmp_path / "audit", KEY)
    assert log.append({"n": 1}) == 1
    log.close()
    assert verify_log(tmp_path / "audit").damage == ()
    (aside,) = path.parent.glob("*.torn-*")
    assert aside.read_bytes() == rubbish


def test_the_writer_does_not_continue_a_log_that_was_tampered_with(tmp_path: Path) -> None:
    victim = build(tmp_path, 3, fewest=20)
    last = victim.layout.records(victim.layout.count() - 1)
    lines = last.read_bytes().splitlines(keepends=True)
    last.write_bytes(b"".join([lines[0], lines[0], *lines[2:]]) if len(lines) > 1 else b"")
    with pytest.raises(RecordError, match="is damaged"):
        AuditLog(victim.folder, KEY)


def test_a_log_goes_on_only_with_its_own_key(tmp_path: Path) -> None:
    AuditLog(tmp_path / "audit", KEY).close()
    with pytest.raises(RecordError, match="another signing key"):
        AuditLog(tmp_path / "audit", OTHER_KEY)


def test_lost_roots_of_full_segments_are_made_again(tmp_path: Path) -> None:
    victim = build(tmp_path, 5, fewest=20)
    for content in (b"", b"\0" * 64):
        victim.layout.sealed.write_bytes(content)
        AuditLog(victim.folder, KEY).close()
        assert verify_log(victim.folder, read_witnessed(victim.witness)).complete


def test_the_golden_log_of_schema_1_is_still_read_and_continued(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "golden")
    folder, witness = tmp_path / "golden" / "audit", read_witnessed(tmp_path / "golden" / "witness")
    verdict = verify_log(folder, witness)
    assert (verdict.complete, verdict.size, verdict.witnessed) == (True, 19, 19)
    assert verdict.notes == ()
    log = AuditLog(folder, KEY)
    assert log.append({"action": "from a newer finllm"}) == 19
    log.close()
    assert verify_log(folder, witness).complete


def test_a_log_of_a_later_schema_is_not_guessed_at(tmp_path: Path) -> None:
    victim = build(tmp_path, 1)
    meta = victim.layout.meta.read_text()
    victim.layout.meta.write_text(meta.replace('"schema":1', '"schema":3'))
    with pytest.raises(RecordError, match="its schema is 3, and this finllm reads up to 2"):
        LogReader(victim.folder)
    first = verify_log(victim.folder).first
    assert first is not None
    assert "schema is 3" in first.what


def test_the_key_comes_from_the_environment_a_file_or_is_made_once(tmp_path: Path) -> None:
    made = keyring(Settings(home=tmp_path)).newest
    assert keyring(Settings(home=tmp_path)).newest.public == made.public
    file = tmp_path / "audit.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    home = {"FINLLM_HOME": str(tmp_path / "other")}
    by_file = load_settings({**home, "FINLLM_AUDIT_KEY_FILE": str(file)}).settings
    by_value = load_settings({**home, "FINLLM_AUDIT_KEY": file.read_text()}).settings
    assert keyring(by_file).newest.public == keyring(by_value).newest.public == made.public
    assert file.read_text().strip() not in f"{by_value!r} {by_value.model_dump_json()}"
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("value", ["secret-but-wrong", "c2hvcnQ="])
def test_a_wrong_key_is_refused_without_being_shown(value: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(value)
    (tmp_path / "key").chmod(0o600)
    for env in ({"FINLLM_AUDIT_KEY": value}, {"FINLLM_AUDIT_KEY_FILE": str(tmp_path / "key")}):
        with pytest.raises(InputError) as caught:
            keyring(load_settings({"FINLLM_HOME": str(tmp_path), **env}).settings)
        assert value not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_witness_follows_a_growing_log_and_refuses_one_that_contradicts_it(tmp_path: Path) -> None:
    victim = build(tmp_path, 8, fewest=12)
    witness = victim.witness
    assert witness_log(LogReader(victim.folder), witness).checkpoint.size == victim.size
    kept = {path.name: path.read_bytes() for path in witness.iterdir()}
    other = build(tmp_path / "other", 9)
    with pytest.raises(WitnessRefused, match="it watches"):
        witness_log(LogReader(other.folder), witness)
    shutil.rmtree(victim.folder)
    shutil.copytree(GOLDEN / "audit", victim.folder)
    with pytest.raises(WitnessRefused):
        witness_log(LogReader(victim.folder), witness)
    assert {path.name: path.read_bytes() for path in witness.iterdir()} == kept, (
        "a refusal leaves the witness as it was"
    )


def test_a_witness_lies_neither_in_the_log_nor_in_a_folder_with_other_files(tmp_path: Path) -> None:
    victim = build(tmp_path, 8)
    reader = LogReader(victim.folder)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter.txt").write_text("mine")
    for place in (victim.folder / "witness", tmp_path / "used", tmp_path / "used" / "letter.txt"):
        with pytest.raises(FinllmError):
            witness_log(reader, place)
    assert (tmp_path / "used" / "letter.txt").read_text() == "mine"


def test_a_bare_checkpoint_kept_elsewhere_is_a_weaker_witness(tmp_path: Path) -> None:
    victim = build(tmp_path, 4)
    note = tmp_path / "kept-checkpoint"
    shutil.copy(victim.layout.checkpoint, note)
    assert verify_log(victim.folder, read_witnessed(note)).complete
    shutil.rmtree(victim.folder)
    first = verify_log(victim.folder, read_witnessed(note)).first
    assert first is not None
    assert first.kind == "rolled back"
