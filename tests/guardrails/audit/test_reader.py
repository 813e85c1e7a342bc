"""A reader that goes on where it was: it finds what one that begins anew finds, and refuses what that refuses."""

from __future__ import annotations

import tempfile
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import RecordError
from finllm.guardrails.audit import AuditLog, LogReader, verify_log
from finllm.guardrails.audit.keys import Keyring, SigningKey
from tests.guardrails.audit.attacks import KEY

OTHER = SigningKey(sha256(b"from then on").digest())
BOTH = Keyring(lambda: [OTHER, KEY])
WIDTH = 4


def same(one: LogReader, other: LogReader) -> bool:
    """Whether two readers know the same, each record proven to be under the checkpoint or after it."""
    assert (one.size, one.checkpoint, str(one.vkey)) == (other.size, other.checkpoint, str(other.vkey))
    return [one.proven(at) for at in range(one.size)] == [other.proven(at) for at in range(other.size)]


@settings(max_examples=10, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(("one", "other", "sign", "key")), st.integers(1, 6)), max_size=6))
def test_it_finds_what_a_reader_that_begins_anew_finds(steps: list[tuple[str, int]]) -> None:
    """Whoever writes, however many segments are filled, signed when, and with whichever key."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder) / "audit"
        with closing(AuditLog(at, KEY, segment_records=WIDTH)) as first:
            first.append({"action": "note"})
        with closing(AuditLog(at, BOTH)) as one, closing(AuditLog(at, BOTH)) as other:
            reader, key = LogReader(at), True
            for what, count in steps:
                if what == "key" and key:
                    one.change_keys(OTHER, None, {})
                    key = False
                elif what == "sign":
                    other.checkpoint()
                else:
                    for n in range(count):
                        content = b"%d" % n
                        (one if what == "one" else other).append(
                            {"action": "note", "blob": sha256(content).hexdigest()},
                            {sha256(content).hexdigest(): content})  # fmt: skip
                reader.catch_up()
                assert same(reader, LogReader(at))
        assert verify_log(at).damage == ()


def test_nothing_is_read_twice_and_a_record_is_kept_as_it_was(tmp_path: Path) -> None:
    """What is changed on disk behind a reader is refused when it is read anew, and never given out by this one."""
    at = tmp_path / "audit"
    with closing(AuditLog(at, KEY)) as log:
        log.append({"n": 0})
        log.checkpoint()
        reader = LogReader(at)
        before = reader.proven(0)
        file = at / "segments" / "00000000.log"
        file.write_bytes(file.read_bytes().replace(b'"n":0', b'"n":7'))
        log.append({"n": 1})
        reader.catch_up()
        assert (reader.proven(0), reader.size) == (before, 2)
        with pytest.raises(RecordError):
            LogReader(at)


def test_what_was_added_and_changed_is_refused_each_time(tmp_path: Path) -> None:
    at = tmp_path / "audit"
    with closing(AuditLog(at, KEY)) as log:
        log.append({"n": 0})
        reader = LogReader(at)
        log.append({"n": 1})
        file = at / "segments" / "00000000.log"
        file.write_bytes(file.read_bytes().replace(b'"n":1', b'"n":7'))
        for _ in range(2):
            assert reader.grown()
            with pytest.raises(RecordError, match="not what was written"):
                reader.catch_up()


def test_what_was_signed_of_other_records_is_refused_each_time(tmp_path: Path) -> None:
    """Somebody with the key writes another past, and signs it: whoever has read the true one says so."""
    at, forged = tmp_path / "audit", tmp_path / "forged"
    with closing(AuditLog(at, KEY)) as log:
        log.append({"n": 0})
    reader = LogReader(at)
    reader.proven(0)
    forged.mkdir()
    (forged / "segments").mkdir()
    (forged / "log.json").write_bytes((at / "log.json").read_bytes())
    (forged / "checkpoint").write_text(str(_empty(at)))
    with closing(AuditLog(forged, KEY)) as log:
        log.append({"n": 5})
        log.append({"n": 6})
    for name in ("checkpoint", "segments/00000000.log"):
        (at / name).write_bytes((forged / name).read_bytes())
    for _ in range(2):
        with pytest.raises(RecordError):
            reader.catch_up()


def _empty(folder: Path) -> object:
    from finllm.guardrails.audit.merkle import EMPTY_ROOT
    from finllm.guardrails.audit.note import Checkpoint
    from finllm.guardrails.audit.storage import Meta

    origin = Meta.parse((folder / "log.json").read_bytes()).origin
    return Checkpoint(origin, 0, EMPTY_ROOT).note().signed(KEY, origin)
