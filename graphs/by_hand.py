"""What people decided in a run, as rows of its report: shocks and readings set, disputes settled, sources, trades."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.tools.data.scenario import Scenario

Kind = Literal["shock", "reading", "dispute", "source", "trade"]


class HandRow(BaseModel):
    """One decision of a person: about what, what it was, by whom and why."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    about: str
    decided: str
    by: str
    because: str

    @property
    def words(self) -> str:
        """The decision in a sentence, its figures left to the rows that hold them."""
        done = {"shock": "the shock was set", "trade": "it was traded"}.get(self.kind, self.decided)
        named = f"source {self.about}" if self.kind == "source" else self.about
        return f"Set by a person: {named}, {done} ({self.by}: {self.because})."


def hand_rows(scenario: Scenario) -> tuple[HandRow, ...]:
    """Every decision that a scenario holds, in the order of its fields."""
    return tuple(_rows(scenario))


def _rows(scenario: Scenario) -> Iterator[HandRow]:
    for shock in scenario.shocks:
        if shock.judged:
            yield _row("shock", shock.factor, shock.move, shock.by, shock.because)
    for one in scenario.readings:
        size = "" if one.size == "none" else f", {one.size}"
        yield _row("reading", one.factor, f"read {one.direction}{size}", one.by, one.because)
    for one in scenario.disputes:
        done = {"accept": "accepted", "withhold": "withheld"}[one.answer]
        yield _row("dispute", one.factor, done, one.by, one.because)
    for source in scenario.sources:
        if source.use != "on":
            yield _row("source", source.id, f"switched {source.use}" if source.use == "off" else "muted",
                       source.by, source.because)  # fmt: skip
    for trade in scenario.trades:
        yield _row("trade", trade.id, f"{trade.quantity:+,.10g}", trade.by, trade.because)


def _row(kind: Kind, about: str, decided: str, by: str | None, because: str | None) -> HandRow:
    return HandRow(kind=kind, about=about, decided=decided, by=by or "a person", because=because or "no reason given")
