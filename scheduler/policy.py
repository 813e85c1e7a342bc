"""Where a task runs: the simple stated rule of the walking skeleton, as a pure function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finllm.scheduler.account import Account
from finllm.scheduler.backends import Offer
from finllm.scheduler.task import PRECISIONS, Task, meets_floor

RULE = "coarsest precision that meets the floor and fits the budget (v1)"
CHARS_PER_TOKEN = 4.0
"""Rough length of a token, to tell beforehand whether a call fits; the backend enforces the limit exactly."""


@dataclass(frozen=True)
class Placement:
    """The broker's answer to a task: the backend's name or None, and for each one refused why."""

    chosen: str | None
    refused: Mapping[str, str]
    rule: str = RULE


def least_tokens(task: Task) -> float:
    """Tokens below which a call of this task need not be tried: roughly its prompt's length."""
    return (len(task.prompt.system) + len(task.prompt.user)) / CHARS_PER_TOKEN


def place(task: Task, offers: Sequence[Offer], account: Account, failed: Mapping[str, str]) -> Placement:
    """Pick the coarsest backend that meets the floor, is not in `failed` (name → reason) and fits the budget."""
    refused: dict[str, str] = {}
    chosen: str | None = None
    need = least_tokens(task)
    for offer in sorted(offers, key=lambda o: (PRECISIONS.index(o.precision), o.name)):
        left = account.tokens_left(offer.tier)
        if not meets_floor(offer.precision, task.floor):
            refused[offer.name] = f"{offer.precision} is below the floor {task.floor}"
        elif offer.name in failed:
            refused[offer.name] = f"failed on this task: {failed[offer.name]}"
        elif need > left:
            refused[offer.name] = f"needs about {need:.0f} tokens, {max(left, 0):.0f} left on the {offer.tier} tier"
        elif need > offer.context:
            refused[offer.name] = f"needs about {need:.0f} tokens, its context holds {offer.context}"
        elif chosen is not None:
            refused[offer.name] = f"finer than needed: {chosen} meets the floor {task.floor}"
        else:
            chosen = offer.name
    return Placement(chosen, refused)
