"""Answers about the book and its markets: coverage, holdings, loads, currencies, histories, forecasts, regime."""

from __future__ import annotations

from finllm.chat.readers.result import MOST
from finllm.chat.table import Answer, Row, Teller
from finllm.tools.data.factors import factor_table
from finllm.tools.evidence import Evidence, is_money


def coverage(tell: Teller) -> Answer:
    report = tell.table.report
    shares = [tell.table.find(entity="book", what=f"share of the book {what}")
              for what in ("that is covered", "by stand-ins", "that is not stressed")]  # fmt: skip
    if all(shares):
        covered, stand_in, missing = (Row(rows[0].id) for rows in shares)
        tell.say("covered", covered=covered, stand_in=stand_in, missing=missing)
    for line in report.exclusions:
        tell.say("left", line=line)
    if not report.exclusions:
        tell.say("all")
    for line in report.unchecked:
        tell.say("var", line=line)
    return tell.done()


def holdings(tell: Teller) -> Answer:
    table = tell.table
    values = {row.entity: row for row in table.find(what="market value") if is_money(row.unit)}
    values.pop("book", None)
    asked, sector = tell.slots.all("position"), tell.slots.first("sector")
    if sector:
        ids = [one.id for one in table.request.portfolio.positions if one.sector == sector]
        tell.say("sector", sector=sector, positions=", ".join(ids) or "nothing")
        asked = tuple(ids[:MOST])
    for name in asked:
        if name in values:
            tell.say("one", position=name, amount=Row(values[name].id))
        elif not sector:
            tell.say("lacks", name=name)
    if not asked and not sector:
        tell.say("value", value=table.report.book_value)
        tell.say("head")
        for name, row in sorted(values.items(), key=lambda one: -abs(float(one[1].value)))[:MOST]:
            tell.say("one", position=name, amount=Row(row.id))
    return tell.done()


def exposure(tell: Teller) -> Answer:
    factor = tell.slots.first("factor") or ""
    loads = [row for row in tell.table.rows if row.what.startswith("load on ") and row.what.endswith(factor)]
    if asked := tell.slots.all("position"):
        loads = [row for row in loads if row.entity in asked]
    if not loads:
        tell.say("none", factor=factor)
    else:
        tell.say("head", factor=factor)
    for row in sorted(loads, key=lambda row: -abs(float(row.value)))[:MOST]:
        tell.say("one", position=row.entity, load=Row(row.id))
    if part := tell.table.report.by_factor.get(factor):
        tell.say("through", factor=factor, part=part)
    return tell.done()


def currency(tell: Teller) -> Answer:
    report = tell.table.report
    tell.say("one", currency=report.currency)
    held = sorted({one.currency for one in tell.table.request.portfolio.positions})
    tell.say("held", held=", ".join(held))
    tell.say("value", value=report.book_value)
    return tell.done()


def history(tell: Teller) -> Answer:
    factor = tell.slots.first("factor") or ""
    for row in _measured(tell, factor):
        if row.what.startswith("forecast"):
            continue
        if isinstance(row.value, str):
            tell.say("text", what=row.what.capitalize(), entity=row.entity, period=row.period, said=Row(row.id))
        else:
            tell.say("one", what=row.what.capitalize(), number=Row(row.id), period=row.period)
    if not tell.lines:
        tell.say("none", factor=factor)
    return tell.done()


def forecast(tell: Teller) -> Answer:
    asked = tell.slots.all("factor") or tuple(factor_table())
    for factor in asked:
        rows = {row.what: row for row in _measured(tell, factor) if row.what.startswith("forecast")}
        low, high = (next((row for what, row in rows.items() if f", {end} end" in what), None)
                     for end in ("lower", "upper"))  # fmt: skip
        if "forecast" in rows and low and high:
            tell.say("one", point=Row(rows["forecast"].id), low=Row(low.id), high=Row(high.id))
        elif tell.slots.all("factor"):
            tell.say("none", factor=factor)
    tell.say("beyond")
    return tell.done()


def regime(tell: Teller) -> Answer:
    for row in tell.table.find(what="regime by rule"):
        tell.say("rule", entity=row.entity, said=Row(row.id))
    for row in tell.table.rows:
        if row.what.startswith("regime ") and row.unit == "probability":
            tell.say("judged", regime=row.what.removeprefix("regime ").split(",")[0], chance=Row(row.id))
    for line in tell.table.report.moved:
        if "regime" in line:
            tell.say("moved", line=line)
    if not tell.lines:
        tell.say("none")
    return tell.done()


def data_age(tell: Teller) -> Answer:
    asked = tell.slots.all("factor")
    for shock in tell.table.report.shocks:
        if not asked or shock.factor in asked:
            tell.say("one", factor=shock.factor, window=shock.window)
    if not tell.lines:
        tell.say("none")
    return tell.done()


def _measured(tell: Teller, factor: str) -> list[Evidence]:
    """What intake measured of a factor's market: rows that name it by its label, but no shock and no test."""
    known = factor_table().get(factor)
    label = known.label if known else factor
    return [row for row in tell.table.rows if row.entity == label
            and not row.what.startswith(("shock", "size of", "move ", "surprise", "distance"))]  # fmt: skip


READERS = {"coverage": coverage, "holdings": holdings, "exposure": exposure, "currency": currency, "history": history,
           "forecast": forecast, "regime": regime, "data_age": data_age}  # fmt: skip
