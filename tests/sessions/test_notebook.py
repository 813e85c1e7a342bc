"""`from finllm import Session`: the session behind every door, and how a notebook shows it."""

from __future__ import annotations

from collections.abc import Callable

import finllm
from finllm.desk.desk import Desk
from finllm.running import Runner
from finllm.sessions.opening import Start
from tests.desks import request_for
from tests.sessions.test_session import SAY


def test_a_session_and_its_answers_are_tables_whose_text_is_escaped(scripted_desk: Callable[..., Desk]) -> None:
    request = request_for("hormuz-blockade")
    with Runner() as runner:
        start = Start("hormuz-blockade", request=request)
        with finllm.Session.on(start, scripted_desk(SAY), runner, who="risk1") as session:
            session.begin()
            answer = session.do('shock OIL_WTI +60% because "<b>mined</b>"')
            report = session.report_of(session.version)
            assert report is not None
            told = session._repr_html_()
            assert report.total.cited in told
            assert "<b>mined" not in told
            assert "&lt;b&gt;mined" in told
            assert told.count("<tr>") == 3
            assert str(report.total) in answer._repr_html_()
            assert "<b>error:" in session.do("shock OIL_WTI +60%")._repr_html_()
