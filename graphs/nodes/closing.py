"""The closing nodes: compliance over the rule book, and the report, whose sentences pass the grounding guard."""

from __future__ import annotations

from finllm.agents.agent import Offered
from finllm.agents.compliance import COMPLIANCE
from finllm.agents.escalation import judge_escalating
from finllm.desk.desk import RunContext
from finllm.graphs.learning import kind_of
from finllm.graphs.nodes.intake import LEFT_OUT
from finllm.graphs.nodes.reading import reading_of
from finllm.graphs.report import AgentRow, AnalogueRow, Dissent, Figure, Report, SecondRow, ShockRow, SourceRow
from finllm.graphs.state import Row, State, latest
from finllm.guardrails.crossmodal import FactorCheck, SecondCheck
from finllm.guardrails.grounding import ground
from finllm.guardrails.rules import Finding, RuleFacts, check_rules, worst
from finllm.tools.data.portfolio import Book
from finllm.tools.evidence import EvidenceTable
from finllm.tools.pnl.limits import breaches
from finllm.tools.pnl.outcome import EngineResult


async def compliance(state: State, run: RunContext) -> Row:
    """Check the rules; the agent reads the findings, and where it differs that is dissent."""
    table = EvidenceTable.from_json(state["evidence"])
    breached = _breached(state, run, table)
    findings = check_rules(rule_facts(state, run, breached))
    cites = [
        table.add(
            f"{finding.rule}: {finding.what}",
            "text",
            entity="rule book",
            what=f"finding, {finding.verdict}",
            period="this run",
            as_of=run.request.as_of,
            formula=f"rule {finding.rule} of version {finding.version}",
        )
        for finding in findings
    ]
    offered = [Offered(id, str(table[id].value)) for id in cites]
    opinion = await judge_escalating(
        COMPLIANCE, {}, {"because": offered}, run.caller("compliance", kind_of(state)), before=state["opinions"]
    )
    return {
        "evidence": table.to_json(),
        "breaches": breached,
        "findings": [finding.model_dump(mode="json") for finding in findings],
        "opinions": [opinion.model_dump(mode="json")],
    }


def _breached(state: State, run: RunContext, table: EvidenceTable) -> list[Row]:
    """Every breach, with the evidence rows of the loss and of the limit."""
    stress = state["stress"]
    result = EngineResult.model_validate(stress["result"])
    cuts = {"loss_by_factor": "by_factor", "loss_by_sector": "by_sector", "loss_by_position": "by_position"}
    return [
        {
            "subject": breach.subject,
            "kind": breach.kind,
            "loss": stress[cuts[breach.kind]][breach.subject] if breach.kind in cuts else stress["var_975_1d"],
            "limit": table.add(
                float(breach.limit),
                "usd",
                entity=breach.subject,
                what=f"limit, {breach.kind}",
                period="this run",
                as_of=run.request.as_of,
                formula="given by the limits file",
            ),
        }
        for breach in breaches(result, result.var_975_1d, run.request.limits)
    ]


def rule_facts(state: State, run: RunContext, breached: list[Row]) -> RuleFacts:
    """What the rule book looks at, from the finished state and the request."""
    held = {holding.id for holding in Book.model_validate(state["book"]).holdings}
    late = {s.id for s in run.request.scenario.sources if s.published_at.date() > run.request.as_of}
    left_out = {s["id"] for s in state["sources"] if s["left_out"] is not None}
    return RuleFacts(
        breaches=[(f"{b['subject']} ({b['kind']})", (b["loss"], b["limit"])) for b in breached],
        restricted_held=[name for name in run.request.limits.restricted if name in held],
        sources_refused=sorted(late & left_out),
        sources_used_late=sorted(late - left_out),
        approved_by=run.request.scenario.approved_by,
        claims_withheld=[f"{c['factor']} {c['read']}" for c in _withheld(state)],
        claims_unsupported=_unsupported(state),
    )


def _unsupported(state: State) -> list[str]:
    """Factors shocked by the reading without support, which only a person's acceptance allows."""
    if state.get("answer") == "accept":
        return []
    supported = {c["factor"] for c in state["checks"] if c["support"] == "supported"}
    return [
        row["factor"]
        for row in state["shocks"]
        if row["origin"] in ("model", "table") and row["refused"] is None and row["factor"] not in supported
    ]


def _withheld(state: State) -> list[Row]:
    """Checks of factors that were read as moving and got no shock of any origin."""
    shocked = _shocked(state)
    return [
        c for c in state["checks"] if c["factor"] not in shocked and c["support"] in ("contradicted", "unsupported")
    ]


def _shocked(state: State) -> set[str]:
    """Factors with a shock of their own: one that only moves with the others was withheld all the same."""
    return {row["factor"] for row in state["shocks"] if row["origin"] != "completed"}


async def report(state: State, run: RunContext) -> Row:
    return {"report": build_report(state, run).model_dump(mode="json", exclude={"spent"})}


def build_report(state: State, run: RunContext) -> Report:
    """The typed report of a finished state. Errors: GroundingError for a sentence whose number has no evidence."""
    table = EvidenceTable.from_json(state["evidence"])
    stress, scenario = state["stress"], run.request.scenario
    reading = reading_of(state)
    findings = tuple(Finding.model_validate(f) for f in state["findings"])
    verdict = worst([finding.verdict for finding in findings])
    book = Book.model_validate(state["book"])

    def figure(id: str) -> Figure:
        return Figure(value=float(table[id].value), unit=table[id].unit, evidence=id)

    def figures(ids: dict[str, str]) -> dict[str, Figure]:
        return {name: figure(id) for name, id in ids.items()}

    def optional(id: str | None) -> Figure | None:
        return figure(id) if id else None

    interval = stress["interval"]
    return Report(
        run_id=run.run_id,
        status="blocked" if verdict == "block" else "finished",
        title=scenario.title,
        as_of=run.request.as_of.isoformat(),
        horizon=scenario.horizon,
        engine=stress["result"]["engine"],
        summary=tuple(_summary(state, run, table)),
        event=_event(reading),
        event_probability={name: max(reading["choices"][name].values()) for name in _event(reading) or {}}
        if reading
        else {},
        factors=tuple(FactorCheck.model_validate(c) for c in state["checks"]),
        shocks=tuple(
            ShockRow(
                factor=row["factor"],
                move=figure(row["move"]),
                sigma=optional(row["sigma"]),
                origin=row["origin"],
                window=row["window"],
                refused=row["refused"],
            )
            for row in state["shocks"]
        ),
        book_value=figure(stress["book_value"]),
        total=figure(stress["total"]),
        total_share=figure(stress["total_share"]),
        interval=(figure(interval[0]), figure(interval[1])) if interval else None,
        interval_level=optional(stress.get("interval_level")),
        interval_method=stress.get("interval_method"),
        var_975_1d=optional(stress["var_975_1d"]),
        by_position=figures(stress["by_position"]),
        by_factor=figures(stress["by_factor"]),
        by_sector=figures(stress["by_sector"]),
        breaches=tuple(_breach_lines(state, table)),
        analogue=_analogue(state, table),
        verdict=state["verdict"],
        compliance=verdict,
        findings=findings,
        dissent=tuple(_dissent(state)),
        blocked=tuple(_blocked(state)),
        sources=tuple(
            SourceRow(
                id=s["id"],
                publisher=s["publisher"],
                published_at=s["published_at"],
                verdict=s["verdict"],
                removed=tuple(s["removed"]),
                left_out=s["left_out"],
            )
            for s in state["sources"]
        ),
        exclusions=tuple(_exclusions(book, table)),
        agents=tuple(
            AgentRow.model_validate({k: o[k] for k in AgentRow.model_fields if k in o}) for o in state["opinions"]
        ),
        notes=("Money is in USD.", *stress["notes"]),
        evidence=tuple(table),
        second=tuple(_second(state, table)),
    )


def _summary(state: State, run: RunContext, table: EvidenceTable) -> list[str]:
    quotes = {"title": run.request.scenario.title}
    return [ground(line, table, quotes) for line in summary_lines(state["stress"], table)]


def summary_lines(stress: Row, table: EvidenceTable) -> list[str]:
    """The summary as the grounding guard takes it: every number a reference, the scenario's title `[[title]]`."""
    lines = [
        f"«[[title]]» moves the book by [[{stress['total']}]], [[{stress['total_share']}]] of its value, "
        f"over [[{stress['horizon']}]]."
    ]
    if stress["interval"]:
        low, high = stress["interval"]
        level = stress["interval_level"]
        lines.append(f"What the shocks leave open puts the book between [[{low}]] and [[{high}]] at [[{level}]].")
    moved = {name: id for name, id in stress["by_factor"].items() if table[id].value}
    if not moved:
        return [*lines, "No shock was applied: nothing in the scenario, supported by its sources, moves the book."]
    worst = min(moved, key=lambda name: float(table[moved[name]].value))
    if float(table[moved[worst]].value) < 0:
        return [*lines, f"The largest loss comes through [[{moved[worst]}.entity]]: [[{moved[worst]}]]."]
    return [*lines, f"No factor costs the book anything; least is gained through [[{moved[worst]}.entity]]: "
                    f"[[{moved[worst]}]]."]  # fmt: skip


def _event(reading: Row | None) -> dict[str, str] | None:
    if reading is None:
        return None
    return {name: value for name, value in reading["judgement"].items() if isinstance(value, str)}


def _exclusions(book: Book, table: EvidenceTable) -> list[str]:
    weights = {row.entity: row.id for row in table if row.what == LEFT_OUT}
    return [
        ground(
            "excluded [[id]]: [[reason]]" + (f" (weight [[{weights[e.id]}]])" if e.id in weights else ""),
            table,
            {"id": e.id, "reason": e.reason},
        )
        for e in book.exclusions
    ]


def _breach_lines(state: State, table: EvidenceTable) -> list[str]:
    return [
        ground(
            f"[[subject]] ([[kind]]): [[{b['loss']}]] against a limit of [[{b['limit']}]]",
            table,
            {"subject": b["subject"], "kind": b["kind"]},
        )
        for b in state["breaches"]
    ]


def _analogue(state: State, table: EvidenceTable) -> AnalogueRow | None:
    row = state.get("analogue")
    if row is None:
        return None
    total = None
    if row["total"]:
        total = Figure(value=float(table[row["total"]].value), unit="usd", evidence=row["total"])
    return AnalogueRow(
        id=row["id"], title=row["title"], start=row["start"], end=row["end"], total=total, why_no_total=row["why"]
    )


def _second(state: State, table: EvidenceTable) -> list[SecondRow]:
    cites = {row["field"]: row["evidence"] for row in state.get("second", [])}
    checks = [SecondCheck.model_validate(check) for check in state.get("second_checks", [])]
    return [
        SecondRow(
            field=check.field,
            read=check.read,
            second=check.second,
            probability=Figure(value=check.probability, unit="probability", evidence=cites[check.field]),
            diverged=check.diverged,
        )
        for check in checks
    ]


def _dissent(state: State) -> list[Dissent]:
    """Where an agent's judgement differs from what the checks decided."""
    found = [
        Dissent(who="sanity-checker", about=f"source {s['id']}", said=s["agent_verdict"], instead_of=s["verdict"])
        for s in state["sources"]
        if s.get("agent_verdict") not in (None, s["verdict"])
    ]
    validation = latest(state, "validator")
    said = validation["judgement"]["verdict"] if validation and validation["judgement"] else None
    if said not in (None, state["verdict"]):
        found.append(Dissent(who="validator", about="text and measurements", said=said, instead_of=state["verdict"]))
    found += [
        Dissent(who=f"{opinion['agent']}, votes", about=field, said=" / ".join(values), instead_of="a majority")
        for opinion in state["opinions"]
        for one in opinion.get("escalations", ())
        for field, values in one["split"].items()
    ]
    for check in state["checks"]:
        if check["support"] in ("contradicted", "missed"):
            against = check["words"] if check["words"] in ("up", "down") else check["precedents"]
            found.append(Dissent(who="narrative", about=check["factor"], said=check["read"], instead_of=against))
    for second in map(SecondCheck.model_validate, state.get("second_checks", [])):
        if second.diverged:
            found.append(Dissent(who="second opinion", about=second.field, said=second.second, instead_of=second.read))
    review = latest(state, "compliance")
    for finding in state["findings"]:
        call = review["judgement"]["rules"][finding["rule"]]["verdict"] if review and review["judgement"] else None
        if call not in (None, finding["verdict"]):
            found.append(
                Dissent(who="compliance", about=f"rule {finding['rule']}", said=call, instead_of=finding["verdict"])
            )
    return found


def _blocked(state: State) -> list[str]:
    """What was kept from the conclusion: refused sources, cut text, withheld and refused shocks, blocking rules."""
    lines = [f"source {s['id']}: {s['left_out']}" for s in state["sources"] if s["left_out"]]
    lines += [f"source {s['id']}: cut {removed}" for s in state["sources"] for removed in s["removed"]]
    lines += [
        f"source {s['id']}: hearsay, not read: {'; '.join(s['hearsay'])}" for s in state["sources"] if "hearsay" in s
    ]
    lines += [f"{c['factor']} {c['read']}: withheld, {c['support']}" for c in _withheld(state)]
    shocked = _shocked(state)
    lines += [
        f"{c['factor']}: the sources' words say {c['words']}, the agent read no move; nothing was applied"
        for c in state["checks"]
        if c["support"] == "missed" and c["factor"] not in shocked
    ]
    lines += [f"shock on {row['factor']}: {row['refused']}" for row in state["shocks"] if row["refused"]]
    lines += [f"rule {f['rule']}: {f['what']}" for f in state["findings"] if f["verdict"] == "block"]
    return lines
