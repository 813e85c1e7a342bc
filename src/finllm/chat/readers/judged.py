"""Answers about the reading and the agents: what was read, how surely, by whom, and who said otherwise."""

from __future__ import annotations

from finllm.chat.table import Answer, Row, Teller
from finllm.graphs.channel_lines import told as opened_or_not
from finllm.graphs.judged import JudgedRow

_PERCENT = 100.0


def reading(tell: Teller) -> Answer:
    report = tell.table.report
    asked = tell.slots.all("factor")
    if report.event is None:
        tell.say("none")
        return tell.done()
    if not asked:
        tell.say("event", event=", ".join(f"{name} {value}" for name, value in report.event.items()))
    for check in report.factors:
        if not asked or check.factor in asked:
            tell.say("one", factor=check.factor, read=check.read, words=check.words, past=check.precedents,
                     support=check.support)  # fmt: skip
    return tell.done()


def confidence(tell: Teller) -> Answer:
    report = tell.table.report
    asked = tell.slots.all("factor")
    odds = _factor_odds(tell)
    if not asked and report.event is not None:
        for name, value in report.event.items():
            chance = tell.table.add(round(report.event_probability[name], 4), "probability", "scenario",
                                    f"probability of {name} {value}", "the reading, calibrated")  # fmt: skip
            tell.say("one", field=name, value=value, chance=chance)
    for factor, values in odds.items():
        if asked and factor not in asked:
            continue
        for field, value, chance in values:
            row = tell.table.add(chance, "probability", "scenario", f"probability of {factor} {value}",
                                 "the reading, calibrated")  # fmt: skip
            tell.say("one", field=f"{factor} {field}", value=value, chance=row)
    if not tell.lines:
        tell.say("none")
    return tell.done()


def _factor_odds(tell: Teller) -> dict[str, list[tuple[str, str, float]]]:
    """By factor the direction and size that were read, each with its probability: as the judged row says it."""
    found: dict[str, list[tuple[str, str, float]]] = {}
    for row in tell.table.report.judged:
        if row.agent != "narrative":
            continue
        for part in row.said.split(", "):
            words = part.split(" ")
            if len(words) == 3 and words[0].isupper() and words[2].endswith("%"):
                field = "direction" if words[1] in ("up", "down", "none") else "size"
                found.setdefault(words[0], []).append((field, words[1], float(words[2][:-1]) / _PERCENT))
    return found


def channels(tell: Teller) -> Answer:
    report, asked = tell.table.report, tell.slots.all("factor")
    if report.channels is None:
        tell.say("none")
        for check in report.factors:
            if check.read != "none":
                tell.say("read", factor=check.factor, read=check.read)
        return tell.done()
    for one in report.channels:
        if not asked or set(asked) & set(one.moves):
            tell.say("one", chance=one.probability, state=one.state, moves=one.moving)
            tell.say("why", span=one.words, source=one.source or "the event")
    for line in opened_or_not(report.channels):
        tell.say("line", line=line)
    return tell.done()


def agent(tell: Teller) -> Answer:
    report = tell.table.report
    asked = tell.slots.all("agent")
    sources = tell.slots.all("source")
    names = list(dict.fromkeys(row.agent for row in report.judged))
    if not asked and not sources:
        tell.say("which", agents=", ".join(names))
        return tell.done()
    wanted = asked or ("sanity-checker",)
    for row in report.judged:
        if row.agent in wanted and (not sources or row.about is None or row.about in sources):
            _judged(tell, row)
    for row in report.agents:
        if row.agent in wanted and row.status == "abstained":
            tell.say("abstained", agent=row.agent, reason=row.reason or "no reason given")
    if not tell.lines:
        tell.say("none", agent=", ".join(wanted))
    return tell.done()


def _judged(tell: Teller, row: JudgedRow) -> None:
    if row.about:
        tell.say("about", agent=row.agent, source=row.about, said=row.said)
    else:
        tell.say("one", agent=row.agent, said=row.said)


def dissent(tell: Teller) -> Answer:
    found = tell.table.report.dissent
    for one in found:
        tell.say("one", who=one.who, about=one.about, said=one.said, instead=one.other_side)
    if not found:
        tell.say("none")
    return tell.done()


def agreement(tell: Teller) -> Answer:
    report = tell.table.report
    tell.say("one", verdict=report.verdict)
    as_read, otherwise = (tell.table.find(entity="factor checks", what=f"factors that move {how}")
                          for how in ("as read", "otherwise"))  # fmt: skip
    if as_read and otherwise:
        tell.say("checks", as_read=Row(as_read[0].id), otherwise=Row(otherwise[0].id))
    for line in report.against.lines if report.against else ():
        tell.say("line", line=line)
    return tell.done()


def against_market(tell: Teller) -> Answer:
    against = tell.table.report.against
    if against is None:
        tell.say("none")
        return tell.done()
    asked = tell.slots.all("factor")
    for row in against.first:
        if row.move and row.surprise and (not asked or row.factor in asked):
            tell.say("one", move=row.move, surprise=row.surprise, verdict=row.verdict)
    for line in against.untestable:
        if not asked or line.split(" ")[0] in asked:
            tell.say("why", why=line)
    if not asked or not tell.lines:
        tell.say("words", words=against.words)
    return tell.done()


def second_opinion(tell: Teller) -> Answer:
    found = tell.table.report.second
    asked = tell.slots.all("factor")
    for row in found:
        if not asked or any(f".{factor}." in row.field for factor in asked):
            tell.say("one", read=row.read, chance=row.probability)
    if not tell.lines:
        tell.say("none")
    return tell.done()


READERS = {"reading": reading, "confidence": confidence, "channels": channels, "agent": agent, "dissent": dissent,
           "agreement": agreement, "against_market": against_market, "second_opinion": second_opinion}  # fmt: skip
