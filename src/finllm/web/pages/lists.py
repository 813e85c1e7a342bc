"""Books, scenarios, cost, search and the state of the record: pages to read."""

from __future__ import annotations

import time
from typing import Any

from starlette.responses import Response

from finllm.memory.leases import ENDED
from finllm.memory.review_rules import SENIOR
from finllm.web.costs import COUNTED
from finllm.web.doors import SIGNED_IN, Asked, Door, only
from finllm.web.pages.runs import when
from finllm.web.refusals import not_found


def scenarios(asked: Asked) -> Response:
    """The shipped scenarios, each with its story and sources."""
    from finllm.sessions.requests import shipped_scenarios
    from finllm.tools.data.scenario import load_scenario

    made = asked.serving.reports.made
    told = made.get("scenarios", lambda: {name: load_scenario(path) for name, path in shipped_scenarios().items()})
    return asked.page("scenarios.html.j2", told=told, may_open=asked.who.role in ("analyst", "risk"))


def books(asked: Asked) -> Response:
    """The books that sessions may be opened on, and the positions of one."""
    from finllm.tools.data.books.load import load_portfolio
    from finllm.web.books import books_of

    known = books_of(asked.serving.settings)
    name = asked.query.get("book", "default")
    if name not in known:
        raise not_found("book")
    path = known[name]
    held = asked.serving.reports.made.get(("book", name, path.stat().st_mtime_ns), lambda: load_portfolio(path))
    return asked.page("books.html.j2", known=list(known), name=name, held=held)


def cost(asked: Asked) -> Response:
    """What the newest runs cost: time, tokens, energy, carbon and money, each with where the figure comes from."""
    from finllm.graphs.report import COST_HEADER, cost_rows

    costs = asked.serving.costs
    costs.begin(wait=True)
    rows: list[dict[str, Any]] = []
    sums: dict[tuple[str, str, str], float] = {}
    ended = [one for one in asked.serving.ledger.runs(COUNTED) if one.status in ENDED]
    for head in ended:
        if (spent := costs.of(head.id)) is None:
            continue
        told = asked.serving.reports.made.get(("cost", head.id), lambda spent=spent: cost_rows(spent))
        rows.append({"id": head.id, "title": head.title, "when": when(head.created_ns), "rows": told})
        for what, value, unit, provenance, _ in told:
            key = what, unit, provenance
            sums[key] = sums.get(key, 0.0) + float(value)
    totals = [(what, f"{value:,.4g}", unit, provenance) for (what, unit, provenance), value in sums.items()]
    return asked.page("cost.html.j2", header=COST_HEADER, rows=rows[:50], totals=totals, counted=len(rows),
                      unread=sum(not costs.knows(one.id) for one in ended))  # fmt: skip


def search(asked: Asked) -> Response:
    """Words in the traces and sources of all runs."""
    from finllm.web.opening import found_in

    text = asked.query.get("text", "").strip()
    none: dict[str, Any] = {"found": [], "more": 0, "unsearched": 0, "refused": ""}
    return asked.page("search.html.j2", text=text, **{**none, **(found_in(asked.serving, text) if text else {})})


def audits(asked: Asked) -> Response:
    """What blind audits and exercises found: of the machine's reviewers, and of its auditors."""
    from finllm.review.audits import audits_of

    found = audits_of(asked.serving.reviews.record)
    tables = (
        ("Signatures that audits upheld, by who signed", found.upheld),
        ("Planted faults found, by auditor", found.seen),
        ("Planted faults found, by kind", found.by_fault),
        ("Agreement by month", found.by_month),
    )
    return asked.page("audits.html.j2", audits=found, tables=tables)


def record(asked: Asked) -> Response:
    """Whether the record is whole: every record, blob, signature and row; and how old the witness's word is."""
    serving = asked.serving
    kept, age = serving.settings.audit_witness, None
    if kept is not None and (kept / "checkpoint").exists():
        age = time.time() - (kept / "checkpoint").stat().st_mtime
    return asked.page("record.html.j2", found=serving.verifier.look(serving.ledger.last_use()), age=age,
                      kept=kept is not None, now=time.time())  # fmt: skip


DOORS = (
    Door("GET", "/scenarios", SIGNED_IN, scenarios),
    Door("GET", "/books", SIGNED_IN, books),
    Door("GET", "/cost", SIGNED_IN, cost, away=True),
    Door("GET", "/search", SIGNED_IN, search, away=True),
    Door("GET", "/audits", only(*SENIOR), audits),
    Door("GET", "/record", SIGNED_IN, record),
)
