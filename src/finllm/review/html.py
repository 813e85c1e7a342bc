"""Reports as HTML: of a run, every figure with its evidence, and of the stress engine on its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from finllm.graphs.against import LIQUIDITY_HEADER, MARKET_HEADER
from finllm.graphs.channel_lines import CHANNELS_HEADER, channel_cells, told
from finllm.graphs.judged import JUDGED_HEADER
from finllm.graphs.report import PATH_HEADER, SECOND_HEADER, SHOCKS_HEADER, Figure, Report
from finllm.review.charts import Chart, FanPoint, fan, positions, waterfall
from finllm.review.drawing import Picture
from finllm.review.explanation import Explanation
from finllm.review.page import Cell, Page, Part, Tile, linked_citations, render_page, tone_of, usd
from finllm.review.risk_parts import risk_parts
from finllm.review.story import html_chapters, shown
from finllm.tools.evidence import Evidence, show
from finllm.tools.pnl.coverage import Coverage, down, of_the_book
from finllm.tools.pnl.limits import NO_LIMITS, Held
from finllm.tools.pnl.outcome import AppliedShock, EngineResult, HorizonRow, LiquidityRow, chance_words
from finllm.tools.pnl.paths import Walked
from finllm.tools.pnl.trades import Increment

FOOT = "A stress test says what the stated shocks would do; it is no forecast that they come."


def run_charts(
    report: Report, *, horizons: Sequence[FanPoint] = (), stress_index: Chart | None = None
) -> tuple[Chart, ...]:
    """The charts of a run. Without `horizons` the fan has the only point that the report knows, that of its horizon."""
    by_factor, by_position, points, level, currency = charted(report)
    return _charts(by_factor, by_position, tuple(horizons) or points, level, stress_index, currency)


def charted(report: Report) -> tuple[dict[str, float], dict[str, float], tuple[FanPoint, ...], float, str]:
    """All that the charts of a run show: P&L by factor and position, its band by day, the band's level, the money."""
    points = fan_points(report.by_day)
    if not points and report.interval is not None:
        low, high = report.interval
        points = (FanPoint(report.horizon, report.total.value, low.value, high.value),)
    level = report.interval_level.value if report.interval_level else 0.0
    return _values(report.by_factor), _values(report.by_position), points, level, report.currency


def engine_charts(result: EngineResult, *, stress_index: Chart | None = None) -> tuple[Chart, ...]:
    """The charts of a stress result: by factor, by position, over the horizon, and the market's stress index."""
    points = fan_points(result.by_day or result.by_horizon)
    level = result.interval.level if result.interval else 0.0
    return _charts(_floats(result.by_factor), _floats(result.by_position), points, level, stress_index, result.currency)


def fan_points(rows: Iterable[HorizonRow]) -> tuple[FanPoint, ...]:
    """The days that a P&L and its band were worked out for."""
    return tuple(
        FanPoint(row.horizon, float(row.total), float(row.lower), float(row.upper))
        for row in rows
        if row.lower is not None and row.upper is not None
    )


def report_html(report: Report, charts: Sequence[Picture], explanation: Explanation | None = None) -> str:
    """The report of a run as one self-contained page, with what explains it. Its charts are those of `run_charts`."""
    return render_page(run_page(report, charts, explanation))


def run_page(report: Report, charts: Sequence[Picture], explanation: Explanation | None = None) -> Page:
    """What the page of a run shows, wherever it is shown."""
    added = explanation.evidence if explanation else ()
    known = frozenset(row.id for row in (*report.evidence, *added))
    *parts, evidence = _run_parts(report, added)
    parts += html_chapters(explanation.chapters, known) if explanation else []
    return Page(
        title=report.title,
        subtitle=f"Run {report.run_id}, as of {report.as_of}, {report.over}",
        badges=(*_coverage_badges(report.coverage), _verdict(f"compliance: {report.ruled}", report.compliance),
                Cell(f"text and measurements: {report.verdict}"),
                *((Cell("blocked", tone="bad"),) if report.status == "blocked" else ())),
        cards=_run_cards(report),
        summary=[linked_citations(sentence, known) for sentence in (*report.first, *report.summary)],
        charts=charts,
        parts=[*parts, evidence],
        foot=f"Money is in {report.currency}. {FOOT}",
    )  # fmt: skip


def engine_html(
    result: EngineResult, portfolio: str, charts: Sequence[Picture], held: Held, restricted: Sequence[str] = (),
    increments: Sequence[Increment] = (), walked: Walked | None = None,
) -> str:  # fmt: skip
    """A stress result as one self-contained page. Its charts are those of `engine_charts`."""
    return render_page(Page(
        title=f"Stress test of {portfolio}",
        subtitle=f"As of {result.as_of}, {result.over}",
        badges=(*_coverage_badges(result.coverage), Cell("no model was asked"), *_limit_badges(held, restricted)),
        cards=_engine_cards(result),
        summary=[linked_citations(line, frozenset()) for line in
                 (*((result.coverage.headline,) if result.coverage else ()), *result.first,
                  *((result.joint.words,) if result.joint and result.joint.apart else ()))],
        charts=charts,
        parts=[*_engine_parts(result, held, restricted), *risk_parts(result, increments, walked)],
        foot=f"Money is in {result.currency}. {FOOT}",
    ))  # fmt: skip


def _coverage_badges(coverage: Coverage | None) -> tuple[Cell, ...]:
    if coverage is None:
        return ()
    return (Cell(f"coverage: {down(coverage.covered)} %", tone="" if coverage.complete else "bad"),)


def _limit_badges(held: Held, restricted: Sequence[str]) -> tuple[Cell, ...]:
    breached, unchecked = len(held.breaches), len(held.unchecked)
    return (
        Cell(f"{breached} limits breached", tone="bad")
        if breached
        else Cell("no limit breached")
        if held.limited
        else Cell("limits: not checked", tone="warn"),
        *((Cell(f"{unchecked} limits not checked", tone="warn"),) if unchecked else ()),
        *((Cell(f"{len(restricted)} restricted names held", tone="bad"),) if restricted else ()),
    )


def page_files(page: str, charts: Sequence[Picture]) -> dict[str, bytes]:
    """report.html and a PNG of each chart that was drawn, by file name."""
    return {"report.html": page.encode()} | {f"{one.chart.name}.png": one.png for one in charts if one.png}


def _charts(
    by_factor: Mapping[str, float], by_position: Mapping[str, float], points: Sequence[FanPoint], level: float,
    index: Chart | None, currency: str,
) -> tuple[Chart, ...]:  # fmt: skip
    drawn = [waterfall(by_factor, currency), positions(by_position, currency)]
    drawn += [fan(points, level, currency)] if points else []
    return (*drawn, index) if index else tuple(drawn)


def _run_cards(report: Report) -> list[Tile]:
    cards = [Tile("P&L", _figure(report.total), report.share_words)]
    if report.interval and report.interval_level:
        low, high = report.interval
        cards += [Tile(f"interval at {report.interval_level}, low", _figure(low)), Tile("high", _figure(high))]
    if report.var_975_1d:
        name = of_the_book("one-day VaR, 97.5 %", report.var_coverage)
        cards.append(Tile(name, _figure(report.var_975_1d, toned=False)))
    gross = [Tile("gross value", _figure(report.gross_value, toned=False))] if report.gross_value else []
    return [*cards, Tile("book value", _figure(report.book_value, toned=False)), *gross]


def _channels(report: Report) -> list[Part]:
    if report.channels is None:
        return []
    rows = _rows(channel_cells(report.channels))
    return [Part("Channels", bullets=told(report.channels), header=CHANNELS_HEADER, rows=rows)]


def _run_parts(report: Report, added: Sequence[Evidence]) -> list[Part]:
    return [
        Part("The event as read", _event(report), header=("factor", "read", "sources' words", "precedents", "support"),
             rows=_rows((c.factor, c.read, c.words, c.precedents, c.support) for c in report.factors),
             otherwise="The narrative agent abstained: no shock was derived from the text."),
        *_channels(report),
        *_against(report),
        Part("Second opinion", header=SECOND_HEADER, right=(3,), otherwise="None.", rows=[
            (Cell(row.field), Cell(row.read), Cell(row.second), _figure(row.probability, toned=False),
             Cell("yes", tone="warn") if row.diverged else Cell("no")) for row in report.second]),
        Part("Shocks", header=SHOCKS_HEADER, right=(1, 2, 3, 4), rows=[
            (Cell(row.factor), _figure(row.move), _figure(row.sigma, toned=False), _figure(row.implied),
             _figure(row.off), Cell(row.origin), Cell(row.window),
             Cell(row.refused, tone="warn") if row.refused else Cell("yes")) for row in report.shocks]),
        *([Part("P&L along the path", header=PATH_HEADER, right=(1, 2, 3), rows=[
            (Cell(one.label), Cell(str(one.days)), _figure(one.step), _figure(one.total),
             Cell("worst", tone="loss") if one.worst else Cell("")) for one in report.path])] if report.path else []),
        _money("P&L by factor", "factor", report.by_factor),
        _money("P&L by sector", "sector", report.by_sector),
        _money("P&L by position", "position", report.by_position),
        Part("What makes the interval wide", header=("part", "share"), right=(1,), otherwise="Nothing is left open.",
             rows=[(Cell(part), _figure(share)) for part, share in report.interval_parts.items()]),
        Part("Interval", [[Cell(report.interval_method)], [Cell(report.interval_tested)]]
             if report.interval_method else (),
             otherwise="None: no holding has a history."),
        Part("Closest past event", _analogue(report), otherwise="None was found."),
        Part("Limit breaches", bullets=report.breaches, otherwise=report.no_breach),
        Part("Limits not checked", bullets=report.unchecked, otherwise="None."),
        Part("Compliance", header=("rule", "verdict", "finding"), rows=[
            (Cell(f.rule), _verdict(f.verdict, f.verdict), Cell(f.what)) for f in report.findings]),
        Part("Who dissented", header=("who", "about", "said", "instead of"), otherwise="Nobody.",
             rows=_rows((d.who, d.about, d.said, d.other_side) for d in report.dissent)),
        Part("What was blocked", bullets=report.blocked, otherwise="Nothing."),
        Part("Sources", header=("source", "publisher", "published", "verdict", "removed", "left out"),
             rows=_rows((s.id, s.publisher, s.published_at, s.verdict, "; ".join(s.removed) or "-", s.left_out or "-")
                        for s in report.sources)),
        Part("What the agents judged", header=JUDGED_HEADER, otherwise="Nothing.", rows=_rows(
            (row.agent, row.about or "-", row.said, ", ".join(row.because) or "-") for row in report.judged)),
        Part("What the judgements moved", bullets=report.moved, otherwise="Nothing."),
        Part("Agents", header=("agent", "status", "backend", "prompt", "reason"),
             rows=_rows((a.agent, a.status, a.backend or "-", a.prompt_version, a.reason or "-")
                        for a in report.agents)),
        Part("Notes", bullets=(*report.exclusions, *report.notes)),
        Part("Evidence", header=("id", "value", "what", "entity", "period", "source or formula"), anchors=True,
             rows=_rows(shown((*report.evidence, *added)))),
    ]  # fmt: skip


def _event(report: Report) -> list[list[Cell]]:
    if report.event is None:
        return []
    chances = {name: report.event_probability.get(name) for name in report.event}
    said = [f"{name} {value}" + (f" ({chance:.0%})" if (chance := chances[name]) is not None else "")
            for name, value in report.event.items()]  # fmt: skip
    return [[Cell(", ".join(said))]]


def _against(report: Report) -> list[Part]:
    """The text against the market: what is said of it, and the rows that it was tested by."""
    if (against := report.against) is None:
        return []
    rows = [
        (Cell(row.day), Cell(", ".join(row.sources)), Cell(row.factor), Cell(row.read), _figure(row.move),
         _figure(row.surprise, toned=False), Cell(row.verdict, tone="" if row.verdict == "moving as told" else "warn"))
        for row in against.tested
    ]  # fmt: skip
    thin = [
        (Cell(row.factor), Cell(row.measure), _figure(row.value, toned=False), _figure(row.rarity, toned=False),
         Cell(row.verdict)) for row in against.liquidity
    ]  # fmt: skip
    return [
        Part("Text against the market", bullets=(*against.lines, *against.untestable)),
        *([Part("Factors since publication", header=MARKET_HEADER, right=(4, 5), rows=rows)] if rows else []),
        *([Part("Whether few trade", header=LIQUIDITY_HEADER, right=(2, 3), rows=thin)] if thin else []),
    ]


def _analogue(report: Report) -> list[list[Cell]]:
    if (a := report.analogue) is None:
        return []
    past = Cell(f"{a.named}: ")
    if a.total is None:
        return [[past, Cell(f"not replayed, {a.why_no_total or 'no reason given'}")]]
    return [[past, Cell("the book would move by "), _figure(a.total)]]


def _engine_cards(result: EngineResult) -> list[Tile]:
    share = "" if result.share is None else _minus(f"{result.share:+.2%} {result.of_what}")
    code = result.currency
    cards = [Tile(f"P&L, {code}", usd(float(result.total)), share)]
    if result.interval:
        low, high = usd(float(result.interval.lower)), usd(float(result.interval.upper))
        level = result.interval.name
        cards += [Tile(f"interval, low, {code}", low, level), Tile(f"interval, high, {code}", high, level)]
    for label, before, after in (
        (f"one-day VaR, 97.5 %, {code}", result.var_975_1d, result.var_975_1d_after),
        (f"one-day ES, 97.5 %, {code}", result.es_975_1d, result.es_975_1d_after),
    ):
        if before:
            then = f"after the shocks {_loss(after.loss).text}" if after else ""
            cards.append(Tile(of_the_book(label, before.coverage), _loss(before.loss), then))
    if result.liquidity:
        cards.append(Tile(f"liquidity-adjusted ES, {code}", _loss(result.liquidity.total), "97.5 %, MAR33"))
    if result.mahalanobis is not None:
        beside = f"farther than {result.joint.nearer:.1%} of past moves" if result.joint else "Mahalanobis distance"
        if result.joint and result.joint.chance is not None:
            beside += f"; {chance_words(result.joint.chance)} under the factor model"
        cards.append(Tile("plausibility of the shocks together", Cell(f"{result.mahalanobis:.1f} σ"), beside))
    cards.append(Tile(f"book value, {code}", Cell(_minus(f"{result.book_value:,.0f}"))))
    if result.gross_value not in (None, result.book_value):
        cards.append(Tile(f"gross value, {code}", Cell(f"{result.gross_value:,.0f}")))
    return cards


def _engine_parts(result: EngineResult, held: Held, restricted: Sequence[str]) -> list[Part]:
    interval, liquidity, code = result.interval, result.liquidity, result.currency
    return [
        Part("Shocks", right=(1, 2, 3, 4), rows=[_shock(row) for row in result.shocks],
             header=("factor", "move", "size", "others imply", "off by", "band", "origin", "flags", "window"),
             otherwise="No factor was shocked."),
        _cut("P&L by factor", "factor", result.by_factor, code),
        _cut("P&L by sector", "sector", result.by_sector, code),
        _cut("P&L by direction", "direction", result.by_direction, code),
        _cut("P&L by position", "position", result.by_position, code),
        Part("P&L by horizon", header=("trading days", f"P&L, {code}", "low", "high"), right=(0, 1, 2, 3), rows=[
            (Cell(str(row.horizon)), usd(float(row.total)), _maybe(row.lower), _maybe(row.upper))
            for row in result.by_horizon]),
        Part("Limit breaches", header=("limit", "of", f"allowed, {code}", f"loss, {code}"), right=(2, 3), rows=[
            (Cell(one.kind), Cell(one.subject), Cell(one.shown[0]), Cell(one.shown[1], tone="loss"))
            for one in held.breaches], otherwise="None." if held.limited else NO_LIMITS),
        Part("Limits not checked", header=("limit", "of", "why"), otherwise="None.",
             rows=_rows((one.kind, one.subject, one.why) for one in held.unchecked)),
        Part("Restricted names held", bullets=tuple(restricted), otherwise="None."),
        Part("Closest past event", _past(result), otherwise="None was found."),
        Part("Liquidity horizons", [[Cell(liquidity.method)]] if liquidity else (), right=(0, 1, 2),
             header=("days", f"ES over ten days, {code}", f"scaled, {code}", "factors"),
             rows=[_liquidity(row) for row in (liquidity.rows if liquidity else ())]),
        Part("What makes the interval wide", header=("part", "share"), right=(1,), otherwise="Nothing is left open.",
             rows=[(Cell(part), Cell(f"{share:.0%}")) for part, share in interval.parts.items()] if interval else ()),
        Part("How the interval was made",
             [[Cell(interval.method)], [Cell(f"{interval.name}. {interval.untested}")]] if interval else (),
             otherwise="There is none: no holding has a history."),
        Part("How the factors were put side by side", [[Cell(result.alignment)]] if result.alignment else ()),
        Part("Left out", header=("position", "why", "share of gross value"), right=(2,), rows=[
            (Cell(one.id), Cell(one.reason), Cell("-" if one.weight is None else f"{one.weight:.1%}"))
            for one in result.exclusions], otherwise="Nothing."),
        Part("Notes", bullets=result.notes),
    ]  # fmt: skip


def _shock(row: AppliedShock) -> tuple[Cell, ...]:
    band = (
        "-"
        if row.lower is None or row.upper is None
        else _minus(f"{show(row.lower, row.unit)} to {show(row.upper, row.unit)}")
    )
    implied = "-" if row.implied is None else _minus(show(row.implied, row.unit))
    flags = Cell(", ".join(row.flags) or "-", tone="warn" if row.flags else "")
    return (Cell(row.factor), Cell(_minus(show(row.move, row.unit)), tone=tone_of(row.move)), _sigma(row.sigma),
            Cell(implied), _sigma(row.given_others), Cell(band), Cell(row.origin), flags,
            Cell(row.window))  # fmt: skip


def _past(result: EngineResult) -> list[list[Cell]]:
    if (a := result.analogue) is None:
        return []
    said = (
        f"{a.title}, {a.start} to {a.end}, the nearest by its moves ({a.distance:.1f} σ away over "
        f"{', '.join(a.shared)}): the book would move by "
    )
    return [[Cell(said), usd(float(a.total)), Cell(f" {result.currency}")]]


def _liquidity(row: LiquidityRow) -> tuple[Cell, ...]:
    return Cell(str(row.days)), _loss(row.es_10d), _loss(row.scaled), Cell(", ".join(row.factors))


def _cut(title: str, what: str, gains: Mapping[str, Decimal], currency: str) -> Part:
    ordered = sorted(gains.items(), key=lambda item: item[1])
    rows = [(Cell(name), usd(float(gain))) for name, gain in ordered]
    return Part(title, header=(what, f"P&L, {currency}"), rows=rows, right=(1,))


def _money(title: str, what: str, figures: Mapping[str, Figure]) -> Part:
    ordered = sorted(figures.items(), key=lambda item: item[1].value)
    return Part(title, header=(what, "P&L"), right=(1,),
                rows=[(Cell(name), _figure(figure)) for name, figure in ordered])  # fmt: skip


def _figure(figure: Figure | None, *, toned: bool = True) -> Cell:
    if figure is None:
        return Cell("-")
    text = str(figure) if toned else str(figure).removeprefix("+")
    return Cell(_minus(text), figure.evidence, tone_of(figure.value) if toned else "")


def _rows(rows: Iterable[Sequence[str]]) -> list[tuple[Cell, ...]]:
    return [tuple(Cell(text) for text in row) for row in rows]


def _verdict(text: str, verdict: str) -> Cell:
    return Cell(text, tone={"pass": "good", "flag": "warn", "block": "bad"}.get(verdict, ""))


def _loss(amount: Decimal) -> Cell:
    return Cell(f"{amount:,.0f}".replace("-", "−"))


def _maybe(amount: Decimal | None) -> Cell:
    return Cell("-") if amount is None else usd(float(amount))


def _sigma(value: float | None) -> Cell:
    return Cell("-" if value is None else _minus(show(value, "sigma")))


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _values(figures: Mapping[str, Figure]) -> dict[str, float]:
    return {name: figure.value for name, figure in figures.items()}


def _floats(gains: Mapping[str, Decimal]) -> dict[str, float]:
    return {name: float(gain) for name, gain in gains.items()}
