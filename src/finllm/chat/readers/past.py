"""Answers that set the run beside something else: past events, and other runs on record."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from finllm.chat.readers.result import MOST
from finllm.chat.table import Answer, Row, Teller
from finllm.graphs.report import Report
from finllm.memory.precedents import Precedent, load_precedents
from finllm.memory.reading import RunHead
from finllm.tools.evidence import money


def past_event(tell: Teller) -> Answer:
    report, name = tell.table.report, tell.slots.first("episode")
    if name is not None:
        known = next((one for one in _visible(tell) if one.id == name), None)
        if known is not None:
            tell.say("named", event=known.title, when=f"{known.start} to {known.end}", told=known.summary)
        window = f"{known.start}:{known.end}" if known is not None else name
        again = f"finllm stress --as-of {report.as_of} --replay {window}"
        tell.say("replay", command=again)
        return tell.done(again=again)
    closest = report.analogue
    if closest is None:
        tell.say("none")
        return tell.done()
    tell.say("closest", event=closest.title, when=f"{closest.start} to {closest.end}")
    if closest.total:
        tell.say("total", past=closest.total)
    else:
        tell.say("why", why=closest.why_no_total)
    tell.say("now", total=report.total)
    return tell.done()


def _visible(tell: Teller) -> Iterable[Precedent]:
    """The precedents that were over by the run's day."""
    day = dt.date.fromisoformat(tell.table.report.as_of)
    return [one for one in load_precedents() if one.end <= day]


def precedents(tell: Teller) -> Answer:
    found = tell.table.find(entity="knowledge base", what="past event")
    tell.say("head" if found else "none")
    for row in found:
        tell.say("one", event=Row(row.id))
    for row in tell.table.find(what="distance of a past event"):
        tell.say("distance", event=row.entity, distance=Row(row.id))
    return tell.done()


def compare_run(tell: Teller) -> Answer:
    other = _other(tell)
    if other is None:
        tell.say("none")
        return tell.done(other="RUN")
    head, theirs = other
    mine = tell.table.report
    when = dt.datetime.fromtimestamp(head.created_ns / 1e9, dt.UTC).isoformat(timespec="minutes")
    tell.say("titles", title=head.title, when=when)
    tell.say("totals", total=mine.total)
    there = tell.table.add(theirs.total.value, money(theirs.currency), "book", f"P&L of run {head.id}",
                           f"{theirs.total.evidence} of that run", f"{theirs.horizon} trading days")  # fmt: skip
    tell.say("other", title=head.title, before=there)
    names = sorted({*mine.by_factor, *theirs.by_factor}, key=lambda name: -abs(_of(mine, name) - _of(theirs, name)))
    for name in names[:MOST]:
        if name in mine.by_factor and name in theirs.by_factor and _of(theirs, name):
            then = tell.table.add(
                _of(theirs, name), money(theirs.currency), name, f"P&L by factor of run {head.id}",
                f"{theirs.by_factor[name].evidence} of that run", f"{theirs.horizon} trading days",
            )  # fmt: skip
            tell.say("parts", factor=name, now=mine.by_factor[name], then=then)
    return tell.done(other=head.id)


def _of(report: Report, factor: str) -> float:
    figure = report.by_factor.get(factor)
    return 0.0 if figure is None else figure.value


def _other(tell: Teller) -> tuple[RunHead, Report] | None:
    """The run that is named, else the newest one that ended before this one, else the newest other."""
    table, wanted = tell.table, tell.slots.first("run")
    heads = [one for one in table.ledger.runs(200) if one.id != table.run.id]
    heads.sort(key=lambda one: (one.id != wanted, one.created_ns > table.run.created_ns))
    for head in heads[:MOST]:
        row = table.ledger.run(head.id)
        if row is not None and row.result is not None:
            return head, Report.model_validate(row.result)
    return None


READERS = {"past_event": past_event, "precedents": precedents, "compare_run": compare_run}
