"""A run through channels, on scripted readers: pooled, shown, on record, replayed without the reader, and degraded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finllm.desk.desk import Desk
from finllm.desk.request import PriceFile
from finllm.errors import BackendError, InputError
from finllm.graphs.report import Report, to_markdown
from finllm.graphs.through import CHANNELS, read_text
from finllm.review.replay import replay
from finllm.review.trace import trace_story
from finllm.tools.channels import Opened, State, with_columns
from tests.conftest import bounded
from tests.desks import Seen, request_for, run
from tests.graphs.test_flow import READS_WELL, nodes

MakeDesk = Callable[..., Desk]
FIELDS: Mapping[str, Mapping[str, float]] = {
    "event": {"blockade": 0.9, "war": 0.1}, "region": {"mideast": 0.8, "global": 0.2},
    "stance": {"neutral": 0.9, "hawkish": 0.1}, "severity": {"high": 1.0},
}  # fmt: skip
LOST = ("strait", "crude_supply_lost", 0.9, "happens")
LASTS = {"when": "What kind of event", "say": {"horizon": "weeks"}}


@dataclass(frozen=True)
class Said:
    opened: Sequence[Opened]
    fields: Mapping[str, Mapping[str, float]]


@dataclass
class Scripted:
    """A reader that opens a channel where a text holds a phrase. `asked` keeps what it was given."""

    rules: Sequence[tuple[str, str, float, State]]
    fields: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: FIELDS)
    digest: str = "c" * 64
    note: str | None = None
    asked: list[str] = field(default_factory=list[str])

    def read(self, texts: Sequence[str]) -> list[Said]:
        self.asked += texts
        return [Said([one for rule in self.rules if (one := _opened(text, *rule))], self.fields) for text in texts]


class Broken:
    note = None

    @property
    def digest(self) -> str:
        raise BackendError("the encoder is not here", fix="install it")

    def read(self, texts: Sequence[str]) -> list[Said]:
        raise AssertionError(texts)


def _opened(text: str, phrase: str, channel: str, probability: float, state: State) -> Opened | None:
    at = text.lower().find(phrase)
    if at < 0:
        return None
    return Opened(channel=channel, probability=probability, state=state, states={state: 1.0}, start=at,
                  end=at + len(phrase))  # fmt: skip


def with_reader(desk: Desk, *rules: tuple[str, str, float, State]) -> Desk:
    digest = "c" * 64 if rules == (LOST,) else sha256(repr(rules).encode()).hexdigest()
    return replace(desk, channels=Scripted(rules, digest=digest))  # another one is not answered from its record


def report_of(desk: Desk, run_id: str = "run-1", scenario: str = "hormuz-blockade", **changes: Any) -> Report:
    found = run(request_for(scenario, **changes), desk, run_id).report
    assert found is not None
    return found


def test_directions_and_kind_are_the_channels_and_the_model_is_asked_only_what_it_adds(
    scripted_desk: MakeDesk, seen: Seen
) -> None:
    desk = with_reader(scripted_desk([LASTS], [LASTS]), LOST)
    report = report_of(desk)
    assert report.event == {"event": "blockade", "region": "mideast", "stance": "neutral", "severity": "high",
                            "horizon": "weeks"}  # fmt: skip
    assert {check.factor: check.read for check in report.factors} == {
        "EQUITY_US": "down", "CREDIT_BAA_AAA": "up", "RATE_US_10Y": "none", "OIL_WTI": "up", "USD_BROAD": "up",
        "GOLD": "up", "VIX": "up"}  # fmt: skip
    assert "reread" not in nodes(seen)
    calls = [use.entry.request for use in desk.ledger.uses("run-1", "call") if use.node == "narrative"]
    fields = {step["field"] for call in calls for step in call["template"] if "field" in step}
    assert fields == {"region", "horizon", "because"}


def test_a_channel_stands_in_report_trace_and_page_with_sentence_probability_and_moves(scripted_desk: MakeDesk) -> None:
    desk = with_reader(scripted_desk([LASTS], [LASTS]), LOST)
    report = report_of(desk)
    assert report.channels is not None
    (line,) = report.channels
    rows = {row.id: row for row in report.evidence}
    row = rows[line.probability.evidence]
    assert (line.channel, line.state, line.words.lower()) == ("crude_supply_lost", "happens", "strait")
    assert row.value == line.probability.value == pytest.approx(0.9)
    assert row.source is not None
    assert row.source.pointer.startswith("characters ")
    assert "channel reader cccccccccccc over the event, E" in (row.formula or "")
    page, story = to_markdown(report), trace_story("run-1", desk.ledger)
    assert "## Channels" in page
    assert "OIL_WTI +++" in page
    assert f"crude_supply_lost  happens  90 %  {line.probability.evidence}  " in story
    said = next(row.said for row in report.judged if row.agent == "narrative")
    assert "OIL_WTI up 90%" in said
    assert re.search(r"OIL_WTI direction +up +90% ", story)


def test_what_nothing_moves_is_held_and_completed_only_where_a_person_brings_another_cause(
    scripted_desk: MakeDesk,
) -> None:
    """Oil is the user's and is told: shares, of which neither channel nor words speak, stand still."""
    outage = ("strait", "refinery_or_pipeline_outage", 0.9, "happens")
    told = report_of(with_reader(scripted_desk([LASTS], [LASTS]), outage), sources=())
    assert {shock.factor for shock in told.shocks if shock.origin != "completed"} == {"OIL_WTI"}
    assert any("EQUITY_US is held still: the text gives no channel" in note for note in told.notes)
    assert "EQUITY_US" in (told.interval_method or "")  # what is held in the point is open in the band
    weaker = ("strait", "dollar_down", 0.9, "happens")
    other = report_of(with_reader(scripted_desk([LASTS], [LASTS]), weaker), "run-2", sources=())
    assert {shock.factor: shock.origin for shock in other.shocks}["EQUITY_US"] == "completed"


def test_a_source_that_denies_counts_against_it_and_the_event_itself_the_most(scripted_desk: MakeDesk) -> None:
    denied = ("harbour masters", "crude_supply_lost", 0.1, "denied")  # in one source, which names no strait otherwise
    lost = ("mines and missile boats", "crude_supply_lost", 0.9, "happens")
    lines = report_of(with_reader(scripted_desk([LASTS], [LASTS]), lost, denied)).channels
    assert lines
    assert [(line.channel, line.source, line.others) for line in lines] == [
        ("crude_supply_lost", None, ("hrz-wire-1",))
    ]
    assert lines[0].probability.value == pytest.approx((2 * 0.9 + 0.1) / 3, abs=0.001)


def test_two_channels_that_fight_are_both_shown_and_the_sizes_decide(scripted_desk: MakeDesk) -> None:
    desk = with_reader(scripted_desk([LASTS], [LASTS]), LOST, ("strait", "growth_down", 0.8, "happens"))
    report = report_of(desk)
    assert report.channels is not None
    assert [line.channel for line in report.channels] == ["crude_supply_lost", "growth_down"]
    assert "OIL_WTI is pulled up by crude_supply_lost and down by growth_down; the sizes decide." in to_markdown(report)
    assert next(check.read for check in report.factors if check.factor == "OIL_WTI") == "up"


def test_what_the_reader_said_is_on_record_and_a_replay_needs_no_reader(scripted_desk: MakeDesk) -> None:
    reader = Scripted([LOST])
    desk = replace(scripted_desk([LASTS], [LASTS]), channels=reader)
    report_of(desk)
    asked = len(reader.asked)
    assert asked >= 5
    assert reader.asked[0] == request_for("hormuz-blockade").scenario.narrative
    assert not any("reopened" in text and "Share before they delete" in text for text in reader.asked)
    assert bounded(replay("run-1", replace(desk, channels=None))).node == "report"
    assert bounded(replay("run-1", replace(desk, channels=Scripted([LOST], digest="d" * 64)))).node == "report"
    report_of(desk, "run-2")
    assert len(reader.asked) == asked, "the same text is answered from the ledger"
    assert sum(use.entry.kind == CHANNELS for use in desk.ledger.uses("run-2")) == asked


def test_what_is_read_from_the_record_is_in_the_order_in_which_it_was_read_first(scripted_desk: MakeDesk) -> None:
    odds = {"medium": 0.3, "high": 0.1, "low": 0.4, "extreme": 0.2}
    desk = replace(scripted_desk([]), channels=Scripted([LOST], {**FIELDS, "severity": odds}))

    def read() -> list[tuple[str, list[str]]]:
        assert desk.channels is not None
        said = read_text("They closed the strait.", desk.channels, desk, run_id="run-1", node="intake")
        return [(name, list(values)) for name, values in said.fields.items()]

    assert read() == read()


def test_a_run_without_the_reader_says_so_and_reads_by_the_model_alone(scripted_desk: MakeDesk, seen: Seen) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    alone = report_of(desk)
    broken = report_of(replace(desk, channels=Broken()), "run-2")
    assert broken.channels is None
    assert [(row.factor, row.move.value) for row in broken.shocks] == [(r.factor, r.move.value) for r in alone.shocks]
    assert any("without transmission channels" in note.message for note in seen.kinds("noted"))
    assert bounded(replay("run-2", replace(desk, channels=Broken()))).node == "report"


def test_nothing_open_moves_nothing_and_says_so(scripted_desk: MakeDesk) -> None:
    report = report_of(with_reader(scripted_desk([LASTS], [LASTS])), scenario="non-event")
    assert report.shocks == ()
    assert report.total.value == 0
    assert "Nothing here bears on markets" in to_markdown(report)


def test_a_factor_of_the_users_own_needs_one_column(scripted_desk: MakeDesk, tmp_path: Path) -> None:
    """A series of the prices with its signs by channel is shocked as the table's own factors are."""
    days = pd.bdate_range("2018-01-01", "2022-06-30")
    levels = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, len(days))))
    prices = tmp_path / "prices.csv"
    pd.DataFrame({"date": days.strftime("%Y-%m-%d"), "COPPER": levels.round(4)}).to_csv(prices, index=False)
    request = request_for("hormuz-blockade", channels={"COPPER": {"crude_supply_lost": -2}}, factors=("COPPER",))
    request = request.model_copy(update={"prices": (PriceFile.of(prices),)})
    desk = with_reader(scripted_desk([LASTS], [LASTS]), LOST)
    report = run(request, desk).report
    assert report is not None
    copper = next(shock for shock in report.shocks if shock.factor == "COPPER")
    assert (copper.origin, copper.move.value < 0) == ("model", True)
    assert report.channels is not None
    assert report.channels[0].moves["COPPER"] == -2


def test_a_column_of_a_channel_that_is_not_on_the_list_is_refused() -> None:
    with pytest.raises(InputError, match="no channel 'crude'"):
        with_columns({"COPPER": {"crude": 1}})
    with pytest.raises(InputError, match="has a column"):
        with_columns({"OIL_WTI": {"relief": 1}})
