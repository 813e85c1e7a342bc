"""The simulator: nothing is lost or done twice, times follow the arithmetic, the same trace gives the same."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import BackendError, InputError
from finllm.scheduler.placement.fleet import BackendSpec
from finllm.scheduler.placement.policies.ordered import Ordered
from finllm.scheduler.placement.policies.registry import POLICIES, policy_named
from finllm.scheduler.simulation.achieved import metrics
from finllm.scheduler.simulation.answers import Answers
from finllm.scheduler.simulation.faults import Fault
from finllm.scheduler.simulation.gantt import write_gantt
from finllm.scheduler.simulation.prepared import at_load, capacity, read_any
from finllm.scheduler.simulation.run import Setup, simulate
from finllm.scheduler.simulation.trace import Arrival, assigned, at_rate, read_azure, read_trace
from tests.scheduler.fleets import DEEP, EDGE, arrival, edges, write_trace

FCFS = policy_named("fcfs")


def test_a_task_alone_takes_its_prompt_and_then_its_tokens() -> None:
    out = simulate([arrival(1.0)], [EDGE], FCFS)
    assert out.finished[0] == pytest.approx(1.0 + 400 / 500 + 40 / 50)
    assert out.total_joules == pytest.approx(400 * 0.02 + 40 * 0.2)


def test_two_at_once_decode_together_and_slower_each() -> None:
    out = simulate([arrival(0.0), arrival(0.0)], [EDGE], FCFS)
    together = 2 / (50 + (100 - 50) / 7)  # s a step of two
    assert 40 / 50 < out.finished[1] - 2 * 400 / 500 < 40 * together + 0.1


def test_backends_of_a_shared_node_slow_each_other_down() -> None:
    alone = [replace(spec, shared=False) for spec in edges(2)]
    shared = [replace(spec, node="box", shared=True) for spec in alone]
    both = [arrival(0.0), arrival(0.0)]
    apart, beside = simulate(both, alone, FCFS), simulate(both, shared, FCFS)
    assert beside.finished.max() == pytest.approx(2 * apart.finished.max())


@settings(max_examples=25, deadline=None)
@given(
    times=st.lists(st.floats(0, 60), min_size=1, max_size=25),
    name=st.sampled_from(sorted(set(POLICIES) - {"always-deep"})),
    faults=st.lists(
        st.builds(Fault, st.floats(0, 60), st.integers(0, 1), st.sampled_from(["kill", "freeze"]), st.floats(1, 30)),
        max_size=3,
    ),
)
def test_whatever_breaks_no_task_is_lost_or_answered_twice(times: list[float], name: str, faults: list[Fault]) -> None:
    arrivals = [arrival(time, deadline=1e6) for time in sorted(times)]
    out = simulate(arrivals, [EDGE, DEEP], policy_named(name), Setup(faults=faults))
    assert np.isfinite(out.finished).all()
    assert out.doubles == 0
    committed = [span.task for span in out.spans if span.committed]
    assert sorted(committed) == list(range(len(arrivals)))


def test_joules_of_the_tasks_add_up_to_the_total() -> None:
    out = simulate([arrival(at / 3) for at in range(20)], [EDGE, DEEP], FCFS)
    assert out.joules.sum() == pytest.approx(out.total_joules)


def test_a_fault_is_found_within_five_seconds_and_its_tasks_go_elsewhere() -> None:
    arrivals = [arrival(at * 0.2, deadline=1e6) for at in range(30)]
    out = simulate(arrivals, [EDGE, DEEP], FCFS, Setup(faults=[Fault(2.0, 1, "freeze", 60.0)]))
    assert [found.after <= 5.0 for found in out.found] == [True]
    assert np.isfinite(out.finished).all()
    lost = {span.task for span in out.spans if not span.committed}
    assert lost
    assert all(out.backend[task] == 0 for task in lost)


def test_an_answer_that_seems_unsure_is_asked_for_again_on_the_next_precision() -> None:
    arrivals = [arrival(at * 5.0, deadline=1e6) for at in range(40)]
    specs = [replace(EDGE, quality={"reader": 0.5}), replace(DEEP, quality={"reader": 0.9})]
    answers = Answers.drawn(40, signal=3.0, seed=0)
    never = simulate(arrivals, specs, policy_named("weighted"), Setup(answers=answers))
    doubtful = simulate(arrivals, specs, policy_named("weighted"), Setup(answers=answers, escalate_below=1.5))
    assert metrics(doubtful).quality > metrics(never).quality + 0.2
    assert doubtful.escalated.any()
    assert not doubtful.escalated.all()


def test_a_sleeping_backend_answers_after_it_woke() -> None:
    sleeper = replace(EDGE, wake=7.0, asleep_after=10.0)
    out = simulate([arrival(0.0), arrival(30.0)], [sleeper], FCFS)
    assert out.finished[1] - 30.0 == pytest.approx(7.0 + out.finished[0])


def test_a_task_that_no_backend_may_serve_says_which_constraint() -> None:
    with pytest.raises(BackendError, match="its context holds 4096"):
        simulate([arrival(0.0, prompt=5000)], [EDGE], FCFS)


def test_a_policy_that_never_places_ends_with_an_error() -> None:
    with pytest.raises(BackendError, match="nothing moves"):
        simulate([arrival(0.0)], [EDGE], lambda fleet: Ordered(where=lambda row, tasks, fleet: fleet.deep))


def test_service_between_tenants_stays_within_the_bound() -> None:
    arrivals = [arrival(0.0, tenant=("one", "two")[at % 3 == 0], deadline=1e6) for at in range(120)]
    for name in ("weighted-patient", "vtc"):
        found = metrics(simulate(arrivals, [EDGE], policy_named(name)))
        assert found.gap <= found.gap_bound


def test_the_same_seed_gives_the_same_outcome(tmp_path: Path) -> None:
    arrivals = assigned([arrival(float(at), output=20 + at) for at in range(60)], ["a", "b"], 3, seed=1)
    loaded = at_load(arrivals, [EDGE, DEEP], 0.9, seed=1)
    once, again = (metrics(simulate(loaded, [EDGE, DEEP], policy_named("weighted"))) for _ in range(2))
    assert str(asdict(once)) == str(asdict(again))
    out = simulate(loaded, [EDGE, DEEP], policy_named("weighted"))
    write_gantt(tmp_path / "chart.svg", out)
    assert "<svg" in (tmp_path / "chart.svg").read_text()
    with pytest.raises(InputError, match="cannot draw"):
        write_gantt(tmp_path / "chart.pdf", out)


def test_a_load_stretches_the_trace_to_a_share_of_capacity() -> None:
    arrivals = [arrival(float(at)) for at in range(50)]
    rate = capacity(arrivals, [EDGE])
    loaded = at_load(arrivals, [EDGE], 0.5, seed=0)
    assert len(arrivals) / (0.5 * rate) == pytest.approx(loaded[-1].time)
    assert {round(one.deadline / (400 / 500 + 40 / 50)) for one in loaded} == {2, 4, 8}
    with pytest.raises(InputError, match="a load of 0"):
        at_load(arrivals, [EDGE], 0, seed=0)


def test_a_trace_survives_the_file(tmp_path: Path) -> None:
    arrivals = [arrival(1.0), arrival(2.5, background=True, defer=60.0, prefix="e", shared=100, value=0.5)]
    write_trace(tmp_path / "trace.csv", arrivals)
    assert read_trace(tmp_path / "trace.csv") == arrivals


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-1,10,10,a,5,t", "the time is below 0"),
        ("0,10,10,a,-5,t", "the deadline is not above 0"),
        ("0,ten,10,a,5,t", "line 2"),
        ("5,10,10,a,5,t\n4,10,10,a,5,t", "the clock goes back from 5.0 to 4.0 s"),
    ],
)
def test_a_bad_line_of_a_trace_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "bad.csv").write_text(f"time,prompt,output,agent,deadline,tenant\n{line}\n")
    with pytest.raises(InputError, match=said):
        read_trace(tmp_path / "bad.csv")


def test_an_azure_trace_is_given_agents_tenants_and_a_length_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    rows = "".join(f"2023-11-16 18:15:{at:02}.6805900,{1000 * at + 1},{10 + at}\n" for at in range(12))
    path.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}")
    assert read_azure(path)[1].time == pytest.approx(1.0)
    arrivals, bare = read_any(path, [EDGE], None, seed=0)
    assert bare
    assert max(one.prompt + 2 * one.output for one in arrivals) <= 4096
    assert {one.tenant.split("-")[0] for one in arrivals} == {"tenant"}


def test_the_time_axis_is_stretched_evenly() -> None:
    stretched = at_rate([Arrival(at, 1, 1, "", 1.0, "") for at in (0.0, 1.0, 4.0)], per_second=0.5)
    assert [one.time for one in stretched] == [0.0, 1.5, 6.0]


def _in_two_domains() -> list[BackendSpec]:
    return [replace(spec, power=f"p{at}", network=f"n{at}") for at, spec in enumerate(edges(2))]


@settings(max_examples=25, deadline=None)
@given(
    times=st.lists(st.floats(0, 60), min_size=1, max_size=20),
    faults=st.lists(
        st.builds(Fault, st.floats(0, 60), st.integers(0, 1), st.sampled_from(["kill", "freeze"]), st.floats(1, 30)),
        max_size=3,
    ),
)
def test_a_critical_task_is_answered_once_whatever_breaks(times: list[float], faults: list[Fault]) -> None:
    arrivals = [arrival(time, deadline=1e6, critical=at % 2 == 0) for at, time in enumerate(sorted(times))]
    out = simulate(arrivals, _in_two_domains(), policy_named("weighted"), Setup(faults=faults))
    assert np.isfinite(out.finished).all()
    assert out.doubles == 0
    assert sorted(span.task for span in out.spans if span.committed) == list(range(len(arrivals)))
    assert out.joules.sum() == pytest.approx(out.total_joules), "both copies are charged"


def test_a_nodes_death_costs_a_critical_task_in_two_domains_next_to_nothing() -> None:
    """With copies the p99 under deaths is no worse than 1.2 times that without any; without copies it is."""

    def p99(*, critical: bool, faults: list[Fault]) -> float:
        arrivals = [arrival(at * 4.0, deadline=1e6, critical=critical) for at in range(150)]
        out = simulate(arrivals, _in_two_domains(), policy_named("weighted"), Setup(faults=faults))
        return float(np.quantile(out.finished - [one.time for one in arrivals], 0.99))

    deaths = [Fault(20.5 + 50 * at, at % 2, "freeze", 20.0) for at in range(10)]
    healthy = p99(critical=True, faults=[])
    assert p99(critical=True, faults=deaths) <= 1.2 * healthy
    assert p99(critical=False, faults=deaths) > 1.2 * healthy
