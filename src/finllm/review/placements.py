"""Where a run's tasks went and why, from the record: chosen, refused, predicted and actual, one row a task."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from finllm.desk.spending import AmountRow, SpentRow, spent_of
from finllm.memory.entries import Charge, RecordedPlacement
from finllm.memory.reading import LedgerReader, Use
from finllm.scheduler.money.account import Spent
from finllm.scheduler.placement.task import asked_digest, key_of

_CONTENT = ("prompt", "template", "priors", "seed")


class PlacementRow(BaseModel):
    """A placement. `predicted_*`: as the broker expected, None where it did not; `actual` of the call that followed.

    `ended`: `answered`, `from the ledger`, or why there was no answer. `why`: what the task was asked again for, finer.
    `call`: the key of the call that answered. `twin`: where a critical task ran too; `alone`: why it did not.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    node: str
    agent: str
    rule: str
    chosen: str
    refused: dict[str, str]
    predicted_seconds: float | None
    predicted_joules: float | None
    actual: SpentRow | None
    ended: str
    why: str | None = None
    call: str | None = None
    twin: str | None = None
    alone: str | None = None

    @property
    def where(self) -> str:
        """The backends that it ran on, in words."""
        if self.twin:
            return f"{self.chosen} and {self.twin}, whoever was first"
        return f"{self.chosen} alone: {self.alone}" if self.alone else self.chosen

    @property
    def joules(self) -> AmountRow | None:
        return None if self.actual is None else self.actual.joules


def placements_of(run_id: str, ledger: LedgerReader) -> list[PlacementRow]:
    """Every placement of a run, in order, with what became of the call that it placed."""
    return placements_in(ledger.uses(run_id))


def placements_in(uses: Sequence[Use]) -> list[PlacementRow]:
    """The same of what a run used, in order."""
    rows: dict[str, PlacementRow] = {}
    for at, use in enumerate(uses):
        if use.entry.kind == "placement":
            rows[use.key] = _row(use, uses[at + 1 :])
    return list(rows.values())


def _row(use: Use, later: Sequence[Use]) -> PlacementRow:
    placed = RecordedPlacement.of(use.entry)
    predicted = placed.predicted or {}
    places = {placed.chosen, placed.twin}
    ended, actual, call = "no answer is on record", None, None
    for other in later:
        entry = other.entry
        if other.node != use.node or not _same(placed, other):
            continue
        if entry.kind == "placement" and other.key != use.key:
            break
        if entry.kind == "charge" and entry.actor in places:
            ended, actual = Charge.of(entry).why, spent_of(other)
        if entry.kind == "call" and entry.actor in places:
            ended, call = "from the ledger" if other.reused else "answered", other.key
            actual = None if other.reused else (actual or Spent(0.0, 0, 0)) + spent_of(other)
            break
    return PlacementRow(
        task=(placed.task or use.key)[:8],
        node=use.node,
        agent=placed.agent,
        rule=placed.rule,
        chosen=placed.chosen,
        refused=placed.refused,
        predicted_seconds=predicted.get("seconds"),
        predicted_joules=predicted.get("joules"),
        actual=None if actual is None else SpentRow.of(actual),
        ended=ended,
        why=placed.why,
        call=call,
        twin=placed.twin,
        alone=placed.alone,
    )


def _same(placed: RecordedPlacement, other: Use) -> bool:
    """Whether an entry is about the task that was placed. A call knows only the priors of its own precision."""
    asked = other.entry.request
    if other.entry.kind != "call":
        return asked.get("task") == placed.task
    if placed.asked is not None:
        return asked_digest(asked) == placed.asked
    return key_of("task", {name: asked[name] for name in _CONTENT}) == placed.task
