"""The ledger and its audit log together: a record for each row, none decided on without, crashes mended."""

from __future__ import annotations

import contextlib
import errno
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finllm.errors import InputError, RecordError
from finllm.guardrails.audit import AuditedRecorder, AuditLog, LogReader, open_recorder, verify_log
from finllm.memory.answers import HUMAN, answer_entry
from finllm.memory.ledger import Ledger
from finllm.scheduler.record import CALL, PLACEMENT, Entry, EntryKind
from finllm.settings import Settings
from tests.guardrails.audit.attacks import KEY
from tests.guardrails.audit.test_log import Failing


def call(n: int) -> Entry:
    offer = {"tier": "edge", "build": "b1", "context": 4096, "name": "edge"}
    request = {"prompt": {"user": f"event {n}"}, "template": [], "weights_sha256": "ab", "precision": "Q4_0", "seed": 3,
               "agent": "narrative", "prompt_version": "v1", "offer": offer}  # fmt: skip
    return Entry(f"call-{n}", CALL, "edge", request, {"text": f"answer {n}", "choices": {"a": {"b": 0.25}}})


def placement(n: int) -> Entry:
    response = {"chosen": "edge", "refused": {"deep": "finer than needed"}, "rule": "v1"}
    return Entry(f"placement-{n}", PLACEMENT, "broker", {"agent": "narrative", "spent": {"seconds": 0.5}}, response)


def bodies(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(data)["body"] for _, data in LogReader(settings.audit_dir).records()]


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_every_row_has_its_record_with_what_changed_the_answer(home: Settings) -> None:
    source = {"id": "wire", "url": "https://example.com", "text": "Oil jumped.", "published_at": "2022-06-29T00:00:00Z"}
    request = {"scenario": {"title": "t", "sources": [source]}, "portfolio": {"sha256": "cd"}, "seed": 3}
    with contextlib.closing(open_recorder(home)) as ledger:
        ledger.start_run("run-1", request)
        ledger.record(placement(1), run_id="run-1", node="narrative")
        ledger.record(call(1), run_id="run-1", node="narrative")
        ledger.used("call-1", run_id="run-1", node="validator")
        human = answer_entry("run-1", {"options": ["withhold", "accept"]}, {"answer": "accept"})
        ledger.record(human, run_id="run-1", node="human")
        finding = {"rule": "limits", "version": "1", "verdict": "flag", "what": "limits breached"}
        result = {"verdict": "aligned", "compliance": "flag", "findings": [finding],
                  "sources": [{"id": "wire", "verdict": "credible"}],
                  "shocks": [{"factor": "GOLD", "refused": "withheld"}], "total": 0.5}  # fmt: skip
        ledger.end_run("run-1", "finished", result)
    found = {body["action"]: body for body in bodies(home)}
    assert list(found) == ["session.opened", "run.started", "placement.recorded", "call.recorded", "call.reused",
                           "human.recorded", "run.finished"]  # fmt: skip
    assert found["run.started"]["inputs"][0]["credibility"] is None
    assert found["placement.recorded"]["decision"]["refused"] == [{"what": "deep", "why": "finer than needed"}]
    made = found["call.recorded"]
    assert made["actor"] == {"kind": "model", "name": "edge"}
    assert made["model"] == {
        "weights": "ab",
        "precision": "Q4_0",
        "tier": "edge",
        "build": "b1",
        "context": 4096,
        "seed": 3,
    }
    assert (made["run"], made["node"], made["task"], made["prompt"]["version"]) == (
        "run-1",
        "narrative",
        "call-1",
        "v1",
    )
    assert (made["cache"]["ledger"], found["call.reused"]["cache"]["ledger"]) == (False, True)
    assert made["raw_output"] == found["call.reused"]["raw_output"]
    assert found["human.recorded"]["override"] == {"of": "withhold", "with": "accept", "reason": None}
    assert found["run.finished"]["inputs"][0]["credibility"] == "credible"
    assert found["run.finished"]["decision"]["refused"] == [{"what": "shock GOLD", "why": "withheld"}]
    assert int(made["at"]["ns"]) > 1_700_000_000 * 10**9
    reader = LogReader(home.audit_dir)
    assert json.loads(reader.blob(made["response"], 3)) == call(1).response
    assert verify_log(home.audit_dir).damage == ()


def test_a_use_whose_process_died_before_the_audit_gets_its_record_once_and_an_answer_is_not_believed(
    home: Settings,
) -> None:
    with contextlib.closing(open_recorder(home)) as ledger:
        ledger.record(call(0), run_id="run-1", node="n")
    with contextlib.closing(Ledger(home.ledger_path)) as unaudited:
        unaudited.record(call(1), run_id="run-1", node="n")
        unaudited.used("call-0", run_id="run-2", node="n")
    for _opening in range(3):
        with contextlib.closing(open_recorder(home)) as ledger:
            assert ledger.lookup("call-0") == call(0)
            assert ledger.lookup("call-1") is None
            assert [use.key for use in ledger.uses("run-1")] == ["call-0"]
    uses = [(body["ledger"]["use"], body["recovered"]) for body in bodies(home) if "task" in body]
    assert uses == [(1, False), (3, True)]
    opened = [(body["ledger"]["through"], body["recovered"], body["unproven"])
              for body in bodies(home) if body["action"] == "session.opened"]  # fmt: skip
    assert opened == [(0, 0, 0), (3, 1, 1), (3, 0, 0), (3, 0, 0)]


def test_an_answer_that_is_not_believed_is_asked_again_and_the_new_one_takes_its_place(home: Settings) -> None:
    with contextlib.closing(Ledger(home.ledger_path)) as unaudited:
        unaudited.record(call(1), run_id="run-1", node="n")
    new = replace(call(1), response={"text": "what the model says now", "choices": {}})
    with contextlib.closing(open_recorder(home)) as ledger:
        ledger.record(new, run_id="run-2", node="n")
        assert ledger.lookup("call-1") == new
    with contextlib.closing(open_recorder(home)) as ledger:
        assert ledger.lookup("call-1") == new


@pytest.mark.parametrize("says", ["what it said before", "something else"])
def test_what_is_asked_again_after_a_death_counts_as_asked_by_the_run_that_goes_on(home: Settings, says: str) -> None:
    """Killed between the ledger's row and the log's, a run went on with a call that no run had paid for."""
    old = replace(call(1), response={"text": "what it said before", "choices": {}})
    with contextlib.closing(Ledger(home.ledger_path)) as unaudited:
        unaudited.record(old, run_id="run-1", node="n")
    new = replace(old, response={"text": says, "choices": {}})
    with contextlib.closing(open_recorder(home)) as ledger:
        assert ledger.lookup("call-1") is None
        ledger.record(new, run_id="run-1", node="n")
        assert [(use.key, use.reused, use.entry) for use in ledger.uses("run-1")] == [("call-1", False, new)]
    with contextlib.closing(open_recorder(home)) as ledger:
        assert [(use.key, use.reused) for use in ledger.uses("run-1")] == [("call-1", False)]
    assert verify_log(home.audit_dir).damage == ()


def test_answers_of_a_ledger_whose_audit_log_is_gone_are_asked_again(home: Settings) -> None:
    with contextlib.closing(open_recorder(home)) as ledger:
        ledger.record(call(1), run_id="run-1", node="n")
        assert ledger.lookup("call-1") == call(1)
    home.audit_dir.rename(home.home / "kept")
    with contextlib.closing(open_recorder(home)) as ledger:
        assert ledger.lookup("call-1") is None
        ledger.record(call(1), run_id="run-2", node="n")
        assert ledger.lookup("call-1") == call(1)


def test_two_open_sessions_do_not_mistake_each_others_rows_for_lost_ones(home: Settings) -> None:
    one, two = open_recorder(home), open_recorder(home)
    one.record(call(1), run_id="run-1", node="n")
    two.record(call(2), run_id="run-2", node="n")
    three = open_recorder(home)
    three.close()
    one.close()
    two.close()
    open_recorder(home).close()
    uses = Counter(body["ledger"]["use"] for body in bodies(home) if "task" in body)
    assert uses == {1: 1, 2: 1}
    assert not any(body["recovered"] for body in bodies(home))
    assert verify_log(home.audit_dir).damage == ()


@pytest.mark.parametrize("call_name", ["write", "sync"])
def test_a_full_disk_stops_decisions_and_keeps_the_ledger(call_name: str, home: Settings) -> None:
    log = AuditLog(home.audit_dir, KEY, disk=Failing(call_name, 6, errno.ENOSPC, 10))
    ledger = AuditedRecorder(home.ledger_path, log, home.audit_dir)
    ledger.start_run("run-1", {})
    with contextlib.suppress(RecordError):
        for n in range(10):
            ledger.record(call(n), run_id="run-1", node="n")
    with pytest.raises(RecordError, match="nothing was decided without it"):
        ledger.record(call(10), run_id="run-1", node="n")
    done = [n for n in range(11) if ledger.lookup(f"call-{n}") is not None]
    with pytest.raises(RecordError):
        ledger.used("call-0", run_id="run-1", node="n")
    with pytest.raises(RecordError):
        ledger.end_run("run-1", "stopped", None)
    row = ledger.run("run-1")
    assert row is not None
    assert row.status == "stopped", "the ledger may say so: nothing rests on it"
    with pytest.raises(RecordError):
        ledger.end_run("run-1", "finished", {"total": 1})
    assert ledger.run("run-1") == row, "but no result is kept that the audit log does not have"
    ledger.close()
    again = AuditedRecorder(home.ledger_path, AuditLog(home.audit_dir, KEY), home.audit_dir)
    assert [again.lookup(f"call-{n}") for n in done] == [call(n) for n in done]
    again.close()
    tasks = Counter(body["task"] for body in bodies(home) if body["action"] == "call.recorded")
    assert tasks == {f"call-{n}": 1 for n in done}
    assert verify_log(home.audit_dir).damage == ()


def test_a_wrong_key_stops_before_anything_is_decided(home: Settings, tmp_path: Path) -> None:
    open_recorder(home).close()
    (tmp_path / "other.key").write_text("A" * 43 + "=")
    (tmp_path / "other.key").chmod(0o600)
    with pytest.raises(RecordError, match="another signing key"):
        open_recorder(Settings(home=tmp_path, audit_key_file=tmp_path / "other.key"))
    with pytest.raises(InputError):
        open_recorder(Settings(home=tmp_path, audit_key_file=tmp_path / "none.key"))
    open_recorder(home).close()


@pytest.mark.parametrize("kind", [CALL, PLACEMENT, HUMAN, EntryKind("of-another-folder")])
def test_every_kind_of_row_has_a_record(kind: EntryKind, home: Settings) -> None:
    with contextlib.closing(open_recorder(home)) as recorder:
        recorder.record(Entry(f"key of {kind}", kind, "someone", {}, {}), run_id="run", node="node")
    assert f"{kind}.recorded" in [body["action"] for body in bodies(home)]
