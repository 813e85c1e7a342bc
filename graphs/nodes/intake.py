"""The intake node: sanitises the sources, values the book, measures the market, and fills the evidence table."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping

from pydantic import BaseModel

from finllm.agents.sanity_checker import COUNTED
from finllm.desk.desk import RunContext
from finllm.errors import BackendError, InputError
from finllm.events import Noted
from finllm.graphs.consequences import RECENT_CHANGE
from finllm.graphs.nodes.past import past_row, told
from finllm.graphs.nodes.second_opinion import second_opinion
from finllm.graphs.rows import HeardSource, Measured, PastEvent
from finllm.graphs.state import Start, Update
from finllm.graphs.through import through_channels
from finllm.guardrails.crossmodal import Heard
from finllm.guardrails.hearsay import ENOUGH, hearsay
from finllm.guardrails.provenance import HEARSAY, SourceChecks, check_provenance
from finllm.guardrails.rumours import rumours, unchecked
from finllm.guardrails.sanitise import SanitisedSource, sanitise_name, sanitise_source, sanitising_digest
from finllm.guardrails.steering import Steering, steering, steering_digest
from finllm.memory.knowledge import Retrieved
from finllm.tools.data.books.book import first_exclusions
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import FACTOR_IDS, FACTORS, FactorId
from finllm.tools.data.scenario import SourceText
from finllm.tools.evidence import EvidenceTable, Source, Unit, sha256_of, show
from finllm.tools.forecasts.forecast import Forecast, forecast
from finllm.tools.forecasts.seen import content_of, tools_digest
from finllm.tools.forecasts.signals import MarketSignals, market_signals, series_of
from finllm.tools.words.lexical import balance, read_factors, stands_still, words_digest

EXCERPT = 160
"""Characters of a source that its evidence row shows."""
UNNAMED = "a publisher whose name was cut"
LEFT_OUT = "weight of a position left out"
"""What the evidence row of an excluded position's share of the book says."""


async def intake(_state: Start, run: RunContext) -> Update:
    return await asyncio.to_thread(_intake, run)


def _intake(run: RunContext) -> Update:
    request, table = run.request, EvidenceTable()
    book = value_portfolio(request.portfolio, run.market, request.as_of, request.currency)
    sources = _sources(run, table)
    precedents = _precedents(run, table)
    market = _market(run, table)
    second = second_opinion(run, sources, table)
    through = through_channels(run, sources, table)
    named = first_exclusions(book.exclusions)
    for exclusion in named:
        weight = "of unknown weight" if exclusion.weight is None else f"{exclusion.weight:.2%} of the book"
        if exclusion.weight is not None:
            table.add(
                exclusion.weight,
                "return",
                entity=exclusion.id,
                what=LEFT_OUT,
                period=f"at {request.as_of}",
                as_of=request.as_of,
                formula="its value over the gross value of all valued positions",
            )
        run.desk.bus.emit(Noted(level="warning", message=f"excluded {exclusion.id!r} ({weight}): {exclusion.reason}"))
    if more := len(book.exclusions) - len(named):
        run.desk.bus.emit(Noted(level="warning", message=f"and {more} more positions are left out"))
    found = Update(
        sources=tuple(sources),
        precedents=tuple(precedents),
        market=tuple(market),
        second=tuple(second),
        book=book,
        evidence=tuple(table),
        passes=0,
    )
    return found if through is None else found.model_copy(update={"through": through})


def _sources(run: RunContext, table: EvidenceTable) -> list[HeardSource]:
    """The narrative's sources, sanitised, each with its evidence row, its words per factor and the checks' verdict."""
    rows = [_source(source, run, table) for source in run.request.scenario.sources]
    kept = [row for row in rows if row.left_out is None]
    heard = [hearsay(row.text) for row in kept]
    embedded = run.desk.embedder.embed([row.text for row in kept])
    odds = rumours([row.text for row in kept], embedded)
    found = check_provenance(
        [row.id for row in kept],
        [row.publisher for row in kept],
        [row.says for row in kept],
        embedded,
        [sum(removed.startswith("injection:") for removed in row.removed) for row in kept],
        [unchecked(claims, one) for claims, one in zip(heard, odds, strict=True)],
    )
    checked = {
        row.id: _checked(row, found[row.id], claims, one, run.request.as_of, table)
        for row, claims, one in zip(kept, heard, odds, strict=True)
    }
    return [checked.get(row.id, row) for row in rows]


def _checked(
    row: HeardSource, check: SourceChecks, claims: Mapping[str, str], rumour: float, as_of: dt.date,
    table: EvidenceTable,
) -> HeardSource:  # fmt: skip
    """The source with the checks' verdict, and what they counted as evidence."""
    counts = (check.agreeing, check.opposing, len(check.twins), check.injections)
    cites = tuple(
        table.add(
            float(count),
            "count",
            entity=f"source {row.id}",
            what=what,
            period="this event",
            as_of=as_of,
            formula=f"provenance check of {row.evidence}",
        )
        for what, count in zip(COUNTED, counts, strict=True)
    )
    told = row.model_copy(update={"verdict": check.verdict, "provenance": cites, "open": check.open})
    if check.verdict != HEARSAY:
        return told
    why = tuple(f"{way} ({said!r})" for way, said in claims.items())
    if len(claims) < ENOUGH:
        share = table.add(
            rumour,
            "probability",
            entity=f"source {row.id}",
            what="that it is told as rumours are",
            period="this event",
            as_of=as_of,
            formula=f"wording and embedding of {row.evidence}",
        )
        why = (f"told as rumours are ({show(rumour, 'probability')} [{share}])", *why)
    return told.model_copy(update={"hearsay": why})


def _switched_off(source: SourceText) -> HeardSource:
    """A source that a person left out: nothing of it is read, and it is told who wants that and why."""
    return HeardSource(
        id=source.id, publisher=sanitise_name(source.publisher)[0] or UNNAMED,
        published_at=source.published_at.isoformat(), text="", removed=(), left_out=f"switched off by {source.why}",
        says={}, verdict="refused", provenance=(), evidence=None,
    )  # fmt: skip


def _source(source: SourceText, run: RunContext, table: EvidenceTable) -> HeardSource:
    if source.use == "off":
        return _switched_off(source)
    as_of, longest = run.request.as_of, run.desk.settings.text_longest
    read = run.desk.remembers.model(SanitisedSource, sanitising_digest(),
                                    f"{as_of} {longest} {source.model_dump_json()}",
                                    lambda: sanitise_source(source, as_of, longest))  # fmt: skip
    clean, names = read.text, read.names
    publisher = names["publisher"][0] or UNNAMED
    text, found = clean.text, _steering(clean.text, run)
    for part in found.cut:
        text = text.replace(part, " ", 1)
    text = text.strip()
    left_out = clean.refused or (None if text else "nothing is left of its text")
    says: dict[FactorId, Heard] = {}
    evidence = None
    if left_out is None:
        says = run.desk.remembers.model(Says, words_digest(), text, lambda: _says(text)).of
        evidence = table.add(
            text[:EXCERPT],
            "text",
            entity=f"source {source.id}",
            what=f"published by {publisher}",
            period=source.published_at.date().isoformat(),
            as_of=run.request.as_of,
            source=Source(uri=source.url, sha256=sha256_of(source.text), pointer=f"characters 0–{len(source.text)}"),
        )
    return HeardSource(
        muted=f"muted by {source.why}" if source.use == "muted" else None,
        id=source.id,
        publisher=publisher,
        published_at=source.published_at.isoformat(),
        text=text,
        removed=(
            *(f"{cut.kind}: {cut.excerpt}" for cut in clean.removed),
            *(f"{cut.kind}: {cut.excerpt} (in its {name})" for name, (_, cuts) in names.items() for cut in cuts),
            *(f"suspected: {part[:EXCERPT]}" for part in found.cut),
        ),
        left_out=left_out,
        flagged=found.flag,
        says=says,
        verdict="refused" if clean.refused else "credible",
        provenance=(),
        evidence=evidence,
    )


class Says(BaseModel):
    """What a text's own words say by factor; one that it does not move has no entry."""

    of: dict[FactorId, Heard]


def _says(text: str) -> Says:
    return Says(of={factor: "unmoved" if stands_still(found) else balance(found)
                    for factor, found in read_factors(text).items() if found})  # fmt: skip


def _steering(text: str, run: RunContext) -> Steering:
    """What steers a machine where the rules saw nothing, sentence by sentence; nothing without the judge of it.

    What is cut is on record and changes no verdict: some clean texts have such a sentence, too.
    """
    if run.desk.injections is None or not text:
        return Steering()
    judge = run.desk.injections
    try:
        return run.desk.remembers.model(Steering, f"{steering_digest()} {judge.digest}", text,
                                        lambda: steering(text, judge))  # fmt: skip
    except BackendError as error:
        told = f"instructions are looked for by the rules alone: {error.message}"
        run.desk.bus.emit(Noted(level="warning", message=told))
        return Steering()


def _precedents(run: RunContext, table: EvidenceTable) -> list[PastEvent]:
    scenario = run.request.scenario
    found = run.desk.knowledge.retrieve(scenario.narrative, scenario.as_of)
    for note in run.desk.knowledge.notes:
        run.desk.bus.emit(Noted(level="warning", message=note))
    return [_precedent(item, scenario.as_of, table) for item in found]


def _precedent(found: Retrieved, as_of: dt.date, table: EvidenceTable) -> PastEvent:
    past = found.precedent
    return PastEvent(
        id=past.id,
        title=past.title,
        start=past.start,
        end=past.end,
        factors=past.factors,
        similarity=found.similarity,
        evidence=past_row(past, table, as_of),
        line=told(past),
    )


def _market(run: RunContext, table: EvidenceTable) -> list[Measured]:
    """Measurements that market-signal reads: regime inputs, each visible factor's state, forecasts with intervals."""
    signals = _signals(run)
    for note in signals.notes:
        run.desk.bus.emit(Noted(level="info", message=note))
    rows = [_regime(signals, run, table)]
    for factor in FACTOR_IDS:
        seen = signals.factors[factor]
        series = FACTORS[factor].series
        if seen is None or seen.stale or series is None:
            continue
        source = run.market.source(series, f"to {seen.last}")
        change = table.add(
            seen.change,
            seen.unit,
            entity=FACTORS[factor].label,
            what=RECENT_CHANGE,
            period=f"to {seen.last}",
            as_of=run.request.as_of,
            source=source,
        )
        rows.append(Measured(factor=factor, cites=(change, *_forecast(factor, run, table))))
    return [row for row in rows if row.cites]


def _signals(run: RunContext) -> MarketSignals:
    """The signals of the day, remembered by what was visible then: the regime's fit takes longer than all else here."""
    market, as_of = run.market, run.request.as_of
    about = content_of(market, series_of(market), as_of)
    return run.desk.remembers.model(MarketSignals, tools_digest(), about, lambda: market_signals(market, as_of))


def _regime(signals: MarketSignals, run: RunContext, table: EvidenceTable) -> Measured:
    if signals.regime is None or signals.volatility is None or signals.percentile is None or signals.drawdown is None:
        return Measured(factor="EQUITY_US", cites=())
    entity, as_of = FACTORS["EQUITY_US"].label, run.request.as_of
    source = run.market.source("SP500", f"to {as_of}")
    measured: tuple[tuple[float | str, Unit, str, str, str], ...] = (
        (signals.volatility, "return", "realised volatility, annualised", "last 20 days", "std of log returns × √252"),
        (signals.percentile, "probability", "share of past volatilities at or below", "since 1990", "rank"),
        (signals.drawdown, "return", "fall from the year's peak", "last 252 days", "last / max − 1"),
        (signals.regime, "text", "regime by rule", f"at {as_of}", "volatility, drawdown and Markov switching"),
    )
    cites = tuple(
        table.add(value, unit, entity=entity, what=what, period=period, as_of=as_of, source=source, formula=formula)
        for value, unit, what, period, formula in measured
    )
    return Measured(factor="EQUITY_US", cites=cites)


def _seen_ahead(series: str, run: RunContext) -> Forecast:
    """A forecast over the scenario's horizon, remembered by the series. Errors: InputError where there is none."""
    as_of, horizon = run.request.as_of, run.request.scenario.horizon
    about = f"{horizon} {content_of(run.market, [series], as_of)}"
    return run.desk.remembers.model(Forecast, tools_digest(), about, lambda: forecast(
        run.market.read(series, as_of), horizon, calibrations=run.desk.calibrations))  # fmt: skip


def _forecast(factor: FactorId, run: RunContext, table: EvidenceTable) -> list[str]:
    known = FACTORS[factor]
    try:
        seen = _seen_ahead(known.series or "", run)
    except InputError as error:
        run.desk.bus.emit(Noted(level="info", message=f"no forecast of {factor}: {error.message}"))
        return []
    source = run.market.source(known.series or "", seen.window)
    period = f"{seen.steps} steps from {seen.last}"
    rows = [("forecast", seen.point)] + [
        (f"forecast, {end} end at {band.level:.0%}", value)
        for band in seen.bands[:1]
        for end, value in (("lower", band.lower), ("upper", band.upper))
    ]
    return [
        table.add(
            value,
            seen.unit,
            entity=known.label,
            what=what,
            period=period,
            as_of=run.request.as_of,
            source=source,
            formula=seen.model,
        )
        for what, value in rows
    ]
