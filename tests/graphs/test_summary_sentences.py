"""The summary's sentences fit their evidence, whatever else there are rows about."""

import datetime as dt
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from finllm.graphs.nodes.report import summary_lines
from finllm.guardrails.grounding import ground
from finllm.tools.evidence import EvidenceTable, Unit
from finllm.tools.pnl.outcome import Interval


@pytest.mark.parametrize("untested", ["", "no share of the book was like it"])
def test_a_widened_band_has_a_row_of_its_own_and_the_level_stays_the_books(untested: str) -> None:
    table = EvidenceTable()

    def row(value: float, unit: Unit, entity: str = "book") -> str:
        return table.add(value, unit, entity=entity, what="x", period="20 trading days",
                         as_of=dt.date(2022, 6, 30), formula="given")  # fmt: skip

    row(1.57, "ratio", "band")
    band = Interval(lower=Decimal(-300), upper=Decimal(50), level=0.9, method="given", untested=untested)
    stress: Any = SimpleNamespace(
        total=row(-100.0, "usd"), total_share=None, horizon=row(20, "days", "scenario"),
        interval=(row(-300.0, "usd"), row(50.0, "usd")), interval_level=row(0.9, "probability"),
        result=SimpleNamespace(total=Decimal(-100), interval=band), by_factor={},
    )  # fmt: skip
    lines = summary_lines(cast(Any, stress), table, applied=True)
    said = [ground(line, table, {"title": "T"}) for line in lines]
    assert "between -300 USD and +50 USD at 90 %" in said[1]
    assert said[1].endswith("not tested.") == bool(untested)
