"""Answers about the run itself, what it cost, its record, other runs, and what words mean."""

from __future__ import annotations

import datetime as dt
from collections import Counter

from finllm.chat.catalogue import answerable
from finllm.chat.known import glossary
from finllm.chat.readers.result import _id
from finllm.chat.table import Answer, Teller
from finllm.memory.entries import RecordedPlacement
from finllm.memory.reading import RunHead
from finllm.tools.data.factors import factor_table

SHOWN = 10
"""Runs that are listed."""


def horizon(tell: Teller) -> Answer:
    tell.say("one", horizon=_id(tell, "horizon"))
    return tell.done()


def as_of(tell: Teller) -> Answer:
    tell.say("one", day=tell.table.report.as_of)
    return tell.done()


def cost(tell: Teller) -> Answer:
    spent, add = tell.table.report.spent, tell.table.add
    if spent is None:
        tell.say("none")
        return tell.done()
    counted = ((round(spent.seconds), "seconds, whole"), (spent.tokens, "tokens, in and out"),
               (spent.deep_tokens, "tokens of the deep tier"))  # fmt: skip
    seconds, tokens, deep = (add(float(value), "count", "run", what, "the run's record of what it spent")
                             for value, what in counted)  # fmt: skip
    tell.say("seconds", seconds=seconds, tokens=tokens, deep=deep)
    for name, one in (("joules", spent.joules), ("grams", spent.grams)):
        if one is not None:
            row = add(round(one.value, 3), "ratio", "run", f"{name}, {one.provenance}", one.basis)
            tell.say(name, **{name: row}, provenance=one.provenance, basis=one.basis)
    if spent.usd is not None:
        row = add(
            spent.usd.value, "usd", "run", f"market value of what was spent, {spent.usd.provenance}", spent.usd.basis
        )
        tell.say("usd", usd=row, provenance=spent.usd.provenance, basis=spent.usd.basis)
    return tell.done()


def model(tell: Teller) -> Answer:
    for one in tell.table.report.agents:
        if one.backend:
            tell.say("one", agent=one.agent, backend=one.backend)
    if not tell.lines:
        tell.say("none")
    tell.say("engine", engine=str(tell.table.report.engine))
    return tell.done()


def placement(tell: Teller) -> Answer:
    uses = tell.table.ledger.uses(tell.table.run.id, "placement")
    for backend, many in Counter(RecordedPlacement.of(use.entry).chosen for use in uses).items():
        count = tell.table.add(float(many), "count", "scenario", f"calls placed on {backend}", "counted in the ledger")
        tell.say("calls", backend=backend, count=count)
    again = [(one.agent, why.words) for one in tell.table.report.agents for why in one.escalations]
    for agent, why in again:
        tell.say("again", agent=agent, why=why)
    if not uses:
        tell.say("none")
    elif not again:
        tell.say("once")
    return tell.done()


def record(tell: Teller) -> Answer:
    from finllm.guardrails.audit import verify_log

    folder = tell.table.settings.audit_dir
    if not folder.exists():
        tell.say("none")
        return tell.done()
    verdict = verify_log(folder)
    if verdict.damage:
        tell.say("damaged", why="; ".join(str(vars(one)) for one in verdict.damage[:3]))
    else:
        count = tell.table.add(
            float(verdict.size), "count", "scenario", "records of the audit log", "counted as verified"
        )
        tell.say("intact", count=count)
    tell.say("replay", command=f"finllm replay {tell.table.run.id}")
    return tell.done()


def status(tell: Teller) -> Answer:
    run = tell.table.run
    tell.say("one", run=run.id, status=run.status, when=_when(run.created_ns))
    return tell.done()


def runs(tell: Teller) -> Answer:
    heads = tell.table.ledger.runs()
    when, words = tell.slots.first("when"), _words(tell)
    found = [one for one in heads if (when is None or _in(one, when)) and _about(one, words)]
    of = " ".join(filter(None, (when, f"about {' '.join(words)}" if words else "")))
    if not found:
        tell.say("none")
        return tell.done(again=_listing(words))
    count = tell.table.add(
        float(len(found)), "count", "scenario", f"runs on record {of}".strip(), "counted in the ledger"
    )
    tell.say("those" if of else "head", of=of, count=count)
    for one in found[:SHOWN]:
        tell.say("one", when=_when(one.created_ns), title=one.title, status=one.status, run=one.id)
    return tell.done(again=_listing(words))


def _listing(words: list[str]) -> str:
    import shlex

    return "finllm runs list" + (f" --search {shlex.quote(' '.join(words))}" if words else "")


def _words(tell: Teller) -> list[str]:
    """Words of the question that some run's title has: what the runs are to be about."""
    titles = " ".join(one.title.lower() for one in tell.table.ledger.runs()).split()
    plain = "".join(one if one.isalnum() else " " for one in tell.text.lower()).split()
    return [word for word in plain if len(word) > 2 and word in titles and word not in _PLAIN]


_PLAIN = frozenset(("the", "for", "and", "what", "was", "which", "with", "run", "runs", "week", "month", "last", "this",
                    "all", "any", "about", "show", "list"))  # fmt: skip


def _about(one: RunHead, words: list[str]) -> bool:
    told = f"{one.title} {one.id}".lower()
    return all(word in told for word in words)


def _in(one: RunHead, when: str) -> bool:
    """Whether a run was begun then, in UTC."""
    day = dt.datetime.fromtimestamp(one.created_ns / 1e9, dt.UTC).date()
    today = dt.datetime.now(dt.UTC).date()
    monday, first = today - dt.timedelta(days=today.weekday()), today.replace(day=1)
    spans = {
        "today": (today, today), "yesterday": (today - dt.timedelta(days=1),) * 2, "this week": (monday, today),
        "last week": (monday - dt.timedelta(days=7), monday - dt.timedelta(days=1)), "this month": (first, today),
        "last month": ((first - dt.timedelta(days=1)).replace(day=1), first - dt.timedelta(days=1)),
        "this year": (today.replace(month=1, day=1), today),
        "last year": (dt.date(today.year - 1, 1, 1), dt.date(today.year - 1, 12, 31)),
    }  # fmt: skip
    if when not in spans:
        return day.isoformat() == when
    start, end = spans[when]
    return start <= day <= end


def scenarios(tell: Teller) -> Answer:
    from finllm.sessions.requests import shipped_scenarios
    from finllm.tools.data.scenario import load_scenario

    tell.say("head")
    for name, path in shipped_scenarios().items():
        tell.say("one", name=name, title=load_scenario(path).title)
    return tell.done()


def term(tell: Teller) -> Answer:
    asked = tell.slots.all("term")
    for word in asked:
        tell.say("one", term=word, means=glossary()[word])
    for name in tell.slots.all("factor"):
        if name in factor_table() and not asked:
            known = factor_table()[name]
            tell.say("factor", term=name, label=known.label, unit=known.unit)
    if not tell.lines:
        tell.say("lacks", words=", ".join(sorted(glossary())))
    return tell.done(text=tell.text)


def help_(tell: Teller) -> Answer:
    tell.say("head")
    for kind in answerable():
        tell.say("one", what=kind.says)
    return tell.done()


def _when(nanoseconds: int) -> str:
    return dt.datetime.fromtimestamp(nanoseconds / 1e9, dt.UTC).isoformat(timespec="minutes")


READERS = {"horizon": horizon, "as_of": as_of, "cost": cost, "model": model, "placement": placement, "record": record,
           "status": status, "runs": runs, "scenarios": scenarios, "term": term, "help": help_}  # fmt: skip
