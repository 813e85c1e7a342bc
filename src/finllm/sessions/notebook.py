"""A session and its answers as a notebook shows them: small tables, all text escaped, no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from finllm.tools.evidence import money, show

if TYPE_CHECKING:
    from finllm.sessions.answers import Answer
    from finllm.sessions.session import Session


def session_html(session: Session) -> str:
    """The versions of a session in their order, the one in hand marked: what was typed, the P&L with its row."""
    rows: list[Sequence[str]] = []
    for version in session.tree.versions.values():
        report = session.report_of(version)
        told = ("", "") if report is None else (report.total.cited, report.ruled)
        mark = "▸" if version.id == session.version.id else ""
        rows.append((mark, version.id, version.line or "opened", version.why or "", *told))
    return _table(f"session {session.id}", ("", "version", "line", "because", "P&L", "compliance"), rows)


def answer_html(answer: Answer) -> str:
    """An answer: its figures beside those of the version before, and its lines."""
    if answer.error is not None:
        return f"<p><b>error:</b> {escape(answer.error.message)}<br>{escape(answer.error.fix)}</p>"
    rows: list[Sequence[str]] = []
    if (found := answer.figures) is not None:
        unit = money(found.currency)
        before = "" if answer.base is None else show(answer.base.total, unit)
        row = f" [{found.rows['total']}]" if "total" in found.rows else ""
        rows.append(("P&L", f"{show(found.total, unit)}{row}", before))
        rows.append(("compliance", found.compliance, "" if answer.base is None else answer.base.compliance))
    head = ("", answer.version, answer.base_version or "")
    lines = "".join(f"<li>{escape(line)}</li>" for line in answer.said)
    return _table(answer.line, head, rows) + (f"<ul>{lines}</ul>" if lines else "")


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><caption>{escape(title)}</caption>{line(head, 'th')}{body}</table>"
