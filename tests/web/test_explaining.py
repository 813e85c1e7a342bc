"""Asking from the page what would flip a result: worked on beside, within a bound, and what fails is seen."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from finllm.errors import InputError
from finllm.guardrails.audit.recorder import open_recorder
from finllm.review.explanation import Bound, Explanation
from finllm.review.story import Chapter
from finllm.settings import Settings
from finllm.tools.evidence import Evidence
from finllm.web.explaining import Explaining
from tests.web.conftest import WAIT, Made, Served, copied, serving_at

FLIPS = "What would flip it: the smallest change of one shock"


def found(run: str, rows: list[dict[str, Any]], *, complete: bool) -> Explanation:
    """An explanation with a row of its own behind the run's."""
    last = Evidence.model_validate(rows[-1])
    added = last.model_copy(update={"id": f"E{len(rows) + 1}", "what": "smallest change that breaches"})
    told = Chapter(FLIPS, (f"OIL_WTI at +22 % breaches [{added.id}]",))
    return Explanation(run_id=run, title="t", complete=complete, calls=3, bound=Bound(), removals=(), pairs=(),
                       tested={}, chapters=(told,), evidence=(added,))  # fmt: skip


def half(pipe: Connection, run: str, settings: Settings) -> None:
    """Explains half of it."""
    _record(run, settings, complete=False)
    pipe.send({"busy": False, "done": 1, "total": 2})


def whole(pipe: Connection, run: str, settings: Settings) -> None:
    pipe.send({"done": 1, "total": 7})
    while not (settings.home / "go").exists():
        time.sleep(0.02)
    _record(run, settings, complete=True)
    pipe.send({"busy": False})


def fails(pipe: Connection, run: str, settings: Settings) -> None:
    del run, settings
    pipe.send({"busy": False, "failed": ("the model file is gone", "finllm models list")})


def dies(pipe: Connection, run: str, settings: Settings) -> None:
    del pipe, run, settings
    os._exit(9)


def hangs(pipe: Connection, run: str, settings: Settings) -> None:
    del pipe, run, settings
    time.sleep(600)


def _record(run: str, settings: Settings, *, complete: bool) -> None:
    with closing(open_recorder(settings)) as ledger:
        row = ledger.run(run)
        assert row is not None
        assert row.result is not None
        ledger.record(found(run, row.result["evidence"], complete=complete).entry(), run_id=run, node="explain")


@pytest.fixture
def desk(made: Made, tmp_path: Path) -> Iterator[Served]:
    with serving_at(copied(made, tmp_path / "home")) as served:
        yield served


def explains_by(served: Served, work: Any, longest: float = 60.0) -> None:
    serving = served.serving
    serving.explaining = Explaining(serving.settings, work, longest)
    serving.explaining.on_change(serving.live.changed)


def ended(served: Served, run: str) -> None:
    until = time.monotonic() + WAIT
    while (now := served.serving.explaining.now(run)) is None or now.busy:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("where", ["item", "run"])
def test_what_would_flip_it_is_asked_from_the_page_and_comes_onto_it(desk: Served, where: str) -> None:
    explains_by(desk, whole)
    run, client = desk.made.runs[-1], desk.signed_in("rev1")
    path = f"/item/{desk.made.item}" if where == "item" else f"/run/{run}"
    assert "Nobody has asked yet" in client.get(path).text
    answer = desk.post(client, f"{path}/explain")
    assert answer.status_code == 303
    assert answer.headers["location"].endswith("#flips")
    until = time.monotonic() + WAIT
    while "1 of 7 questions" not in (busy := client.get(path).text):
        assert "for rev1" in busy
        assert time.monotonic() < until
        time.sleep(0.2)  # no quicker than the desk lets a visitor ask
    assert 'explain"><button' not in busy
    (desk.serving.settings.home / "go").touch()
    ended(desk, run)
    shown = client.get(path).text
    assert FLIPS in shown
    assert "OIL_WTI at +22 % breaches" in shown
    report = desk.serving.reports.get(run).report
    assert report is not None
    own = f"E{len(report.evidence) + 1}"
    assert f"{path}?open={own}#opened" in shown
    assert "smallest change that breaches" in client.get(f"{path}?open={own}").text, "a row that it adds opens too"
    assert "Go on asking" not in shown


def test_what_the_command_line_explained_opens_its_rows_without_a_restart(desk: Served) -> None:
    run, client = desk.made.runs[-1], desk.signed_in("rev1")
    report = desk.serving.reports.get(run).report
    assert report is not None
    own = f"E{len(report.evidence) + 1}"
    page = f"/run/{run}?open={own}"
    assert "smallest change that breaches" not in client.get(page).text
    _record(run, desk.serving.settings, complete=True)
    assert "smallest change that breaches" in client.get(page).text


def test_a_run_s_page_reads_itself_again_while_it_waits_and_only_then(desk: Served) -> None:
    explains_by(desk, whole)
    run, client = desk.made.runs[-1], desk.signed_in("rev1")
    address = desk.post(client, f"/run/{run}/explain").headers["location"]
    refresh = '<meta http-equiv="refresh" content="3">'
    assert refresh in client.get(address).text
    assert refresh not in client.get(f"/run/{run}").text
    (desk.serving.settings.home / "go").touch()
    ended(desk, run)
    assert refresh not in client.get(address).text


def test_what_its_bound_left_out_can_be_asked_on(desk: Served) -> None:
    explains_by(desk, half)
    run, client = desk.made.runs[-1], desk.signed_in("rev1")
    desk.post(client, f"/run/{run}/explain")
    ended(desk, run)
    shown = client.get(f"/run/{run}").text
    assert "Not everything was asked within its bound" in shown
    assert "Go on asking" in shown


@pytest.mark.parametrize(("work", "longest", "said"), [
    (fails, 60.0, ("the model file is gone", "Finllm models list")),
    (dies, 60.0, ("the process that worked on it has ended", "ask again")),
    (hangs, 1.0, ("it was stopped after 1 s", "ask again to go on")),
])  # fmt: skip
def test_what_fails_is_seen_and_can_be_asked_again(
    desk: Served, work: Any, longest: float, said: tuple[str, str]
) -> None:
    explains_by(desk, work, longest)
    run, client = desk.made.runs[-1], desk.signed_in("rev1")
    desk.post(client, f"/run/{run}/explain")
    ended(desk, run)
    shown = client.get(f"/run/{run}").text
    assert "It was not explained" in shown
    for one in said:
        assert one in shown
    assert "Ask the models" in shown


def test_one_run_is_explained_at_a_time_and_asking_twice_asks_once(desk: Served) -> None:
    explains_by(desk, whole)
    first, second = desk.made.runs[0], desk.made.runs[-1]
    explaining = desk.serving.explaining
    explaining.begin(first, "rev1")
    explaining.begin(first, "rev2")
    now = explaining.now(first)
    assert now is not None
    assert now.who == "rev1"
    with pytest.raises(InputError, match="another run is being explained"):
        explaining.begin(second, "rev2")
    client = desk.signed_in("rev2")
    answer = desk.post(client, f"/run/{second}/explain")
    assert answer.status_code == 400
    assert "one is at a time" in answer.text
    (desk.serving.settings.home / "go").touch()
    ended(desk, first)


def test_a_run_that_is_not_there_is_not_explained(desk: Served) -> None:
    client = desk.signed_in("rev1")
    assert desk.post(client, "/run/none/explain").status_code == 404
    assert desk.post(client, "/item/r-99/explain").status_code == 404
