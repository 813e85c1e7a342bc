"""Finds the value of a row of evidence again, on the spot: by its formula, its text, its file or its scenario."""

from __future__ import annotations

from finllm.agents.pooling import ByChannels
from finllm.desk.request import RunRequest
from finllm.graphs.nodes.past import told
from finllm.guardrails.formula import again, cited_by
from finllm.review.opened_rows import FileRow, PastRow, Recomputed
from finllm.review.opened_series import same
from finllm.review.opened_text import WholeText
from finllm.tools.data.factors import FACTORS
from finllm.tools.evidence import Evidence, EvidenceTable
from finllm.tools.pnl.bands import TESTED_LEVEL
from finllm.tools.pnl.size_table import SIZE_TABLE_PATH

_COLUMNS = {"market value": "market_value", "market value in its currency": "market_value", "load on EQUITY_US": "beta",
            "convexity, years²": "convexity"}  # fmt: skip
"""The columns of a book's file by what rows of evidence call them, where that is another word."""
_LIMIT = "limit, "


def by_formula(row: Evidence, rows: EvidenceTable) -> Recomputed | None:
    """What the row's formula gives over the rows that it names; None where it names a method."""
    if row.formula is None or not all(id in rows for id in cited_by(row)):
        return None
    found = again(row, rows)
    if found is None:
        return None
    way = "formula" if found.of.id == row.id else "parts"
    return Recomputed.by(way, found.of, found.found, row.formula, equal=found.equal)


def by_text(row: Evidence, text: WholeText | None) -> Recomputed | None:
    """A row that is the beginning of what is read of a text, which is sanitised again."""
    if text is None or row.formula is not None or not isinstance(row.value, str) or not text.pieces:
        return None
    begun = text.read[: len(row.value)]
    return Recomputed.by("text", row, begun, "the beginning of what is read of the text, sanitised again",
                         equal=bool(begun) and begun == row.value)  # fmt: skip


def by_file(row: Evidence, file: FileRow | None) -> Recomputed | None:
    """A row that is a cell of the book's file, as the run's record has it."""
    if file is None or row.formula is not None or isinstance(row.value, str):
        return None
    column = _COLUMNS.get(row.what, row.what)
    if (cell := file.cells.get(column)) is None:
        return None
    value = float(cell)
    return Recomputed.by("file", row, value, f"row {file.row} of the book, column {column}",
                         equal=same(value, row.value))  # fmt: skip


def by_scenario(row: Evidence, request: RunRequest) -> Recomputed | None:
    """A row that repeats what the scenario or the limits say."""
    told = _told(row, request)
    if told is None or isinstance(row.value, str):
        return None
    value, how = told
    return Recomputed.by("scenario", row, value, how, equal=same(value, row.value))


def by_past(row: Evidence, past: PastRow | None) -> Recomputed | None:
    """A past event as its row tells it."""
    if past is None or row.formula is not None:
        return None
    line = told(past.event)
    return Recomputed.by("past", row, line, "the knowledge base, told again", equal=line == row.value)


def by_channels(row: Evidence, heard: ByChannels | None) -> Recomputed | None:
    """A channel's probability, put together again from what its reader said of each text, on record."""
    if heard is None or isinstance(row.value, str) or not (row.formula or "").startswith("channel reader "):
        return None
    odds = next((one.probability for one in heard.opened if one.channel == row.entity), None)
    if odds is None:
        return None
    return Recomputed.by("record", row, odds, "what the reader of channels said of each text, on record, put together "
                         "again", equal=same(odds, row.value))  # fmt: skip


def given_by(row: Evidence, request: RunRequest) -> str | None:
    """Who or what gave a row that was not worked out, in words; None for one that was."""
    match row.formula:
        case "given by the user" | "given by the scenario" | "given by the limits file":
            found = _told(row, request)
            return found[1] if found else f"{row.formula}, as the run's request has it"
        case "stated" | "stated choice":
            return "stated: a choice, and no measurement"
        case "trading days of the replayed window":
            window = request.scenario.replay
            return f"the scenario's replay, {window.start} to {window.end}" if window else row.formula
        case "held()" | "check()" | "count()":
            return "no row: there was nothing to hold it against"
        case str() as told if told.startswith("human judgement"):
            return told
        case str() as told if told.startswith("reviewed size table"):
            return f"the reviewed size table, {SIZE_TABLE_PATH.name}: a factor without a history"
        case str() as told if told.startswith("rule "):
            return f"the rule book over the finished state: {told}"
        case _:
            return None


def _told(row: Evidence, request: RunRequest) -> tuple[float, str] | None:
    """The number that the request gives for a row, and where it stands there."""
    scenario = request.scenario
    if row.formula == "given by the scenario":
        return float(scenario.horizon), f"the scenario's horizon, {scenario.horizon} trading days"
    if row.formula == "stated" and row.what == "level of the interval":
        asked = scenario.level
        return (
            (TESTED_LEVEL, "the level where a scenario asks for none")
            if asked is None
            else (asked, "as the scenario asks")
        )
    if row.formula == "given by the limits file" and row.what.startswith(_LIMIT):
        return _limit(row, request)
    if row.what not in ("shock (user)", "shock (judgement)"):
        return None
    for entry in scenario.shocks:
        known = FACTORS.get(entry.factor)  # type: ignore[call-overload]
        if known is not None and known.label == row.entity and not (asked := entry.parsed()).in_sigmas:
            return asked.amount, f"the scenario's shock {entry.factor}: {entry.move}"
    return None


def _limit(row: Evidence, request: RunRequest) -> tuple[float, str] | None:
    kind = row.what.removeprefix(_LIMIT)
    limits = request.limits
    cuts = {"loss_by_factor": limits.loss_by_factor, "loss_by_sector": limits.loss_by_sector,
            "loss_by_position": limits.loss_by_position}  # fmt: skip
    if kind in cuts:
        by_name = {name.casefold(): value for name, value in cuts[kind].items()}
        found = by_name.get(row.entity.casefold(), by_name.get("each"))
    else:
        found = {"total_loss": limits.total_loss, "var_975_1d": limits.var_975_1d, "es_975_1d": limits.es_975_1d,
                 "coverage": limits.coverage}.get(kind)  # fmt: skip
    return None if found is None else (float(found), f"the limits, {kind} of {row.entity}")
