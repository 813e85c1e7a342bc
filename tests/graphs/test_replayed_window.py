"""A run that replays a window or walks a path: its heading, what it says first, and over how many days it is."""

import datetime as dt
from collections.abc import Callable

from finllm.desk.desk import Desk
from finllm.graphs.report import to_markdown
from finllm.tools.data.scenario import PathTable, Replay
from tests.desks import request_for, run


def test_a_replay_is_headed_by_its_window_and_names_first_what_has_no_data_there(
    scripted_desk: Callable[..., Desk],
) -> None:
    request = request_for("lehman-2008")
    window = Replay(start=dt.date(2022, 1, 3), end=dt.date(2022, 10, 12))
    story = request.scenario.model_copy(update={"replay": window, "as_of": dt.date(2022, 12, 28), "sources": ()})
    report = run(request.model_copy(update={"scenario": story}), scripted_desk([{}], [{}])).report
    assert report is not None
    assert report.over == "a replay of 2022-01-03 to 2022-10-12 (202 trading days)"
    assert report.first[0].startswith("No data in that window: CREDIT_BAA_AAA, RATE_US_10Y, OIL_WTI held still;")
    assert "over 202 days" in report.summary[0]
    assert all(row.origin == "historical" for row in report.shocks)
    equity = next(row for row in report.shocks if row.factor == "EQUITY_US")
    evidence = {row.id: row for row in report.evidence}
    assert equity.implied is not None
    assert equity.off is not None
    assert evidence[equity.implied.evidence].what == "move that the other shocks imply"
    assert evidence[equity.off.evidence].unit == "sigma"
    page = to_markdown(report)
    assert page.index("a replay of 2022-01-03") < page.index("No data in that window") < page.index("moves the book")
    assert any(note.startswith("Together the shocks are") for note in report.notes)


def test_a_path_is_headed_by_the_days_to_its_worst_step_and_by_no_other_horizon(
    scripted_desk: Callable[..., Desk],
) -> None:
    steps = [{"days": 63, "shocks": [{"factor": "EQUITY_US", "move": move}]} for move in ("-10%", "-15%", "+20%")]
    path = PathTable.model_validate({"steps": steps})
    request = request_for("lehman-2008", path=path, replay=None, horizon=20, sources=())
    report = run(request, scripted_desk([{}], [{}])).report
    assert report is not None
    assert [row.worst for row in report.path] == [False, True, False]
    assert report.horizon == 126
    assert report.over == "over 126 trading days"
    assert "over 126 days" in report.summary[0]
    page = to_markdown(report)
    assert "over 126 trading days" in page
    assert "over 20" not in page
