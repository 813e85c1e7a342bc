"""The tables of a run's trace, from the record alone: claims, judgements, dissent, what was blocked, costs, rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finllm.agents.roles import AGENTS
from finllm.agents.sanity_checker import SANITY_CHECKER
from finllm.desk.request import RunRequest
from finllm.errors import InputError
from finllm.graphs.against import LIQUIDITY_HEADER
from finllm.graphs.figures import Figure
from finllm.graphs.report import Report, of_its_value, where
from finllm.guardrails.formula import cited_by
from finllm.memory.entries import Charge, Failure, PersonsAnswer, RecordedCall
from finllm.memory.reading import LedgerReader, RunRow, Use
from finllm.review.asked_source import asked_source
from finllm.review.influence import NODE
from finllm.review.judged_fields import FieldRow, judged_fields
from finllm.review.placements import PlacementRow, placements_in
from finllm.review.tables import TraceCell, TraceRow, TraceTable, evidence_table, linked, row_of, table_of
from finllm.tools.evidence import EvidenceTable


def trace_tables(run_id: str, ledger: LedgerReader) -> list[TraceTable]:
    """The tables of a run on record, in reading order; as far as it came. Errors: InputError for an unknown run."""
    run = ledger.run(run_id)
    if run is None:
        raise InputError(f"no run {run_id!r}", fix="run 'finllm runs list' for those on record")
    return tables_of(run, ledger)


def tables_of(run: RunRow, ledger: LedgerReader) -> list[TraceTable]:
    """The same of a run that is at hand."""
    request = RunRequest.model_validate(run.request)
    report = Report.model_validate(run.result) if run.result is not None else None
    uses = [use for use in ledger.uses(run.id) if use.node != NODE]
    return [
        *([_claims(report)] if report else ()),
        *([_hands(report)] if report and report.hand else ()),
        *_judgements(uses, request, report),
        *_read(report),
        _dissent(report),
        *([_blocked(report)] if report else ()),
        *([_sources(report)] if report else ()),
        *_placed(uses, request),
        *([evidence_table(report.evidence)] if report else ()),
    ]


def _claims(report: Report) -> TraceTable:
    return table_of(name="claims", title="What is claimed, and on which evidence", right=(1,),
                      header=("claim", "figure", "row", "from"), rows=tuple(_claim_rows(report)))  # fmt: skip


def _claim_rows(report: Report) -> Iterator[TraceRow]:
    """Each claim of the report with the row it stands on, and where that comes from."""
    rows = EvidenceTable(report.evidence)

    def claim(what: str, figure: Figure | None, over: str = "") -> TraceRow:
        if figure is None or figure.evidence not in rows:
            return row_of(what, str(figure) if figure else "")
        row = rows[figure.evidence]
        told = TraceCell(text=where(row) + over, rows=tuple(dict.fromkeys(cited_by(row))))
        return row_of(what, str(figure), linked([row.id]), told, key=row.id)

    yield claim("the book moves by", report.total)
    if report.total_share:
        yield claim(f"{of_its_value(report.gross_value)}, that is", report.total_share)
    if report.interval and report.interval_level:
        yield claim("the band's level", report.interval_level)
        yield claim("no worse than", report.interval[0])
        yield claim("and no better than", report.interval[1])
    if report.var_975_1d:
        yield claim(f"before the event, the {report.var_name} was", report.var_975_1d)
    for row in report.shocks:
        applied = f"refused: {row.refused}" if row.refused else "applied"
        yield claim(f"shock on {row.factor}: {row.origin}; {applied}", row.move, f"; over {row.window}")
        if row.sigma:
            yield claim(f"shock on {row.factor}, its size", row.sigma)
    for name, figure in sorted(report.by_factor.items(), key=lambda item: item[1].value):
        yield claim(f"through {name}", figure)
    if report.analogue:
        why = "" if report.analogue.total else f"; not replayed: {report.analogue.why_no_total}"
        yield claim(f"closest past event: {report.analogue.named}{why}", report.analogue.total)
    yield from (claim(f"limit breached: {line}", None) for line in report.breaches)
    yield from (claim(f"limit {line}", None) for line in report.unchecked)


def _hands(report: Report) -> TraceTable:
    return table_of(name="hands", title="What people decided", header=("kind", "about", "decided", "by", "because"),
                      rows=tuple(row_of(one.kind, one.about, one.decided, one.by, one.because)
                                 for one in report.hand))  # fmt: skip


def _judgements(uses: Sequence[Use], request: RunRequest, report: Report | None) -> Iterator[TraceTable]:
    """A table for each agent that was asked, and what people answered."""
    fields = judged_fields(uses, request, report)
    for agent in AGENTS:
        mine = [one for one in fields if one.agent == agent.role]
        notes = tuple(_how(agent.role, mine, report))
        if mine or notes:
            yield _judged(agent.role, mine, notes)
    if not fields and report is not None and not any(one.status == "abstained" for one in report.agents):
        yield table_of(name="judged", title="How each agent judged", header=("agent",), rows=(),
                         otherwise="no model was asked")  # fmt: skip
    answers = [(use, PersonsAnswer.of(use.entry).answer) for use in uses if use.entry.kind == "human"]
    if answers:
        yield table_of(name="answers", title="What a person answered", header=("at", "answer", "who"),
                         rows=tuple(row_of(use.node, said, use.entry.actor) for use, said in answers))  # fmt: skip


def _judged(agent: str, rows: Sequence[FieldRow], notes: tuple[str, ...]) -> TraceTable:
    header = ("source", "at", "field", "value", "probability", "next", "its probability", "rests on", "overruled by",
              "call")  # fmt: skip
    about, again = agent == SANITY_CHECKER.role, len({one.node for one in rows}) > 1
    told = [
        row_of((one.about or "unknown") if about else "", one.node if again else "", _named(one.field), one.value,
               _share(one.probability), one.next_value, _share(one.next_probability), linked(one.because),
               one.overruled, one.call[:12], key=f"{one.call[:12]}-{one.field}")
        for one in rows
    ]  # fmt: skip
    return table_of(name=f"judged-{agent}", title=f"How {agent} judged", notes=notes, rows=told, header=header,
                    right=(4, 6), otherwise="abstained")  # fmt: skip


def _how(agent: str, rows: Sequence[FieldRow], report: Report | None) -> Iterator[str]:
    """By whom an agent's judgement is, why it was asked again or voted on, and why it abstained."""
    for one in {(row.by, row.prompt_version, row.reused, row.votes): row for row in rows}.values():
        again = ", answered from the ledger" if one.reused else ""
        voted = f", the mean of {one.votes} votes" if one.votes > 1 else ""
        yield f"by {one.by} (prompt {one.prompt_version}){voted}{again}"
    for told in report.agents if report else ():
        if told.agent == agent:
            yield from (one.words for one in told.escalations)
            if told.status == "abstained":
                yield f"abstained: {told.reason}"


def _read(report: Report | None) -> Iterator[TraceTable]:
    """What the reading was made of and held against: channels, the sources' words, the market, the second opinion."""
    if report is None:
        return
    if report.channels is not None:
        yield table_of(
            name="channels", title="Channels that the event opens", right=(2,),
            header=("channel", "state", "open", "row", "moves", "source", "read from"), otherwise="none is open",
            rows=tuple(row_of(one.channel, one.state, str(one.probability), linked([one.probability.evidence]),
                              one.moving, ", ".join((one.source or "the event", *one.others)), one.words)
                       for one in report.channels),
        )  # fmt: skip
    yield table_of(
        name="checks", title="The reading against words and past events",
        header=("factor", "read", "sources' words", "precedents", "support"),
        rows=tuple(row_of(one.factor, one.read, one.words, one.precedents, one.support) for one in report.factors),
    )  # fmt: skip
    if report.against is not None:
        yield table_of(
            name="market", title="Text against the market", right=(4, 5),
            notes=(*report.against.lines, *report.against.untestable), otherwise="nothing was tested",
            header=("factor", "read", "since the close before", "sources", "move", "surprise", "rows", "verdict"),
            rows=tuple(row_of(one.factor, one.read, one.day, ", ".join(one.sources), str(one.move), str(one.surprise),
                              linked([one.move.evidence, one.surprise.evidence]), one.verdict)
                       for one in report.against.tested if one.move and one.surprise),
        )  # fmt: skip
        if report.against.liquidity:
            yield table_of(
                name="liquidity", title="Whether few trade in what did not move as told", right=(2, 3),
                header=(*LIQUIDITY_HEADER[:-1], "rows", LIQUIDITY_HEADER[-1]),
                rows=tuple(row_of(one.factor, one.measure, str(one.value), str(one.rarity) if one.rarity else "-",
                                  linked([it.evidence for it in (one.value, one.rarity) if it]), one.verdict)
                           for one in report.against.liquidity),
            )  # fmt: skip
    if report.second:
        yield table_of(
            name="second", title="The second opinion", right=(3,),
            header=("field", "read", "second opinion", "its probability", "row", "stands"),
            rows=tuple(row_of(one.field, one.read, one.second, str(one.probability), linked([one.probability.evidence]),
                              "the reading, though it is sure of another" if one.diverged else "the reading")
                       for one in report.second),
        )  # fmt: skip


def _dissent(report: Report | None) -> TraceTable:
    rows = tuple(row_of(one.who, one.about, one.said, one.instead_of, one.by) for one in (report.dissent if report
                                                                                           else ()))  # fmt: skip
    return table_of(name="dissent", title="Who dissented", header=("who", "about", "said", "stands", "by whose word"),
                      rows=rows, otherwise="nobody")  # fmt: skip


def _blocked(report: Report) -> TraceTable:
    rows = (
        *(row_of("kept out", line) for line in report.blocked),
        *(row_of(f"rule {one.rule}, {one.verdict}", one.what, linked(one.because)) for one in report.findings
          if one.verdict in ("flag", "block")),
        *(row_of("left out of the book", line) for line in report.exclusions),
    )  # fmt: skip
    return table_of(name="blocked", title="What was blocked, and why", header=("how", "what", "rows"), rows=rows,
                      otherwise="nothing")  # fmt: skip


def _sources(report: Report) -> TraceTable:
    first = {row.entity.removeprefix("source "): row.id for row in report.evidence
             if row.unit == "text" and row.source is not None and row.entity.startswith("source ")}  # fmt: skip
    rows = tuple(
        row_of(one.id, linked([first[one.id]] if one.id in first else []), one.publisher, one.published_at, one.verdict,
               "; ".join(one.removed), one.left_out or "")
        for one in report.sources
    )  # fmt: skip
    return table_of(name="sources", title="Sources, and what was cut from them", rows=rows,
                      header=("source", "row", "publisher", "published", "verdict", "cut", "left out"))  # fmt: skip


def _placed(uses: Sequence[Use], request: RunRequest) -> Iterator[TraceTable]:
    """Each placement with the source that its question is about and what the call cost; then what was refused."""
    calls = {use.key: RecordedCall.of(use.entry) for use in uses if use.entry.kind == "call"}
    placed = [(one, calls.get(one.call or "")) for one in placements_in(uses)]
    rows = [_placement(one, call, _asked_about(call, request)) for one, call in placed]
    rows += [row_of(use.node, "", use.entry.actor, "", f"no answer ({Charge.of(use.entry).why})")
             for use in uses if use.entry.kind == "charge"]  # fmt: skip
    rows += [row_of(use.node, "", "", "", f"nobody answered: {Failure.of(use.entry).message}")
             for use in uses if use.entry.kind == "failure"]  # fmt: skip
    yield table_of(
        name="placed", title="Where each call was placed, and what it cost", rows=rows, right=(6, 7, 8),
        header=("node", "about", "placed on", "asked again for", "ended", "call", "s", "tokens in", "out", "energy",
                "carbon", "money"), otherwise="nothing was placed",
    )  # fmt: skip
    yield table_of(
        name="refused", title="Which placements were refused", header=("node", "about", "call", "refused", "why"),
        rows=[row_of(one.node, _asked_about(call, request), call.key[:12] if call else "", name, why)
              for one, call in placed for name, why in sorted(one.refused.items())], otherwise="none",
    )  # fmt: skip


def _asked_about(call: RecordedCall | None, request: RunRequest) -> str:
    """What a question is about: a source, nothing at all where it asks for the prior, or the event."""
    if call is None or call.judges:
        about = asked_source(call.prompt, request) if call and call.agent == SANITY_CHECKER.role else None
        return about or ""
    return "its prior"


def _placement(one: PlacementRow, call: RecordedCall | None, about: str) -> TraceRow:
    spent = one.actual
    known = () if spent is None else ((spent.joules, "J"), (spent.grams, "gCO₂e"), (spent.usd, "USD"))
    costs = [f"{row.value:.3g} {unit} ({row.provenance})" if row is not None else "" for row, unit in known]
    if call is None:
        return row_of(one.node, about, one.where, one.why, one.ended, "", "", "", "", *costs)
    return row_of(
        one.node, about, one.where, one.why, one.ended, call.key[:12], f"{call.seconds:.2f}" if spent else "",
        str(call.prompt_tokens), str(call.output_tokens), *costs, key=call.key[:12],
    )  # fmt: skip


def _named(field: str) -> str:
    """A field as a table names it: a factor or rule by its name and what of it."""
    parts = field.split(".")
    return f"{parts[1]} {parts[2]}" if len(parts) > 2 else field


def _share(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.0%}"
