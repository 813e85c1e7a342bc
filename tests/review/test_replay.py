"""A run is rebuilt from its record at any node, byte for byte, or refused with the cause by name."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finllm.agents.agent import prompt_version
from finllm.agents.narrative import NARRATIVE
from finllm.desk.desk import Desk
from finllm.desk.request import PriceFile, RunRequest
from finllm.errors import InputError, RecordAltered, ReplayRefused
from finllm.files import sha256_of_file
from finllm.graphs import basis as standing
from finllm.guardrails.audit.reading import open_recorded
from finllm.models.cards import AdapterCard, FieldCalibration
from finllm.models.embedding import Embedder
from finllm.review.diff import diff_runs, diff_story
from finllm.review.replay import Regenerated, Replayed, regenerate, regenerated_json, replay
from finllm.scenarios import SCENARIOS_DIR
from finllm.scheduler.backends import Backend
from finllm.scheduler.broker import Broker
from finllm.scheduler.placement.task import canonical
from finllm.testing import ScriptedBackend
from finllm.tools.data.scenario import BudgetEntry, ShockEntry
from tests.conftest import bounded
from tests.desks import go_on, request_for, run
from tests.graphs.test_flow import READS_BADLY, READS_WELL
from tests.scheduler.executors.test_in_process import Later

MakeDesk = Callable[..., Desk]


def again(desk: Desk, run_id: str = "run-1", at: str | None = None) -> Replayed:
    return bounded(replay(run_id, desk, at=at))


def ask_again(desk: Desk, backends: list[ScriptedBackend], run_id: str = "run-1") -> list[Regenerated]:
    with open_recorded(desk.settings, run_id) as ledger:
        return bounded(regenerate(run_id, ledger, backends))


def small(**changes: Any) -> RunRequest:
    """A request without sources, which asks the least of the models."""
    return request_for("hormuz-blockade", sources=(), **changes)


def alter(desk: Desk, statement: str, *values: str) -> None:
    """Change the ledger behind its back."""
    with closing(sqlite3.connect(desk.settings.ledger_path)) as db, db:
        assert db.execute(statement, values).rowcount == 1


def test_every_node_s_state_is_rebuilt_and_nothing_is_written(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_BADLY], [READS_WELL])
    outcome = run(request_for("hormuz-blockade"), desk)
    used = len(desk.ledger.uses("run-1"))
    last = again(desk)
    assert last.node == "report"
    assert outcome.report is not None
    assert canonical(last.state["report"]) == canonical(outcome.report.model_dump(mode="json", exclude={"spent"}))
    hashes = dict(reversed(last.hashes))
    assert list(hashes) == ["report", "compliance", "stress_tester", "validator", "reread", "sanity_checker",
                            "narrative", "market_signal", "intake"]  # fmt: skip
    for node in ("intake", "validator:1", "reread"):
        early = again(desk, at=node)
        assert (early.node, early.sha256) == (node.partition(":")[0], hashes[early.node])
        assert "report" not in early.state
    assert len(desk.ledger.uses("run-1")) == used


class _Comes(Later):
    """A backend that knows of another, which comes once this one has been asked so many times."""

    def __init__(self, first: ScriptedBackend, other: ScriptedBackend, after: int) -> None:
        super().__init__()
        self._first, self._after = first, after
        self._other: list[Backend] = [other]

    def joined(self) -> Sequence[Backend]:
        if self._other and len(self._first.requests) >= self._after:
            self.coming, self._other = self._other, []
        return super().joined()


@pytest.mark.parametrize("after", [1, 3])
def test_a_run_that_a_backend_joined_in_mid_run_is_rebuilt(scripted_desk: MakeDesk, after: int) -> None:
    desk = scripted_desk([READS_BADLY], [READS_WELL])
    edge = ScriptedBackend([READS_WELL], name="edge", slots=1)
    other = ScriptedBackend([READS_WELL], name="edge@second", weights=edge.offer.weights_sha256, slots=9)
    broker = Broker([edge], desk.ledger, desk.bus, call_timeout=30.0, joining=_Comes(edge, other, after))
    first = replace(desk, broker=broker)
    outcome = run(request_for("hormuz-blockade"), first)
    came = [use for use in desk.ledger.uses("run-1", "placement") if "came" in use.entry.request]
    assert came, "calls were placed with the second one there"
    assert other.requests or after > 1, "it took work"
    last = again(replace(desk, broker=Broker([edge], desk.ledger, desk.bus, call_timeout=30.0)))
    assert outcome.report is not None
    assert canonical(last.state["report"]) == canonical(outcome.report.model_dump(mode="json", exclude={"spent"}))


class SlowDigest(Embedder):
    """An embedder whose weights are read until somebody else has had a turn."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.turn = threading.Event(), threading.Event()

    @property
    def digest(self) -> str:
        self.read.set()
        assert self.turn.wait(60), "nothing else went on while the weights were read"
        return super().digest


def test_other_work_goes_on_while_a_replay_reads_the_weights(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    run(small(), desk)
    slow = SlowDigest()

    async def beside() -> Replayed:
        replaying = asyncio.create_task(replay("run-1", replace(desk, embedder=slow)))
        while not slow.read.is_set():
            await asyncio.sleep(0)
        slow.turn.set()
        return await replaying

    assert bounded(beside()).node == "report"


@pytest.mark.parametrize(
    "script", [[{"fail": "the engine is down"}], [{"when": "What kind of event", "fail": "out of memory"}, READS_WELL]]
)
def test_what_nobody_answered_then_nobody_answers_now(script: list[dict[str, Any]], scripted_desk: MakeDesk) -> None:
    desk = scripted_desk(script)
    report = run(small(), desk).report
    assert report is not None
    assert any(agent.status == "abstained" for agent in report.agents)
    assert again(desk).state["report"] == report.model_dump(mode="json", exclude={"spent"})


def test_a_run_that_a_budget_stopped_and_a_person_answered_is_rebuilt(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_BADLY], [READS_BADLY])
    request = request_for("hormuz-blockade").model_copy(update={"on_unresolved": "ask"})
    assert run(request, desk).status == "waiting"
    assert again(desk).node == "validator"
    go_on(desk, answer="accept", budget=BudgetEntry(seconds=None, tokens=1_000_000, deep_tokens=None))
    assert again(desk, at="human").state["answer"] == "accept"
    assert again(desk).node == "report"


def test_the_adapter_s_calibration_is_on_record_and_needs_no_card_at_the_desk(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    stance = FieldCalibration(temperature=2.0, bias={"hawkish": 0.3, "dovish": 0.0, "neutral": 0.1})
    card = AdapterCard(name="an-adapter", base_sha256="", adapter_sha256="",
                prompts={"narrative": prompt_version(NARRATIVE)}, calibration={"narrative.stance": stance})  # fmt: skip
    report = run(small(), replace(desk, card=card)).report
    assert report is not None
    assert again(desk).state["report"] == report.model_dump(mode="json", exclude={"spent"})
    run(small(), desk, "run-2")
    weights = diff_runs("run-1", "run-2", desk.ledger).weights
    assert [change.what for change in weights] == ["calibration of an-adapter"]


def test_a_node_that_was_not_passed_is_named_with_those_that_were(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    run(small(), desk)
    for at in ("human", "nowhere", "intake:2", "intake:x", "intake:0"):
        with pytest.raises(InputError, match=f"no state at '{at}'") as stop:
            again(desk, at=at)
        assert "intake" in stop.value.fix
    with pytest.raises(InputError, match="no run 'nobody'"):
        again(desk, "nobody")


def one_byte_off(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_one_byte_of_an_input_file_off_is_refused_by_name(scripted_desk: MakeDesk, tmp_path: Path) -> None:
    desk = scripted_desk([READS_WELL])
    scenario = tmp_path / "hormuz.yaml"
    scenario.write_bytes((SCENARIOS_DIR / "hormuz-blockade.yaml").read_bytes())
    run(small().model_copy(update={"files": (PriceFile.of(scenario),)}), desk)
    assert again(desk).not_compared == ()
    one_byte_off(scenario)
    with pytest.raises(ReplayRefused, match=r"input file '.*hormuz.yaml' differs"):
        again(desk)
    scenario.unlink()
    assert again(desk).not_compared == (str(scenario),)


def test_one_byte_of_a_prompt_off_is_refused_by_name(
    scripted_desk: MakeDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = scripted_desk([READS_WELL])
    run(small(), desk)
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    for path in standing.PROMPTS.glob("*.j2"):
        (prompts / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(standing, "PROMPTS", prompts)
    assert again(desk).node == "report"
    one_byte_off(prompts / "validator.md.j2")
    with pytest.raises(ReplayRefused, match=r"prompt 'validator.md.j2' differs: it was \w{12}, it is \w{12}"):
        again(desk)


def test_one_byte_of_the_weights_off_is_refused_by_name(scripted_desk: MakeDesk, tmp_path: Path) -> None:
    weights = tmp_path / "edge.gguf"
    weights.write_bytes(bytes(range(256)) * 64)
    plain = scripted_desk([])
    backend = ScriptedBackend([READS_WELL], name="edge", weights=sha256_of_file(weights))
    backend._offer = replace(backend.offer, weights_file=str(weights))
    desk = replace(plain, broker=Broker([backend], plain.ledger, plain.bus, call_timeout=60))
    run(small(), desk)
    assert again(desk).node == "report"
    one_byte_off(weights)
    with pytest.raises(ReplayRefused, match=r"weights of 'edge' .*edge.gguf.* differs"):
        again(desk)


def test_a_table_that_changed_is_refused_by_name(
    scripted_desk: MakeDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = scripted_desk([READS_WELL])
    run(small(), desk)
    changed = tmp_path / standing.PRECEDENTS_PATH.name
    changed.write_bytes(standing.PRECEDENTS_PATH.read_bytes() + b"\n")
    monkeypatch.setattr(standing, "PRECEDENTS_PATH", changed)
    with pytest.raises(ReplayRefused, match=r"data 'precedents.yaml' differs"):
        again(desk)


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        ("UPDATE run SET request = replace(request, '\"seed\": 0', '\"seed\": 1')",
         "the request of run 'run-1' is not what it was"),
        ("UPDATE run SET result = replace(result, 'finished', 'blocked')",
         "the report of run 'run-1' is not what it was"),
        ("UPDATE entry SET request = replace(request, 'Hormuz', 'Hormus') WHERE key = (SELECT key FROM entry WHERE "
         "kind = 'call' AND request LIKE '%Hormuz%' LIMIT 1)", "the call .* is not what it was"),
        ("UPDATE entry SET response = replace(response, 'blockade', 'ceasefire') WHERE key = (SELECT key FROM entry "
         "WHERE kind = 'call' AND request NOT LIKE '%\"priors\": null%' AND response LIKE '%blockade%' LIMIT 1)",
         "the call .* is not what it was"),
    ],
)  # fmt: skip
def test_a_record_that_was_altered_is_refused(statement: str, cause: str, scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    run(small(), desk)
    alter(desk, statement)
    with pytest.raises(RecordAltered, match=cause):
        again(desk)


def test_a_run_without_states_on_record_is_refused(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    desk.ledger.start_run("old", small().model_dump(mode="json"))
    with pytest.raises(ReplayRefused, match="older than replays are"):
        again(desk, "old")


def test_regenerating_tells_the_share_that_matched(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    run(small(), desk)
    same = regenerated_json(ask_again(desk, [ScriptedBackend([READS_WELL], name="edge")]))
    assert same["share"] == 1.0
    assert same["largest_gap"] < 1e-12
    other = ask_again(desk, [ScriptedBackend([READS_BADLY], name="edge")])
    assert {one.agent for one in other if not one.matched} == {"narrative"}
    assert 0 < regenerated_json(other)["share"] < 1
    failed = ask_again(desk, [ScriptedBackend([{"fail": "no engine"}], name="edge")])
    assert {one.reason for one in failed} == {"no engine"}
    with pytest.raises(ReplayRefused, match=r"the weights .* are not here"):
        ask_again(desk, [ScriptedBackend([READS_WELL], name="other")])


def test_a_diff_names_what_changed_and_what_that_changed(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    run(small(), desk, "first")
    run(small(), desk, "same")
    nothing = diff_runs("first", "same", desk.ledger)
    assert (nothing.inputs, nothing.prompts, nothing.weights, nothing.judgements, nothing.result) == ((),) * 5
    milder = request_for("hormuz-blockade", sources=(), shocks=(ShockEntry(factor="OIL_WTI", move="+10%"),))
    run(milder, desk, "milder")
    found = diff_runs("first", "milder", desk.ledger)
    assert [(one.what, one.second) for one in found.inputs] == [("scenario.shocks[OIL_WTI].move", "+10%")]
    total = next(one for one in found.result if one.what == "total")
    assert total.delta is not None
    assert total.delta.endswith(" USD")
    story = diff_story(found)
    assert story.index("What that changed in the result") < story.index("scenario.shocks[OIL_WTI].move: ")
    assert json.loads(json.dumps(found.to_json()))["runs"] == ["first", "milder"]


def test_a_diff_names_the_judgement_that_other_weights_gave(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    run(small(), desk, "first")
    other = ScriptedBackend([READS_BADLY], name="edge", weights="other")
    run(small(), replace(desk, broker=Broker([other], desk.ledger, desk.bus, call_timeout=60)), "second")
    found = diff_runs("first", "second", desk.ledger)
    assert ("edge weights_sha256", "sha256-of-edge", "other") in [(w.what, w.first, w.second) for w in found.weights]
    event = next(one for one in found.judgements if one.what == "narrative, narrative #1 event")
    assert (event.first, event.second) == ("blockade (90%)", "ceasefire (90%)")
    with pytest.raises(InputError, match="no run 'nobody'"):
        diff_runs("first", "nobody", desk.ledger)
