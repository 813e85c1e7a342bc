"""Answers about the result: total, summary, positions, factors, sectors, the band, value at risk, and single rows."""

from __future__ import annotations

import re
from collections.abc import Mapping

from finllm.chat.table import Answer, Row, Teller
from finllm.graphs.figures import Figure
from finllm.graphs.report import where
from finllm.tools.evidence import Evidence

MOST = 5
"""Lines of a list unless it is short."""


def total(tell: Teller) -> Answer:
    report = tell.table.report
    if report.total_share:
        tell.say("total", total=report.total, share=report.total_share, horizon=_horizon(tell))
    else:
        tell.say("alone", total=report.total, horizon=_horizon(tell))
    _band(tell)
    if covered := _id(tell, "share of the book that is covered"):
        tell.say("covered", covered=covered)
    return tell.done()


def summary(tell: Teller) -> Answer:
    report = tell.table.report
    tell.say("total", total=report.total, horizon=_horizon(tell))
    _band(tell)
    worst = min(report.by_factor.values(), key=lambda one: one.value, default=None)
    if worst is not None and worst.value < 0:
        tell.say("worst", factor=worst)
    tell.say("ruled", ruled=report.ruled, verdict=report.verdict)
    for line in report.moved:
        tell.say("line", line=line)
    return tell.done()


def worst_position(tell: Teller) -> Answer:
    report = tell.table.report
    losing = [one for one in _ranked(report.by_position) if one[1].value < 0]
    least = re.search(r"\b(?:least|smallest|fewest)\b", tell.text, re.IGNORECASE) is not None
    found = losing[::-1][:MOST] if least else losing[:MOST]
    if not found:
        tell.say("none")
        return tell.done()
    tell.say("least" if least else "head")
    for name, figure in found:
        tell.say("one", position=name, amount=figure)
    if not least and (worst := min(report.by_factor.values(), key=lambda one: one.value, default=None)):
        tell.say("through", factor=worst)
    return tell.done()


def best_position(tell: Teller) -> Answer:
    found = [one for one in reversed(_ranked(tell.table.report.by_position)) if one[1].value > 0][:MOST]
    tell.say("head" if found else "none")
    for name, figure in found:
        tell.say("one", position=name, amount=figure)
    return tell.done()


def position(tell: Teller) -> Answer:
    by_position = tell.table.report.by_position
    for name in tell.slots.all("position"):
        if name in by_position:
            tell.say("one", position=name, amount=by_position[name])
            for row in tell.table.find(entity=name, what="market value"):
                tell.say("value", position=name, value=Row(row.id))
        else:
            tell.say("lacks", name=name)
    return tell.done()


def by_factor(tell: Teller) -> Answer:
    report = tell.table.report
    asked = tell.slots.all("factor")
    moves = {shock.factor: shock.move for shock in report.shocks if not shock.refused}
    if asked:
        for name in asked:
            if (part := report.by_factor.get(name)) is not None and part.value:
                tell.say("single", factor=part)
            else:
                tell.say("none", name=name)
            if name in moves:
                tell.say("shock", move=moves[name])
        return tell.done()
    tell.say("head", total=report.total)
    for _name, part in _ranked(report.by_factor):
        tell.say("one", factor=part)
    return tell.done()


def by_sector(tell: Teller) -> Answer:
    report = tell.table.report
    asked = tell.slots.all("sector")
    if not asked:
        tell.say("head", total=report.total)
        for name, part in _ranked(report.by_sector):
            tell.say("one", sector=name, amount=part)
        return tell.done()
    sectors = {one.id: one.sector for one in tell.table.request.portfolio.positions}
    for name in asked:
        if name not in report.by_sector:
            tell.say("none", name=name)
            continue
        tell.say("single", sector=name, amount=report.by_sector[name])
        for id, part in _ranked({id: one for id, one in report.by_position.items() if sectors.get(id) == name})[:MOST]:
            tell.say("name", position=id, amount=part)
    return tell.done()


def band(tell: Teller) -> Answer:
    report = tell.table.report
    if report.interval is None:
        tell.say("none")
        return tell.done()
    _band(tell)
    tell.say("tested", tested=report.interval_tested)
    for name, share in sorted(report.interval_parts.items(), key=lambda one: -one[1].value):
        tell.say("part", part=name, width=share)
    return tell.done()


def var(tell: Teller) -> Answer:
    report = tell.table.report
    if report.var_975_1d is None:
        tell.say("none")
        return tell.done()
    tell.say("var", var=report.var_975_1d)
    for row in tell.table.find(entity="book", what="one-day expected shortfall"):
        tell.say("es", es=Row(row.id))
    if report.var_coverage < 1:
        tell.say("part", part=report.var_name.removeprefix("one-day VaR, "))
    return tell.done()


def row(tell: Teller) -> Answer:
    ids = tell.slots.all("row") or (tell.table.report.total.evidence,)
    for id in ids:
        if id not in tell.table.rows:
            tell.say("none", name=id)
            continue
        found = tell.table.rows[id]
        _told(tell, found)
        _again(tell, id)
    first = next((id for id in ids if id in _own(tell)), None)
    return tell.done(row=first) if first else tell.done(again=f"finllm trace {tell.table.run.id}")


def _own(tell: Teller) -> set[str]:
    """The rows that are the run's; what the chat added since opens nowhere else."""
    return {row.id for row in tell.table.report.evidence}


def _again(tell: Teller, id: str) -> None:
    """Whether the row's value comes out again, where that can be told on the spot."""
    from finllm.review.opened import Opener

    if id not in _own(tell):
        return
    opened = Opener(tell.table.run, tell.table.ledger, tell.table.settings).open(id)
    if opened.recomputed is not None:
        tell.say("again" if opened.sound else "differs")


def _told(tell: Teller, found: Evidence) -> None:
    one = Row(found.id)
    if isinstance(found.value, str):
        tell.say("text", row=one, said=one, what=found.what, entity=found.entity)
    else:
        tell.say("number", row=one, number=one, what=found.what, entity=found.entity, period=found.period)
    if found.source is not None:
        tell.say("from", source=where(found))
    elif found.formula:
        tell.say("formula", formula=found.formula)
    rests = [id for id in dict.fromkeys(re.findall(r"E[1-9][0-9]*", found.formula or "")) if id in tell.table.rows]
    for id in rests[:MOST]:
        behind = tell.table.rows[id]
        text = isinstance(behind.value, str)
        tell.say("rests" if text else "rest", number=Row(id), said=Row(id), what=behind.what, entity=behind.entity)
    if len(rests) > MOST:
        count = tell.table.add(float(len(rests) - MOST), "count", "scenario",
                               f"rows behind {found.id} beyond those shown", "counted")  # fmt: skip
        tell.say("more", count=count)


def _ranked(figures: Mapping[str, Figure]) -> list[tuple[str, Figure]]:
    return sorted(figures.items(), key=lambda one: one[1].value)


def _band(tell: Teller) -> None:
    report = tell.table.report
    if report.interval and report.interval_level:
        tell.say("band", low=report.interval[0], high=report.interval[1], level=report.interval_level)


def _horizon(tell: Teller) -> Row | None:
    return _id(tell, "horizon")


def _id(tell: Teller, what: str) -> Row | None:
    return next((Row(row.id) for row in tell.table.find(what=what)), None)


READERS = {"total": total, "summary": summary, "worst_position": worst_position, "best_position": best_position,
           "position": position, "by_factor": by_factor, "by_sector": by_sector, "band": band, "var": var,
           "row": row}  # fmt: skip
