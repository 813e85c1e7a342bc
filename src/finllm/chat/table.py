"""The run on the table: its record, its rows of evidence, and the one way by which a sentence about it gets out."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from finllm.chat.catalogue import Kind
from finllm.chat.known import known_names
from finllm.chat.slots import Known, Slots
from finllm.desk.request import RunRequest
from finllm.errors import GroundingError, InputError
from finllm.graphs.figures import Figure
from finllm.graphs.report import Report
from finllm.guardrails.grounding import ground
from finllm.memory.reading import LedgerReader, RunRow
from finllm.settings import Settings
from finllm.tools.evidence import Evidence, EvidenceTable, Unit

if TYPE_CHECKING:
    from finllm.review.whatif import WhatIf
    from finllm.sessions.inputs import Inputs

LEFT_OUT = "A sentence is left out here: the grounding guard did not let it pass."
_NAME = re.compile(r"\[\[(\w+)(\.entity|\.id)?\]\]")


@dataclass(frozen=True)
class Row:
    """An id of a row of evidence, as a sentence refers to it."""

    id: str


@dataclass(frozen=True)
class Answer:
    """Sentences that have passed the guard, the rows that they cite, and the command that repeats them.

    `asks`: it would compute something, and does once somebody says so.
    """

    lines: tuple[str, ...]
    rows: tuple[Evidence, ...]
    command: str
    asks: bool = False


@dataclass
class Table:
    """A finished run on the table. `rows`: its evidence, and what the chat has counted or computed since."""

    run: RunRow
    ledger: LedgerReader
    settings: Settings
    rows: EvidenceTable = field(init=False)

    def __post_init__(self) -> None:
        self.rows = EvidenceTable(self.report.evidence)  # a run without a result is refused here

    @cached_property
    def report(self) -> Report:
        """Errors: InputError for a run without a result."""
        if self.run.result is None:
            raise InputError(f"run {self.run.id!r} is {self.run.status}: it has no result to ask about",
                             fix=f"finllm resume {self.run.id}")  # fmt: skip
        return Report.model_validate(self.run.result)

    @cached_property
    def request(self) -> RunRequest:
        return RunRequest.model_validate(self.run.request)

    @cached_property
    def what_if(self) -> WhatIf:
        """The run's result, to be computed again. Errors: InputError where its checkpoint is gone, or not on record."""
        from finllm.review.finished import finished_run
        from finllm.review.whatif import WhatIf

        return WhatIf(*finished_run(self.run, self.ledger, self.settings))

    @cached_property
    def inputs(self) -> Inputs:
        """The run's book, market and day, as the instruments without a model take them."""
        from finllm.sessions.inputs import Inputs
        from finllm.tools.pnl.asked import sectors_of
        from finllm.tools.pnl.factorset import FactorSet

        request, market = self.request, self.request.market(self.settings.data_dir)
        factors = FactorSet.of(market, request.scenario.factors, (), sectors_of(request.portfolio), request.as_of)
        return Inputs(request.portfolio, market, factors, request.as_of, request.thresholds, request.future,
                      request.currency)  # fmt: skip

    @cached_property
    def known(self) -> Known:
        others = [one for one in self.ledger.runs(200) if one.id != self.run.id]
        return known_names(self.request, others, (shock.factor for shock in self.report.shocks))

    def add(self, value: float, unit: Unit, entity: str, what: str, formula: str, period: str = "this run") -> Row:
        """A row of the chat's own: something counted or computed since; said again, it is the same row."""
        for row in self.rows:
            if (row.value, row.unit, row.entity, row.what, row.formula) == (value, unit, entity, what, formula):
                return Row(row.id)
        return Row(self.rows.add(value, unit, entity=entity, what=what, period=period,
                                 as_of=dt.date.fromisoformat(self.report.as_of), formula=formula))  # fmt: skip

    def find(self, *, entity: str | None = None, what: str | None = None, id: str | None = None) -> list[Evidence]:
        """The run's rows of an entity, or whose `what` begins so."""
        return [row for row in self.rows if (entity is None or row.entity == entity)
                and (what is None or row.what.startswith(what)) and (id is None or row.id == id)]  # fmt: skip


class Teller:
    """Tells one answer: a sentence of the kind's by name, its references filled, each number beside its row.

    `text`: the question; `sure`: somebody said that what it asks for may be computed.
    """

    def __init__(self, kind: Kind, table: Table, slots: Slots, text: str = "", *, confirmed: bool = False) -> None:
        self.kind, self.table, self.slots, self.text, self.sure = kind, table, slots, text, confirmed
        self.lines: list[str] = []
        self._ids: dict[str, None] = {}

    def say(self, answer: str, **given: Figure | Row | str | None) -> None:
        """Add the sentence; a number is a figure or a row, any other text is a quote that claims nothing."""
        template = self.kind.answers[answer]
        line = said(template, self.table.rows, given)
        self.lines.append(line)
        if line != LEFT_OUT:
            used = (given.get(match[1]) for match in _NAME.finditer(template))
            self._ids |= {id: None for one in used if (id := _id_of(one)) is not None}

    def done(self, *, asks: bool = False, again: str | None = None, **command: str) -> Answer:
        """The answer, with the rows that its sentences name; `again`: what repeats it, where not the kind's command."""
        named = {"run": self.table.run.id, "as_of": self.table.report.as_of, **command}
        rows = tuple(self.table.rows[id] for id in self._ids)
        return Answer(tuple(self.lines), rows, again or filled(self.kind.command, named), asks)


def said(template: str, rows: EvidenceTable, given: Mapping[str, Figure | Row | str | None]) -> str:
    """A sentence through the grounding guard; where it does not let one pass, that it did not."""
    quotes: dict[str, str] = {}

    def refer(match: re.Match[str]) -> str:
        name, part = match[1], match[2] or ""
        value = given.get(name)
        id = _id_of(value)
        if id is not None and part == ".id":
            quotes[f"{name}Id"] = id
            return f"[[{name}Id]]"
        if id is not None:
            return f"[[{id}{part}]]"
        quotes[name] = "nothing" if value is None else str(value)
        return f"[[{name}]]"

    try:
        return ground(_NAME.sub(refer, template), rows, quotes, cite=True)
    except GroundingError:
        return LEFT_OUT


def _id_of(value: Figure | Row | str | None) -> str | None:
    return value.evidence if isinstance(value, Figure) else value.id if isinstance(value, Row) else None


def filled(command: str, named: Mapping[str, str]) -> str:
    """A command with its names filled; each as one word of a shell."""
    import shlex

    return re.sub(r"\{(\w+)\}", lambda match: shlex.quote(named[match[1]]) if match[1] in named else "…", command)
