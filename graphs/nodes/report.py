"""The report node: the typed report of a finished state, whose sentences pass the grounding guard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from finllm.agents.narrative import Reading
from finllm.agents.validator import VALIDATOR
from finllm.desk.desk import RunContext
from finllm.graphs.against import Against, LiquidityRow, MarketRow, StaleSource
from finllm.graphs.by_hand import hand_rows
from finllm.graphs.channel_lines import channel_lines
from finllm.graphs.dissent import dissent_of
from finllm.graphs.judged import JudgedRow
from finllm.graphs.moved import moved_lines, plausibility_line
from finllm.graphs.nodes.compliance import shocked, withheld
from finllm.graphs.nodes.intake import LEFT_OUT
from finllm.graphs.report import (
    AgentRow,
    AnalogueRow,
    Figure,
    PathRow,
    Report,
    SecondRow,
    ShockRow,
    SourceRow,
    of_its_value,
)
from finllm.graphs.rows import HeardSource, StressRow, WantedShock
from finllm.graphs.state import AfterCompliance, JudgedOpinion, Update
from finllm.graphs.thrift import short_line
from finllm.guardrails.grounding import ground
from finllm.guardrails.provenance import HEARSAY
from finllm.guardrails.rules import worst
from finllm.tools.data.books.book import Book, first_exclusions
from finllm.tools.evidence import EvidenceTable
from finllm.tools.forecasts.liquidity import MEASURES
from finllm.tools.forecasts.text_market import CAUSE_WORDS
from finllm.tools.pnl.coverage import Coverage, named


async def report(state: AfterCompliance, run: RunContext) -> Update:
    return Update(report=build_report(state, run))


def build_report(state: AfterCompliance, run: RunContext) -> Report:
    """The typed report of a finished state. Errors: GroundingError for a sentence whose number has no evidence."""
    stress, scenario, figures = state.stress, run.request.scenario, _Figures(state.table())
    verdict, hand = worst([finding.verdict for finding in state.findings]), hand_rows(scenario)
    return Report(
        run_id=run.run_id,
        status="blocked" if verdict == "block" else "finished",
        title=scenario.title,
        as_of=run.request.as_of.isoformat(),
        horizon=stress.result.horizon,
        replayed=stress.result.over if stress.result.replayed else None,
        first=(*short_line(state.opinions), *stress.result.first, *(one.words for one in hand)),
        hand=hand,
        aged=stress.result.aged.isoformat() if stress.result.aged else None,
        currency=stress.result.currency,
        engine=stress.result.engine,
        summary=tuple(ground(line, figures.table, _quotes(scenario.title, stress.result.coverage))
                      for line in _summary(state, figures.table)),
        event=state.reading.judgement.event_fields() if state.reading else None,
        event_probability=_event_probability(state.reading),
        factors=state.checks,
        shocks=tuple(_shock(shock, figures) for shock in state.shocks),
        book_value=figures.of(stress.book_value),
        gross_value=figures.optional(stress.gross_value),
        total=figures.of(stress.total),
        total_share=figures.optional(stress.total_share),
        interval=(figures.of(stress.interval[0]), figures.of(stress.interval[1])) if stress.interval else None,
        interval_level=figures.optional(stress.interval_level),
        interval_method=stress.interval_method,
        interval_parts=figures.by_name(stress.interval_parts),
        interval_untested=stress.result.interval.untested if stress.result.interval else "",
        by_day=stress.result.by_day,
        var_975_1d=figures.optional(stress.var_975_1d),
        by_position=figures.by_name(stress.by_position),
        by_factor=figures.by_name(stress.by_factor),
        by_sector=figures.by_name(stress.by_sector),
        breaches=tuple(_breach_lines(state, figures.table)),
        unchecked=tuple(str(one) for one in state.unchecked),
        coverage=stress.result.coverage,
        var_coverage=stress.result.var_975_1d.coverage if stress.result.var_975_1d else 1.0,
        analogue=_analogue(state, figures),
        verdict=_verdict(state),
        compliance=verdict,
        findings=state.findings,
        dissent=tuple(dissent_of(state, figures.table)),
        blocked=tuple(_blocked(state)),
        sources=tuple(_source(source) for source in state.sources),
        exclusions=tuple(_exclusions(state.book, figures.table)),
        agents=tuple(AgentRow.model_validate({name: getattr(opinion, name) for name in AgentRow.model_fields})
                     for opinion in state.opinions),
        notes=(f"Money is in {stress.result.currency}.", *stress.notes),
        evidence=state.evidence,
        second=tuple(_second(state)),
        against=_against(state, figures),
        judged=tuple(JudgedRow.of(one) for one in state.opinions if one.judgement is not None),
        moved=tuple(moved_lines(state, figures.table)),
        path=tuple(PathRow(label=one.label, days=one.days, step=figures.of(one.step), total=figures.of(one.total),
                           worst=one.worst) for one in stress.path),
        channels=channel_lines(state.through, figures.table) if state.through else None,
    )  # fmt: skip


class _Figures:
    """The evidence as figures of the report."""

    def __init__(self, table: EvidenceTable) -> None:
        self.table = table

    def of(self, id: str) -> Figure:
        return Figure(value=float(self.table[id].value), unit=self.table[id].unit, evidence=id)

    def optional(self, id: str | None) -> Figure | None:
        return self.of(id) if id else None

    def by_name(self, ids: Mapping[str, str]) -> dict[str, Figure]:
        return {name: self.of(id) for name, id in ids.items()}


def _summary(state: AfterCompliance, table: EvidenceTable) -> list[str]:
    """The summary with what it is about: the coverage in the first sentence, which a gap opens, and the day."""
    stress, coverage = state.stress, state.stress.result.coverage
    applied = any(shock.refused is None for shock in state.shocks)
    first, *rest = summary_lines(stress, table, applied=applied)
    rest += plausibility_line(stress)
    if coverage is None:
        return [first, *rest]
    if coverage.complete:
        first = f"{first.removesuffix('.')}; [[{stress.covered}]] of the book is covered."
    else:
        missing = [f"[[{stress.missing}]] of the book is not stressed ([[missing]])"] if coverage.missing else []
        if coverage.unknown:
            missing.append(f"positions of unknown value: [[{stress.unknown}]] ([[unknown]])")
        if coverage.stand_in > coverage.thresholds.stand_ins:
            missing.append(f"[[{stress.stand_in}]] is only by stand-ins ([[stand_ins]])")
        gap = ", ".join(missing)
        first = (f"{gap[0].upper()}{gap[1:]}; what is stressed «[[title]]» moves by [[{stress.total}]], over "
                 f"[[{stress.horizon}]].")  # fmt: skip
    return [first, *([f"This is [[{stress.day}]]."] if stress.day else []), *rest]


def _quotes(title: str, coverage: Coverage | None) -> dict[str, str]:
    """What the summary quotes: the scenario's title, and the names of what is missing."""
    if coverage is None:
        return {"title": title}
    known = coverage.left_out - coverage.unknown
    groups = {"missing": (coverage.first_missing, known), "unknown": (coverage.first_unknown, coverage.unknown),
              "stand_ins": (coverage.first_stand_ins, coverage.stand_ins)}  # fmt: skip
    return {"title": title} | {name: f"such as {named([one.id for one in gaps], count)}"
                               for name, (gaps, count) in groups.items()}  # fmt: skip


def summary_lines(stress: StressRow, table: EvidenceTable, *, applied: bool = False) -> list[str]:
    """The summary as the grounding guard takes it: every number a reference, the scenario's title `[[title]]`.

    `applied`: whether a shock was, so that a book which stands still is not taken for one that nothing was done to.
    """
    share = f", [[{stress.total_share}]] {of_its_value(stress.gross_value)}," if stress.total_share else ""
    lines = [f"«[[title]]» moves the book by [[{stress.total}]]{share} over [[{stress.horizon}]]."]
    if stress.interval:
        low, high = stress.interval
        band = stress.result.interval
        untested = ", a level that was not tested" if band and band.untested else ""
        if band and band.ends_at(stress.result.total):
            untested += "; the P&L itself is at its end, as what is left open points the other way"
        lines.append(
            f"What is left open puts the book between [[{low}]] and [[{high}]] "
            f"at [[{stress.interval_level}]]{untested}."
        )
    moved = {name: id for name, id in stress.by_factor.items() if table[id].value}
    if not moved:
        return [*lines, nothing_moved(applied=applied)]
    worst = min(moved, key=lambda name: float(table[moved[name]].value))
    if float(table[moved[worst]].value) < 0:
        return [*lines, f"The largest loss comes through [[{moved[worst]}.entity]]: [[{moved[worst]}]]."]
    return [*lines, f"No factor costs the book anything; least is gained through [[{moved[worst]}.entity]]: "
                    f"[[{moved[worst]}]]."]  # fmt: skip


def nothing_moved(*, applied: bool) -> str:
    """Why no factor moves the book: nothing was shocked, or nothing that it depends on."""
    if applied:
        return "The shocks were applied, and nothing in the book answers to them."
    return "No shock was applied: nothing in the scenario, supported by its sources, moves the book."


def _verdict(state: AfterCompliance) -> str:
    """Text and measurements: unresolved where the checks of the reading are, else what the market says of it."""
    return state.verdict if state.held is None or state.verdict == "unresolved" else state.held.result.verdict


def _against(state: AfterCompliance, figures: _Figures) -> Against | None:
    """The reading against the market, with the figures' rows, and the validator's cause beside the rule's."""
    if state.held is None:
        return None
    held, validation = state.held, state.said(VALIDATOR)
    result = held.result
    rows = tuple(
        MarketRow(
            day=str(day.day), sources=day.sources, factor=one.factor, read=one.read, verdict=one.verdict, why=one.why,
            move=figures.optional(held.moves.get(held.key(day.day, one.factor))),
            surprise=figures.optional(held.surprises.get(held.key(day.day, one.factor))),
        )
        for day in result.days for one in day.tests
    )  # fmt: skip
    liquidity = tuple(
        LiquidityRow(factor=one.factor, measure=MEASURES[one.measure], value=figures.of(value),
                     rarity=figures.optional(rarity), verdict="few trade" if one.thin else "as usual")
        for one in result.liquidity for value, rarity in [held.liquidity[held.measure(one.factor, one.measure)]]
    )  # fmt: skip
    return Against(
        verdict=result.verdict, rows=rows, factors=dict(result.factors), cause=CAUSE_WORDS[result.cause],
        reason=result.reason, liquidity=liquidity, untested=result.untested, skipped=result.skipped,
        agent_cause=None if validation is None or validation.cause == "none" else CAUSE_WORDS[validation.cause],
        stale=tuple(StaleSource(day=str(day.day), sources=day.sources, share=figures.of(held.shares[str(day.day)]))
                    for day in result.days if day.stale),
    )  # fmt: skip


def _event_probability(reading: JudgedOpinion[Reading] | None) -> dict[str, float]:
    if reading is None:
        return {}
    return {name: reading.opinion.probability(name) for name in reading.judgement.event_fields()}


def _shock(shock: WantedShock, figures: _Figures) -> ShockRow:
    return ShockRow(
        factor=shock.factor,
        move=figures.of(shock.move),
        sigma=figures.optional(shock.sigma),
        origin=shock.origin,
        window=shock.window,
        refused=shock.refused,
        implied=figures.optional(shock.implied),
        off=figures.optional(shock.off),
    )


def _source(source: HeardSource) -> SourceRow:
    return SourceRow(
        id=source.id,
        publisher=source.publisher,
        published_at=source.published_at,
        verdict=source.verdict,
        removed=source.removed,
        left_out=source.left_out,
    )


def _exclusions(book: Book, table: EvidenceTable) -> list[str]:
    weights = {row.entity: row.id for row in table if row.what == LEFT_OUT}
    shown = first_exclusions(book.exclusions)
    lines = [
        ground(
            "excluded [[id]]: [[reason]]" + (f" (weight [[{weights[e.id]}]])" if e.id in weights else ""),
            table,
            {"id": e.id, "reason": e.reason},
        )
        for e in shown
    ]
    more = len(book.exclusions) - len(shown)
    return [*lines, *([f"and {more} more positions are left out"] if more else [])]


def _breach_lines(state: AfterCompliance, table: EvidenceTable) -> list[str]:
    return [
        ground(
            f"[[subject]] ([[kind]]): [[{breach.loss}]] against a limit of [[{breach.limit}]]",
            table,
            {"subject": breach.subject, "kind": breach.kind},
        )
        for breach in state.breaches
    ]


def _analogue(state: AfterCompliance, figures: _Figures) -> AnalogueRow | None:
    past = state.analogue
    if past is None:
        return None
    return AnalogueRow(
        id=past.id,
        title=past.title,
        start=past.start.isoformat(),
        end=past.end.isoformat(),
        total=figures.optional(past.total),
        why_no_total=past.why,
        how=past.how,
    )


def _second(state: AfterCompliance) -> Iterator[SecondRow]:
    cites = {row.field: row.evidence for row in state.second}
    for check in state.second_checks:
        yield SecondRow(
            field=check.field,
            read=check.read,
            second=check.second,
            probability=Figure(value=check.probability, unit="probability", evidence=cites[check.field]),
            diverged=check.diverged,
        )


def _unread(source: HeardSource) -> str:
    """What was done with a source that the checks doubted, and on whose word."""
    if source.agent_verdict is None:
        return "hearsay, not read"
    if source.verdict == HEARSAY:
        return f"hearsay, not read, and the sanity-checker calls it {source.agent_verdict}"
    return "not read at first, then cleared by the sanity-checker"


def _blocked(state: AfterCompliance) -> list[str]:
    """What was kept from the conclusion: refused sources, cut text, withheld and refused shocks, blocking rules."""
    lines = [f"source {s.id}: {s.left_out}" for s in state.sources if s.left_out]
    lines += [f"source {s.id}: cut {removed}" for s in state.sources for removed in s.removed]
    lines += [f"source {s.id}: {s.flagged}" for s in state.sources if s.flagged]
    lines += [f"source {s.id}: {_unread(s)}: {'; '.join(s.hearsay)}" for s in state.sources if s.hearsay]
    lines += [f"{check.factor} {check.read}: withheld, {check.support}" for check in withheld(state)]
    moved = shocked(state)
    lines += [
        f"{check.factor}: the sources' words say {check.words}, the agent read no move; nothing was applied"
        for check in state.checks
        if check.support == "missed" and check.factor not in moved
    ]
    lines += [f"shock on {shock.factor}: {shock.refused}" for shock in state.shocks if shock.refused]
    lines += [f"rule {finding.rule}: {finding.what}" for finding in state.findings if finding.verdict == "block"]
    return lines
