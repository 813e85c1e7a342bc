"""A log's key is changed by a record that the key before has signed, by nothing else; a retired key signs no more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from finllm.errors import RecordError
from finllm.guardrails.audit import AuditLog, LogReader, read_witnessed, verify_log, witness_log
from finllm.guardrails.audit.canonical import canonical_bytes
from finllm.guardrails.audit.keychain import CHANGED, statement
from finllm.guardrails.audit.keys import Keyring, SigningKey
from finllm.guardrails.audit.merkle import leaf_hash, root_of
from finllm.guardrails.audit.note import Checkpoint, Note, VerifierKey
from finllm.guardrails.audit.storage import Meta, record_json, record_line, record_of
from finllm.guardrails.audit.witness import WitnessRefused
from tests.guardrails.audit.attacks import ATTACKS, KEY, OTHER_KEY, WIDTH, Victim, build, lines_of, put_lines, resign
from tests.guardrails.audit.test_attacks import assert_caught_in

OLD, NEW = SigningKey(sha256(b"until then").digest()), SigningKey(sha256(b"from then on").digest())
BOTH = Keyring(lambda: [NEW, OLD])


@dataclass(frozen=True)
class Log:
    """A log that `OLD` began, and a witness that has seen it."""

    folder: Path
    witness: Path

    def vkey(self, key: SigningKey) -> VerifierKey:
        return VerifierKey.of(key, Meta.parse((self.folder / "log.json").read_bytes()).origin)

    def note(self) -> Note:
        return Note.parse((self.folder / "checkpoint").read_text(encoding="utf-8"))

    def write(self, records: int, keys: Keyring | SigningKey = BOTH) -> None:
        with closing(AuditLog(self.folder, keys, segment_records=WIDTH)) as log:
            for n in range(records):
                log.append({"action": "note", "n": n})

    def change(self, signs: SigningKey = NEW, too: SigningKey | None = OLD) -> int:
        with closing(AuditLog(self.folder, BOTH)) as log:
            return log.change_keys(signs, too, {})

    def seen(self) -> int:
        return witness_log(LogReader(self.folder), self.witness).checkpoint.size

    def victim(self, size: int, seen: int) -> Victim:
        """What the attacks' tools take."""
        return replace(build(self.folder.parent / "made", 1), folder=self.folder, size=size, seen=seen)

    def damage(self) -> tuple[int, str]:
        first = verify_log(self.folder, read_witnessed(self.witness)).first
        assert first is not None
        return first.index, first.kind


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path / "audit", tmp_path / "witness")
    made.write(5, OLD)
    assert made.seen() == 5
    return made


def test_both_keys_sign_during_the_overlap_and_the_new_one_alone_after_it(log: Log) -> None:
    assert log.change() == 5
    log.write(3)
    assert (log.note().signed_by(log.vkey(NEW)), log.note().signed_by(log.vkey(OLD))) == (0, 0)
    log.change(NEW, None)
    log.write(3)
    assert (log.note().signed_by(log.vkey(NEW)), log.note().signed_by(log.vkey(OLD))) == (0, None)
    log.write(3, NEW)
    with pytest.raises(RecordError, match="since record 9 with another signing key"):
        log.write(1, OLD)
    assert verify_log(log.folder).damage == ()


@pytest.mark.parametrize("known", [OLD, NEW], ids=["old", "new"])
@pytest.mark.parametrize("retired", [False, True], ids=["overlap", "after"])
def test_who_knows_either_key_can_verify(known: SigningKey, retired: bool, log: Log) -> None:
    log.change()
    if retired:
        log.change(NEW, None)
    verdict = verify_log(log.folder, vkey=log.vkey(known))
    assert verdict.damage == ()
    told = [note for note in verdict.notes if "learn the key that signs now" in note]
    assert [str(log.vkey(NEW)) in note for note in told] == ([True] if known is OLD else [])


def test_who_knows_neither_key_is_told(log: Log) -> None:
    log.change()
    first = verify_log(log.folder, vkey=log.vkey(OTHER_KEY)).first
    assert first is not None
    assert (first.kind, "not the expected one" in first.what) == ("key", True)


@pytest.mark.parametrize("retired", [False, True], ids=["overlap", "after"])
def test_a_witness_follows_a_change_of_key_through_its_record(retired: bool, log: Log) -> None:
    log.change()
    if retired:
        log.change(NEW, None)
    log.write(20)
    assert log.seen() == (27 if retired else 26)
    assert (log.witness / "log.vkey").read_text().strip() == str(log.vkey(NEW))
    assert verify_log(log.folder, read_witnessed(log.witness)).status == "intact"
    log.write(2)
    assert log.seen() == (29 if retired else 28)


def test_a_witness_that_saw_the_old_key_alone_still_vouches(log: Log) -> None:
    log.change()
    log.change(NEW, None)
    verdict = verify_log(log.folder, read_witnessed(log.witness))
    assert (verdict.status, verdict.witnessed) == ("intact", 5)
    (bare := log.folder.parent / "checkpoint").write_text(str(read_witnessed(log.witness).note))
    assert verify_log(log.folder, read_witnessed(bare)).status == "intact"


def test_keys_are_changed_again_and_none_comes_back(log: Log) -> None:
    log.change()
    third = SigningKey(sha256(b"third").digest())
    with closing(AuditLog(log.folder, Keyring(lambda: [third, NEW, OLD]))) as writer:
        for signs, too in ((OLD, None), (OLD, NEW), (NEW, third), (NEW, NEW)):
            with pytest.raises(RecordError, match="is not changed"):
                writer.change_keys(signs, too, {})
        assert writer.change_keys(third, NEW, {}) == 6
        for signs, too in ((OLD, third), (NEW, None), (third, OLD)):
            with pytest.raises(RecordError, match="is not changed"):
                writer.change_keys(signs, too, {})
        writer.append({"action": "note"})
    assert log.seen() == 8
    for known in (OLD, NEW, third):
        assert verify_log(log.folder, read_witnessed(log.witness), log.vkey(known)).status == "intact"


def test_a_key_that_is_not_at_hand_is_not_made_the_log_s_own(log: Log) -> None:
    with closing(AuditLog(log.folder, OLD)) as writer, pytest.raises(RecordError, match="does not hold the key"):
        writer.change_keys(NEW, OLD, {})
    assert verify_log(log.folder, read_witnessed(log.witness)).status == "intact"


def test_a_log_in_use_goes_on_with_the_new_key_where_its_file_has_it_and_stops_where_not(log: Log) -> None:
    held = [OLD]
    reads_again, knows_one = AuditLog(log.folder, Keyring(lambda: list(held))), AuditLog(log.folder, OLD)
    held.insert(0, NEW)
    log.change(NEW, None)
    assert reads_again.append({"action": "note"}) == 6
    with pytest.raises(RecordError, match="another signing key"):
        knows_one.append({"action": "note"})
    reads_again.close()
    knows_one.close()
    assert verify_log(log.folder, read_witnessed(log.witness)).status == "intact"
    assert LogReader(log.folder).checkpoint.size == 7


def test_a_change_whose_key_before_was_lost_meanwhile_still_signs(log: Log) -> None:
    log.change()
    log.write(3, NEW)
    assert log.note().signed_by(log.vkey(OLD)) is None
    assert log.seen() == 9


def test_changes_in_many_segments_are_found(log: Log) -> None:
    keys = [SigningKey(sha256(b"%d" % n).digest()) for n in range(6)]
    with closing(AuditLog(log.folder, Keyring(lambda: [*keys, OLD]))) as writer:
        for n, key in enumerate(keys):
            writer.append_many([({"action": "note", "n": n}, {})] * 6)
            writer.change_keys(key, None, {})
    assert LogReader(log.folder).keys.places == (11, 18, 25, 32, 39, 46)
    assert log.seen() == 47
    log.write(3, keys[-1])
    assert verify_log(log.folder, read_witnessed(log.witness), log.vkey(OLD)).status == "intact"


# What an attacker does.


def forged_change(log: Log, signers: tuple[SigningKey, ...], signs: SigningKey = OTHER_KEY, **changes: str) -> None:
    """Put at the log's end a record that changes its key to the attacker's, and sign the log with that."""
    lines = lines_of(victim := log.victim(5, 5))
    meta = Meta.parse((log.folder / "log.json").read_bytes())
    leaves = [leaf_hash(record_of(line.rstrip(b"\n"))) for line in lines]
    note = statement(Checkpoint(meta.origin, len(lines), root_of(leaves)), VerifierKey.of(signs, meta.origin), None)
    for key in signers:
        note = note.signed(key, meta.origin)
    body = {"action": CHANGED, "before": str(meta.vkey), "signs": "x", "signs_too": None, "statement": str(note)}
    data = record_json(meta.log, len(lines), canonical_bytes(body | changes))
    put_lines(victim, [*lines, record_line(data, leaf_hash(data))])
    (log.folder / "log.json").write_bytes(meta.with_changes((len(lines),)).to_bytes())
    resign(victim, signs)


def transplanted(log: Log) -> str:
    """A change that the log's key did sign, for another log."""
    folder = log.folder.parent / "transplant"
    with closing(AuditLog(folder, Keyring(lambda: [OTHER_KEY, OLD]))) as other:
        other.change_keys(OTHER_KEY, None, {})
    return str(json.loads(LogReader(folder).record(0))["body"]["statement"])


@pytest.mark.parametrize(
    "forge",
    [
        lambda log: forged_change(log, (OTHER_KEY,)),
        lambda log: forged_change(log, (NEW, OTHER_KEY)),
        lambda log: forged_change(log, (OTHER_KEY,), statement=transplanted(log)),
        lambda log: forged_change(log, (OTHER_KEY,), statement="no note"),
        lambda log: forged_change(log, (OTHER_KEY,), statement=str(log.note())),
    ],
    ids=["alone", "another's name", "of another log", "no note", "a mere checkpoint"],
)  # fmt: skip
def test_nobody_without_the_old_key_changes_the_key(forge: Callable[[Log], None], log: Log) -> None:
    forge(log)
    assert log.damage() == (5, "key")
    first = verify_log(log.folder, vkey=log.vkey(OLD)).first
    assert first is not None
    assert first.kind == "key"
    with pytest.raises(RecordError):
        log.seen()
    with pytest.raises(RecordError):
        AuditLog(log.folder, Keyring(lambda: [OTHER_KEY, OLD]))


def test_a_change_signed_over_other_records_than_those_before_it_is_named(log: Log) -> None:
    """The old key's own record, moved behind records that it has not seen."""
    log.change()
    lines = lines_of(victim := log.victim(6, 5))
    data = json.loads(record_of(lines[4].rstrip(b"\n")))
    data["body"]["n"] = 99
    changed = canonical_bytes(data)
    put_lines(victim, [*lines[:4], record_line(changed, leaf_hash(changed)), lines[5]])
    resign(victim, NEW)
    first = verify_log(log.folder).first
    assert first is not None
    assert (first.index, first.kind) == (5, "key")


def test_who_has_only_the_retired_key_writes_nothing_that_a_witness_takes(log: Log) -> None:
    log.change()
    log.change(NEW, None)
    log.write(3)
    log.seen()
    honest = log.folder.parent / "honest"
    shutil.copytree(log.folder, honest)
    for attack, expected in {
        append_as_old: (11, "checkpoint"), rewrite_as_old: (0, "key"), forget_the_change: (5, "key"),
    }.items():  # fmt: skip
        attack(log)
        assert log.damage() == expected, attack
        with pytest.raises((WitnessRefused, RecordError)):
            log.seen()
        shutil.rmtree(log.folder)
        shutil.copytree(honest, log.folder)
    assert log.seen() == 10


def without_changes(log: Log) -> None:
    path = log.folder / "log.json"
    path.write_bytes(Meta.parse(path.read_bytes()).with_changes(()).to_bytes())


def append_as_old(log: Log) -> None:
    lines = lines_of(victim := log.victim(10, 10))
    data = record_json(Meta.parse((log.folder / "log.json").read_bytes()).log, 10, canonical_bytes({"action": "note"}))
    put_lines(victim, [*lines, record_line(data, leaf_hash(data))])
    resign(victim, OLD)


def rewrite_as_old(log: Log) -> None:
    """The history from before the change on, as the old key's owner would like it."""
    victim = log.victim(10, 10)
    put_lines(victim, lines_of(victim)[:4])
    (log.folder / "log.json").write_bytes(
        Meta.parse((log.folder / "log.json").read_bytes()).with_changes(()).to_bytes()
    )
    resign(victim, OLD)
    log.write(20, OLD)


def forget_the_change(log: Log) -> None:
    """`log.json` names no change any more, so that the old key seems to sign still."""
    (log.folder / "log.json").write_bytes(
        Meta.parse((log.folder / "log.json").read_bytes()).with_changes(()).to_bytes()
    )
    resign(log.victim(10, 10), OLD)


def test_a_change_that_log_json_hides_during_the_overlap_is_named_and_no_witness_passes_over_it(log: Log) -> None:
    log.change()
    without_changes(log)
    assert log.damage() == (5, "key")
    with pytest.raises(RecordError, match="is damaged"):
        log.write(1, OLD)
    with pytest.raises(WitnessRefused, match=r"log\.json does not name it"):
        log.seen()


def test_a_retired_key_s_signature_beside_the_new_one_is_named(log: Log) -> None:
    log.change(NEW, None)
    meta = Meta.parse((log.folder / "log.json").read_bytes())
    (log.folder / "checkpoint").write_text(str(log.note().signed(OLD, meta.origin)))
    assert log.damage() == (6, "checkpoint")
    with pytest.raises(RecordError, match="signature of a retired key"):
        log.seen()


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_on_a_log_whose_key_was_changed_is_caught(name: str, tmp_path: Path) -> None:
    for seed in range(4):
        victim = build(tmp_path / str(seed), seed, key=KEY, before=OLD)
        assert_caught_in(victim, name, seed, also=("key", "checkpoint"))


def test_a_log_whose_key_was_changed_raises_no_alarm(tmp_path: Path) -> None:
    for seed in range(20):
        victim = build(tmp_path / str(seed), seed, before=OLD)
        assert verify_log(victim.folder, read_witnessed(victim.witness)).status == "intact"
