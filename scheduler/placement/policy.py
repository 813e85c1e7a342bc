"""What a placement is, and what forbids a backend to a task before any cost is weighed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finllm.scheduler.backends import Offer
from finllm.scheduler.money.account import Account
from finllm.scheduler.placement.task import Task, meets_floor

RULE = "weighted token throughput: the cheapest backend that meets the floor and the budget (v2)"
CHARS_PER_TOKEN = 4.0
"""Rough length of a token, to tell beforehand whether a call fits; the backend enforces the limit exactly."""


@dataclass(frozen=True)
class Placement:
    """The broker's answer to a task: the backend's name or None, and for each one refused why.

    `predicted`: s until the answer and J, as the policy reckoned; None in records of before it did. `twin`: the backend
    in another domain that a critical task runs on too, or `alone`, why it has none.
    """

    chosen: str | None
    refused: Mapping[str, str]
    rule: str = RULE
    predicted: Mapping[str, float] | None = None
    twin: str | None = None
    alone: str | None = None


def least_tokens(task: Task) -> float:
    """Tokens below which a call of this task need not be tried: roughly its prompt's length."""
    return (len(task.prompt.system) + len(task.prompt.user)) / CHARS_PER_TOKEN


def forbidden(task: Task, offers: Sequence[Offer], account: Account, failed: Mapping[str, str]) -> dict[str, str]:
    """The backends that may not serve a task, with the constraint: precision, failure, budget or context.

    `failed`: reasons by name of those that failed on it.
    """
    need = least_tokens(task)
    found: dict[str, str] = {}
    for offer in offers:
        left = account.tokens_left(offer.tier) - task.ahead
        if not meets_floor(offer.precision, task.floor):
            found[offer.name] = f"{offer.precision} is below the floor {task.floor}"
        elif task.exactly not in (None, offer.precision):
            found[offer.name] = f"{offer.precision} is not the {task.exactly} that is asked"
        elif offer.name in failed:
            found[offer.name] = f"failed on this task: {failed[offer.name]}"
        elif need > left:
            found[offer.name] = f"needs about {need:.0f} tokens, {max(left, 0):.0f} left on the {offer.tier} tier"
        elif need > offer.context:
            found[offer.name] = f"needs about {need:.0f} tokens, its context holds {offer.context}"
    return found
