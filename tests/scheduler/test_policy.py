"""The placement rule: the coarsest backend that may serve, and a reason for every one that may not."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from finllm.agents.sanity_checker import SourceCheck
from finllm.scheduler.account import Account
from finllm.scheduler.backends import Offer
from finllm.scheduler.budget import Budget
from finllm.scheduler.policy import least_tokens, place
from finllm.scheduler.task import PRECISIONS, Prompt, Task, Tier, meets_floor
from finllm.scheduler.template import compile_template

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


def test_the_coarsest_backend_that_meets_the_floor_is_chosen() -> None:
    assert place(TASK, [DEEP, EDGE, MIDDLE], account(), {}).chosen == "edge"
    assert place(replace(TASK, floor="Q5_K_M"), [DEEP, EDGE, MIDDLE], account(), {}).chosen == "middle"
    assert place(replace(TASK, floor="F16"), [DEEP, EDGE, MIDDLE], account(), {}).chosen == "deep"
    assert place(replace(TASK, floor="F32"), [DEEP, EDGE, MIDDLE], account(), {}).chosen is None


def test_every_refusal_says_why() -> None:
    refused = place(replace(TASK, floor="Q8_0"), [EDGE, MIDDLE, DEEP], account(), {"middle": "it burned"}).refused
    assert refused == {"edge": "Q4_0 is below the floor Q8_0", "middle": "failed on this task: it burned"}
    assert place(TASK, [EDGE, DEEP], account(), {}).refused == {"deep": "finer than needed: edge meets the floor Q4_0"}


def test_a_deep_tier_without_tokens_left_is_refused_and_the_edge_is_not() -> None:
    placed = place(replace(TASK, floor="F16"), [EDGE, DEEP], account(deep_tokens=5), {})
    assert placed.chosen is None
    assert placed.refused["deep"].endswith("5 left on the deep tier")
    assert place(TASK, [EDGE, DEEP], account(deep_tokens=0), {}).chosen == "edge"


def test_a_context_too_short_for_the_prompt_sends_the_task_to_a_longer_one() -> None:
    placed = place(TASK, [offer("short", context=50), offer("long", "Q8_0")], account(), {})
    assert placed.chosen == "long"
    assert "its context holds 50" in placed.refused["short"]


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


@given(
    offers=offers,
    floor=st.sampled_from(PRECISIONS),
    failed=st.sets(st.sampled_from("abcdef")),
    tokens=st.none() | st.integers(0, 300),
    deep_tokens=st.none() | st.integers(0, 300),
)
def test_nothing_is_chosen_below_the_floor_after_a_failure_or_beyond_the_budget_and_all_others_are_refused(
    offers: list[Offer], floor: str, failed: set[str], tokens: int | None, deep_tokens: int | None
) -> None:
    spending = account(tokens, deep_tokens)
    placed = place(replace(TASK, floor=floor), offers, spending, dict.fromkeys(failed, "it failed"))
    names = {o.name for o in offers}
    assert set(placed.refused) == names - {placed.chosen}
    assert all(placed.refused.values())
    if placed.chosen is not None:
        chosen = next(o for o in offers if o.name == placed.chosen)
        assert meets_floor(chosen.precision, floor)
        assert chosen.name not in failed
        assert least_tokens(TASK) <= min(spending.tokens_left(chosen.tier), chosen.context)
