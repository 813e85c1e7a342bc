"""Blind audits tell how good reviewers are: agreement with its interval, planted faults found, per person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finllm.errors import InputError, ReviewRefused
from finllm.memory.reviews import Policy
from finllm.review.audits import Share, audits_of, told
from finllm.review.exercises import INJECTED, PLANTED, Planted, plant, planted
from tests.memory.desks import PHRASE, home_at

SOURCE = {"id": "wire-1", "published_at": "2022-06-29T18:10:00+00:00"}
REQUEST: dict[str, Any] = {"scenario": {"title": "x", "sources": [{**SOURCE, "text": "Rates rose."}]}}
RESULT: dict[str, Any] = {
    "by_factor": {"OIL_WTI": {"value": 10.0, "unit": "usd", "evidence": "E1"},
                  "VIX": {"value": -20.0, "unit": "usd", "evidence": "E2"}},
    "sources": [{**SOURCE, "verdict": "credible", "left_out": None}],
    "summary": ["It loses."], "evidence": [{"id": "E1"}, {"id": "E2"}],
}  # fmt: skip


def test_each_planted_fault_is_one_change_and_leaves_the_run_as_it_was() -> None:
    before = (repr(REQUEST), repr(RESULT))
    made = {fault: planted(fault, REQUEST, RESULT) for fault in PLANTED}
    assert (repr(REQUEST), repr(RESULT)) == before
    assert made["sign"][1]["by_factor"]["VIX"]["value"] == 20.0
    assert made["source"][0]["scenario"]["sources"][0]["published_at"].startswith("2020-06-29")
    assert made["source"][1]["sources"][0]["published_at"].startswith("2020-06-29")
    assert INJECTED in made["injection"][0]["scenario"]["sources"][0]["text"]
    assert made["number"][1]["summary"][-1].endswith("[E3].")


@pytest.mark.parametrize("fault", ["sign", "source", "injection"])
def test_a_fault_that_finds_no_place_is_refused(fault: Planted) -> None:
    with pytest.raises(InputError, match="cannot be planted"):
        planted(fault, {"scenario": {}}, {})


def test_an_interval_is_wilson_s() -> None:
    assert str(Share(41, 44)) == "41 of 44 [0.82, 0.98]"
    assert str(Share(0, 0)) == "none yet"


def test_agreement_faults_found_and_whose_signatures_were_upheld(tmp_path: Path) -> None:
    with home_at(tmp_path, Policy(audit_every=1)) as home:
        for at in (1, 2):
            id = home.put(f"run-{at}", **RESULT)
            home.reviews.sign(id, home.user("rev1"), PHRASE, "fine")
        second, third = (one.id for one in home.reviews.queue(home.user("rev2")))
        home.reviews.sign(second, home.user("rev2"), PHRASE, "so say I")
        home.reviews.send_back(third, home.user("rev2"), "limit", "the energy limit is old")
        with pytest.raises(ReviewRefused):
            plant("r-1", "sign", home.user("rev1"), home.reviews)
        for fault, verdict in (("sign", "sign"), ("number", "other")):
            exercise = plant("r-1", fault, home.user("aud1"), home.reviews)  # type: ignore[arg-type]
            assert home.ledger.run(exercise.run) is not None
            home.reviews.send_back(exercise.id, home.user("rev3"), verdict, "see E2")  # type: ignore[arg-type]
        found = audits_of(home.reviews.record)
        assert (found.agreement, found.found, found.open) == (Share(1, 2), Share(1, 2), 0)
        assert found.upheld == {"rev1": Share(1, 2)}
        assert found.seen == {"rev3": Share(1, 2)}
        assert found.by_fault == {"number": Share(0, 1), "sign": Share(1, 1)}
        assert told(found)[:2] == ["agreement: 1 of 2 [0.09, 0.91]", "planted faults found: 1 of 2 [0.09, 0.91]"]
