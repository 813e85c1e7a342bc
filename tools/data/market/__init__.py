"""Market data: one loader and one store over packaged and user series, none of them read past `as_of`."""

from finllm.tools.data.market.packaged import INDEX, SERIES_DIR, STOCKS, packaged_series, read_series_folder
from finllm.tools.data.market.series import STALE_AFTER, Frequency, Observed, Series, SeriesUnit, day_of, span
from finllm.tools.data.market.store import MarketStore
from finllm.tools.data.market.user_files import read_price_file

__all__ = [
    "INDEX",
    "SERIES_DIR",
    "STALE_AFTER",
    "STOCKS",
    "Frequency",
    "MarketStore",
    "Observed",
    "Series",
    "SeriesUnit",
    "day_of",
    "packaged_series",
    "read_price_file",
    "read_series_folder",
    "span",
]
