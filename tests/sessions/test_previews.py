"""What is shown at once is then recorded; a hedge starts there; bands widen with their level; slips are asked about."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from finllm.errors import InputError
from finllm.running import Runner
from finllm.sessions.answers import Answer
from finllm.sessions.session import Session
from tests.sessions.opened import SAY, Make, open_on, total

PREVIEWED = (
    'shock OIL_WTI {n}% because "x"', 'shock EQUITY_US -{n}% because "x"', 'shock OIL_WTI none because "x"',
    'read GOLD up large because "y"', 'read EQUITY_US down small because "y"', 'read VIX none because "calm"',
    'withhold VIX because "t"', 'accept GOLD because "t"', "hold", "complete", "horizon {n}", "trade AAPL -{n}",
    "trade XOM {n}", "replay lehman-2008", "replay off", "goto v1", "undo",
)  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_shown_at_once_is_what_the_run_then_finds(seed: int, session: Session) -> None:
    draw, compared = random.Random(seed), 0
    for _ in range(8):
        shown: list[Answer] = []
        answer = session.do(draw.choice(PREVIEWED).format(n=draw.randint(5, 60)), shown.append)
        if not shown or answer.figures is None or shown[0].figures is None:
            continue
        compared += 1
        told, found = shown[0].figures, answer.figures
        assert told.total == found.total, answer.line
        assert told.by_position == found.by_position, answer.line
        assert told.compliance == found.compliance, answer.line
        assert not any("the run on record" in one for one in answer.said), answer.line
    assert compared > 2


@pytest.mark.parametrize(
    "line", ["hold", 'shock EQUITY_US -15% because "x"', "replay lehman-2008", "trade AAPL -500", "horizon 5"]
)
def test_a_hedge_starts_from_the_versions_own_total(line: str, session: Session) -> None:
    session.do(line)
    for asked in ("hedge 5%", "hedge"):
        found = session.do(asked)
        assert found.data is not None, found.error
        assert found.data["total_before"] == total(session)


def test_a_trade_out_of_proportion_wants_a_yes(session: Session) -> None:
    held = next(one for one in session.version.request.portfolio.positions if one.id == "AAPL").quantity
    assert held is not None
    for line, said in (("trade AAPL -999999999", f"times the {held:,.10g} held, and leaves a short of"),
                       (f"trade AAPL -{2 * held:.0f}", "leaves a short of"),
                       ("trade PG -1", "of which none is held") if not _holds(session, "PG") else
                       ("trade AAPL 99999999", "times the book's gross value")):  # fmt: skip
        refused = session.do(line)
        assert isinstance(refused.error, InputError), line
        assert said in refused.error.message
        assert refused.error.fix.endswith(" yes")
        assert list(session.tree.versions) == [1]
    done = session.do(f'trade AAPL -{2 * held:.0f} yes because "a hedge"')
    assert done.error is None
    assert done.said[0] == f"AAPL: {held:,.10g} held, {-held:,.10g} after the trade"
    assert session.do(f"trade AAPL {held:.0f}").error is None or session.do(f"trade AAPL {held:.0f} yes").error is None


def _holds(session: Session, id: str) -> bool:
    return any(one.id == id for one in session.version.request.portfolio.positions)


def test_no_folder_is_made_unasked(session: Session, tmp_path: Path) -> None:
    for line in (f"save {tmp_path / 'no' / 'x.yaml'}", f"minutes {tmp_path / 'no' / 'm.md'}"):
        refused = session.do(line)
        assert isinstance(refused.error, InputError)
        assert "mkdir -p" in refused.error.fix
        assert not (tmp_path / "no").exists()


def test_a_higher_level_is_never_narrower_at_either_end(scripted_desk: Make, runner: Runner) -> None:
    doubts = [{"when": "", "say": {**SAY[0]["say"], "plausibility": "implausible"}}]
    with open_on(scripted_desk(doubts), runner) as session:
        session.do('read OIL_WTI up large because "the terminal is shut"')
        bands: list[tuple[float, float]] = []
        for level in (50, 80, 90, 95, 99):
            session.do(f"level {level}")
            report = session.report_of(session.version)
            assert report is not None
            assert report.interval is not None
            bands.append((report.interval[0].value, report.interval[1].value))
        assert bands == sorted(bands, key=lambda one: -one[0]) == sorted(bands, key=lambda one: one[1])
