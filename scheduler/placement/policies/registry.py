"""The policies by name, as `finllm simulate --policy` takes them: the project's own and those it is measured by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from finllm.errors import InputError
from finllm.scheduler.placement.fleet import Fleet
from finllm.scheduler.placement.policies import Policy
from finllm.scheduler.placement.policies.assigned import Assigned, Balanced, RoundRobin, by_urgency
from finllm.scheduler.placement.policies.ordered import Ordered, Split, Turns, by_deadline, hashed, on_deep, on_edge
from finllm.scheduler.placement.policies.weighted import Terms, Weighted

Factory = Callable[[Fleet], Policy]

POLICIES: Mapping[str, tuple[str, Factory]] = {
    "weighted": ("weighted token throughput, refusing what cannot be in time",
                 lambda fleet: Weighted(fleet, terms=Terms(refuse=True))),
    "weighted-patient": ("the same, refusing nothing", Weighted),
    "fcfs": ("first come, first served, on the least loaded backend", lambda fleet: Ordered()),
    "edf": ("earliest deadline first, on the least loaded backend", lambda fleet: Ordered(by_deadline)),
    "round-robin": ("each backend in turn, with a queue of its own", lambda fleet: Assigned(RoundRobin())),
    "static-split": ("a fixed half of the tasks to the deep tier", lambda fleet: Ordered(where=Split(0.5, hashed))),
    "always-edge": ("first come, first served, edge only", lambda fleet: Ordered(where=on_edge)),
    "always-deep": ("first come, first served, deep only", lambda fleet: Ordered(where=on_deep)),
    "hexgen-flow": ("α of own time, 1 − α of the queue; by urgency", lambda fleet: Assigned(Balanced(), by_urgency)),
    "vtc": ("the tenant served least first", lambda fleet: Turns()),
}  # fmt: skip
"""Each with what it does, in words."""


def policy_named(name: str) -> Factory:
    """Errors: InputError for a name that is not in `POLICIES`."""
    if name not in POLICIES:
        raise InputError(f"there is no policy {name!r}", fix=f"one of {', '.join(POLICIES)}")
    return POLICIES[name][1]
