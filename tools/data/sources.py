"""The market data of every command: the packaged series, those imported into the home, and the user's price files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from finllm.tools.data.fed import HISTORY, load_fed
from finllm.tools.data.market import MarketFolder, MarketStore, Series, load, read_series_file
from finllm.tools.evidence import sha256_of

FED, SERIES, ADDED = "fed", "series", "market"
"""Folders of a home's `data/`: what 'finllm data import fed' wrote, series files put there, what 'data add' kept."""
IMPORTED = "imported/"
"""How the names of what is read from a home begin, in a record."""


def open_market(data: Path | None, prices: Sequence[Path] = (), only: Collection[str] | None = None) -> MarketStore:
    """The one way to the market data. `data` is the home's folder; without it, nothing that was imported is read.

    `only`: names of `imported_digests`, what else was put there is not read. Errors: InputError for a file that cannot
    be read, or a series that disagrees with one of its name.
    """
    if data is None:
        return MarketStore(prices)
    return MarketStore(prices, series_at_home(data, only))


def series_at_home(data: Path, only: Collection[str] | None = None) -> list[Series]:
    """The series of a home: imported, put there as files, and added."""
    wanted = [file for file in _files(data) if only is None or _named(file, data) in only]
    found: list[Series] = []
    for file in wanted:
        match file.parent.name:
            case "fed":
                found += load_fed(data / FED)
            case "series":
                found += read_series_file(file)
            case _:
                found.append(load(file).series)
    return found


def imported_digests(data: Path) -> dict[str, str]:
    """The sha256 of every file that `open_market` reads from the home, by name: `imported/fed/history.parquet`."""
    return {_named(file, data): sha256_of(file.read_bytes()) for file in _files(data)}


def _files(data: Path) -> list[Path]:
    files = [data / FED / HISTORY, *sorted((data / SERIES).glob("*.csv")), *MarketFolder(data / ADDED).paths()]
    return [file for file in files if file.is_file()]


def _named(file: Path, data: Path) -> str:
    return f"{IMPORTED}{file.relative_to(data)}"
