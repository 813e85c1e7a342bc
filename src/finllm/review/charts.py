"""The report's charts as altair specifications."""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finllm.errors import InputError

if TYPE_CHECKING:
    import altair as alt

    from finllm.tools.data.market import MarketStore

WIDTH = 780
LARGEST = 20
"""Positions with a bar of their own; the rest share one."""

INK, QUIET, GRID = "#1f2933", "#6b7785", "#e6eaee"
LOSS, GAIN, TOTAL, BAND, SHADE = "#c2452d", "#2a7f62", "#27496d", "#9db8d6", "#f3d9c9"
FONT = "Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Chart:
    """A drawing: `name` is its file's stem, `caption` says what it shows and in which unit."""

    name: str
    title: str
    caption: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class FanPoint:
    """The book's P&L after `day` trading days: the point and the interval around it."""

    day: int
    point: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Shaded:
    """A crisis to shade."""

    name: str
    start: dt.date
    end: dt.date


def plain(text: str) -> str:
    """Text on one line, without control, formatting and surrogate characters."""
    if text.isprintable():  # has none of them; most text is, and asking each character takes most of a page's time
        return " ".join(text.split())
    shown = (char if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else " " for char in text)
    return " ".join("".join(shown).split())


def compact(usd: float) -> str:
    """An amount as a label: `−1.23 M`, `+45 k`, `0`."""
    for size, sign in ((1e9, " bn"), (1e6, " M"), (1e3, " k")):
        if abs(usd) >= size:
            digits = 0 if abs(usd) >= 100 * size else 1 if abs(usd) >= 10 * size else 2
            return f"{usd / size:+.{digits}f}{sign}".replace("-", "−")
    return f"{usd:+.0f}".replace("-", "−") if round(usd) else "0"


def waterfall(by_factor: Mapping[str, float], currency: str = "USD") -> Chart:
    """From zero to the total, one step per factor, the largest loss first."""
    import altair as alt

    rows: list[dict[str, Any]] = []
    reached = 0.0
    for name, gain in sorted(by_factor.items(), key=lambda item: item[1]):
        rows.append({"name": plain(name), "from": reached, "to": reached + gain, "label": compact(gain),
                     "kind": "loss" if gain < 0 else "gain"})  # fmt: skip
        reached += gain
    rows.append({"name": "total", "from": 0.0, "to": reached, "label": compact(reached), "kind": "total"})
    for at, row in enumerate(rows):
        row |= {"at": at, "next": min(at + 1, len(rows) - 1), "top": max(row["from"], row["to"])}
    x = alt.X("at:O", title=None, axis=alt.Axis(
        labelExpr=_names(rows), labelAngle=-25 if len(rows) > 5 else 0, labelLimit=150))  # fmt: skip
    base = alt.Chart(alt.Data(values=rows))
    bars = base.mark_bar(size=min(64, WIDTH // (len(rows) + 3))).encode(
        x=x,
        y=alt.Y("from:Q", title=f"P&L, {currency}", axis=_usd_axis()),
        y2="to:Q",
        color=_colours("loss", "gain", "total"),
    )
    links = base.transform_filter("datum.kind != 'total'").mark_rule(color=QUIET, strokeDash=[2, 2]).encode(
        x=x, x2="next:O", y="to:Q"
    )  # fmt: skip
    labels = base.mark_text(dy=-8, fontSize=12, color=INK).encode(x=x, y="top:Q", text="label:N")
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=INK).encode(y="zero:Q")
    return chart_of("waterfall", "P&L by factor", f"How each factor's contribution adds up to the total, {currency}.",
                  zero + links + bars + labels, height=300)  # fmt: skip


def positions(by_position: Mapping[str, float], currency: str = "USD") -> Chart:
    """A bar for each of the twenty largest contributions, sorted; one for all the others together."""
    import altair as alt

    by_size = sorted(by_position.items(), key=lambda item: -abs(item[1]))
    gains = [(plain(name), gain) for name, gain in sorted(by_size[:LARGEST], key=lambda item: item[1])]
    if rest := by_size[LARGEST:]:
        gains.append((f"{len(rest)} others", sum(gain for _name, gain in rest)))
    rows = [
        {"name": name, "usd": gain, "label": compact(gain), "kind": "loss" if gain < 0 else "gain", "at": at}
        for at, (name, gain) in enumerate(gains)
    ]
    y = alt.Y("at:O", title=None, axis=alt.Axis(
        labelExpr=_names(rows), labelLimit=180, ticks=False, domain=False, grid=False))  # fmt: skip
    base = alt.Chart(alt.Data(values=rows))
    bars = base.mark_bar().encode(
        y=y, x=alt.X("usd:Q", title=f"P&L, {currency}", axis=_usd_axis(), scale=alt.Scale(padding=48)),
        color=_colours("loss", "gain"),
    )  # fmt: skip
    losses = base.transform_filter("datum.usd < 0").mark_text(align="right", dx=-4, fontSize=11, color=INK)
    gains = base.transform_filter("datum.usd >= 0").mark_text(align="left", dx=4, fontSize=11, color=INK)
    labels = [side.encode(y=y, x="usd:Q", text="label:N") for side in (losses, gains)]
    caption = f"Each position's P&L over the horizon, {currency}, the largest loss on top."
    return chart_of("positions", "P&L by position", caption,
                  alt.layer(bars, *labels), height=max(60, 22 * len(rows)))  # fmt: skip


def fan(points: Sequence[FanPoint], level: float, currency: str = "USD") -> Chart:
    """The book's P&L from today over the horizon, with its band, at the days that both were worked out for."""
    import altair as alt

    rows = [{"day": one.day, "point": one.point, "lower": one.lower, "upper": one.upper} for one in points]
    if rows[0]["day"] > 0:
        rows.insert(0, {"day": 0, "point": 0.0, "lower": 0.0, "upper": 0.0})
    last = rows[-1]
    ends = [
        {"day": last["day"], "usd": last[name], "label": compact(last[name])} for name in ("upper", "point", "lower")
    ]
    x = alt.X("day:Q", title="trading days from today", axis=alt.Axis(tickMinStep=1, grid=False, format="d"),
              scale=alt.Scale(nice=False))  # fmt: skip
    base = alt.Chart(alt.Data(values=rows))
    band = base.mark_area(color=BAND, opacity=0.55).encode(
        x=x, y=alt.Y("lower:Q", title=f"P&L, {currency}", axis=_usd_axis()), y2="upper:Q"
    )
    line = base.mark_line(color=TOTAL, strokeWidth=2.5, point=alt.OverlayMarkDef(color=TOTAL, size=36)).encode(
        x=x, y="point:Q"
    )
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=INK).encode(y="zero:Q")
    label = alt.Chart(alt.Data(values=ends)).mark_text(align="left", dx=8, fontSize=12, color=INK).encode(
        x="day:Q", y="usd:Q", text="label:N"
    )  # fmt: skip
    caption = f"Point and band of {level:.0%}, {currency}, as worked out for each day marked: a total from today."
    return chart_of("fan", "P&L over the horizon", caption, zero + band + line + label, height=260)


def index_chart(values: Mapping[dt.date, float], crises: Sequence[Shaded], unit: str) -> Chart:
    """The market's stress index over time, the crises shaded and its last value marked."""
    import altair as alt

    rows = [{"day": day.isoformat(), "value": value} for day, value in sorted(values.items())]
    first, last = min(values), max(values)
    seen = [one for one in crises if one.end >= first and one.start <= last]
    shades = [
        {"start": max(one.start, first).isoformat(), "end": min(one.end, last).isoformat(), "name": plain(one.name),
         "middle": (one.start + (one.end - one.start) / 2).isoformat()}
        for one in seen
    ]  # fmt: skip
    x = alt.X("day:T", title=None, axis=alt.Axis(format="%Y", grid=False, tickCount=10))
    shaded = alt.Chart(alt.Data(values=shades)).mark_rect(color=SHADE, stroke=SHADE, strokeWidth=3).encode(
        x="start:T", x2="end:T"
    )  # fmt: skip
    names = alt.Chart(alt.Data(values=shades)).mark_text(
        angle=335, align="left", baseline="bottom", fontSize=10, color=QUIET, y=-3
    ).encode(x="middle:T", text="name:N")  # fmt: skip
    line = alt.Chart(alt.Data(values=rows)).mark_line(color=TOTAL, strokeWidth=1.2).encode(
        x=x, y=alt.Y("value:Q", title=unit)
    )  # fmt: skip
    end = alt.Chart(alt.Data(values=rows[-1:])).mark_point(filled=True, size=60, color=LOSS).encode(x=x, y="value:Q")
    return chart_of("stress-index", "Market stress index", f"To {last}; the dot is the last value, the shades are past "
                  "crises.", shaded + names + line + end, height=240)  # fmt: skip


def stress_index_chart(market: MarketStore, as_of: dt.date) -> Chart | None:
    """The stress index up to `as_of`, the episodes shaded; None where it has no value yet."""
    from finllm.tools.forecasts.stress_index import index_by_day, shared_prices
    from finllm.tools.pnl.episodes import EPISODES

    try:
        prices, _notes = shared_prices(market, market.stock_names(), as_of)
        known = index_by_day(prices)
    except InputError:
        return None
    if not known:
        return None
    shaded = [Shaded(one.title, one.start, one.end) for one in EPISODES.values() if one.end <= as_of]
    return index_chart(known, shaded, "standard deviations from its past mean")


def _names(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Vega expression from bar number to name: two positions may bear names that look alike."""
    import json

    return f"{json.dumps([row['name'] for row in rows])}[datum.value]"


def _usd_axis() -> alt.Axis:
    import altair as alt

    return alt.Axis(format="~s", gridColor=GRID)


def _colours(*kinds: str) -> alt.Color:
    import altair as alt

    of = {"loss": LOSS, "gain": GAIN, "total": TOTAL}
    return alt.Color("kind:N", legend=None, scale=alt.Scale(domain=list(kinds), range=[of[kind] for kind in kinds]))


def chart_of(name: str, title: str, caption: str, drawing: Any, *, height: int) -> Chart:
    """A drawing in the look of all charts: its width, its fonts and its colours."""
    spec = (
        drawing.properties(width=WIDTH, height=height)
        .configure(font=FONT, background="white")
        .configure_view(stroke=None)
        .configure_axis(labelColor=INK, titleColor=QUIET, titleFontWeight="normal", labelFontSize=11, titleFontSize=11,
                        domainColor=GRID, tickColor=GRID, gridColor=GRID)
        .to_dict()
    )  # fmt: skip
    return Chart(name, title, caption, spec)
