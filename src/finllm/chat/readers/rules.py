"""Answers about limits, compliance, approval, and what was held back."""

from __future__ import annotations

from finllm.chat.table import Answer, Row, Teller
from finllm.tools.evidence import Evidence


def blocked(tell: Teller) -> Answer:
    report = tell.table.report
    for line in report.blocked:
        tell.say("one", line=line)
    for shock in report.shocks:
        if shock.refused:
            tell.say("refused", factor=shock.factor, why=shock.refused)
    if not tell.lines:
        tell.say("none")
    return tell.done()


def limits(tell: Teller) -> Answer:
    report, asked = tell.table.report, {*tell.slots.all("factor"), *tell.slots.all("sector")}
    idle = any(one.rule == "limits" and one.verdict == "not checked" for one in report.findings)
    rows = tell.table.find(what="limit, ")
    for row in rows:
        if not asked or row.entity in asked:
            _breach(tell, row)
    if len(rows) < len(report.breaches):
        for line in report.breaches:
            tell.say("bare", what=line)
    for line in report.unchecked:
        tell.say("unchecked", why=line)
    if not report.breaches:
        tell.say("idle" if idle and not report.unchecked else "kept")
    if names := _names(tell):
        tell.say("holds", limits=names)
    return tell.done()


def _breach(tell: Teller, row: Evidence) -> None:
    report = tell.table.report
    figures = {"loss_by_factor": report.by_factor, "loss_by_sector": report.by_sector,
               "loss_by_position": report.by_position}.get(row.what.removeprefix("limit, "), {})  # fmt: skip
    loss = figures.get(row.entity) or (report.total if row.what.endswith("total_loss") else None)
    if loss is not None:
        tell.say("one", limit=Row(row.id), loss=loss)
    else:
        tell.say("bare", what=f"{row.what} of {row.entity}")


def _names(tell: Teller) -> str:
    """What the limits file limits, without its amounts, which are rows where they are breached."""
    held = tell.table.request.limits.model_dump(mode="json", exclude_none=True)
    return ", ".join(f"{name} ({', '.join(map(str, of))})" if isinstance(of, dict | list) else name
                     for name, of in held.items() if of and name != "allow_all")  # fmt: skip


def compliance(tell: Teller) -> Answer:
    report = tell.table.report
    tell.say("head", ruled=report.ruled)
    for one in report.findings:
        tell.say("one", rule=one.rule, verdict=one.verdict, what=one.what)
    return tell.done()


def approval(tell: Teller) -> Answer:
    who = tell.table.request.approved_by
    tell.say("one" if who else "none", who=who)
    return tell.done()


READERS = {"blocked": blocked, "limits": limits, "compliance": compliance, "approval": approval}
