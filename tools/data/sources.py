"""The market data of every command: the packaged series, those imported into the home, and the user's price files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finllm.tools.data.fed import HISTORY, load_fed
from finllm.tools.data.market import MarketStore, read_series_folder
from finllm.tools.evidence import sha256_of

FED, SERIES = "fed", "series"
"""Folders of a home's `data/`: what 'finllm data import fed' wrote, and series files put there."""
IMPORTED = "imported/"
"""How the names of what is read from a home begin, in a record."""


def open_market(data: Path | None, prices: Sequence[Path] = ()) -> MarketStore:
    """The one way to the market data. `data` is the home's folder; without it, nothing that was imported is read.

    Errors: InputError for a file that cannot be read, or a price column that clashes with another series.
    """
    if data is None:
        return MarketStore(prices)
    imported = load_fed(data / FED) if (data / FED / HISTORY).is_file() else []
    return MarketStore(prices, [*imported, *read_series_folder(data / SERIES)])


def imported_digests(data: Path) -> dict[str, str]:
    """The sha256 of every file that `open_market` reads from the home, by name: `imported/fed/history.parquet`."""
    files = [data / FED / HISTORY, *sorted((data / SERIES).glob("*.csv"))]
    return {f"{IMPORTED}{file.relative_to(data)}": sha256_of(file.read_bytes()) for file in files if file.is_file()}
