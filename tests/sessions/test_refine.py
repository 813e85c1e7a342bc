"""A report that is out is verified at the deep tier: confirmed, made anew, or dropped where another draft was first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from finllm.desk.desk import Desk
from finllm.desk.request import RunRequest
from finllm.errors import InputError
from finllm.memory.versions import newest_version
from finllm.review.replay import replay
from finllm.review.trace import trace_story
from finllm.scheduler.broker import Broker
from finllm.sessions.refine import Refined, refine_run
from finllm.testing import ScriptedBackend
from tests.conftest import bounded
from tests.desks import Seen, go_on, request_for, run
from tests.graphs.test_flow import READS_BADLY, READS_WELL

MakeDesk = Callable[..., Desk]
SEES_A_CRISIS = {"when": "Which regime", "say": {"regime": "crisis"}}


def small(**changes: object) -> RunRequest:
    return request_for("hormuz-blockade", sources=()).model_copy(update=changes)


def result(desk: Desk, run_id: str) -> object:
    row = desk.ledger.run(run_id)
    assert row is not None
    return row.result


def test_a_deep_tier_that_judges_the_same_confirms_the_run(scripted_desk: MakeDesk, seen: Seen) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    run(small(), desk)
    seen.clear()
    found = bounded(refine_run("run-1", desk, "draft"))
    assert (found.outcome, found.revisions, found.newest) == ("confirmed", (), "run-1")
    assert {event.chosen for event in seen.kinds("placed")} == {"deep"}
    assert newest_version("run-1", desk.ledger) == (1, "run-1")


def test_a_judgement_that_differs_makes_a_new_version_and_leaves_the_old(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL, SEES_A_CRISIS])
    run(small(), desk)
    before, state = result(desk, "run-1"), bounded(replay("run-1", desk)).sha256
    found = bounded(refine_run("run-1", desk, "draft"))
    assert (found.outcome, found.version, found.newest) == ("committed", 1, "draft")
    assert [str(one) for one in found.revisions] == ["market-signal, regime: calm → crisis"]
    assert newest_version("run-1", desk.ledger) == (2, "draft")
    assert result(desk, "run-1") == before
    assert bounded(replay("run-1", desk)).sha256 == state
    assert bounded(replay("draft", desk)).node == "report"
    assert "Version 2 of it is draft." in trace_story("run-1", desk.ledger)
    with pytest.raises(InputError, match="version 2 of run 'run-1' was made at F16, and there is nothing finer"):
        bounded(refine_run("run-1", desk, "another"))


def test_of_two_drafts_at_once_one_becomes_the_version_and_the_other_is_dropped_on_record(
    scripted_desk: MakeDesk,
) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL, SEES_A_CRISIS])
    run(small(), desk)

    async def both() -> list[Refined]:
        return list(await asyncio.gather(*(refine_run("run-1", desk, draft) for draft in ("one", "other"))))

    found = bounded(both())
    assert sorted(one.outcome for one in found) == ["committed", "dropped"]
    (kept,), (dropped,) = ([one for one in found if one.outcome == how] for how in ("committed", "dropped"))
    assert kept.newest == dropped.newest == kept.draft == newest_version("run-1", desk.ledger)[1]
    notes = [use.entry for use in desk.ledger.uses("run-1", "version") if "draft" in use.entry.request]
    assert [(note.request["draft"], note.response) for note in notes] == [
        (dropped.draft, {"verdict": "dropped", "kept": kept.draft})
    ]


def asking() -> RunRequest:
    return request_for("hormuz-blockade").model_copy(update={"on_unresolved": "ask"})


def test_what_a_person_answered_holds_for_the_draft(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_BADLY], [READS_BADLY])
    assert run(asking(), desk).status == "waiting"
    go_on(desk, answer="withhold")
    assert bounded(refine_run("run-1", desk, "draft")).outcome == "confirmed"


def test_a_draft_that_asks_what_nobody_answered_waits_and_the_version_stands(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    run(asking(), desk)
    doubts = ScriptedBackend([READS_BADLY], name="deep", tier="deep", precision="F16", weights="others")
    backends = [ScriptedBackend([READS_WELL], name="edge"), doubts]
    desk = replace(desk, broker=Broker(backends, desk.ledger, desk.bus, call_timeout=60))
    assert bounded(refine_run("run-1", desk, "asks")).outcome == "waiting"
    assert newest_version("run-1", desk.ledger) == (1, "run-1")
    go_on(desk, "asks", answer="withhold")
    assert bounded(refine_run("run-1", desk, "answered")).outcome == "committed"


def test_only_a_run_with_a_report_is_verified(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    with pytest.raises(InputError, match="no run 'nobody'"):
        bounded(refine_run("nobody", desk, "draft"))
    desk.ledger.start_run("begun", small().model_dump(mode="json"))
    with pytest.raises(InputError, match="'begun' is running: it has no report to verify"):
        bounded(refine_run("begun", desk, "draft"))
