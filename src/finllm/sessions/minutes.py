"""The minutes of a session: its versions with reasons and figures, what was asked, and the rows behind the figures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from finllm.memory.review_record import reviews
from finllm.review.story import Chapter, Story, as_html, as_markdown, shown

if TYPE_CHECKING:
    from finllm.graphs.report import Report
    from finllm.sessions.session import Session
    from finllm.sessions.tree import Version

_CITED = re.compile(r"\[(E[0-9]+)\]")


def minutes(session: Session, form: Literal["md", "html"]) -> str:
    """The minutes as they stand, in one of two forms. Text that people or sources wrote is shown as data."""
    return {"md": as_markdown, "html": as_html}[form](story_of(session))


def story_of(session: Session) -> Story:
    """The verdict of the version in hand first; then every version, what people decided, and what was asked."""
    tree, version = session.tree, session.version
    report = session.report_of(version)
    opened = tree.opened
    left = f", forked from {opened.forked[0]} v{opened.forked[1]}" if opened.forked else ""
    return Story(
        run_id=version.run,
        title=f"Minutes of session {session.id}: {opened.title}",
        asked=f"Opened by {opened.who} at {opened.at} on {opened.start}{left}. In hand: {version.id} of "
              f"{len(tree.versions)} versions.",
        verdict=tuple(report.summary) if report else (f"{version.id} has no result yet.",),
        chapters=(
            Chapter("Versions", tuple(_told(session, one) for one in tree.versions.values())),
            Chapter(f"What people decided in {version.id}", tuple(_decided(report))),
            Chapter("What was asked", tuple(_asked(session)), "nothing"),
            Chapter("Put to review", tuple(_reviewed(session)), "nothing"),
        ),
        evidence=tuple(_rows(session)),
        report=report,
    )  # fmt: skip


def _told(session: Session, version: Version) -> str:
    report = session.report_of(version)
    name = session.tree.names.get(version.number)
    made = f" of v{version.parent}" if version.parent else ""
    told = f"{version.id}{f' ({name})' if name else ''}{made}, {version.at}, {version.who}: {version.line}"
    if report is None:
        return f"{told} — not finished (run {version.run})"
    band = ""
    if report.interval and report.interval_level:
        low, high = report.interval
        ends = (f"{one} {_id(version, one.evidence)}" for one in (low, high))
        band = f", {report.interval_level} between {' and '.join(ends)}"
    return (f"{told} — P&L {report.total} {_id(version, report.total.evidence)}{band}; compliance {report.compliance} "
            f"(run {version.run})")  # fmt: skip


def _decided(report: Report | None) -> Iterator[str]:
    for one in report.hand if report else ():
        yield f"{one.kind} {one.about}: {one.decided}, by {one.by}: {one.because}"


def _asked(session: Session) -> Iterator[str]:
    for row in session.tree.asked:
        yield f"v{row.version}, {row.at}, {row.who}: {row.line}"
        yield from (f"v{row.version}: {_of_version(line, row.version)}" for line in row.said[:20])


def _reviewed(session: Session) -> Iterator[str]:
    for row in reviews(session.desk.ledger):
        if row.session == session.id:
            what = f"{row.id}: v{row.version}, report sha256 {row.report_sha256[:12]}"
            yield f"{what}, by {row.who} at {row.at}: {row.why}"


def _rows(session: Session) -> Iterator[tuple[str, ...]]:
    """The rows that the lines above name, of each version; all versions count their rows from E1."""
    for version in session.tree.versions.values():
        report = session.report_of(version)
        if report is None:
            continue
        named = {report.total.evidence, *(one.evidence for one in report.interval or ())}
        for row in session.tree.asked:
            if row.version == version.number:
                named.update(_CITED.findall(" ".join(row.said)))
        rows = shown(row for row in report.evidence if row.id in named)
        yield from ((f"{version.id} {id}", *rest) for id, *rest in rows)


def _id(version: Version, evidence: str) -> str:
    return f"[{version.id} {evidence}]"


def _of_version(line: str, version: int) -> str:
    return _CITED.sub(lambda match: f"[v{version} {match[1]}]", line)
