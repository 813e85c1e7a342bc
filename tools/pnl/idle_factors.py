"""Named factors that no position of a book moves with, and why: too short, flat, of another step, or a known one."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.betas import FIRST, FURTHER, MIN_FURTHER, TWIN
from finllm.tools.pnl.factorset import Driver, FactorSet
from finllm.tools.pnl.history import one_step
from finllm.tools.pnl.kernel import Sensitivities


def idle_factors(arrays: Sensitivities, factors: FactorSet, market: MarketStore, as_of: dt.date) -> dict[str, str]:
    """A note for each series that was named as a factor and that no position loads on, by the factor's id."""
    loaded = set(arrays.loaded())
    found: dict[str, str] = {}
    for at, driver in enumerate(factors.drivers.values()):
        if driver.kind != "known" and driver.id not in loaded:
            earlier = [factors[FIRST], *(factors[id] for id in FURTHER if id in factors)]
            earlier += [one for one in list(factors.drivers.values())[:at] if one.kind != "known"]
            found[driver.id] = f"{driver.id} moves no position: {_why(driver, earlier, market, as_of)}"
    return found


def _why(driver: Driver, earlier: list[Driver], market: MarketStore, as_of: dt.date) -> str:
    try:
        levels = driver.levelled(market, as_of)
    except InputError as error:
        return error.message
    if levels.frequency != "daily":
        return f"its history is {levels.frequency}, and loads are estimated on daily moves"
    moves = one_step(levels.values.to_numpy(dtype="float64"), driver.unit)
    if len(moves) < MIN_FURTHER:
        return f"it has {len(moves)} daily moves by {as_of}, fewer than {MIN_FURTHER}"
    if not np.nanstd(moves):
        return "it does not move"
    for other in earlier:
        try:
            theirs = other.levelled(market, as_of)
        except InputError:
            continue
        days = levels.values.index.intersection(theirs.values.index)
        if theirs.frequency != "daily" or len(days) <= MIN_FURTHER:
            continue
        both = [one_step(pd.Series(one.values[days]).to_numpy(dtype="float64"), which.unit)
                for one, which in ((levels, driver), (theirs, other))]  # fmt: skip
        known = np.isfinite(both).all(axis=0)
        if known.sum() > 2 and np.corrcoef(both[0][known], both[1][known])[0, 1] ** 2 >= 1.0 - TWIN:
            return f"its moves are those of {other.id}, on which the book loads"
    return f"no position with prices shares {MIN_FURTHER} days of moves with it that others do not explain"
