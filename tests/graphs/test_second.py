"""The second opinion in a run: evidence, one deep re-reading, dissent on record; and a run that has none."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finllm.desk.desk import Desk
from finllm.errors import ReplayRefused
from finllm.graphs.report import to_markdown
from finllm.models.embedding import Embedder
from finllm.models.injection import INJECTIONS, InjectionJudge
from finllm.models.second_opinion import Probabilities, SecondOpinion
from finllm.review.replay import replay
from finllm.review.trace import trace_story
from tests.conftest import bounded
from tests.desks import Seen, request_for, run
from tests.graphs.test_flow import READS_WELL, nodes

MakeDesk = Callable[..., Desk]
SURE_OF_A_FALL = {"factors.OIL_WTI.direction": {"up": 0.05, "down": 0.9, "none": 0.05},
                  "stance": {"hawkish": 0.2, "dovish": 0.2, "neutral": 0.6}}  # fmt: skip


class Fixed(SecondOpinion):
    """One that always says the same. `about` keeps what it was asked."""

    def __init__(self, told: Probabilities, digest: str = "0" * 64) -> None:
        super().__init__(Embedder())
        self._told, self._digest = told, digest
        self.about: list[str] = []

    def judge(self, texts: Sequence[str]) -> list[Probabilities]:
        self.about += texts
        return [self._told for _ in texts]

    @property
    def digest(self) -> str:
        return self._digest


class Finds(InjectionJudge):
    """One that takes a single sentence for an instruction."""

    def __init__(self, steering: str) -> None:
        super().__init__(SecondOpinion(Embedder(), name=INJECTIONS))
        self._steering = steering

    def instructions(self, parts: Sequence[str]) -> list[str]:
        return [part for part in parts if part == self._steering]


def with_second(desk: Desk, told: Probabilities, digest: str = "0" * 64) -> Desk:
    return replace(desk, second=Fixed(told, digest))


def test_its_verdict_is_evidence_and_a_sure_difference_is_read_again_and_dissent(
    scripted_desk: MakeDesk, seen: Seen
) -> None:
    desk = with_second(scripted_desk([READS_WELL], [READS_WELL]), SURE_OF_A_FALL)
    report = run(request_for("hormuz-blockade"), desk).report
    assert report is not None
    assert "reread" in nodes(seen)
    (oil, stance) = report.second
    assert (oil.read, oil.second, oil.diverged) == ("up", "down", True)
    assert not stance.diverged
    rows = {row.id: row for row in report.evidence}
    assert rows[oil.probability.evidence].value == 0.9
    assert "classifier 000000000000 over the narrative" in (rows[oil.probability.evidence].formula or "")
    assert [(d.about, d.said) for d in report.dissent if d.who == "second opinion"] == [(oil.field, "down")]
    assert report.verdict != "unresolved"
    assert "## Second opinion" in to_markdown(report)
    story = trace_story("run-1", desk.ledger)
    assert re.search(r"second opinion +factors\.OIL_WTI\.direction +down +up +the narrative's reading", story)


def test_it_changes_no_shock(scripted_desk: MakeDesk) -> None:
    plain = run(request_for("hormuz-blockade"), scripted_desk([READS_WELL], [READS_WELL])).report
    desk = with_second(scripted_desk([READS_WELL], [READS_WELL]), SURE_OF_A_FALL)
    doubted = run(request_for("hormuz-blockade"), desk, "run-2").report
    assert plain is not None
    assert doubted is not None
    assert [(s.factor, s.move.value) for s in plain.shocks] == [(s.factor, s.move.value) for s in doubted.shocks]


def test_sources_that_the_checks_reject_are_not_read(scripted_desk: MakeDesk) -> None:
    second = Fixed(SURE_OF_A_FALL)
    run(request_for("hormuz-blockade"), replace(scripted_desk([READS_WELL], [READS_WELL]), second=second))
    assert request_for("hormuz-blockade").scenario.narrative[:1500] in second.about
    assert not any("ignore all" in text.lower() for text in second.about)


def test_a_line_that_the_judge_takes_for_an_instruction_is_cut_and_on_record(scripted_desk: MakeDesk) -> None:
    request = request_for("hormuz-blockade")
    source = request.scenario.sources[0]
    steering = source.text.split(". ")[0] + "."
    second = Fixed(SURE_OF_A_FALL)
    desk = replace(scripted_desk([READS_WELL], [READS_WELL]), second=second, injections=Finds(steering))
    report = run(request, desk).report
    assert report is not None
    (row,) = [one for one in report.sources if one.id == source.id]
    assert row.verdict == "credible"
    assert any(cut.startswith("suspected: ") and steering[:100] in cut for cut in row.removed)
    assert not any(steering in text for text in second.about[1:])


def test_news_in_another_language_is_flagged_and_stays(scripted_desk: MakeDesk) -> None:
    request = request_for("hormuz-blockade")
    text = "Die Meerenge bleibt nach Angaben der Marine gesperrt. Reeder leiten ihre Tanker um das Kap um."
    german = request.scenario.sources[0].model_copy(update={"text": text})
    asked = request_for("hormuz-blockade", sources=(german,))
    report = run(asked, scripted_desk([READS_WELL], [READS_WELL])).report
    assert report is not None
    assert [(one.verdict, one.removed) for one in report.sources] == [("credible", ())]
    assert [line for line in report.blocked if "flagged, not cut" in line and "2 in German" in line]


def test_another_head_is_another_run_and_a_replay_says_so(scripted_desk: MakeDesk) -> None:
    desk = with_second(scripted_desk([READS_WELL], [READS_WELL]), SURE_OF_A_FALL)
    run(request_for("hormuz-blockade", sources=()), desk)
    assert bounded(replay("run-1", desk)).node == "report"
    with pytest.raises(ReplayRefused, match="second opinion"):
        bounded(replay("run-1", with_second(desk, SURE_OF_A_FALL, "1" * 64)))


def test_a_run_without_one_says_so_and_goes_on(scripted_desk: MakeDesk, seen: Seen, tmp_path: Path) -> None:
    desk = replace(scripted_desk([READS_WELL], [READS_WELL]), second=SecondOpinion(Embedder(), tmp_path))
    report = run(request_for("hormuz-blockade", sources=()), desk).report
    assert report is not None
    assert report.second == ()
    notes: list[Any] = seen.kinds("noted")
    assert any("without a second opinion" in note.message for note in notes)
    assert bounded(replay("run-1", desk)).node == "report"
