"""Whether a scenario is approved: by a review on record, or as it came with finllm; of exactly the content that it has.

`approved_by` of a scenario is a reference and no name: what somebody types there approves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from finllm.memory.reading import LedgerReader
from finllm.memory.review_facts import report_digest
from finllm.memory.review_record import ReviewRecord
from finllm.tools.data.approval import scenario_digest


class Approval(BaseModel):
    """What a reference leads to: who approved which content. `by`: those who signed."""

    model_config = ConfigDict(frozen=True)

    reference: str
    scenario_sha256: str
    by: tuple[str, ...]


@cache
def shipped() -> dict[str, Approval]:
    """The approvals of the scenarios that come with finllm, by reference."""
    rows: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("approvals.yaml").read_text("utf-8"))
    return {
        name: Approval(reference=name, scenario_sha256=row["sha256"], by=(row["by"],)) for name, row in rows.items()
    }


def is_review(reference: str | None) -> bool:
    """Whether a reference could be of a review on record, such as `r-118`."""
    return re.fullmatch(r"r-[0-9]{1,9}", reference or "") is not None


def on_record(reference: str | None, ledger: LedgerReader) -> Approval | None:
    """The approved review of that id; None where there is none, or it is no more what was signed.

    Errors: RecordError.
    """
    found = next((one for one in ReviewRecord(ledger).items().values() if one.id == reference), None)
    if found is None or found.ended != "approved" or found.row.audit is not None:
        return None
    run = ledger.run(found.row.run)
    if run is None or run.result is None or report_digest(run.result) != found.row.report_sha256:
        return None
    return Approval(reference=found.id, scenario_sha256=found.row.scenario_sha256,
                    by=tuple(one.by for one in found.signatures))  # fmt: skip


def approver(scenario: Mapping[str, Any], known: Approval | None) -> str | None:
    """Who approved a scenario (as JSON has it), and where that is on record; None where nobody did.

    `known`: what its reference led to when the run was asked for.
    """
    reference = scenario.get("approved_by")
    found = shipped().get(str(reference), known)
    if found is None or found.reference != reference or found.scenario_sha256 != scenario_digest(scenario):
        return None
    return f"{', '.join(found.by)} ({found.reference})"


def why_not(scenario: Mapping[str, Any], known: Approval | None) -> str | None:
    """What is wrong with the approval that a scenario names; None where it names none, or nothing is."""
    reference = scenario.get("approved_by")
    if not reference or approver(scenario, known) is not None:
        return None
    if known is None and str(reference) not in shipped():
        return f"approved_by {reference!r} is no approved review on record: only a signed review approves a scenario"
    return f"approved_by {reference!r} is of another content: an approval is of what was approved"
