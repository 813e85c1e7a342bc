"""Accounts: every dimension is a hard stop, a call's lies within its run's, and the tenant's runs share one."""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import BackendError, BudgetExceeded, InputError
from finllm.scheduler.money.account import NOTHING, Account, Spent
from finllm.scheduler.money.amount import Amount, Grams, Provenance, grams_total, total, weakest
from finllm.scheduler.money.budget import DIMENSIONS, Budget, Dimension
from tests.conftest import bounded


def still() -> float:
    return 0.0


def budget(dimension: Dimension, limit: float) -> Budget:
    return Budget(**{dimension: limit})  # type: ignore[arg-type]


def joules(value: float) -> Spent:
    return Spent(0.0, 10, 0, joules=Amount(value, "modelled", "CPU time"))


def test_every_dimension_stops_and_says_what_was_spent_and_what_was_not_done() -> None:
    account = Account(Budget(joules=30.0), still)
    account.spend(joules(31.0))
    with pytest.raises(BudgetExceeded) as stop:
        account.check("the call of 'narrative'")
    assert stop.value.message == ("the budget of joules is spent (0.0 s, 10 tokens, 0 of them deep, 31 J (modelled)); "
                                  "not done: the call of 'narrative'")  # fmt: skip
    assert "larger --budget" in stop.value.fix


@pytest.mark.parametrize("dimension", ["grams", "usd"])
def test_grams_and_dollars_stop_too(dimension: Dimension) -> None:
    account = Account(budget(dimension, 0.5), still)
    account.spend(Spent(0.0, 1, 0, None, Grams(0.4, "table", "ES", "average"), Amount(0.4, "table", "tariff")))
    account.check("the first")
    account.spend(Spent(0.0, 1, 0, None, Grams(0.2, "table", "ES", "average"), Amount(0.2, "table", "tariff")))
    with pytest.raises(BudgetExceeded, match=r"gCO₂e|USD"):
        account.check("the second")


def test_a_tenants_runs_spend_from_one_account() -> None:
    tenant = Account(Budget(tokens=100), still, scope="tenant")
    first, second = (Account(Budget(tokens=80), still, above=tenant) for _ in range(2))
    first.spend(Spent(0.0, 70, 0))
    assert (first.tokens_left("edge"), second.tokens_left("edge")) == (10, 30)
    second.spend(Spent(0.0, 30, 0))
    with pytest.raises(BudgetExceeded, match="the tenant's budget of tokens") as stop:
        second.check("the call")
    assert "FINLLM_TENANT_BUDGET" in stop.value.fix


def test_a_calls_own_budget_ends_the_call_and_not_the_run() -> None:
    run = Account(Budget(), still)
    call = run.within(Budget(joules=5.0))
    call.spend(joules(6.0))
    with pytest.raises(BackendError, match="the call's budget of joules"):
        call.check("the call")
    run.check("the next call")
    assert run.spent().of("joules") == 6.0


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("limit", [-1, -0.5, math.nan, math.inf])
def test_an_impossible_budget_is_refused(dimension: Dimension, limit: float) -> None:
    with pytest.raises(InputError, match="impossible"):
        budget(dimension, limit)


def test_a_call_that_might_not_fit_waits_in_every_dimension() -> None:
    async def both() -> list[str]:
        account, order = Account(Budget(joules=10.0), still), list[str]()

        async def one(name: str, need: float) -> None:
            async with account.hold("edge", {"tokens": 5, "joules": need}) as hold:
                order.append(f"{name} may use {hold.limit['joules']:g}")
                await asyncio.sleep(0)
                account.spend(joules(need))

        await asyncio.gather(one("first", 8.0), one("second", 8.0))
        return order

    assert bounded(both()) == ["first may use 8", "second may use 2"]


def test_what_calls_under_way_have_used_counts_before_they_end() -> None:
    async def under_way() -> None:
        account = Account(Budget(joules=10.0), still)
        async with account.hold("edge", {"tokens": 5, "joules": 1.0}) as hold:
            hold.used = joules(11.0)
            with pytest.raises(BudgetExceeded, match="joules"):
                account.check("the rest of the call")
        account.check("what was not charged is no more")

    bounded(under_way())


KINDS: tuple[Provenance, ...] = ("measured", "modelled", "table")
amounts = st.builds(Amount, st.floats(0, 1e6), st.sampled_from(KINDS), st.just("basis"))
costs = st.builds(Spent, st.just(0.0), st.integers(0, 1000), st.just(0), st.none() | amounts)


@given(st.lists(costs, max_size=8))
def test_a_run_and_its_tenant_have_spent_the_sum_of_their_calls(calls: list[Spent]) -> None:
    tenant = Account(Budget(), still, scope="tenant")
    runs = [Account(Budget(), still, above=tenant) for _ in range(2)]
    for at, cost in enumerate(calls):
        runs[at % 2].spend(cost)
    for dimension in DIMENSIONS:
        assert tenant.spent().of(dimension) == pytest.approx(sum(run.spent().of(dimension) for run in runs))
    known = [one.joules for one in calls if one.joules is not None]
    kinds: list[Provenance] = [one.provenance for one in known]
    summed = tenant.spent().joules
    assert (summed is None) == (not known)
    assert summed is None or summed.provenance == weakest(*kinds)


def test_what_was_spent_goes_to_the_record_and_back() -> None:
    spent = Spent(1.5, 7, 3, Amount(2.0, "measured", "RAPL"), Grams(0.1, "table", "ES", "average"), None)
    assert Spent.from_json(asdict(spent)) == spent
    assert Spent.from_json(asdict(NOTHING)) == NOTHING


def test_grams_of_two_kinds_have_no_sum() -> None:
    with pytest.raises(InputError, match="average and by marginal"):
        grams_total([Grams(1.0, "table", "", "average"), Grams(1.0, "table", "", "marginal")])
    with pytest.raises(InputError, match="no sum"):
        total([Grams(1.0, "table", "", "average"), Amount(1.0, "table", "")])
