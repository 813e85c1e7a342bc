"""The state of a stress-test run: JSON only, so that a checkpoint can hold nothing but data."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

from finllm.scheduler.placement.task import canonical

Row = dict[str, Any]


class State(TypedDict):
    """Keys and who writes them. Opinions are appended, so that nodes side by side do not overwrite each other.

    evidence: rows of the evidence table (intake, validator, stress-tester). sources: sanitised texts with their
    evidence ids and what the words say per factor (intake), with a verdict (sanity-checker). precedents, market, second
    (the second opinion, field by field): intake. verdict, checks, second_checks, passes: validator. withheld: factors
    that get no model shock. answer: human. shocks, stress, analogue: stress-tester.
    breaches, findings: compliance. report: report.
    """

    evidence: list[Row]
    sources: list[Row]
    precedents: list[Row]
    second: list[Row]
    market: list[Row]
    book: Row
    opinions: Annotated[list[Row], operator.add]
    checks: list[Row]
    second_checks: list[Row]
    verdict: Literal["aligned", "diverged", "unresolved"]
    passes: int
    answer: str
    shocks: list[Row]
    stress: Row
    analogue: Row | None
    breaches: list[Row]
    findings: list[Row]
    report: Row


def after(state: Mapping[str, Any], out: Row) -> Row:
    """The state once a node has returned `out`: opinions appended, every other key replaced."""
    merged = {**state, **out}
    if "opinions" in out:
        merged["opinions"] = [*state.get("opinions", []), *out["opinions"]]
    return merged


def state_hash(state: Mapping[str, Any]) -> str:
    """Hex sha256 of a state as canonical JSON."""
    return hashlib.sha256(canonical(dict(state))).hexdigest()


def latest(state: State, agent: str) -> Row | None:
    """The newest opinion of an agent, or None. The sanity-checker has one per source: see `opinions_of`."""
    return next((o for o in reversed(state.get("opinions", [])) if o["agent"] == agent), None)


def opinions_of(state: State, agent: str) -> list[Row]:
    return [o for o in state.get("opinions", []) if o["agent"] == agent]
