"""Look-through weights of a fund: which shares of it are in which factors and series, by a column of the file."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping

from finllm.tools.data.books.underlying import MIN_HISTORY
from finllm.tools.data.factors import factor_table
from finllm.tools.data.market import INDEX, MarketStore

COLUMN = "look_through"
"""Of a portfolio: `EQUITY_US 60%; XOM 25%; GOLD 15%`."""
_PART = re.compile(r"([A-Za-z^][\w.^-]{0,63}) *[ :=] *([+-]?\d{1,4}(?:\.\d{1,8})?) *(%?)")
_FORM = "write it as 'EQUITY_US 60%; GOLD 40%'"


def look_through(tags: Mapping[str, str], market: MarketStore, as_of: dt.date) -> dict[str, float] | str | None:
    """The weight of each factor or series, decimal; why they cannot be used; None where the position has none.

    A factor has to move by returns; a series has to share `MIN_HISTORY` days with the index, and one that is a factor's
    own is that factor.
    """
    text = next((value for name, value in tags.items() if name.strip().casefold().replace(" ", "_") == COLUMN), "")
    if not text.strip():
        return None
    own = {row.series: id for id, row in factor_table().items() if row.series}
    found: dict[str, float] = {}
    for part in filter(None, (one.strip() for one in re.split(r"[;|]", text))):
        match = _PART.fullmatch(part)
        if match is None:
            return f"its {COLUMN} has {part[:40]!r}: {_FORM}"
        name = own.get(match[1], match[1])
        if name in found:
            return f"its {COLUMN} names {name!r} twice"
        row = factor_table().get(name)
        if row is not None and row.unit != "return":
            return f"its {COLUMN} names {name!r}, which moves by {row.unit} and is no share of a fund"
        if row is None and market.shared_days(name, INDEX, as_of) < MIN_HISTORY:
            return (
                f"its {COLUMN} names {name!r}, which is no factor and no series of {MIN_HISTORY} days beside the index"
            )
        found[name] = float(match[2]) / (100.0 if match[3] else 1.0)
    whole = sum(abs(one) for one in found.values())
    if not 0 < whole <= 5:
        return f"its {COLUMN} adds up to {whole:.0%}: {_FORM}"
    return found


def beyond_the_whole(id: str, weights: Mapping[str, float]) -> str | None:
    """What to say of weights whose sizes are more than the fund itself: it may be geared, or the weights wrong."""
    whole = sum(abs(one) for one in weights.values())
    if whole <= 1.005:
        return None
    return f"the {COLUMN} of {id!r} adds up to {whole:.0%}, beyond 100%: it is taken to move by all of that"
