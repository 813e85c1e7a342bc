"""An explanation is tested, not trusted: grounded, resumed from the ledger, bounded, and apart from the run itself."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from finllm.agents.agent import prompt_version
from finllm.agents.validator import VALIDATOR
from finllm.desk.desk import Desk
from finllm.desk.request import RunRequest
from finllm.errors import BackendError, InputError
from finllm.graphs.nodes import intake
from finllm.graphs.report import Report
from finllm.guardrails import rumours
from finllm.guardrails.audit.reading import open_recorded
from finllm.guardrails.grounding import ungrounded
from finllm.models.cards import AdapterCard, FieldCalibration
from finllm.models.ladder import PRUNED
from finllm.review.diff import diff_runs
from finllm.review.explain import explain
from finllm.review.explanation import Bound, Explanation, explanation_on_record
from finllm.review.influence import NODE
from finllm.review.replay import regenerate, replay
from finllm.review.result_sentences import LEFT_OUT
from finllm.review.trace import story_of, trace_html, trace_markdown, trace_story
from finllm.scheduler.backends import Generation, Offer, Request
from finllm.scheduler.broker import Broker
from finllm.scheduler.decoding.filling import fill
from finllm.tools.evidence import EvidenceTable
from tests.conftest import bounded
from tests.desks import request_for, run
from tests.graphs.test_flow import DOWN, READS_BADLY, READS_WELL
from tests.soak import Soak

MakeDesk = Callable[..., Desk]


READS_NOTHING = {"when": "What kind of event", "say": dict.fromkeys(DOWN, "none")}


class Looking:
    """A model that cites the first lines, and whose other choices depend only on which lines of `looks` are there."""

    def __init__(self, looks: str, precision: str = "Q4_0") -> None:
        self._looks = looks
        weights = f"sha256-of-one-that-looks-at-{looks}"
        self.offer = Offer(f"edge-{precision}", "edge", precision, weights, "scripted", 4096)
        self.requests: list[Request] = []
        self.fails = False

    async def generate(self, request: Request) -> Generation:
        self.requests.append(request)
        await asyncio.sleep(0)
        if self.fails:
            raise BackendError("out of memory", fix="wait")
        missing = sum(f"\n{label}: " not in request.prompt.user for label in self._looks)
        filled = fill(request.template, Answers(missing))
        return Generation(filled.text, filled.choices, 10, 10, 0.01)


class Answers:
    def __init__(self, shift: int) -> None:
        self._shift = shift

    def score(self, text: str, field: str, values: Sequence[str]) -> list[float]:
        del text
        wanted = values[self._shift % len(values)]
        if field in ("because", "closest", "refuse"):
            return [-math.log(2 + at) for at in range(len(values))]
        return [2.0 if value == wanted else 0.0 for value in values]


def looking_desk(make: MakeDesk, looks: str) -> tuple[Desk, Looking]:
    desk, model = make([]), Looking(looks)
    return replace(desk, broker=Broker([model], desk.ledger, desk.bus, call_timeout=60)), model


def why(desk: Desk, run_id: str = "run-1", bound: Bound | None = None) -> Explanation:
    return bounded(explain(run_id, desk, bound))


def lines_of(explanation: Explanation, title: str) -> tuple[str, ...]:
    return next(chapter.lines for chapter in explanation.chapters if title in chapter.title)


def report_of(desk: Desk, run_id: str = "run-1") -> Report:
    row = desk.ledger.run(run_id)
    assert row is not None
    return Report.model_validate(row.result)


def assert_grounded(explanation: Explanation, desk: Desk) -> None:
    report = report_of(desk, explanation.run_id)
    table = EvidenceTable((*report.evidence, *explanation.evidence))
    for chapter in explanation.chapters:
        assert LEFT_OUT not in chapter.lines
        for line in chapter.lines:
            assert ungrounded(line, table) == (), line


def small() -> RunRequest:
    return request_for("hormuz-blockade", sources=())


def test_a_model_that_looks_only_at_what_it_cites_is_faithful(scripted_desk: MakeDesk) -> None:
    desk, _model = looking_desk(scripted_desk, "AB")
    run(request_for("hormuz-blockade"), desk)
    found = why(desk)
    for citations in found.tested.values():
        assert (citations.top.less, citations.odds.less) == (0, 0)
        assert citations.top.shown
        assert citations.odds.shown
    assert [line for line in lines_of(found, "faithful") if line.endswith(": faithful.")]
    picks_two = [one for one in found.removals if one.agent != "sanity-checker"]
    assert {one.cited for one in picks_two} == {True, False}
    assert all(one.cited == one.measured == (one.distance > 0) for one in picks_two)
    assert all("which the agent named itself" in line for line in lines_of(found, "rests on")[1:])
    assert_grounded(found, desk)


def test_a_model_that_looks_at_what_it_does_not_cite_is_told_to_do_the_reverse(
    scripted_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsure = (rumours.card().open + rumours.card().sure) / 2  # every source is asked about: enough for a test
    monkeypatch.setattr(intake, "rumours", lambda texts, _embedded: [unsure] * len(texts))  # pyright: ignore
    desk, _model = looking_desk(scripted_desk, "CD")
    request = request_for("hormuz-blockade")
    told = ("Grain prices were little changed.", "The bond auction drew the usual bids.", "Copper rose a little.")
    first = request.scenario.sources[0]
    more = [
        first.model_copy(update={"id": f"more-{at}", "publisher": f"Paper {at}", "text": text})
        for at, text in enumerate(told)
    ]
    run(request_for("hormuz-blockade", sources=(*request.scenario.sources, *more)), desk)
    found = why(desk)
    assert found.tested["the agents' own citations"].odds.high < 0.5
    assert found.tested["measured citations"].odds.shown
    assert any("the reverse of faithful" in line for line in lines_of(found, "faithful"))
    assert [one.evidence for one in found.removals if one.measured and one.distance == 0] == []
    assert any("itself" in line and "which the agent" not in line for line in lines_of(found, "rests on"))
    assert_grounded(found, desk)


def test_at_another_precision_its_own_cards_priors_divide_the_scores(scripted_desk: MakeDesk) -> None:
    def card(aligned: float) -> AdapterCard:
        bias = {"aligned": aligned, "diverged": 0.0, "unresolved": 0.0}
        calibration = {"validator.verdict": FieldCalibration(temperature=1.0, bias=bias)}
        return AdapterCard(name="", base_sha256="", adapter_sha256="", prompts={"validator": prompt_version(VALIDATOR)},
                    calibration=calibration)  # fmt: skip

    models = [Looking("AB", PRUNED), Looking("AB", "F16")]
    desk = replace(scripted_desk([]), card=card(1.0), pruned=card(-1.0))
    desk = replace(desk, broker=Broker(models, desk.ledger, desk.bus, call_timeout=60))
    run(request_for("hormuz-blockade"), desk)
    in_the_run = [len(model.requests) for model in models]
    why(desk)
    divided_by = [
        {odds["aligned"] / odds["diverged"] for request in model.requests[at:]
         if "aligned" in (odds := (request.priors or {}).get("verdict", {}))}
        for model, at in zip(models, in_the_run, strict=True)
    ]  # fmt: skip
    assert divided_by == [{math.exp(-1.0)}, {math.exp(1.0)}]


def test_a_model_that_ignores_its_evidence_is_not_shown_to_be_faithful(scripted_desk: MakeDesk) -> None:
    desk, _model = looking_desk(scripted_desk, "")
    run(request_for("hormuz-blockade"), desk)
    found = why(desk)
    assert not [test for one in found.tested.values() for test in (one.top, one.odds) if test.shown]
    assert all("not tested" in line for line in lines_of(found, "faithful")[1:])
    assert lines_of(found, "without a line of evidence") == ()
    assert not any(one.measured for one in found.removals)
    assert all("rests on no line alone" in line for line in lines_of(found, "rests on"))
    assert_grounded(found, desk)


def test_the_run_is_rebuilt_as_before_and_its_calls_are_told_apart(scripted_desk: MakeDesk) -> None:
    desk, model = looking_desk(scripted_desk, "AB")
    run(small(), desk)
    before, judged = bounded(replay("run-1", desk)), story_of("run-1", desk.ledger).chapters
    result, asked = desk.ledger.run("run-1"), len(model.requests)
    found = why(desk)
    after = bounded(replay("run-1", desk))
    assert (after.data, after.hashes) == (before.data, before.hashes)
    assert desk.ledger.run("run-1") == result
    assert {use.node for use in desk.ledger.uses("run-1", "explanation")} == {NODE}
    assert [request.background for request in model.requests] == [False] * asked + [True] * (
        len(model.requests) - asked
    )
    assert story_of("run-1", desk.ledger).chapters == (*judged, *found.chapters)
    for told in (trace_story, trace_markdown, trace_html):
        assert "What drove the result" in told("run-1", desk.ledger)
    with open_recorded(desk.settings, "run-1") as ledger:
        again = bounded(regenerate("run-1", ledger, [model]))
    assert {one.node for one in again}.isdisjoint({NODE})
    run(small(), desk, "run-2")
    assert diff_runs("run-1", "run-2", desk.ledger).judgements == ()


def test_an_explanation_that_stopped_goes_on_from_the_ledger(scripted_desk: MakeDesk) -> None:
    desk, model = looking_desk(scripted_desk, "AB")
    run(small(), desk)
    asked = len(model.requests)
    part = why(desk, bound=Bound(calls=7))
    assert len(model.requests) == asked + 7
    assert not part.complete
    assert "is not finished" in lines_of(part, "was asked")[-1]
    assert "the bound was reached" in lines_of(part, "was asked")[-1]
    assert_grounded(part, desk)
    whole = why(desk)
    assert whole.complete
    assert len(model.requests) == asked + whole.calls
    assert len({str(request) for request in model.requests[asked:]}) == whole.calls
    assert why(desk, bound=Bound(calls=0)).removals == whole.removals
    assert len(model.requests) == asked + whole.calls
    kept = explanation_on_record("run-1", desk.ledger)
    assert kept is not None
    assert kept.complete


def test_a_cancelled_explanation_leaves_the_run_and_goes_on_later(scripted_desk: MakeDesk) -> None:
    desk, _model = looking_desk(scripted_desk, "AB")
    run(small(), desk)
    result, before = desk.ledger.run("run-1"), len(desk.ledger.uses("run-1", "call"))

    async def cancelled() -> None:
        task = asyncio.create_task(explain("run-1", desk))
        while len(desk.ledger.uses("run-1", "call")) < before + 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    bounded(cancelled())
    assert desk.ledger.run("run-1") == result
    assert explanation_on_record("run-1", desk.ledger) is None
    already = len(desk.ledger.uses("run-1", "call"))
    found = why(desk)
    assert found.complete
    calls = [use for use in desk.ledger.uses("run-1", "call")[already:] if not use.reused]
    assert len(calls) < found.calls


def test_a_model_that_fails_is_said_and_changes_nothing(scripted_desk: MakeDesk) -> None:
    desk, model = looking_desk(scripted_desk, "AB")
    run(small(), desk)
    result, model.fails = desk.ledger.run("run-1"), True
    found = why(desk)
    assert (found.complete, found.removals) == (False, ())
    assert "out of memory" in lines_of(found, "was asked")[-1]
    assert lines_of(found, "What drove the result")
    assert desk.ledger.run("run-1") == result
    assert bounded(replay("run-1", desk)).node == "report"


def restricted() -> RunRequest:
    request = request_for("hormuz-blockade")
    limits = request.limits.model_copy(update={"restricted": ["AAPL"]})
    return request.model_copy(update={"limits": limits})


@pytest.mark.parametrize(
    ("request_of", "script", "says"),
    [
        (restricted, [READS_WELL], "EQUITY_US was read «down»"),
        (lambda: request_for("hormuz-blockade"), [READS_BADLY], "the user gave it"),
        (lambda: request_for("non-event"), [READS_NOTHING], "No shock was applied"),
        (lambda: request_for("lehman-2008"), [READS_WELL], "the window that is replayed"),
        (lambda: request_for("hormuz-blockade"), [{"fail": "the engine is down"}], "the user gave it"),
    ],
    ids=["blocked", "withheld", "non-event", "replayed", "without a judgement"],
)
def test_every_kind_of_run_is_explained_in_grounded_sentences(
    request_of: Callable[[], RunRequest], script: list[dict[str, object]], says: str, scripted_desk: MakeDesk
) -> None:
    desk = scripted_desk(script, script)
    outcome = run(request_of(), desk)
    found = why(desk)
    assert any(says in line for line in lines_of(found, "What drove the result"))
    assert_grounded(found, desk)
    assert outcome.report is not None
    told = " ".join(lines_of(found, "Who dissented"))
    assert all(one.said in told for one in outcome.report.dissent)


def test_a_run_that_cites_nothing_is_explained_without_a_test(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([{"fail": "the engine is down"}])
    run(small(), desk)
    found = why(desk)
    assert (found.calls, found.pairs, found.complete) == (0, (), True)
    assert lines_of(found, "rests on") == ()
    assert any("abstained" in line for line in lines_of(found, "Who dissented"))


def test_only_a_run_with_a_result_is_explained(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    with pytest.raises(InputError, match="no run 'nobody'"):
        why(desk, "nobody")
    desk.ledger.start_run("begun", small().model_dump(mode="json"))
    with pytest.raises(InputError, match="no result to explain"):
        why(desk, "begun")


@pytest.mark.timeout(600)
@pytest.mark.soak
def test_the_real_model_is_explained_and_asked_once(soak: Soak, real_desk: Desk) -> None:
    for _ in soak.rounds(1):
        assert_explained_and_asked_once(real_desk)


def assert_explained_and_asked_once(real_desk: Desk) -> None:
    run(small(), real_desk, "explained")
    found = bounded(explain("explained", real_desk, Bound(seconds=480)), 500)  # on a busy machine
    assert found.complete, found
    assert {one.agent for one in found.removals} == {"market-signal", "validator", "compliance"}
    assert all(0 <= one.distance <= 1 for one in found.removals)
    assert any(one.distance > 0 for one in found.removals)
    assert_grounded(found, real_desk)
    again = bounded(explain("explained", real_desk, Bound(calls=0)), 60)
    assert again.removals == found.removals
