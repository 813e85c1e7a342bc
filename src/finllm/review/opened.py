"""A row of evidence opened: its formula done again, its terms, the series, text or file that it stands on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from finllm.agents.pooling import ByChannels
from finllm.desk.request import RunRequest
from finllm.errors import FinllmError, InputError
from finllm.files import sha256_of_file
from finllm.graphs.report import Report
from finllm.guardrails.formula import cited_by
from finllm.memory.precedents import PRECEDENTS_PATH, Precedent, load_precedents
from finllm.memory.reading import LedgerReader, RunRow
from finllm.memory.texts import Texts
from finllm.review.explanation import explanation_on_record
from finllm.review.found_again import by_channels, by_file, by_formula, by_past, by_scenario, by_text, given_by
from finllm.review.heard import heard_on_record
from finllm.review.opened_rows import FileRow, OpenedRow, PastRow, Recomputed, Term
from finllm.review.opened_series import SeriesWindow, found_again, named_series, same, series_window
from finllm.review.opened_text import whole_text
from finllm.settings import Settings
from finllm.tools.data.market import MarketStore
from finllm.tools.evidence import Evidence, EvidenceTable, show
from finllm.tools.pnl.asked import scenario_factors
from finllm.tools.pnl.factorset import FactorSet


class Opener:
    """Opens the rows of one run on record, and those that its explanation adds. Market data are read once, and only
    for a row that stands on some.

    `rebuilt`: values of the run's rows by id, as all tools find them again on the record (`review.rebuilt`).
    Errors: InputError for a run without a report.
    """

    def __init__(
        self, run: RunRow, ledger: LedgerReader, settings: Settings, rebuilt: Mapping[str, float | str] | None = None
    ) -> None:
        if run.result is None:
            raise InputError(f"run {run.id!r} is {run.status}: it has no rows of evidence to open",
                             fix=f"finllm resume {run.id}")  # fmt: skip
        self.run = run
        self.report = Report.model_validate(run.result)
        self.request = RunRequest.model_validate(run.request)
        explained = explanation_on_record(run.id, ledger)
        self.rows = EvidenceTable((*self.report.evidence, *(explained.evidence if explained else ())))
        self.rebuilt = rebuilt or {}
        self._ledger, self._settings = ledger, settings
        self._texts = Texts(settings.texts_dir)

    def open(self, id: str) -> OpenedRow:
        """Errors: InputError for a row that the run has not."""
        if id not in self.rows:
            raise InputError(f"run {self.run.id!r} has no row {id!r}",
                             fix=f"its rows are E1 to E{len(self.rows)}")  # fmt: skip
        row, notes = self.rows[id], list[str]()
        text = whole_text(row, self.request, self._removed(row), self._texts)
        file, past = self._file(row), self._past(row)
        found = (
            by_formula(row, self.rows) or by_text(row, text) or by_file(row, file) or by_scenario(row, self.request)
            or by_past(row, past) or by_channels(row, self._heard) or self._by_series(row, notes)
            or self._by_tools(row)
        )  # fmt: skip
        measured = _CALL.search(row.formula or "")
        return OpenedRow(
            run=self.run.id, row=row, shown=show(row.value, row.unit), recomputed=found,
            terms=tuple(Term.of(self.rows[one]) for one in self._behind(row) if one in self.rows),
            used_by=tuple(Term.of(one) for one in self.rows if id in cited_by(one)),
            series=() if text or file else self._series(row, notes), text=text, file=file, past=past,
            given=given_by(row, self.request), call=measured[1] if measured else None,
            notes=tuple(dict.fromkeys(notes)),
        )  # fmt: skip

    @cached_property
    def market(self) -> MarketStore:
        """The market data as they are now. Errors: InputError for a price file that has changed."""
        return self.request.market(self._settings.data_dir)

    @cached_property
    def _factors(self) -> FactorSet:
        """The factors as the run had them. Errors: InputError where the market data no longer tell one."""
        return scenario_factors(self.request.scenario, self.market, self.request.portfolio)

    def _behind(self, row: Evidence) -> list[str]:
        """Ids of the rows that a formula names; of a method over the book or its band, those that it starts from."""
        if named := list(dict.fromkeys(cited_by(row))):
            return named
        if row.formula is None or row.source is not None:
            return []
        if row.entity == "book":
            return [one.id for one in self.rows if one.what == "market value" and one.entity != "book"]
        if row.what == "share of the interval's width":
            return [one.id for one in self.rows if one.what.startswith("interval, ")]
        if row.entity in ("shocks", "band"):
            return [one.id for one in self.rows if one.what.startswith("shock (")]
        if row.entity == "rule book":
            rule = str(row.value).partition(":")[0]
            return [id for one in self.report.findings if one.rule == rule for id in one.because]
        return []

    @cached_property
    def _knowledge(self) -> tuple[str, dict[str, Precedent]]:
        """The digest of the file of past events, and the events by id."""
        return sha256_of_file(PRECEDENTS_PATH), {one.id: one for one in load_precedents()}

    @cached_property
    def _heard(self) -> ByChannels | None:
        return heard_on_record(self._ledger.uses(self.run.id), self.request)

    def _removed(self, row: Evidence) -> tuple[str, ...] | None:
        """What was cut from the source that a row was read from, by the report."""
        if row.source is None:
            return None
        read = {one.url: one.id for one in self.request.scenario.sources}
        id = row.entity.removeprefix("source ") if row.entity.startswith("source ") else read.get(row.source.uri)
        return next((one.removed for one in self.report.sources if one.id == id), None)

    def _series(self, row: Evidence, notes: list[str]) -> tuple[SeriesWindow, ...]:
        if _is_past(row) or (row.source is None and isinstance(row.value, str)):
            return ()
        try:
            names = named_series(row, self.market, self._factors.drivers.values())
            return tuple(series_window(name, row, self.market) for name in names)
        except InputError as error:
            notes.append(f"its series is not opened: {error.message}")
            return ()

    def _file(self, row: Evidence) -> FileRow | None:
        book, source = self.request.portfolio, row.source
        if source is None or source.uri != book.uri or not source.pointer.startswith("row "):
            return None
        name = source.pointer.removeprefix("row ")
        position = next((one for one in book.positions if one.id == name), None)
        cells = position.model_dump(mode="json", by_alias=True, exclude_none=True) if position else {}
        unchanged, why = _file_now(source.uri, source.sha256)
        return FileRow(uri=source.uri, row=name, sha256=source.sha256, unchanged=unchanged, why=why,
                       cells={field: str(value) for field, value in cells.items() if value != {}})  # fmt: skip

    def _past(self, row: Evidence) -> PastRow | None:
        source = row.source
        if source is None or not _is_past(row):
            return None
        digest, events = self._knowledge
        event, unchanged = events.get(source.pointer), digest == source.sha256
        return None if event is None else PastRow(event=event, uri=source.uri, sha256=source.sha256,
                                                  unchanged=unchanged)  # fmt: skip

    def _by_series(self, row: Evidence, notes: list[str]) -> Recomputed | None:
        if isinstance(row.value, str) or row.source is None or row.formula is not None or _is_past(row):
            return None
        try:
            found = found_again(row, self.market)
        except (FinllmError, IndexError) as error:
            notes.append(f"its value is not found again: {error}")
            return None
        return None if found is None else Recomputed.by("series", row, found.value, found.how,
                                                        equal=same(found.value, row.value))  # fmt: skip

    def _by_tools(self, row: Evidence) -> Recomputed | None:
        if row.id not in self.rebuilt:
            return None
        value = self.rebuilt[row.id]
        return Recomputed.by("tools", row, value, "every tool of the run, done again on the record",
                             equal=value == row.value)  # fmt: skip


_CALL = re.compile(r"call ([0-9a-f]{12})")


def opened(
    run_id: str, evidence_id: str, ledger: LedgerReader, settings: Settings,
    rebuilt: Mapping[str, float | str] | None = None,
) -> OpenedRow:  # fmt: skip
    """A row of a run on record, opened; an `Opener` opens several. Errors: InputError for an unknown run or row."""
    run = ledger.run(run_id)
    if run is None:
        raise InputError(f"no run {run_id!r}", fix="run 'finllm runs list' for those on record")
    return Opener(run, ledger, settings, rebuilt).open(evidence_id)


def _is_past(row: Evidence) -> bool:
    return row.source is not None and row.source.uri == f"finllm:memory/{PRECEDENTS_PATH.name}"


def _file_now(uri: str, sha256: str) -> tuple[bool | None, str | None]:
    """Whether a file of this machine is as it was; None and why where there is none to look at."""
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return None, "it is no file of this machine: the record holds what was read of it"
    try:
        now = sha256_of_file(Path(unquote(parts.path)))
    except OSError as error:
        return None, f"the file is gone ({error.strerror}): the record holds what was read of it"
    return (True, None) if now == sha256 else (False, "the file has changed since: the record holds what was read")
