"""Many runs at one desk: the same answers as alone, none stopped by another, and gone on with where they stopped."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from finllm.desk.desk import Desk
from finllm.desk.request import RunRequest
from finllm.errors import FinllmError
from finllm.events import RUN, Event
from finllm.graphs.flow import Outcome
from finllm.sessions.batch import Batch, Ended, Member, find_batch, open_batch, run_batch
from finllm.tools.data.scenario import BudgetEntry
from finllm.tools.forecasts.calibrations import Calibrations
from tests.conftest import LONGEST_RUN
from tests.desks import Seen, request_for, run
from tests.graphs.test_flow import READS_BADLY, READS_WELL

MakeDesk = Callable[..., Desk]
NOW = dt.datetime(2022, 6, 30, 20, tzinfo=dt.UTC)
SCENARIOS = ("hormuz-blockade", "gilt-spiral", "non-event", "ceasefire")


def requests(**changes: Any) -> list[tuple[str, RunRequest]]:
    """Four scenarios on one horizon, so that they share their calibrations."""
    return [(name, request_for(name, horizon=10, **changes)) for name in SCENARIOS]


def drive(batch: Batch, desk: Desk, jobs: int = 4, **options: Any) -> list[Ended]:
    def keep(member: Member, outcome: Outcome) -> None:
        del member, outcome

    async def bounded() -> list[Ended]:
        with anyio.fail_after(LONGEST_RUN):
            return await run_batch(batch, desk, jobs, options.pop("keep", keep), lambda _: None, **options)

    return asyncio.run(bounded())


def test_runs_of_a_batch_say_what_they_say_alone(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_BADLY], [READS_WELL])
    wanted = requests()
    ended = drive(open_batch(wanted, desk, NOW, "aa"), desk)
    assert [one.member.name for one in ended] == list(SCENARIOS)
    for one, (name, request) in zip(ended, wanted, strict=True):
        alone = run(request, desk, f"alone-{name}").report
        assert one.outcome is not None
        assert one.outcome.report is not None
        assert alone is not None
        assert one.outcome.report.model_copy(update={"run_id": alone.run_id, "spent": alone.spent}) == alone


def test_every_event_of_a_run_is_told_in_its_name(scripted_desk: MakeDesk, seen: Seen) -> None:
    desk = scripted_desk([READS_WELL])
    told: list[tuple[str | None, Event]] = []
    desk.bus.subscribe(lambda event: told.append((RUN.get(), event)))
    batch = open_batch(requests(), desk, NOW, "ab")
    drive(batch, desk)
    own = {member.run_id for member in batch.members}
    kinds = ("node_started", "node_finished", "call_finished", "placed", "judged")
    of = [(run_id, getattr(event, "kind", "")) for run_id, event in told]
    assert all(run_id in own for run_id, kind in of if kind in kinds)
    for run_id in own:
        assert [kind for name, kind in of if name == run_id].count("run_finished") == 1
    assert RUN.get() is None
    del seen


def test_a_spent_budget_stops_its_own_run_only(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    wanted = requests()
    name, request = wanted[1]
    little = BudgetEntry(seconds=None, tokens=10, deep_tokens=None)
    poor = request.scenario.model_copy(update={"budget": little, "shocks": (), "replay": None})
    wanted[1] = name, request.model_copy(update={"scenario": poor})
    batch = open_batch(wanted, desk, NOW, "ac")
    ended = drive(batch, desk)
    assert [one.error is None for one in ended] == [True, False, True, True]
    assert getattr(ended[1].error, "kind", "") == "budget_exceeded"
    reports = [one.outcome.report for one in ended if one.outcome]
    assert len([report for report in reports if report is not None]) == 3

    again = drive(batch, desk, budget=BudgetEntry(seconds=None, tokens=1_000_000, deep_tokens=None))
    assert [one.error for one in again] == [None] * 4
    assert next(one.outcome.report for one in again if one.outcome) == reports[0]


def test_a_stopped_batch_is_gone_on_with_and_no_recorded_call_is_repeated(scripted_desk: MakeDesk, seen: Seen) -> None:
    desk = scripted_desk([READS_WELL])
    batch = open_batch(requests(), desk, NOW, "ad")

    async def interrupted() -> None:
        task = asyncio.create_task(run_batch(batch, desk, 2, lambda *_: None, lambda _: None))
        while len(seen.kinds("call_finished")) < 12:
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted())
    asked = {event.key for event in seen.kinds("call_finished")}
    assert {row.status for row in desk.ledger.runs()} <= {"stopped", "finished"}
    seen.clear()

    found = open_batch(requests(), desk, NOW + dt.timedelta(hours=1), "ae")
    assert (found.id, found.members, found.resumed) == (batch.id, batch.members, True)
    assert find_batch(batch.id, desk.ledger) == found
    ended = drive(found, desk)
    assert all(one.error is None for one in ended)
    assert not asked & {event.key for event in seen.kinds("call_started")}
    assert open_batch(requests(), desk, NOW, "af").id != batch.id, "it has ended"


def test_other_inputs_are_another_batch_and_another_order_is_not(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    batch = open_batch(requests(), desk, NOW, "ag")
    assert open_batch(requests()[::-1], desk, NOW, "ah").id == batch.id
    assert open_batch(requests()[:3], desk, NOW, "ai").id != batch.id
    assert open_batch(requests(as_of=dt.date(2022, 6, 29)), desk, NOW, "aj").id != batch.id
    assert find_batch("no-such", desk.ledger) is None


def test_a_batch_is_one_process_s_at_a_time(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    batch = open_batch(requests()[:1], desk, NOW, "ak")
    inside: list[FinllmError] = []

    def keep(member: Member, outcome: Outcome) -> None:
        del member, outcome
        with pytest.raises(FinllmError, match="another process") as caught:
            asyncio.run(run_batch(batch, desk, 1, lambda *_: None, lambda _: None))
        inside.append(caught.value)

    drive(batch, desk, keep=keep)
    assert inside


def test_what_writing_its_files_raises_is_the_run_s_error(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])

    def keep(member: Member, outcome: Outcome) -> None:
        del outcome
        if member.name == "non-event":
            raise FinllmError("cannot write", fix="free some space")

    ended = drive(open_batch(requests(), desk, NOW, "al"), desk, keep=keep)
    assert [one.member.name for one in ended if one.error] == ["non-event"]


def test_threads_that_need_the_same_calibration_compute_it_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    import pandas as pd

    from finllm.tools.forecasts import calibrations as calibration

    made: list[int] = []
    real = calibration.calibrate_ensemble

    def counted(levels: Any, pace: Any, horizons: Any) -> Any:
        made.append(1)
        return real(levels, pace, horizons)

    monkeypatch.setattr(calibration, "calibrate_ensemble", counted)
    days = pd.bdate_range("2018-01-01", periods=1500)
    levels = pd.Series([4 + 0.01 * ((at * 7919) % 13 - 6) for at in range(1500)], index=days)
    shared = Calibrations(tmp_path)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(shared.get("x", levels, "daily", (5,)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 1
    assert len(found) == 4
    assert all(one == found[0] for one in found)
