"""An agent that diverges is asked again one precision up, then votes; each time on record, and once a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from finllm.agents.agent import Agent, Caller, Offered, Opinion, judge, prompt_version
from finllm.agents.escalation import judge_escalating
from finllm.agents.escalations import Escalation
from finllm.agents.sanity_checker import SANITY_CHECKER
from finllm.agents.validator import VALIDATOR
from finllm.events import EventBus
from finllm.models.cards import AdapterCard
from finllm.models.ladder import PRUNED
from finllm.scheduler.backends import Backend
from finllm.scheduler.broker import Broker
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.testing import MemoryRecorder, ScriptedBackend
from tests.conftest import bounded

SURE = 0.9
"""Probability of a scripted choice."""
INPUTS = {"reading": "blockade in mideast", "market": "calm"}
CHECKER = {"text": "Hormuz is closed.", "publisher": "Reuters", "others": ""}
VOTER = replace(VALIDATOR, votes=True)
LINES = [Offered("E1", "factors that move as read: 2"), Offered("E2", "factors that move otherwise: 1"),
         Offered("E3", "OIL_WTI up")]  # fmt: skip


def card(threshold: float, *agents: Agent, worth: float = 0.0) -> AdapterCard:
    known = agents or (VALIDATOR, SANITY_CHECKER)
    return AdapterCard(
        name="card", base_sha256="", adapter_sha256="", calibration={},
        prompts={agent.role: prompt_version(agent) for agent in known},
        thresholds={f"{agent.role}.verdict": threshold for agent in known} | {"sanity-checker.verdict=injected": 1.0},
        worth=worth,
    )  # fmt: skip


@dataclass
class Table:
    """Scripted backends behind a broker, and a caller who escalates."""

    caller: Caller
    backends: Sequence[ScriptedBackend]
    recorder: MemoryRecorder

    def ask(self, agent: Agent = VOTER, lines: Sequence[Offered] = LINES, **options: Any) -> Opinion:
        inputs: Mapping[str, str] = INPUTS if agent is VOTER else CHECKER
        return bounded(judge_escalating(agent, inputs, {"because": lines}, self.caller, **options))

    def placed(self) -> list[tuple[str, str | None]]:
        return [(e.response["chosen"], e.request["why"]) for e in self.recorder.entries.values()
                if e.kind == "placement"]  # fmt: skip

    def asked(self, at: int) -> int:
        """Judgements that a backend was asked for; the content-free questions do not count."""
        return sum(request.priors is not None for request in self.backends[at].requests)


def table(
    known: AdapterCard | None, *backends: ScriptedBackend, budget: Budget | None = None, escalate: bool = True
) -> Table:
    recorder = MemoryRecorder()
    bus = EventBus()
    account = Account(budget or Budget(), clock=lambda: 0.0)
    several: Sequence[Backend] = backends
    broker = Broker(several, recorder, bus, call_timeout=10)
    return Table(
        Caller(
            broker,
            account,
            bus,
            "run",
            "node",
            0,
            10,
            known,
            escalate=frozenset({VALIDATOR.role, SANITY_CHECKER.role}) if escalate else frozenset(),
        ),
        backends,
        recorder,
    )


def edge(verdict: str = "aligned") -> ScriptedBackend:
    return ScriptedBackend([{"say": {"verdict": verdict}}], name="edge")


def deep(verdict: str = "diverged", precision: str = "F16") -> ScriptedBackend:
    return ScriptedBackend([{"say": {"verdict": verdict}}], name=f"deep-{precision}", tier="deep", precision=precision)


def test_an_answer_under_its_threshold_is_asked_again_one_precision_up_and_the_finer_one_stands() -> None:
    desk = table(card(0.95, SANITY_CHECKER), edge("credible"), deep("doubtful", "Q8_0"), deep("injected", "F16"))
    opinion = desk.ask(SANITY_CHECKER)
    assert opinion.judgement is not None
    assert (opinion.judgement.model_dump()["verdict"], opinion.precision) == ("doubtful", "Q8_0")
    (told,) = opinion.escalations
    assert (told.before, told.to, told.field, told.threshold) == ("Q4_0", "Q8_0", "verdict", 0.95)
    assert told.probability == pytest.approx(SURE)
    assert [desk.asked(at) for at in range(3)] == [1, 1, 0]
    assert desk.placed()[-1] == ("deep-Q8_0", told.words)
    assert told.words == "escalated from Q4_0 to Q8_0: verdict was 90% sure, its threshold is 95%"


@pytest.mark.parametrize(("worth", "asked"), [(0.05, 1), (50.0, 0)])
def test_a_card_may_say_how_far_under_is_worth_a_finer_answer(worth: float, asked: int) -> None:
    desk = table(card(0.95, SANITY_CHECKER, worth=worth), edge("credible"), deep("doubtful"))
    opinion = desk.ask(SANITY_CHECKER)
    assert desk.asked(1) == asked
    assert len(opinion.escalations) == asked


def passed_over(share: float, *backends: ScriptedBackend, budget: Budget | None = None) -> Table:
    """A pruned edge that has the verdict right in so many, beside others whose card knows no thresholds."""
    pruned = card(0.8, SANITY_CHECKER).model_copy(update={"accuracy": {"sanity-checker.verdict": share}})
    found = table(card(0.0, SANITY_CHECKER), *backends, budget=budget)
    found.caller = replace(found.caller, pruned=pruned)
    return found


def pruned_edge() -> ScriptedBackend:
    return ScriptedBackend([{"say": {"verdict": "credible"}}], name="edge", precision=PRUNED)


def test_a_pruned_edge_that_is_short_on_average_is_passed_over() -> None:
    desk = passed_over(0.6, pruned_edge(), deep("doubtful"))
    opinion = desk.ask(SANITY_CHECKER)
    assert opinion.judgement is not None
    assert (opinion.judgement.model_dump()["verdict"], opinion.precision) == ("doubtful", "F16")
    assert [desk.asked(at) for at in range(2)] == [0, 1]
    (told,) = opinion.escalations
    assert (told.cause, told.before, told.to) == ("beforehand", PRUNED, "F16")
    assert told.words == "asked at F16 at once: pruned has verdict right in 60%, full depth in 80%"
    assert desk.placed()[-1] == ("deep-F16", told.words)


def test_a_pruned_edge_that_is_right_as_often_is_asked() -> None:
    desk = passed_over(0.85, pruned_edge(), deep("doubtful"))
    opinion = desk.ask(SANITY_CHECKER)
    assert (opinion.precision, opinion.escalations) == (PRUNED, [])
    assert [desk.asked(at) for at in range(2)] == [1, 0]


def test_where_the_pruned_edge_may_not_answer_anyway_it_is_not_passed_over() -> None:
    desk = passed_over(0.6, pruned_edge(), deep("doubtful"))
    desk.caller = replace(desk.caller, floor="F16")
    opinion = desk.ask(SANITY_CHECKER)
    assert (opinion.precision, opinion.escalations) == ("F16", [])


@pytest.mark.parametrize("why", ["no finer backend", "no deep tokens left", "the deep backend fails"])
def test_a_pruned_edge_answers_where_nothing_finer_does(why: str) -> None:
    budget = Budget(deep_tokens=1) if why == "no deep tokens left" else None
    failing = ScriptedBackend([{"fail": "it is gone"}], name="deep", tier="deep", precision="F16")
    others = {"no finer backend": [], "no deep tokens left": [deep()], "the deep backend fails": [failing]}[why]
    opinion = passed_over(0.6, pruned_edge(), *others, budget=budget).ask(SANITY_CHECKER)
    assert (opinion.status, opinion.precision, opinion.escalations) == ("judged", PRUNED, [])


@pytest.mark.parametrize(
    ("known", "escalate"),
    [(card(SURE - 0.01), True), (None, True), (card(0.95), False), (card(0.95, SANITY_CHECKER), True)],
    ids=["above", "no card", "off", "another prompt or agent"],
)
def test_nothing_is_asked_again_without_cause(known: AdapterCard | None, escalate: bool) -> None:
    desk = table(known, edge(), deep(), escalate=escalate)
    opinion = desk.ask()
    assert opinion == bounded(judge(VALIDATOR, INPUTS, {"because": LINES}, desk.caller))
    assert opinion.escalations == []
    assert desk.asked(1) == 0


def test_at_the_finest_precision_an_agent_worth_it_votes_in_other_orders() -> None:
    desk = table(card(0.95), edge("aligned"), deep("diverged"))
    opinion = desk.ask()
    up, vote = opinion.escalations
    assert (up.votes, vote.votes, vote.before, vote.to) == (0, 3, "F16", "F16")
    assert vote.split == {}
    assert opinion.judgement is not None
    assert opinion.judgement.model_dump()["verdict"] == "diverged"
    asked = [request for request in desk.backends[1].requests if request.priors is not None]
    firsts = [request.prompt.user.split("<data>")[1].split("\n")[3][0] for request in asked]
    assert firsts == ["A", "B", "C"]
    assert len({str(request.template) for request in asked}) == 3
    assert len(set(opinion.calls)) == len(opinion.calls)
    assert all(key in desk.recorder.entries for key in opinion.calls)
    assert set(opinion.choices["because"]) == {"E1", "E2", "E3"}
    assert list(opinion.choices["because"]) == ["E1", "E2", "E3"]


def test_votes_without_a_majority_are_split_on_record() -> None:
    """A model that says whatever option comes first answers each permutation otherwise."""
    desk = table(card(0.95), edge("aligned"), ScriptedBackend([], name="deep", tier="deep", precision="F16"))
    opinion = desk.ask()
    assert opinion.escalations[-1].votes == 3
    assert set(opinion.escalations[-1].split["verdict"]) == {"aligned", "diverged", "unresolved"}


@pytest.mark.parametrize("lines", [[], LINES[:1]])
def test_a_vote_that_could_change_nothing_is_not_held(lines: list[Offered]) -> None:
    opinion = table(card(0.95), edge(), deep()).ask(lines=lines)
    assert [one.votes for one in opinion.escalations] == [0]


def test_two_lines_have_two_orders_and_so_two_votes() -> None:
    assert [one.votes for one in table(card(0.95), edge(), deep()).ask(lines=LINES[:2]).escalations] == [0, 2]


def test_an_agent_whose_lines_have_an_order_does_not_vote() -> None:
    desk = table(card(0.95), edge(), deep())
    opinion = bounded(judge_escalating(VALIDATOR, INPUTS, {"because": LINES}, desk.caller))
    assert [one.votes for one in opinion.escalations] == [0]


def test_nobody_votes_where_a_server_is_deeper() -> None:
    served = deep("diverged", "BF16")
    served._offer = replace(served.offer, stronger=True)
    assert [one.votes for one in table(card(0.95), edge(), served).ask().escalations] == [0]


def test_an_agent_has_one_round_in_a_run() -> None:
    desk = table(card(0.95), edge(), deep())
    first = desk.ask()
    assert desk.ask(before=[first]).escalations == []
    other = first.model_copy(update={"agent": "narrative"})
    assert len(desk.ask(before=[other]).escalations) == 2


def test_where_nothing_finer_answers_the_answer_stands_and_the_next_rung_is_tried() -> None:
    down = ScriptedBackend([{"fail": "out of memory"}], name="down", tier="deep", precision="Q8_0")
    assert table(card(0.95, SANITY_CHECKER), edge("credible"), down).ask(SANITY_CHECKER).escalations == []
    desk = table(card(0.95, SANITY_CHECKER), edge("credible"), down, deep("doubtful"))
    opinion = desk.ask(SANITY_CHECKER)
    assert [(one.before, one.to) for one in opinion.escalations] == [("Q4_0", "F16")]


@pytest.mark.parametrize("budget", [Budget(deep_tokens=10), Budget(tokens=400)])
def test_an_escalation_that_the_budget_does_not_reach_for_leaves_the_answer(budget: Budget) -> None:
    opinion = table(card(0.95), edge("aligned"), deep(), budget=budget).ask()
    assert opinion.status == "judged"
    assert opinion.judgement is not None
    assert opinion.judgement.model_dump()["verdict"] == "aligned"
    assert opinion.escalations == []


def test_a_reading_sent_back_says_what_for() -> None:
    desk = table(None, edge(), deep())
    because = Escalation(cause="second opinion", before="Q4_0", to="F16", field="event", probability=0.97)
    opinion = desk.ask(floor="F16", because=because)
    assert opinion.escalations == [because]
    assert desk.placed()[-1][1] == "escalated from Q4_0 to F16: the second opinion is 97% sure of another event"
