"""The state is typed where it is read and JSON where it is kept, and the way between the two loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_type_hints

import pytest
from pydantic import ValidationError

from finllm.agents.agent import Opinion
from finllm.agents.narrative import NARRATIVE, Reading
from finllm.agents.sanity_checker import SANITY_CHECKER, SourceCheck
from finllm.agents.validator import VALIDATOR
from finllm.desk.desk import Desk, open_run
from finllm.errors import RecordError
from finllm.graphs.flow import NODES
from finllm.graphs.rows import HeardSource, OpinionRow
from finllm.graphs.state import AfterIntake, AfterValidator, Channels, Finished, Update, after, state_hash
from finllm.review.replay import replay
from finllm.scheduler.placement.task import canonical
from tests.conftest import bounded
from tests.desks import go_on, request_for, run
from tests.graphs.test_flow import READS_BADLY, READS_WELL

MakeDesk = Callable[..., Desk]
CREDIBLE = Opinion(
    agent=SANITY_CHECKER.role,
    status="judged",
    judgement=SourceCheck(verdict="credible", because=("E1",)),
    choices={"verdict": {"credible": 0.9}},
    calls=["k"],
    backend="edge",
    precision="Q4_0",
    prompt_version="0" * 12,
)


def source(**changes: object) -> HeardSource:
    told = {"id": "s1", "publisher": "Reuters", "published_at": "2022-06-24T08:00:00+00:00", "text": "Oil jumps.",
            "removed": [], "left_out": None, "says": {"OIL_WTI": "up"}, "verdict": "credible", "provenance": [],
            "evidence": "E1"}  # fmt: skip
    return HeardSource.model_validate({**told, **changes})


def test_what_a_checkpoint_keeps_a_node_may_find_and_a_finished_state_has_are_the_same() -> None:
    assert set(get_type_hints(Channels)) == set(Update.model_fields) == set(Finished.model_fields)


@pytest.mark.parametrize("scenario", ["hormuz-blockade", "lehman-2008"])
def test_the_state_of_a_run_on_record_is_read_and_dumped_byte_for_byte(scenario: str, scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_BADLY], [READS_BADLY])
    asking = request_for(scenario).model_copy(update={"on_unresolved": "ask"})
    if run(asking, desk).status == "waiting":
        go_on(desk, answer="accept")
    last = bounded(replay("run-1", desk))
    typed = Finished.model_validate(last.state)
    dumped = typed.model_dump(mode="json", exclude={"report": {"spent"}})
    assert canonical(dumped) == last.data
    assert state_hash(dumped) == dict(last.hashes)["report"]
    early = bounded(replay("run-1", desk, at="validator:1"))
    assert canonical(AfterValidator.model_validate(early.state).model_dump(mode="json")) == early.data


def test_a_field_that_comes_later_is_in_the_json_once_it_is_set_be_it_to_nothing() -> None:
    assert {"agent_verdict", "hearsay"}.isdisjoint(source().model_dump(mode="json"))
    abstained = source().model_copy(update={"agent_verdict": None})
    assert abstained.model_dump(mode="json")["agent_verdict"] is None
    assert HeardSource.model_validate(abstained.model_dump(mode="json")).model_dump(mode="json") == (
        abstained.model_dump(mode="json")
    )


def test_an_update_writes_what_it_was_given_and_appends_opinions() -> None:
    first, second = OpinionRow.of(CREDIBLE, about="s1"), OpinionRow.of(CREDIBLE, about="s2")
    assert Update(passes=0).to_json() == {"passes": 0}
    before = after({}, Update(passes=1, opinions=(first,)).to_json())
    both = after(before, Update(passes=2, opinions=(second,)).to_json())
    assert both["passes"] == 2
    assert [OpinionRow.model_validate(one) for one in both["opinions"]] == [first, second]  # type: ignore[union-attr]
    assert "about" not in OpinionRow.of(CREDIBLE).model_dump(mode="json")


def test_an_opinion_is_read_with_the_judgement_of_its_role_and_no_other() -> None:
    told = OpinionRow.of(CREDIBLE).model_dump(mode="json")
    assert OpinionRow.model_validate(told).judgement == CREDIBLE.judgement
    with pytest.raises(ValidationError, match="no agent 'soothsayer'"):
        OpinionRow.model_validate({**told, "agent": "soothsayer"})
    with pytest.raises(ValidationError, match="Field required"):
        OpinionRow.model_validate({**told, "agent": NARRATIVE.role})


def test_a_node_whose_checkpoint_lacks_what_it_reads_is_refused_by_name(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    request = request_for("hormuz-blockade", sources=())
    run(request, desk)
    early = bounded(replay("run-1", desk, at="intake")).state
    assert AfterIntake.model_validate(early).reading is None
    with pytest.raises(RecordError, match="'run-1' does not hold the 'checks' that 'human' reads"):
        bounded(NODES["human"](early, open_run(desk, "run-1", request)))


def test_the_newest_reading_that_did_not_abstain_counts_and_what_was_said_last_is_asked_apart(
    scripted_desk: MakeDesk,
) -> None:
    desk = scripted_desk([READS_BADLY])  # nobody answers the re-reading
    run(request_for("hormuz-blockade"), desk)
    state = Finished.model_validate(bounded(replay("run-1", desk)).state)
    assert state.reading is not None
    assert isinstance(state.reading.judgement, Reading)
    assert (state.kind, state.said(NARRATIVE)) == ("ceasefire", None)
    assert state.said(VALIDATOR) is not None
