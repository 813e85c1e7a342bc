"""The HTML report and its charts: self-contained, without script, every text data, every figure with its evidence."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from finllm.graphs.report import Report
from finllm.review.charts import Chart, FanPoint, Shaded, compact, fan, index_chart, plain, positions, waterfall
from finllm.review.drawing import draw
from finllm.review.html import engine_charts, engine_html, page_files, report_html, run_charts
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.factors import UserShock
from finllm.tools.data.market import MarketStore
from finllm.tools.evidence import Evidence, Source
from finllm.tools.pnl.engine import run_engine
from finllm.tools.pnl.limits import Held

PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = "</svg><script>alert(1)</script><img src=x onerror=alert(1)>\x1b]0;owned\x07\u202e"
INDEX = index_chart(
    {dt.date(2007, 1, 1) + dt.timedelta(days=7 * week): week % 9 - 4.0 for week in range(200)},
    [Shaded("Lehman", dt.date(2008, 9, 12), dt.date(2008, 11, 20)),
     Shaded("before", dt.date(1998, 7, 1), dt.date(1998, 8, 1))],
    "standard deviations",
)  # fmt: skip


def rows_of(spec: object) -> list[dict[str, Any]]:
    """The named rows that a specification draws, wherever altair has put them."""
    if isinstance(spec, dict):
        values = spec.get("values")
        if isinstance(values, list) and values and "name" in values[0]:
            return values
        spec = list(spec.values())
    return next((found for part in spec if (found := rows_of(part))), []) if isinstance(spec, list) else []


class Seen(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def is_harmless(page: str) -> Seen:
    """Nothing runs, nothing is fetched, no link leaves the page."""
    seen = Seen(page)
    assert not seen.open
    assert not seen.tags & {"script", "img", "iframe", "object", "embed", "link", "base", "form", "foreignobject"}
    names = {name for name, _value in seen.attributes}
    assert not {name for name in names if name.startswith("on")}
    assert "src" not in names
    addresses = [value for name, value in seen.attributes if name in ("href", "xlink:href", "action")]
    assert all(value and value.startswith("#") for value in addresses)
    assert not [value for name, value in seen.attributes if value and "http" in value and name != "http-equiv"]
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "\x1b" not in page
    assert "\u202e" not in page
    return seen


def test_the_report_is_self_contained_and_every_figure_links_to_its_evidence(report: Report) -> None:
    page = report_html(report, draw(run_charts(report, stress_index=INDEX)))
    seen = is_harmless(page)
    assert page.count("<svg") == 4
    assert "http" not in page.replace("http-equiv", "")
    anchors = {value for name, value in seen.attributes if name == "id"}
    links = {value for name, value in seen.attributes if name == "href"}
    assert {row.id for row in report.evidence} <= anchors
    assert {f"#{report.total.evidence}", f"#{report.by_position['POS12'].evidence}"} <= links
    assert {str(link)[1:] for link in links} <= anchors
    for said in (report.title, report.summary[0], "withheld by the validator", "ignore all instructions", "−78,000 USD",
                 "GOLD up: nothing speaks of it", "EQUITY_US loses more than its limit"):  # fmt: skip
        assert said in seen.text


def test_whatever_a_source_or_a_user_writes_stays_text(report: Report) -> None:
    figure = report.total
    hostile = report.model_copy(update={
        "title": HOSTILE, "summary": (f"{HOSTILE} [{figure.evidence}] [E999]",), "by_position": {HOSTILE: figure},
        "by_factor": {HOSTILE: figure}, "by_sector": {HOSTILE: figure}, "blocked": (HOSTILE,), "notes": (HOSTILE,),
        "breaches": (HOSTILE,), "event": {"event": HOSTILE}, "verdict": HOSTILE,
        "sources": tuple(one.model_copy(update={"publisher": HOSTILE, "removed": (HOSTILE,)})
                         for one in report.sources),
    })  # fmt: skip
    seen = is_harmless(report_html(hostile, draw(run_charts(hostile, stress_index=INDEX))))
    assert "<script>alert(1)</script>" in seen.text
    assert "[E999]" in seen.text
    assert ("href", "#E999") not in seen.attributes


def test_a_sources_address_is_shown_as_text_and_is_no_link(report: Report) -> None:
    source = Source(uri="https://example.com/a?b=1&c=2", sha256="0" * 64, pointer="row 3")
    row = Evidence(id=f"E{len(report.evidence) + 1}", value=1.0, unit="ratio", entity="x", what="y", period="z",
                   as_of=dt.date(2022, 6, 30), source=source)  # fmt: skip
    page = report_html(report.model_copy(update={"evidence": (*report.evidence, row)}), ())
    assert "https://example.com/a?b=1&c=2 row 3" in is_harmless(page).text


def test_a_run_without_interval_event_or_analogue_has_a_page_too(report: Report) -> None:
    bare = report.model_copy(update={"interval": None, "interval_level": None, "interval_method": None, "event": None,
                                     "factors": (), "analogue": None, "var_975_1d": None, "evidence": ()})  # fmt: skip
    charts = draw(run_charts(bare))
    assert [one.chart.name for one in charts] == ["waterfall", "positions"]
    assert "The narrative agent abstained" in is_harmless(report_html(bare, charts)).text


def test_the_engines_page_says_what_the_result_says() -> None:
    result = run_engine(load_portfolio(PORTFOLIOS_DIR / "default.csv"), MarketStore(), dt.date(2022, 6, 30), 20,
                        [UserShock(factor="OIL_WTI", amount=0.4, in_sigmas=False)], propagate=True)  # fmt: skip
    charts = draw(engine_charts(result, stress_index=INDEX))
    assert [one.chart.name for one in charts] == ["waterfall", "positions", "fan", "stress-index"]
    text = is_harmless(engine_html(result, f"book {HOSTILE}", charts, Held())).text
    for name, gain in (*result.by_position.items(), *result.by_factor.items(), *result.by_sector.items()):
        assert name in text
        assert (f"{gain:+,.0f}".replace("-", "−") if round(gain) else "0") in text
    for note in result.notes:
        assert plain(note) in text


@pytest.mark.parametrize("chart", [
    waterfall({"EQUITY_US": -853_210.5, "OIL_WTI": 412_000.0, HOSTILE: 1.0}),
    positions({f"POS{at}": 1000.0 * (at - 20) for at in range(30)}),
    fan([FanPoint(5, -2.0, -3.0, -1.0), FanPoint(20, -4.0, -9.0, 2.0)], 0.9),
    INDEX,
    waterfall({}),
    positions({"ONE": 0.0}),
], ids=["waterfall", "positions", "fan", "stress-index", "no factor", "one position"])  # fmt: skip
def test_each_chart_is_a_png_and_well_formed_svg_without_script(chart: Chart) -> None:
    (picture,) = draw([chart])
    assert picture.png.startswith(PNG)
    drawn = picture.svg
    tree = ElementTree.fromstring(drawn)
    assert tree.tag == "svg"
    assert not {one.tag for one in tree.iter()} & {"script", "image", "foreignObject", "a"}
    assert "http" not in drawn


def test_the_waterfall_ends_at_the_total_and_keeps_a_factor_called_total() -> None:
    gains = {"total": -10.0, "OIL_WTI": 30.0, "EQUITY_US": -50.0}
    rows = rows_of(waterfall(gains).spec)
    assert [row["name"] for row in rows] == ["EQUITY_US", "total", "OIL_WTI", "total"]
    assert [(row["from"], row["to"]) for row in rows] == [(0, -50), (-50, -60), (-60, -30), (0, -30)]


def test_small_positions_share_one_bar_that_adds_up() -> None:
    gains = {f"P{at:02}": -1.0 * at for at in range(30)}
    rows = rows_of(positions(gains).spec)
    assert len(rows) == 21
    assert rows[-1]["name"] == "10 others"
    assert sum(Decimal(row["usd"]) for row in rows) == sum(Decimal(gain) for gain in gains.values())


@pytest.mark.parametrize(("usd", "said"), [(-1_234_567, "−1.23 M"), (45_300, "+45.3 k"), (-0.2, "0"), (7, "+7"),
                                           (2.5e9, "+2.50 bn"), (-853_210, "−853 k")])  # fmt: skip
def test_amounts_are_short_on_charts(usd: float, said: str) -> None:
    assert compact(usd) == said


def test_a_runs_files_are_its_page_and_its_charts(report: Report) -> None:
    charts = draw(run_charts(report, stress_index=INDEX))
    files = page_files(report_html(report, charts), charts)
    assert set(files) == {"report.html", "waterfall.png", "positions.png", "fan.png", "stress-index.png"}
    assert all(content.startswith(PNG) for name, content in files.items() if name.endswith(".png"))
