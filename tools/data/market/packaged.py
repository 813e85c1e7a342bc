"""The series that come with finllm: those that installed packages carry, and files in the folder `series/`."""

from __future__ import annotations

import gzip
import io
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import cast, get_args

import pandas as pd

from finllm.errors import FinllmError, InputError
from finllm.tools.data.market.ecb import EcbSeries, ecb_file
from finllm.tools.data.market.series import STALE_AFTER, Frequency, Series, SeriesUnit
from finllm.tools.evidence import sha256_of

STOCKS = (
    "AAPL", "AMD", "BAC", "BBY", "CVX", "GE", "HD", "JNJ", "JPM", "KO",
    "LLY", "MRK", "MSFT", "PEP", "PFE", "PG", "RRC", "UNH", "WMT", "XOM",
)  # fmt: skip
_PACKAGED: tuple[tuple[str, str, SeriesUnit, Frequency, dict[str, str]], ...] = (
    ("skfolio", "datasets/data/sp500_dataset.csv.gz", "price", "daily", {name: name for name in STOCKS}),
    ("skfolio", "datasets/data/sp500_index.csv.gz", "price", "daily", {"SP500": "SP500"}),
    ("skfolio", "datasets/data/factors_dataset.csv.gz", "price", "daily",
     {name: name for name in ("MTUM", "QUAL", "SIZE", "USMV", "VLUE")}),
    ("arch", "data/wti/wti.csv.gz", "price", "daily", {"DCOILWTICO": "WTI"}),
    ("arch", "data/vix/vix.csv.gz", "points", "daily", {"vix": "VIX"}),
    ("arch", "data/default/default.csv.gz", "percent", "monthly", {"AAA": "AAA", "BAA": "BAA"}),
)  # fmt: skip
AVERAGED = ("AAA", "BAA")
"""Series of monthly averages of daily yields (Moody's seasoned corporate bonds, by FRED's description of them)."""
INDEX = "SP500"
"""The series that betas are taken to."""
SERIES_DIR = Path(__file__).parent.with_name("series")
"""Series that ship as files; the README there says how one is written."""


@cache
def packaged_series() -> Mapping[str, Series]:
    """Every series that installed packages carry, read once from their files; no network.

    Exchange rates are read when the first of them is asked for.
    """
    found: dict[str, Series] = {}
    for package, file, unit, frequency, columns in _PACKAGED:
        spec = find_spec(package)
        path = Path(next(iter((spec and spec.submodule_search_locations) or ["."])), file)
        if not path.is_file():
            raise FinllmError(
                f"package {package!r} carries no {file!r}", fix=f"reinstall it: pip install --force-reinstall {package}"
            )
        data = path.read_bytes()
        table = pd.read_csv(io.BytesIO(gzip.decompress(data)), index_col=0)
        table.index = pd.to_datetime(table.index, format="%Y-%m-%d" if package == "skfolio" else "%m/%d/%Y")
        uri = f"pkg:pypi/{package}@{metadata.version(package)}#{file}"
        for column, name in columns.items():
            cells = pd.Series(pd.to_numeric(table[column], errors="coerce"), dtype="float64", name=name)
            found[name] = Series(name, cells.dropna().sort_index(), unit, frequency, uri, sha256_of(data),
                                 averaged=name in AVERAGED)  # fmt: skip
    found["BAA_AAA"] = spread_of(found["AAA"], found["BAA"])
    found |= {series.name: series for series in read_series_folder(SERIES_DIR)}
    return ChainMap(found, cast("MutableMapping[str, Series]", EcbSeries()))  # it writes to the first map alone


def packaged_digests() -> dict[str, str]:
    """sha256 by uri of every file that a packaged series is of; no exchange rate is worked out for it."""
    found = cast("ChainMap[str, Series]", packaged_series()).maps[0]
    return {one.uri: one.sha256 for one in found.values()} | dict([ecb_file()])


def spread_of(aaa: Series, baa: Series) -> Series:
    """The yield of BAA bonds over that of AAA ones, bp, in the months that have both."""
    spread = ((baa.values - aaa.values) * 100).dropna().round(6).rename("BAA_AAA")
    return replace(baa, name="BAA_AAA", values=spread, unit="bp", notes=(*aaa.notes, *baa.notes))


def read_series_folder(folder: Path) -> list[Series]:
    """The series of every CSV file of a folder, as `tools/data/series/README.md` has it. Errors: InputError."""
    return [series for path in sorted(folder.glob("*.csv")) for series in read_series_file(path)]


def read_series_file(path: Path) -> list[Series]:
    """The series of one such file. Errors: InputError."""
    data = path.read_bytes()
    try:
        lines = data.decode("utf-8").splitlines()
        about = {
            name.strip("# "): value.strip()
            for name, _, value in (line.partition(":") for line in lines if line.startswith("#"))
        }
        unit, frequency = about["unit"], about.get("frequency", "daily")
        if unit not in get_args(SeriesUnit) or frequency not in STALE_AFTER or not about["source"]:
            raise ValueError(f"unit {unit!r}, frequency {frequency!r}, source {about['source']!r}")
        table = pd.read_csv(io.StringIO("\n".join(one for one in lines if not one.startswith("#"))), index_col=0)
        table.index = pd.to_datetime(table.index, format="ISO8601")
        found = {str(name): pd.Series(table[name], dtype="float64", name=str(name)).dropna() for name in table}
        if not table.index.is_monotonic_increasing or not table.index.is_unique or any(v.empty for v in found.values()):
            raise ValueError("dates are not ascending, or a column is empty")
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not a series file: {error}",
                         fix="write it as tools/data/series/README.md shows: unit, frequency, source, then dates"
                         ) from error  # fmt: skip
    return [Series(name, values, cast(SeriesUnit, unit), cast(Frequency, frequency), f"series/{path.name}",
                   sha256_of(data)) for name, values in found.items()]  # fmt: skip
