"""Market data: one loader and one store over packaged and user series, none of them read past `as_of`."""

from finllm.tools.data.market.bars import Bars
from finllm.tools.data.market.checks import HALTED_DAYS, Checked, check, halts
from finllm.tools.data.market.days import Day, days_of
from finllm.tools.data.market.extension import extend
from finllm.tools.data.market.kept import Kept, MarketFolder, Provenance, load
from finllm.tools.data.market.names import NAMES_PATH, KnownName, known_as, name_table
from finllm.tools.data.market.packaged import (
    INDEX,
    SERIES_DIR,
    STOCKS,
    packaged_digests,
    packaged_series,
    read_series_file,
    read_series_folder,
)
from finllm.tools.data.market.series import (
    NO_DAYS,
    STALE_AFTER,
    Finding,
    Frequency,
    Observed,
    Series,
    SeriesUnit,
    Step,
    crosses,
    day_of,
    span,
    stamp_of,
)
from finllm.tools.data.market.store import MarketStore
from finllm.tools.data.market.user_files import FileRead, ReadOptions, read_price_file

__all__ = [
    "HALTED_DAYS",
    "INDEX",
    "NAMES_PATH",
    "NO_DAYS",
    "SERIES_DIR",
    "STALE_AFTER",
    "STOCKS",
    "Bars",
    "Checked",
    "Day",
    "FileRead",
    "Finding",
    "Frequency",
    "Kept",
    "KnownName",
    "MarketFolder",
    "MarketStore",
    "Observed",
    "Provenance",
    "ReadOptions",
    "Series",
    "SeriesUnit",
    "Step",
    "check",
    "crosses",
    "day_of",
    "days_of",
    "extend",
    "halts",
    "known_as",
    "load",
    "name_table",
    "packaged_digests",
    "packaged_series",
    "read_price_file",
    "read_series_file",
    "read_series_folder",
    "span",
    "stamp_of",
]
