"""Digests of what was visible of series on a day, and of the tools here: by both a result is remembered."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pandas as pd

from finllm.errors import InputError
from finllm.made_by import made_by
from finllm.tools.data import factors
from finllm.tools.data.market import MarketStore, store


def content_of(market: MarketStore, names: Iterable[str], as_of: dt.date) -> str:
    """Hex sha256 of the day and of all that is visible then of these series: values, days, breaks, what is odd."""
    digest = hashlib.sha256(f"{as_of}".encode())
    for name in sorted(set(names)):
        try:
            seen = market.read(name, as_of)
        except InputError:
            digest.update(f"\0{name}: nothing".encode())
            continue
        series = seen.series
        digest.update(f"\0{name} {series.unit} {series.frequency} {series.averaged} {len(series.values)} "
                      f"{[one.words for one in seen.findings]}".encode())  # fmt: skip
        for days in (series.values.index, seen.breaks):
            digest.update(pd.DatetimeIndex(days).asi8.tobytes())
        digest.update(series.values.to_numpy(dtype="float64").tobytes())
    return digest.hexdigest()


@cache
def tools_digest() -> str:
    """Digest of the code of these tools and of what they read with, and of the packages that estimate."""
    code = [Path(__file__).parent, Path(store.__file__).parent, Path(factors.__file__), factors.FACTOR_TABLE_PATH]
    return made_by(code, ["numpy", "pandas", "scipy", "statsmodels", "statsforecast", "arch"])
