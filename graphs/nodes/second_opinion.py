"""The second opinion in a run: what the classifier says of the event, as evidence beside the agent's reading."""

from __future__ import annotations

from collections.abc import Sequence

from finllm.desk.desk import RunContext
from finllm.errors import BackendError
from finllm.events import Noted
from finllm.graphs.rows import HeardSource, SecondAnswer
from finllm.guardrails.provenance import REJECTED
from finllm.models.second_opinion import Probabilities
from finllm.scheduler.decoding.filling import best
from finllm.tools.evidence import EvidenceTable

LONGEST = 1500
"""Characters of each text that is judged; the classifier reads 160 tokens of them."""
ASIDE = ("injection", "region")
"""Fields that are not held against the reading."""
DIGITS = 3
"""Decimals of a probability that are kept: the rest differs from one machine to another."""


def second_opinion(run: RunContext, sources: Sequence[HeardSource], table: EvidenceTable) -> list[SecondAnswer]:
    """A row per field with its value, its probability and the evidence row that holds it; none where it cannot judge.

    The narrative and each source that the checks let through are judged apart, and their probabilities averaged.
    """
    second = run.desk.second
    if second is None:
        return []
    kept = [(s.text, s.evidence) for s in sources
            if s.evidence is not None and s.muted is None and s.verdict not in REJECTED]  # fmt: skip
    texts = [run.request.scenario.narrative, *(text for text, _evidence in kept)]
    try:
        told = [second.judge([text[:LONGEST]])[0] for text in texts]  # one by one: a batch would change the last digits
        digest = second.digest
    except BackendError as error:
        run.desk.bus.emit(Noted(level="warning", message=f"without a second opinion: {error.message}; {error.fix}"))
        return []
    read = ", ".join(evidence for _text, evidence in kept)
    formula = f"classifier {digest[:12]} over the narrative" + (f" and {read}" if read else "")
    rows: list[SecondAnswer] = []
    for field in told[0]:
        if field in ASIDE:
            continue
        odds = _mean(told, field)
        value = best(odds)
        evidence = table.add(
            round(odds[value], DIGITS),
            "probability",
            entity=f"{field} {value}",
            what="second opinion",
            period="this event",
            as_of=run.request.as_of,
            formula=formula,
        )
        rows.append(SecondAnswer(field=field, value=value, evidence=evidence))
    return rows


def _mean(told: list[Probabilities], field: str) -> dict[str, float]:
    return {value: sum(one[field][value] for one in told) / len(told) for value in told[0][field]}
