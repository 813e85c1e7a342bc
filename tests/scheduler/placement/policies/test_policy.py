"""What forbids a backend to a task: each constraint by name, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from finllm.agents.sanity_checker import SourceCheck
from finllm.scheduler.backends import Offer
from finllm.scheduler.decoding.template import compile_template
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.policy import forbidden, least_tokens
from finllm.scheduler.placement.task import PRECISIONS, Prompt, Task, Tier, meets_floor

TASK = Task(
    agent="sanity-checker",
    node="sanity_checker",
    prompt=Prompt("You are a risk analyst.", "A tanker was seized. " * 20),
    prompt_version="v",
    template=compile_template(SourceCheck, {"because": "AB"}),
    floor="Q4_0",
    deadline=60.0,
    seed=0,
)


def offer(name: str, precision: str = "Q4_0", tier: Tier = "edge", context: int = 4096) -> Offer:
    return Offer(name, tier, precision, f"sha256-of-{name}", "build", context)


def account(tokens: int | None = None, deep_tokens: int | None = None) -> Account:
    return Account(Budget(None, tokens, deep_tokens), clock=lambda: 0.0)


EDGE, MIDDLE, DEEP = offer("edge"), offer("middle", "Q8_0"), offer("deep", "F16", "deep")


def test_every_backend_that_is_forbidden_says_which_constraint() -> None:
    barred = forbidden(replace(TASK, floor="Q8_0"), [EDGE, MIDDLE, DEEP], account(), {"middle": "it burned"})
    assert barred == {"edge": "Q4_0 is below the floor Q8_0", "middle": "failed on this task: it burned"}
    assert forbidden(TASK, [EDGE, DEEP], account(), {}) == {}


def test_a_deep_tier_without_tokens_left_is_forbidden_and_the_edge_is_not() -> None:
    barred = forbidden(replace(TASK, floor="F16"), [EDGE, DEEP], account(deep_tokens=5), {})
    assert barred["deep"].endswith("5 left on the deep tier")
    assert list(forbidden(TASK, [EDGE, DEEP], account(deep_tokens=0), {})) == ["deep"]


def test_a_context_too_short_for_the_prompt_is_named() -> None:
    barred = forbidden(TASK, [offer("short", context=50), offer("long", "Q8_0")], account(), {})
    assert list(barred) == ["short"]
    assert "its context holds 50" in barred["short"]


offers = st.lists(
    st.builds(
        offer,
        st.sampled_from("abcdef"),
        st.sampled_from(PRECISIONS),
        st.sampled_from(("edge", "deep")),
        st.sampled_from((64, 4096)),
    ),
    max_size=6,
    unique_by=lambda o: o.name,
)


@given(offers=offers, floor=st.sampled_from(PRECISIONS), tokens=st.none() | st.integers(0, 500))
def test_what_is_not_forbidden_meets_every_constraint(offers: list[Offer], floor: str, tokens: int | None) -> None:
    task = replace(TASK, floor=floor)
    barred = forbidden(task, offers, account(tokens), {"a": "it burned"})
    for one in offers:
        fits = tokens is None or least_tokens(task) <= tokens
        able = meets_floor(one.precision, floor) and one.name != "a" and least_tokens(task) <= one.context and fits
        assert (one.name not in barred) == able
