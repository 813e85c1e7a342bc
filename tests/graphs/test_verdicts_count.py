"""Every field of every judgement moves something: each is flipped on scripted agents, and what it moves is seen to.

docs/judgements.md lists the fields with the test that flips each; the last test here holds that list to the types.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finllm.agents.agent import LABELS
from finllm.agents.roles import AGENTS, judgement_fields
from finllm.desk.desk import Desk
from finllm.graphs.report import Report
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.sessions.inputs import read_inputs
from finllm.sessions.stress import StressQuestion, answer_stress
from finllm.tools.data.scenario import ShockEntry
from tests.desks import Seen, request_for, run
from tests.graphs.test_flow import DOWN

MakeDesk = Callable[..., Desk]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "judgements.md"
READ = {"event": "blockade", "region": "mideast", "severity": "high", "horizon": "weeks", **DOWN}
CALM = {"regime": "calm", "direction": "none"}
RALLY = dt.date(2022, 8, 12)  # the index had risen by 12 % in twenty days


def ways(**says: dict[str, str]) -> list[dict[str, Any]]:
    """A script: what each agent says beside the usual; the rest takes the first value."""
    asked = {
        "market": "Market measurements", "narrative": "What kind of event", "sanity": "One source among",
        "validator": "Does the market move", "tester": "Which past event is the closest",
        "rules": "Findings of the rule",
    }  # fmt: skip
    usual: dict[str, dict[str, str]] = {"market": CALM, "narrative": READ, "tester": {"plausibility": "plausible"}}
    return [{"when": asked[one], "say": {**usual.get(one, {}), **says.get(one, {})}} for one in asked]


@pytest.fixture
def told(scripted_desk: MakeDesk) -> Callable[..., Report]:
    """The report of a run on agents that say so; each run on a desk of its own."""
    count = 0

    def make(scenario: str = "hormuz-blockade", deep: bool = False, changes: dict[str, Any] | None = None,
             **says: dict[str, str]) -> Report:  # fmt: skip
        nonlocal count
        count += 1
        script, model = ways(**says), f"model-{count}"
        desk = scripted_desk(script, script, model=model) if deep else scripted_desk(script, model=model)
        report = run(request_for(scenario, **(changes or {})), desk, f"run-{count}").report
        assert report is not None
        return report

    return make


def band(report: Report) -> tuple[float, float]:
    assert report.interval is not None
    return report.interval[0].value, report.interval[1].value


def moved(report: Report, begins: str) -> str:
    return next((line for line in report.moved if line.startswith(begins)), "")


SMALL = {**dict.fromkeys(DOWN, "none"), "factors.EQUITY_US.direction": "down", "factors.EQUITY_US.size": "small"}


ROUTINE = {"event": "routine", "region": "us", "severity": "low", **dict.fromkeys(DOWN, "none")}


def test_the_regime_chooses_the_covariance(told: Callable[..., Report]) -> None:
    """A small fall of the index alone, so that the others are completed and calm days are not like those of stress."""
    alone = {"changes": {"shocks": ()}, "narrative": SMALL}
    calm = told(market={"regime": "calm"}, **alone)
    crisis = told(market={"regime": "crisis"}, **alone)
    assert "by the size of the shocks, as market-signal calls the regime calm" in moved(calm, "covariance")
    assert (
        "of stress at any size of shock (finllm stress --stressed), as market-signal calls the regime crisis"
        in moved(crisis, "covariance")
    )
    assert crisis.total.value != calm.total.value
    completed = {row.factor: row.move.value for row in crisis.shocks if row.origin == "completed"}
    assert completed
    assert completed != {row.factor: row.move.value for row in calm.shocks if row.origin == "completed"}


def test_the_command_gives_the_same_by_the_same_covariance(told: Callable[..., Report]) -> None:
    still = dict.fromkeys(DOWN, "none")
    shocks = (ShockEntry(factor="EQUITY_US", move="-3%"),)
    request = request_for("hormuz-blockade", shocks=shocks)
    inputs = read_inputs(PORTFOLIOS_DIR / "default.csv", [], request.as_of)
    for regime, stressed in (("calm", False), ("crisis", True)):
        report = told(market={"regime": regime}, narrative=still, changes={"shocks": shocks})
        question = StressQuestion(shocks=["EQUITY_US=-3%"], horizon=20, stressed=stressed)
        assert float(answer_stress(inputs, question).result.total) == report.total.value


def test_the_lean_of_equities_weighs_the_text_against_the_series(told: Callable[..., Report]) -> None:
    rally = {"changes": {"as_of": RALLY}}
    with_it = told(market={"direction": "down"}, **rally)
    against = told(market={"direction": "up"}, **rally)
    assert against.total.value == with_it.total.value
    assert moved(with_it, "band: a mixture") == ""
    assert "the text has a weight of 50 %" in moved(against, "band: a mixture")  # both are 0.9 sure
    assert band(against)[1] > band(with_it)[1]
    assert any(d.about == "lean of equities" and d.said == "down" and "+" in d.by for d in with_it.dissent)


def test_the_lean_is_overruled_by_the_last_days_and_by_a_market_that_moves_as_told(told: Callable[..., Report]) -> None:
    falling = told(market={"direction": "up"})  # at the end of June 2022 the index had fallen for twenty days
    assert moved(falling, "band: a mixture") == ""
    (line,) = [d for d in falling.dissent if d.about == "lean of equities"]
    assert (line.who, line.said, line.instead_of) == ("market-signal", "up", "down")
    assert re.search(r"change over the last 20 days, -\d+\.\d+ % \[E\d+\]", line.by)


def test_plausibility_widens_the_band_and_stands_in_the_summary(told: Callable[..., Report]) -> None:
    plain, wide, wider = (told(tester={"plausibility": one}) for one in ("plausible", "stretched", "implausible"))
    for report, factor in ((wide, 1.19), (wider, 1.57)):  # z of 97.5 % and 99.5 % over that of 95 %
        assert report.total.value == plain.total.value
        for end, was in zip(band(report), band(plain), strict=True):
            assert (end - plain.total.value) / (was - plain.total.value) == pytest.approx(factor, abs=0.005)
    assert any(line.startswith("The stress-tester finds the shocks plausible (90 %") for line in plain.summary)
    assert any("implausible" in line and "1.57 times as wide" in line for line in wider.summary)


def test_what_most_past_moves_went_as_far_as_is_implausible_to_nobody(told: Callable[..., Report]) -> None:
    """A small fall of the index: 2.5 σ was called implausible with 90 %, and the band drawn 1.57 times as wide."""
    alone = {"changes": {"shocks": ()}, "narrative": SMALL}
    plain, doubted = (told(tester={"plausibility": one}, **alone) for one in ("plausible", "implausible"))
    assert band(doubted) == band(plain)
    assert any("implausible" in line and "the band stays as it is" in line for line in doubted.summary)
    (line,) = [d for d in doubted.dissent if d.about == "the shocks together"]
    assert (line.who, line.said, line.instead_of) == ("stress-tester", "implausible", "usual")
    assert not [d for d in plain.dissent if d.about == "the shocks together"]


def test_what_happened_is_not_called_implausible_by_its_band(told: Callable[..., Report]) -> None:
    plain, doubted = (told("lehman-2008", tester={"plausibility": one}) for one in ("plausible", "implausible"))
    assert band(doubted) == band(plain)
    assert any("implausible" in line and "but they happened" in line for line in doubted.summary)


def test_the_past_event_is_one_of_its_kind(told: Callable[..., Report]) -> None:
    """A routine week's is a routine week, whichever of those near the agent takes; Hormuz' is a stop of Gulf oil."""
    for letter in "ABC":
        week = told("non-event", narrative=ROUTINE, tester={"closest": letter}).analogue
        assert week is not None
        assert week.id in ("fomc-2017-11", "index-review-2017")
    strait = told(narrative={"factors.EQUITY_US.size": "large"}).analogue
    assert strait is not None
    assert strait.id in ("kuwait-1990", "libya-2011", "ukraine-2022")


def test_a_shock_is_refused_where_agent_and_tool_agree(
    told: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent names the second of the shocks offered, the index; the rule is told that it contradicts the others."""
    near = sum(row.what == "distance of a past event from this one" for row in told().evidence)
    named = {"refuse": LABELS[near + 2]}  # after the past events, the choice to refuse nothing, and the user's oil
    kept = told(tester={"plausibility": "implausible", **named})
    assert any(
        d.who == "stress-tester" and d.about == "shock on EQUITY_US" and d.said == "refuse" for d in kept.dissent
    )
    monkeypatch.setattr(
        "finllm.graphs.nodes.stress_tester.contradicting", lambda plan, engine: frozenset({"EQUITY_US"})
    )
    refused = told(tester={"plausibility": "implausible", **named})
    assert refused.total.value != kept.total.value
    assert any(line.startswith("shock on EQUITY_US: refused by the stress-tester") for line in refused.moved)
    stands = told(tester={"plausibility": "plausible", **named})
    assert stands.total.value == kept.total.value


def test_the_closest_event_is_the_one_chosen_among_the_nearest(told: Callable[..., Report]) -> None:
    first, other = (told("non-event", narrative=ROUTINE, tester={"closest": letter}).analogue for letter in "AB")
    assert first is not None
    assert other is not None
    assert first.id != other.id
    assert "the nearest" in (first.how or "")
    assert "the stress-tester's choice" in (other.how or "")
    assert first.total != other.total


def test_kind_region_stance_and_severity_choose_the_past_events(told: Callable[..., Report]) -> None:
    def nearest(**read: str) -> str:
        report = told(narrative=read)
        assert report.analogue is not None
        return f"{report.analogue.id} {report.analogue.how}"

    base = nearest()
    for field, other in (("event", "pandemic"), ("region", "asia"), ("severity", "low")):
        assert nearest(**{field: other}) != base, field
    assert nearest(event="policy", stance="hawkish") != nearest(event="policy", stance="dovish")


def test_an_event_that_lasts_beyond_the_horizon_is_said_to(told: Callable[..., Report]) -> None:
    assert moved(told(narrative={"horizon": "weeks"}), "horizon") == ""
    short = told(narrative={"horizon": "months"}, changes={"horizon": 5})
    assert "read as lasting months" in moved(short, "horizon")


def test_direction_and_size_of_a_factor_are_its_shock(told: Callable[..., Report]) -> None:
    large, small = told(), told(narrative={"factors.EQUITY_US.size": "small"})
    assert small.by_factor["EQUITY_US"].value > large.by_factor["EQUITY_US"].value
    still = told(narrative={"factors.EQUITY_US.direction": "none"})
    assert not any(row.factor == "EQUITY_US" and row.origin == "model" for row in still.shocks)


def test_the_sanity_checker_clears_a_source_that_the_checks_doubt_or_the_doubt_stands(
    told: Callable[..., Report],
) -> None:
    for verdict, stands in (("credible", "credible"), ("contradicted", "doubtful")):
        report = told(sanity={"verdict": verdict})
        assert {s.id: s.verdict for s in report.sources}["hrz-blog-1"] == stands
        (line,) = (one for one in report.blocked if one.startswith("source hrz-blog-1: "))
        assert re.search(r"told as rumours are \(\d[\d.]* % \[E\d+\]\)", line), line
        assert ("then cleared by the sanity-checker" in line) == (stands == "credible")
        assert {s.id for s in report.sources if s.verdict == "doubtful"} <= {"hrz-blog-1"}


def test_the_validators_verdict_sends_the_reading_back(told: Callable[..., Report], seen: Seen) -> None:
    def read_again() -> bool:
        again = any(event.node == "reread" for event in seen.kinds("node_started"))
        seen.clear()
        return again

    told(validator={"verdict": "aligned"}, deep=True)
    assert not read_again()
    report = told(validator={"verdict": "diverged", "cause": "drain"}, deep=True)
    assert read_again()
    assert moved(report, "route: the event was read again").endswith("aligned (diverged)")


def test_the_validators_cause_stands_beside_the_rules(told: Callable[..., Report]) -> None:
    said = told(validator={"verdict": "diverged", "cause": "drain"})
    assert said.against is not None
    assert any(
        "as the validator judges, they differ for: a hidden liquidity drain" in line.lower()
        for line in said.against.lines
    )
    other = told(validator={"verdict": "diverged", "cause": "single"})
    assert other.against is not None
    assert any("as the validator judges, they differ for: a one-off" in line.lower() for line in other.against.lines)


def test_a_rule_said_otherwise_of_is_dissent(told: Callable[..., Report]) -> None:
    report = told(rules={"rules.restricted.verdict": "block", "rules.approval.verdict": "flag"})
    assert {(d.about, d.said, d.by) for d in report.dissent if d.who == "compliance"} >= {
        ("rule restricted", "block", "the rule book"), ("rule approval", "flag", "the rule book"),
    }  # fmt: skip


def test_what_an_agent_cites_stands_beside_what_it_said(told: Callable[..., Report]) -> None:
    rows = {row.agent: row for row in told().judged}
    known = {row.id for row in told().evidence}
    assert set(rows) == {agent.role for agent in AGENTS}
    assert all(row.because and known.issuperset(row.because) for row in rows.values())
    other = told(market={"because": "B"})
    assert {row.agent: row for row in other.judged}["market-signal"].because != rows["market-signal"].because


def test_without_data_of_the_market_market_signal_is_not_asked(told: Callable[..., Report]) -> None:
    """In March 2023 the packaged series of the index is two months old."""
    report = told(changes={"as_of": dt.date(2023, 3, 1)})
    (signal,) = [agent for agent in report.agents if agent.agent == "market-signal"]
    assert signal.status == "abstained"
    assert "not asked" in (signal.reason or "")


def test_the_title_moves_nothing(told: Callable[..., Report]) -> None:
    report, other = (
        told(),
        told(changes={"title": "Lehman collapses and a pandemic begins: a devaluation of everything"}),
    )
    assert (other.total, other.interval, other.factors) == (report.total, report.interval, report.factors)
    assert (other.analogue, other.shocks) == (report.analogue, report.shocks)


def test_the_page_lists_every_field_and_names_the_tests() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| .* \| `([^`]+)` \|$", page, re.MULTILINE)
    fields = {re.sub(r"\.(factors|rules)\.[A-Za-z0-9_]+\.", r".\1.*.", field) for field in judgement_fields()}
    assert sorted(field for field, _test in rows) == sorted(fields)
    own = Path(__file__).read_text(encoding="utf-8")
    assert {test for _field, test in rows} <= set(re.findall(r"^def (test_\w+)", own, re.MULTILINE))
