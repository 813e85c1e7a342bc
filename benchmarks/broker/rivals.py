"""Every policy that the broker is measured beside, each with eight settings to be tuned over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

from benchmarks.broker.litellm import LiteLLM, Strategy
from finllm.scheduler.placement.fleet import Fleet
from finllm.scheduler.placement.policies import Policy
from finllm.scheduler.placement.policies.assigned import Assigned, Balanced, RoundRobin, by_urgency
from finllm.scheduler.placement.policies.ordered import Ordered, Split, Turns, by_deadline, hashed, on_deep, on_edge
from finllm.scheduler.placement.policies.weighted import Terms, Weighted

Factory = Callable[[Fleet], Policy]
LIMITS = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)
"""Shares of a backend's slots in use at once: the setting that matters most to the plain policies."""
HALF = LIMITS[::2]
OURS = "weighted"


def _ordered(**fixed: object) -> list[Factory]:
    return [lambda _fleet, limit=limit: Ordered(limit=limit, **fixed) for limit in LIMITS]  # pyright: ignore[reportArgumentType]


def _router(strategy: Strategy) -> list[Factory]:
    return [lambda fleet, limit=limit: LiteLLM(fleet, strategy, limit) for limit in LIMITS]


def ours(refuse: bool = True, **changed: object) -> list[Factory]:
    """The project's policy at its settings; `changed` is the same in all."""
    return [
        lambda fleet, patience=patience, limit=limit: Weighted(
            fleet, terms=Terms(**{"patience": patience, "limit": limit, "refuse": refuse, **changed})  # pyright: ignore[reportArgumentType]
        )
        for patience, limit in product((1.0, 16.0), (1.0, 0.5, 0.25, 0.125))
    ]  # fmt: skip


RIVALS: Mapping[str, Sequence[Factory]] = {
    "fcfs": _ordered(),
    "edf": _ordered(order=by_deadline),
    "round-robin": [lambda _fleet, limit=limit: Assigned(RoundRobin(), limit=limit) for limit in LIMITS],
    "static-split": [
        lambda _fleet, share=share, limit=limit: Ordered(where=Split(share, hashed), limit=limit)
        for share, limit in product((0.25, 0.5), HALF)
    ],
    "always-edge": _ordered(where=on_edge),
    "always-deep": _ordered(where=on_deep),
    "litellm least-busy": _router("least-busy"),
    "litellm latency": _router("latency-based-routing"),
    "litellm usage": _router("usage-based-routing"),
    "threshold": [
        lambda _fleet, share=share, limit=limit: Ordered(where=Split(share, lambda row: hashed(row + 17)), limit=limit)
        for share, limit in product((0.35, 0.45), HALF)
    ],
    "hexgen-flow": [
        lambda _fleet, alpha=alpha, limit=limit: Assigned(Balanced(alpha), by_urgency, limit)
        for alpha, limit in product((0.3, 0.7), HALF)
    ],
    "vtc": [lambda _fleet, limit=limit: Turns(limit) for limit in LIMITS],
}
"""`threshold`: RouteLLM-like, by a score known before the task is asked, here one that tells nothing: the traces hold
no text; its quality is measured apart, with a score that does.
"""

POLICIES: Mapping[str, Sequence[Factory]] = {OURS: ours(), "weighted, refusing nothing": ours(refuse=False), **RIVALS}
