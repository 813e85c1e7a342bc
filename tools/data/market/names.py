"""What vendors call the series that finllm knows (`names.yaml`): their unit, and files in another one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.tools.data.market.series import SeriesUnit

NAMES_PATH = Path(__file__).with_name("names.yaml")
_TENFOLD = math.sqrt(10)


class KnownSeries(BaseModel):
    """A row of the table; see there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    unit: SeriesUnit
    names: tuple[str, ...] = ()
    tenths: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()
    typical: dict[int, float] = {}


@dataclass(frozen=True)
class KnownName:
    """The series that a name is of. `tenths`: its figures may be ten times the yield; `stands_in`: it goes with it
    closely, and is not the same."""

    series: str
    about: KnownSeries
    tenths: bool = False
    stands_in: bool = False


@cache
def name_table() -> Mapping[str, KnownSeries]:
    """The table, by the names that series are kept under; read once, on first use."""
    import yaml

    rows = yaml.load(NAMES_PATH.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return {name: KnownSeries.model_validate(row) for name, row in rows.items()}


def known_as(name: str) -> KnownName | None:
    """What the table says a name is of; None for a name that is not in it."""
    return _by_key().get(_key(name))


def looks_like(series: str, name: str) -> bool:
    """Whether a part of a name, such as `SPX` of `SPX_X`, is one of the series' names."""
    parts = re.split(r"[_\s\-]+", name)
    return len(parts) > 1 and any(found.series == series for part in parts if (found := known_as(part)) is not None)


def scale_of(known: KnownName, values: pd.Series) -> tuple[float, str]:
    """What a yield's figures are multiplied by to be per cent, and why in words; 1 and "" where they are.

    Told by the table's typical figures of those years: tenths where the name may have them, decimals and basis points.
    """
    typical = known.about.typical
    if known.about.unit != "percent" or not typical:
        return 1.0, ""
    ratio = typical_ratio(known, values)
    if known.tenths and ratio > _TENFOLD:
        return 0.1, "ten times the yield, as Cboe's rate indices are: divided by ten"
    if ratio < 0.1:
        return 100.0, "decimals: multiplied by a hundred"
    return (0.01, "basis points: divided by a hundred") if ratio > 10 else (1.0, "")


def typical_ratio(known: KnownName, values: pd.Series) -> float:
    """How many times its typical figure the values are, the median over the years, by the nearest year of the table;
    1 where the table has no year near."""
    typical = known.about.typical
    by_year = values.abs().groupby(values.index.to_numpy().astype("datetime64[Y]").astype(int) + 1970).median()
    ratios = [level / typical[min(typical, key=lambda one: abs(one - int(str(year))))]
              for year, level in by_year.items() if int(str(year)) >= min(typical)]  # fmt: skip
    return float(pd.Series(ratios).median()) if ratios else 1.0


@cache
def _by_key() -> Mapping[str, KnownName]:
    found: dict[str, KnownName] = {}
    for series, about in name_table().items():
        for name in (series, *about.names, *about.tenths, *about.stand_ins):
            found[_key(name)] = KnownName(series, about, name in about.tenths, name in about.stand_ins)
    return found


def _key(name: str) -> str:
    return (name if name.isalnum() else re.sub(r"[\s^.$_]+", "", name)).upper()
