"""Holds the reading against what the market did since each source came out, with a row of evidence for each figure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from finllm.agents.agent import Offered
from finllm.agents.narrative import Reading
from finllm.desk.desk import RunContext
from finllm.errors import InputError
from finllm.graphs.rows import HeldToMarket
from finllm.graphs.state import AfterIntake
from finllm.guardrails.provenance import REJECTED
from finllm.tools.data.factors import Direction, MoveUnit
from finllm.tools.data.market import Bars
from finllm.tools.evidence import EvidenceTable, Source
from finllm.tools.forecasts.liquidity import MEASURES, RECENT, USUAL, Thinness, drained
from finllm.tools.forecasts.text_market import AgainstMarket, FactorTest, Told, against_market
from finllm.tools.pnl.asked import scenario_factors
from finllm.tools.pnl.factorset import Driver, FactorSet, Levels

SINCE, SURPRISE = "move since the close before publication", "surprise of that move"


def hold_to_market(
    reading: Reading, state: AfterIntake, run: RunContext, table: EvidenceTable
) -> tuple[HeldToMarket, list[Offered]]:
    """The reading against the market since each source that the checks let through, and a line per factor that was
    tested, for the validator. A second look at the same directions is the first one.
    """
    read: dict[str, Direction] = {factor: call.direction for factor, call in reading.factors.items()}
    before = state.held
    factors = scenario_factors(run.request.scenario, run.market, run.request.portfolio)
    told = [
        Told(id=one.id, day=dt.datetime.fromisoformat(one.published_at).astimezone(dt.UTC).date())
        for one in state.sources
        if one.left_out is None and one.verdict not in REJECTED
    ]
    levels = {factor: _levels(factors[factor], run) for factor, way in read.items() if way != "none"}
    units: dict[str, MoveUnit] = {factor: factors[factor].unit for factor in read}
    bars = {factor: found for factor in levels if (found := _bars(factors[factor], run)) is not None}
    result = against_market(read, levels, units, told, run.request.as_of, bars)
    held = before if before is not None and before.result == result else _as_evidence(result, factors, bars, run, table)
    return held, _lines(held)


def _levels(driver: Driver, run: RunContext) -> Levels | str:
    if not driver.has_history:
        return "it has no history"
    try:
        return driver.levelled(run.market, run.request.as_of)
    except InputError as error:
        return error.message


def _bars(driver: Driver, run: RunContext) -> Bars | None:
    """Highs, lows and volumes of the series that a factor is read from."""
    if driver.series is None or driver.stand_in or not run.market.visible(driver.series, run.request.as_of):
        return None
    return run.market.bars(driver.series, run.request.as_of)


def _as_evidence(
    result: AgainstMarket, factors: FactorSet, bars: Mapping[str, Bars], run: RunContext, table: EvidenceTable
) -> HeldToMarket:
    moves: dict[str, str] = {}
    surprises: dict[str, str] = {}
    shares: dict[str, str] = {}
    as_of = run.request.as_of
    for day in result.days:
        for one in day.tests:
            if one.move is not None and one.surprise is not None:
                key = HeldToMarket.key(day.day, one.factor)
                moves[key], surprises[key] = _figures(one, factors[one.factor], run, table)
        if day.later is not None:
            rows = [surprises[HeldToMarket.key(day.day, one.factor)] for one in day.tests if one.surprise is not None]
            shares[str(day.day)] = table.add(
                day.later, "probability", entity=f"sources of {day.day}",
                what="share of the move that came after its first days", period=f"{day.day} to {as_of}", as_of=as_of,
                formula=f"mean over the factors that moved, of {', '.join(rows)}",
            )  # fmt: skip
    liquidity = {
        HeldToMarket.measure(one.factor, one.measure): _thin_rows(one, factors[one.factor], bars, run, table)
        for one in result.liquidity
    }
    verdicts = {
        factor: table.add(
            _said(factor, result), "text", entity=factor, what="text against the market", period="this event",
            as_of=as_of, formula=f"held({', '.join(_of(factor, surprises))})",
        )
        for factor in result.factors
    }  # fmt: skip
    return HeldToMarket(result=result, moves=moves, surprises=surprises, shares=shares, verdicts=verdicts,
                        liquidity=liquidity)  # fmt: skip


def _thin_rows(
    one: Thinness, driver: Driver, bars: Mapping[str, Bars], run: RunContext, table: EvidenceTable
) -> tuple[str, str | None]:
    """The evidence ids of a measure of liquidity and, where it has one, of how rare it is; by the file of its data."""
    period, as_of = f"{one.start} to {one.end}", run.request.as_of
    source: Source | None = run.market.source(driver.series, period) if driver.series else None
    if one.rarity is None:
        how = f"of each of the last {RECENT} moves and the one before"
        return table.add(one.value, "ratio", entity=driver.label, what=MEASURES[one.measure], period=period,
                         as_of=as_of, source=source, formula=how), None  # fmt: skip
    data = bars[one.factor]
    source = Source(uri=data.uri, sha256=data.sha256, pointer=f"{driver.series} {period}")
    value = table.add(
        one.value, "ratio", entity=driver.label, what=MEASURES[one.measure], period=period, as_of=as_of, source=source,
        formula=f"mean of the last {RECENT} days over that of the {USUAL} before",
    )  # fmt: skip
    rarity = table.add(
        one.rarity, "probability", entity=driver.label, what=f"days of the year before so thin: {one.measure}",
        period=period, as_of=as_of, source=source, formula=f"{value} among the same mean of each of those days",
    )  # fmt: skip
    return value, rarity


def _figures(one: FactorTest, driver: Driver, run: RunContext, table: EvidenceTable) -> tuple[str, str]:
    """The evidence ids of a factor's move and of its surprise."""
    assert one.move is not None
    assert one.surprise is not None
    period, as_of = f"{one.start} to {one.end}", run.request.as_of
    source: Source | None = run.market.source(driver.series, period) if driver.series else None
    move = table.add(one.move, one.unit, entity=driver.label, what=SINCE, period=period, as_of=as_of, source=source,
                     formula=driver.how or None if source else driver.how or "built of other series")  # fmt: skip
    surprise = table.add(
        one.surprise, "sigma", entity=driver.label, what=SURPRISE, period=period, as_of=as_of,
        formula=f"{move} / σ of a forecast of {one.start}, which has no drift",
    )  # fmt: skip
    return move, surprise


def _of(factor: str, surprises: dict[str, str]) -> list[str]:
    return [id for key, id in surprises.items() if key.endswith(f" {factor}")]


def _said(factor: str, result: AgainstMarket) -> str:
    way = next(one.read for day in result.days for one in day.tests if one.factor == factor) if result.days else ""
    why = next((one.why for day in result.days for one in day.tests if one.factor == factor and one.why), None)
    verdict = result.factors[factor]
    return f"read {way}, the market since: {verdict}" + (f" ({why})" if verdict == "not testable" and why else "")


def _lines(held: HeldToMarket) -> list[Offered]:
    return [
        Offered(id, f"{factor} {_said(factor, held.result)}")
        for factor, id in held.verdicts.items()
        if held.result.factors[factor] != "not testable"
    ] + [
        Offered(
            held.liquidity[HeldToMarket.measure(one.factor, one.measure)][0], f"{one.factor} {one.measure}: few trade"
        )
        for one in held.result.liquidity
        if one.thin and drained([other for other in held.result.liquidity if other.factor == one.factor])
    ]
