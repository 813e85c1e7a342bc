"""A series as plain days and values, up to a day and no further: for whoever shows it or works on few of them."""

from __future__ import annotations

import datetime as dt
from typing import Any, NamedTuple

from finllm.tools.data.market.store import MarketStore


class Day(NamedTuple):
    """An observation, in its series' own unit."""

    day: dt.date
    value: float


def days_of(market: MarketStore, name: str, upto: dt.date) -> list[Day]:
    """A series as it was known after the close of `upto`, oldest first. Errors: as `MarketStore.read`."""
    values = market.read(name, upto).values
    days: list[Any] = values.index.tolist()
    return [Day(at.date(), value) for at, value in zip(days, values.tolist(), strict=True)]
