"""An approval is a reference to a record, of exactly the content that was approved; a name approves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finllm.guardrails.approval import Approval, approver, on_record, shipped, why_not
from finllm.sessions.requests import shipped_scenarios
from finllm.tools.data.approval import scenario_digest
from finllm.tools.data.scenario import load_scenario
from tests.memory.desks import PHRASE, home_at


def story(name: str = "hormuz-blockade", **changes: Any) -> dict[str, Any]:
    return {**load_scenario(shipped_scenarios()[name]).model_dump(mode="json"), **changes}


@pytest.mark.parametrize("name", sorted(shipped_scenarios()))
def test_every_shipped_scenario_is_approved_as_it_is(name: str) -> None:
    assert story(name)["approved_by"] == f"shipped-{name}"
    assert approver(story(name), None) is not None
    assert set(shipped()) == {f"shipped-{one}" for one in shipped_scenarios()}


@pytest.mark.parametrize("changes", [
    {"narrative": "another"}, {"horizon": 5}, {"as_of": "2022-07-01"}, {"shocks": []}, {"sources": []},
    {"propagate": False}, {"approved_by": "A. Person, risk committee"}, {"approved_by": None},
    {"approved_by": "shipped-ceasefire"}, {"approved_by": "r-1"},
])  # fmt: skip
def test_another_content_another_reference_or_a_name_is_not_approved(changes: dict[str, Any]) -> None:
    assert approver(story(**changes), None) is None
    assert (why_not(story(**changes), None) is None) == (changes.get("approved_by", "x") is None)


def test_what_a_run_may_spend_or_is_told_in_is_no_part_of_the_content() -> None:
    assert approver(story(budget={"seconds": 1.0}, currency="EUR"), None) is not None


def test_an_approved_review_approves_its_scenario_and_no_other(tmp_path: Path) -> None:
    with home_at(tmp_path) as home:
        id = home.put("run-1", breaches=["x"])
        content = {"title": "Story of run-1", "narrative": "run-1", "sources": [], "approved_by": id}
        assert on_record(id, home.ledger) is None
        home.reviews.sign(id, home.user("rev1"), PHRASE, "fine")
        assert on_record(id, home.ledger) is None, "one of two signatures is no approval"
        home.reviews.sign(id, home.user("rev2"), PHRASE, "fine")
        found = on_record(id, home.ledger)
        assert found == Approval(reference=id, scenario_sha256=scenario_digest(content), by=("rev1", "rev2"))
        assert approver(content, found) == "rev1, rev2 (r-1)"
        assert approver({**content, "narrative": "run-2"}, found) is None
        assert approver({**content, "approved_by": "r-2"}, found) is None
        assert on_record("r-2", home.ledger) is None
