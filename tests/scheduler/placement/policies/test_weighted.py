"""The project's placement policy: who goes first, where, and who waits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.scheduler.placement.fairness import ServedTokens
from finllm.scheduler.placement.fleet import BackendSpec, Fleet
from finllm.scheduler.placement.placing import FleetState
from finllm.scheduler.placement.policies import Decision, Policy
from finllm.scheduler.placement.policies.registry import POLICIES, policy_named
from finllm.scheduler.placement.policies.weighted import Terms, Weighted
from finllm.scheduler.placement.prices import MOST, BudgetUse, Coordinator, Prices, ZoneController, stepped_prices
from finllm.scheduler.placement.task import PRECISIONS
from finllm.scheduler.placement.waiting import Tasks, Want, refusals
from tests.scheduler.fleets import DEEP, EDGE, edges

WANT = Want("reader", "one", 0.0, 400, 40, 80, due=100.0)


def place(
    specs: list[BackendSpec], *wants: Want, terms: Terms | None = None, prices: Prices | None = None
) -> Decision | None:
    fleet = Fleet(specs, ["reader"])
    policy = Weighted(fleet, prices or Prices(), terms or Terms())
    tasks, rows = waiting(fleet, policy, *wants)
    return policy.next(0.0, tasks, rows, fleet)


def waiting(fleet: Fleet, policy: Policy, *wants: Want) -> tuple[Tasks, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    tasks = Tasks(fleet)
    rows = [tasks.add(want) for want in wants]
    for row in rows:
        policy.arrive(row, tasks, fleet)
    return tasks, np.array(rows)


def test_a_task_goes_where_it_costs_least_joules() -> None:
    assert place([EDGE, DEEP], WANT) == Decision(0, 0)


def test_a_task_that_the_edge_would_answer_late_goes_deep() -> None:
    assert place([EDGE, DEEP], replace(WANT, due=1.2)) == Decision(0, 1)


def test_a_floor_forbids_coarser_backends() -> None:
    assert place([EDGE, DEEP], replace(WANT, rank=PRECISIONS.index("F16"))) == Decision(0, 1)


def test_a_quality_bound_below_what_is_asked_forbids_a_backend() -> None:
    specs = [replace(EDGE, quality={"reader": 0.6}), replace(DEEP, quality={"reader": 0.8})]
    assert place(specs, replace(WANT, least_quality=0.7)) == Decision(0, 1)
    fleet = Fleet(specs, ["reader"])
    told = refusals(replace(WANT, least_quality=0.7), fleet, PRECISIONS)
    assert told == {"edge": "quality 0.60 for 'reader' is below 0.70"}


def test_of_two_tasks_the_one_worth_more_per_second_goes_first() -> None:
    assert place([EDGE], replace(WANT, prompt=2000), WANT, terms=Terms(by_value=False)) == Decision(1, 0)
    assert place([EDGE], WANT, replace(WANT, value=3.0)) == Decision(1, 0)


def test_a_task_that_cannot_be_in_time_waits_for_one_that_can() -> None:
    assert place([EDGE], replace(WANT, due=0.1, value=9.0), WANT) == Decision(1, 0)


def test_a_task_that_no_backend_can_answer_in_time_is_refused_with_the_reason() -> None:
    refused = place([EDGE], replace(WANT, due=0.1), terms=Terms(refuse=True))
    assert refused is not None
    assert refused.backend is None
    assert "even alone" in refused.why


def test_background_work_is_not_refused() -> None:
    late = replace(WANT, due=0.1, background=True)
    assert place([EDGE], late, terms=Terms(refuse=True)) == Decision(0, 0)


def test_joining_a_batch_that_would_then_be_late_waits() -> None:
    fleet = Fleet([EDGE], ["reader"])
    fleet.take(0, tokens=40, kv=100, prompt=0, due=1.0)  # 0.8 s alone
    policy = Weighted(fleet)
    tasks, rows = waiting(fleet, policy, WANT)
    assert policy.next(0.0, tasks, rows, fleet) is None
    fleet.leave(0, 0, kv=100)
    assert policy.next(0.5, tasks, rows, fleet) == Decision(0, 0)


def test_a_backend_that_is_down_or_full_takes_nothing() -> None:
    fleet = Fleet([replace(EDGE, slots=1)], ["reader"])
    policy = Weighted(fleet)
    tasks, rows = waiting(fleet, policy, WANT)
    fleet.set_up(0, up=False)
    assert policy.next(0.0, tasks, rows, fleet) is None
    fleet.set_up(0, up=True)
    fleet.take(0, 40, 100, 0, 100.0)
    assert policy.next(0.0, tasks, rows, fleet) is None


def test_background_work_waits_while_a_burst_is_coming() -> None:
    fleet = Fleet([EDGE], ["reader"])
    policy = Weighted(fleet, parked=lambda now: now < 10)
    tasks, rows = waiting(fleet, policy, replace(WANT, background=True, until=60.0))
    assert policy.next(0.0, tasks, rows, fleet) is None
    assert policy.next(10.0, tasks, rows, fleet) == Decision(0, 0)


def test_background_work_waits_for_a_greener_hour_and_no_longer_than_it_may() -> None:
    fleet = Fleet([EDGE], ["reader"])
    policy = Weighted(fleet, greener=lambda now, until: True)
    tasks, rows = waiting(fleet, policy, replace(WANT, background=True, until=60.0))
    assert policy.next(0.0, tasks, rows, fleet) is None
    assert policy.next(60.0, tasks, rows, fleet) == Decision(0, 0)


def test_equal_backends_share_the_work_where_counts_tie() -> None:
    """Least-busy routing is known to send almost everything to one of them."""
    for name, (_, make) in POLICIES.items():
        if name == "always-deep":
            continue
        fleet = Fleet(edges(4), ["reader"])
        policy = make(fleet)
        tasks, rows = waiting(fleet, policy, *[WANT] * 8)
        left = rows.tolist()
        while (decision := policy.next(0.0, tasks, np.array(left), fleet)) is not None:
            assert decision.backend is not None
            fleet.take(decision.backend, 40, 480, 400, 100.0)
            left.remove(decision.row)
        assert fleet.running.tolist() == [2, 2, 2, 2], name


@pytest.mark.parametrize(("affinity", "chosen"), [(True, 1), (False, 0)])
def test_a_prefix_that_a_backend_holds_draws_its_tasks_there(affinity: bool, chosen: int) -> None:
    fleet = Fleet(edges(2), ["reader"])
    fleet.remember(1, 7, 300)
    policy = Weighted(fleet, terms=Terms(affinity=affinity))
    tasks, rows = waiting(fleet, policy, replace(WANT, prefix=7, shared=300))
    assert policy.next(0.0, tasks, rows, fleet) == Decision(0, chosen)


def test_a_price_on_synchronised_answers_spreads_an_event_over_model_families() -> None:
    def families(spread: float) -> set[int]:
        fleet = Fleet([EDGE, replace(EDGE, name="other", node="box", family="other")], ["reader"])
        policy = Weighted(fleet, Prices(busy=1.0, spread=spread))
        asked = [replace(WANT, prefix=1, shared=100) for _ in range(4)]
        tasks, rows = waiting(fleet, policy, *asked)
        fleet.remember(0, 1, 100)  # the first would be cheapest for each
        found = set[int]()
        for row in rows.tolist():
            decision = policy.next(0.0, tasks, np.array([row]), fleet)
            assert decision is not None
            found.add(int(fleet.family[decision.backend]))
        return found

    assert len(families(0.0)) == 1
    assert len(families(10.0)) == 2


def test_dear_carbon_sends_work_to_the_cleaner_zone() -> None:
    fleet = Fleet(edges(2), ["reader"])
    policy = Weighted(fleet, Prices(gram=10.0), intensity=lambda now: np.array([400.0, 50.0]))
    tasks, rows = waiting(fleet, policy, WANT)
    assert policy.next(0.0, tasks, rows, fleet) == Decision(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    wants=st.lists(
        st.builds(
            Want, st.just("reader"), st.sampled_from(["a", "b", "c"]), st.just(0.0), st.floats(1, 3000),
            st.floats(1, 200), st.just(200.0), due=st.floats(0.01, 100), value=st.floats(0.1, 5),
            background=st.booleans(), until=st.floats(0, 50),
        ),
        min_size=1, max_size=40,
    ),
    name=st.sampled_from(sorted(POLICIES)),
)  # fmt: skip
def test_no_policy_ever_gives_out_a_slot_or_room_twice(wants: list[Want], name: str) -> None:
    fleet = Fleet([EDGE, DEEP], ["reader"])
    policy = policy_named(name)(fleet)
    tasks, rows = waiting(fleet, policy, *wants)
    left = rows.tolist()
    while (decision := policy.next(0.0, tasks, np.array(left), fleet)) is not None:
        left.remove(decision.row)
        if decision.backend is None:
            continue
        assert tasks.may[decision.row, decision.backend]
        row = decision.row
        fleet.take(decision.backend, tasks.output(row), float(tasks.most[row]), tasks.prompt(row), 100.0)
        assert (fleet.running <= fleet.slots).all()
        assert (fleet.held <= fleet.kv).all()


def test_a_tenant_ahead_by_more_than_the_window_waits_its_turn() -> None:
    served = ServedTokens(window=100)
    served.arrive(0)
    served.arrive(1)
    served.charge(0, 101)
    assert served.eligible(np.array([0, 1, 0])).tolist() == [False, True, False]


def test_a_tenant_that_was_idle_is_owed_nothing() -> None:
    served = ServedTokens(window=0)
    served.arrive(0)
    served.charge(0, 500)
    served.arrive(1)
    assert served.counter(1) == 500


def test_a_budget_used_too_fast_raises_its_price_and_it_falls_back_after() -> None:
    base = Prices()
    fast = stepped_prices(base, base, {"joules": BudgetUse(spent=50, limit=100, elapsed=10, period=100)})
    assert fast.joule > base.joule
    assert fast.deep == base.deep
    slow = stepped_prices(base, fast, {"joules": BudgetUse(spent=1, limit=100, elapsed=50, period=100)})
    assert base.joule <= slow.joule < fast.joule


def test_prices_stay_finite_however_long_a_budget_is_overspent_and_a_run_without_one_pays_the_base() -> None:
    coordinator = Coordinator(Prices())
    for second in range(2_000):
        coordinator.step(float(second), {"joules": BudgetUse(spent=500, limit=100, elapsed=100, period=100)})
    assert coordinator.now.joule == pytest.approx(Prices().joule * MOST)
    assert coordinator.step(3_000.0, {}) == Prices()


def test_a_zone_cut_off_goes_on_with_the_last_prices() -> None:
    coordinator = Coordinator(Prices())
    zone = ZoneController("south", coordinator.now)
    zone.hear(coordinator.step(1.0, {"joules": BudgetUse(90, 100, 1, 100)}), 1.0)
    dearer = coordinator.step(2.0, {"joules": BudgetUse(95, 100, 2, 100)})
    assert zone.prices.joule < dearer.joule
    assert zone.age(9.0) == 8.0


def test_a_clock_that_goes_back_is_refused() -> None:
    coordinator = Coordinator(Prices())
    coordinator.step(5.0, {})
    with pytest.raises(InputError, match="clock went back"):
        coordinator.step(4.0, {})


def test_a_negative_price_is_refused() -> None:
    with pytest.raises(InputError, match="'gram' is -1"):
        Prices(gram=-1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300), st.booleans()), max_size=30))
def test_what_is_taken_in_backend_by_backend_is_what_all_at_once_would_be(moves: list[tuple[int, int, bool]]) -> None:
    specs = [replace(spec, name=f"{at}", node=f"node-{at % 2}", shared=at != 3, wake=1.0)
             for at, spec in enumerate([EDGE, DEEP, EDGE, EDGE])]  # fmt: skip
    fleet, prices = Fleet(specs, ["reader"]), Prices(gram=0.5)
    kept, slots = FleetState(fleet), list[tuple[int, int]]()
    kept.refresh(0.0, prices, np.full(4, 300.0))
    for backend, tokens, up in moves:
        if slots and not up:
            fleet.leave(*slots.pop(tokens % len(slots)), kv=100.0)
        elif fleet.free[backend]:
            slots.append((backend, fleet.take(backend, tokens, 100.0, float(tokens), tokens / 100)))
        fleet.set_up(backend, up)
        fleet.set_asleep(backend, tokens % 7 == 0)
        kept.refresh(0.0, prices, None)
        fleet.touched, fresh = None, FleetState(fleet)
        fresh.grams_per_joule = kept.grams_per_joule
        fresh.refresh(0.0, prices, None)
        for name in ("free", "ends", "slack", "time", "cost", "token_joules", "room"):
            np.testing.assert_allclose(getattr(kept, name), getattr(fresh, name), rtol=1e-12, err_msg=name)
