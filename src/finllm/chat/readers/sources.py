"""Answers about the sources and the story; what they wrote is quoted, and does nothing here."""

from __future__ import annotations

from finllm.chat.table import Answer, Row, Teller
from finllm.graphs.report import SourceRow

SHOWN = 900
"""Characters of a text that are shown."""


def sources(tell: Teller) -> Answer:
    found = tell.table.report.sources
    tell.say("head" if found else "none")
    for one in found:
        left = f"; left out: {one.left_out}" if one.left_out else ""
        tell.say("one", source=one.id, publisher=one.publisher, when=one.published_at, verdict=one.verdict + left)
    return tell.done()


def source_said(tell: Teller) -> Answer:
    by_id = {one.id: one for one in tell.table.report.sources}
    for id in tell.slots.all("source"):
        if id not in by_id:
            continue
        one = by_id[id]
        tell.say("head", source=id, publisher=one.publisher, when=one.published_at, verdict=one.verdict)
        rows = [row for row in tell.table.find(entity=f"source {id}") if row.unit == "text"]
        if rows and len(str(rows[0].value)) <= SHOWN:
            tell.say("said", text=Row(rows[0].id))
        else:
            texts = {text.id: text.text for text in tell.table.request.scenario.sources}
            tell.say("said", text=f"{texts.get(id, '')[:SHOWN]} …")
    return tell.done()


def source_trust(tell: Teller) -> Answer:
    asked = tell.slots.all("source")
    found = [one for one in tell.table.report.sources if not asked or one.id in asked]
    if not found:
        tell.say("none")
    for one in found:
        tell.say("one", source=one.id, verdict=_verdict(one))
        if asked:
            for row in tell.table.find(entity=f"source {one.id}"):
                if row.unit == "count":
                    tell.say("counted", what=row.what.capitalize(), count=Row(row.id))
            for judged in tell.table.report.judged:
                if judged.agent == "sanity-checker" and judged.about == one.id:
                    tell.say("agent", source=one.id, said=judged.said)
    return tell.done()


def _verdict(one: SourceRow) -> str:
    return f"{one.verdict}, left out: {one.left_out}" if one.left_out else one.verdict


def cut(tell: Teller) -> Answer:
    asked = tell.slots.all("source")
    for one in tell.table.report.sources:
        if not asked or one.id in asked:
            for what in one.removed:
                tell.say("one", source=one.id, cut=what)
    if not tell.lines:
        tell.say("none")
    return tell.done()


def story(tell: Teller) -> Answer:
    scenario = tell.table.request.scenario
    tell.say("title", title=scenario.title)
    tell.say("text", text=scenario.narrative)
    return tell.done()


READERS = {"sources": sources, "source_said": source_said, "source_trust": source_trust, "cut": cut, "story": story}
