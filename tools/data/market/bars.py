"""What a price file tells of a day beside its value: the highest and lowest price and the volume, kept as written."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from finllm.tools.data.tables.numbers import Mark, read_numbers
from finllm.tools.data.tables.table import Cell
from finllm.tools.evidence import sha256_of

Bar = Literal["high", "low", "volume"]
BARS: tuple[Bar, ...] = get_args(Bar)
_TIMES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_SHORT = re.compile(r"(.*\d)\s*([KMBT])", re.IGNORECASE)
"""As in `3.44B`, which is how Investing writes a volume."""


@dataclass(frozen=True)
class Bars:
    """`frame`: float64, a row for a day and a column for each of `BARS` that its file has, NaN where a day lacks it.

    High and low are in the file's own unit and basis, which need not be that of the series (its close may be
    adjusted): they are read as ratios of each other. Volume counts what the vendor counts. `sha256` is that of the
    bytes of the file `uri`.
    """

    frame: pd.DataFrame
    uri: str
    sha256: str

    def upto(self, day: dt.date) -> Bars:
        """The days to `day`, that one included."""
        return Bars(pd.DataFrame(self.frame[self.frame.index <= pd.Timestamp(day)]), self.uri, self.sha256)

    def split(self, day: pd.Timestamp, ratio: float) -> Bars:
        """As if a split on `day` had always been: a price before counts `ratio` times as much, a volume that much
        less."""
        frame = self.frame.copy()
        before = (frame.index < day).astype("float64")
        for name in frame.columns:
            frame[name] *= (1 / ratio if name == "volume" else ratio) ** before
        return Bars(frame, self.uri, self.sha256)

    def joined(self, other: Bars) -> Bars:
        """These, and the days that only the other has."""
        more = other.frame[~other.frame.index.isin(self.frame.index)]
        if more.empty:
            return self
        frame = pd.DataFrame(pd.concat([self.frame, more])).sort_index()
        return Bars(frame, f"{other.uri} + {self.uri}", sha256_of(f"{other.sha256} {self.sha256}"))


def read_bars(columns: Mapping[Bar, Sequence[Cell]], days: pd.DatetimeIndex, mark: Mark) -> tuple[pd.DataFrame, str]:
    """The frame of columns as a file has them, a row for each of `days`, and in words what is kept of it and what not.

    A column with a cell that is no number is not kept, nor a volume that is zero on every day. A day whose high is
    under its low has neither, and one with a price of zero or less, or a volume below zero, lacks it.
    """
    found: dict[str, list[float]] = {}
    said: list[str] = []
    for name in BARS:
        if name not in columns:
            continue
        read = read_numbers([_plain(cell) for cell in columns[name]], mark)
        scale = np.array([_scale(cell) for cell in columns[name]])
        if read.bad:
            said.append(f"its {name} is not kept: {next(iter(read.bad.values()))}")
            continue
        values = np.array(read.values) * scale
        values[(values < 0) if name == "volume" else (values <= 0)] = np.nan
        if np.isnan(values).all() or (name == "volume" and not np.nansum(values)):
            said.append(f"its {name} is not kept: no figure but zero")
            continue
        found[name] = values.tolist()
    if ("high" in found) != ("low" in found):
        alone = "high" if "high" in found else "low"
        del found[alone]
        said.append(f"its {alone} is not kept: the other end of the day's range is not there")
    frame = pd.DataFrame(found, index=days, dtype="float64")
    if "high" in found and (wrong := (frame["high"] < frame["low"]).to_numpy()).any():
        frame.loc[wrong, ["high", "low"]] = np.nan
        said.append(f"{int(wrong.sum())} days have a high under their low, and no range")
    if found:
        said.insert(0, f"{', '.join(found)} kept beside it, for what they tell of liquidity")
    return frame, "; ".join(said)


def _plain(cell: Cell) -> Cell:
    match = isinstance(cell, str) and _SHORT.fullmatch(cell.strip())
    return match[1] if match else cell


def _scale(cell: Cell) -> float:
    match = isinstance(cell, str) and _SHORT.fullmatch(cell.strip())
    return _TIMES[match[2].upper()] if match else 1.0
