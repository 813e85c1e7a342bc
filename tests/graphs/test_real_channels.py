"""The README's own one-liners, read on the real model and the real channel reader: what they say is what they mean."""

from __future__ import annotations

import pytest

from finllm.desk.desk import Desk
from finllm.graphs.event_reading import EventRead, read_event
from tests.conftest import bounded

pytestmark = pytest.mark.slow

READ = [
    ("The central bank raised rates by more than anybody expected.", "policy",
     {"RATE_US_10Y": "up", "EQUITY_US": "down", "GOLD": "down", "OIL_WTI": "none"}),
    ("The Federal Reserve unexpectedly cuts rates by half a point.", "policy",
     {"RATE_US_10Y": "down", "EQUITY_US": "up", "USD_BROAD": "down", "GOLD": "up"}),
    ("OPEC unexpectedly agrees a large production cut.", "supply", {"OIL_WTI": "up"}),
    ("A fire shut one of the largest refineries on the Gulf coast and gasoline is short.", None, {"OIL_WTI": "up"}),
    ("A drone strike set a Saudi oil processing plant on fire and halved the country's output.", None,
     {"OIL_WTI": "up", "EQUITY_US": "down"}),
]  # fmt: skip


def read(text: str, desk: Desk) -> EventRead:
    found = bounded(read_event(text, desk), 600)
    assert found.heard is not None, "the channel reader is not at hand"
    assert found.opinion.judgement is not None
    return found


@pytest.mark.parametrize(("text", "kind", "ways"), READ)
def test_a_one_liner_is_read_as_it_is_meant(text: str, kind: str | None, ways: dict[str, str], real_desk: Desk) -> None:
    judged = read(text, real_desk).opinion.judgement
    assert judged is not None
    assert {factor: judged.factors[factor].direction for factor in ways} == ways  # type: ignore[index]
    assert kind in (None, judged.event)


@pytest.mark.parametrize("text", [
    "A maker of bathroom fittings warned that its profit will be lower.",
    "The museum opened an exhibition of paintings.",
])  # fmt: skip
def test_what_bears_on_nothing_moves_nothing(text: str, real_desk: Desk) -> None:
    found = read(text, real_desk)
    assert not found.bears
    assert found.opinion.judgement is not None
    assert found.opinion.judgement.event == "none"


def test_what_is_denied_is_not_read_as_if_it_came(real_desk: Desk) -> None:
    judged = read("Officials denied that the strait was closed; tankers sail as usual", real_desk).opinion.judgement
    assert judged is not None
    assert judged.factors["OIL_WTI"].direction == "down"
