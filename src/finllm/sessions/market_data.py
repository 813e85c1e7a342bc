"""The user's market data: files read and kept in a home, listed, checked, removed."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.errors import InputError

if TYPE_CHECKING:
    from finllm.tools.data.market import Finding, Kept, MarketFolder, MarketStore, ReadOptions, Series

_NAMED = re.compile(r"(?P<column>.+?(?:=[FX])?)=(?P<name>(?![FX]$).+)")
"""COLUMN=NAME, where either may end in Yahoo's marks of a future or a pair, as CL=F and EURUSD=X do."""
_SPLIT = re.compile(r"(?:(?P<name>.+):)?(?P<day>\d{4}-\d{2}-\d{2})=(?P<new>\d+(?:\.\d+)?):(?P<old>\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class SeriesView:
    """A kept series as a person sees it. `extends`: the packaged series that it goes on with, up to which day; `factor`
    what it is the history of; `findings` what is odd about it by `as_of`."""

    kept: Kept
    extends: str | None
    factor: str | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        about = self.kept.about
        return {
            **about.model_dump(mode="json", exclude={"steps", "notes"}),
            "sha256": self.kept.sha256, "extends": self.extends, "factor": self.factor, "notes": list(self.notes),
            "findings": [
                {"kind": one.kind, "first": str(one.first), "last": str(one.last), "words": one.words}
                for one in self.findings
            ],
        }  # fmt: skip


def parse_names(texts: Sequence[str]) -> dict[str | None, str]:
    """`--as`: NAME for the only series of a file, or COLUMN=NAME. Errors: InputError for two names of one."""
    names: dict[str | None, str] = {}
    for text in texts:
        match = _NAMED.fullmatch(text.strip())
        key, name = (match["column"], match["name"]) if match else (None, text.strip())
        if not name or key in names:
            raise InputError(f"--as {text!r} gives no name, or a second one", fix="write --as NAME or --as COLUMN=NAME")
        names[key] = name
    return names


def parse_splits(texts: Sequence[str]) -> dict[str | None, list[tuple[dt.date, float]]]:
    """`--splits`: [NAME:]2021-12-28=4:1, or 1:1 where a move is none. Errors: InputError for an unreadable one."""
    found: dict[str | None, list[tuple[dt.date, float]]] = {}
    for text in texts:
        match = _SPLIT.fullmatch(text.strip())
        try:
            day = dt.date.fromisoformat(match["day"]) if match else None
        except ValueError:
            day = None
        if match is None or day is None or not float(match["old"]) or not float(match["new"]):
            raise InputError(f"--splits {text!r} cannot be read",
                             fix="write it as 2021-12-28=4:1, or SPLT:2021-12-28=4:1 in a file of several")  # fmt: skip
        found.setdefault(match["name"], []).append((day, float(match["new"]) / float(match["old"])))
    return found


def add_files(
    files: Sequence[Path], data: Path, options: ReadOptions, splits: Mapping[str | None, list[tuple[dt.date, float]]],
    now: dt.datetime,
) -> list[SeriesView]:  # fmt: skip
    """Read files and keep their series in the home's `data`, all or none. A series that is there already goes on with
    the new days, or gives way where these hold all of its own. Errors: those of reading and of extending."""
    from finllm.tools.data.market import MarketFolder, MarketStore, extend, read_price_file
    from finllm.tools.data.sources import ADDED, series_at_home

    folder = MarketFolder(data / ADDED)
    before = {one.about.name: one.series for one in folder.all()}
    read = [(file, read_price_file(file, _with_splits(options, splits, file))) for file in files]
    merged: dict[str, Series] = {}
    replaced: dict[str, bool] = {}
    for _, found in read:
        for one in found.series:
            old = merged.get(one.name, before.get(one.name))
            replaced[one.name] = old is None or _covers(one, old)
            merged[one.name] = one if old is None or replaced[one.name] else extend(old, one)
    others = [one for one in series_at_home(data) if one.name not in merged]
    MarketStore((), [*others, *merged.values()])  # refuses what disagrees, before anything is written
    names = list(merged)
    for name in names:  # what added no day stays as it is, with where it is from
        if name in before and len(before[name].values) == len(merged[name].values) and not replaced[name]:
            del merged[name]
    for file, found in read:
        mine = [merged.pop(one.name) for one in found.series if one.name in merged]
        folder.keep(mine, file=file.resolve(), rule=found.rule, at=now)
    return views(data, names, now.date())


def views(data: Path, names: Sequence[str] | None, as_of: dt.date) -> list[SeriesView]:
    """Kept series, those named or all, as they stand at `as_of`. Errors: InputError for an unknown name."""
    from finllm.tools.data.market import MarketFolder, packaged_series
    from finllm.tools.data.sources import ADDED, open_market

    folder = MarketFolder(data / ADDED)
    kept = folder.all() if names is None else [folder.find(name) for name in dict.fromkeys(names)]
    if not kept:
        return []
    market = open_market(data)
    factors = _factors(market)
    return [_view(one, market, packaged_series(), factors, as_of) for one in kept]


def remove_series(data: Path, names: Sequence[str]) -> list[str]:
    """Remove kept series, all or none; their names. Errors: InputError for an unknown name."""
    from finllm.tools.data.market import MarketFolder
    from finllm.tools.data.sources import ADDED

    folder: MarketFolder = MarketFolder(data / ADDED)
    return [one.name for one in folder.remove(names)]


def _view(
    kept: Kept, market: MarketStore, packaged: Mapping[str, Series], factors: Mapping[str, str], as_of: dt.date
) -> SeriesView:
    from finllm.tools.data.market import check

    name = kept.about.name
    old = packaged.get(name)
    whole = market.whole(name)
    cut = market.cut(name, as_of)
    findings = check(cut, market.index_for(name, as_of), as_of).findings if cut is not None else ()
    extends = None if old is None else f"{name} ({old.uri}, to {old.last})"
    return SeriesView(kept, extends, factors.get(name), findings, whole.notes)


def _factors(market: MarketStore) -> dict[str, str]:
    """The factor whose history a series is, by series."""
    from finllm.tools.pnl.factorset import FactorSet

    drivers: Iterable[Any] = FactorSet.default(market).drivers.values()
    return {one.series: one.id for one in drivers if one.series}


def _covers(new: Series, old: Series) -> bool:
    return new.first <= old.first and new.last >= old.last


def _with_splits(
    options: ReadOptions, splits: Mapping[str | None, list[tuple[dt.date, float]]], file: Path
) -> ReadOptions:
    """The options with the splits by the names of series; one without a name is of the file's only series."""
    from dataclasses import replace

    from finllm.tools.data.market import read_price_file

    if not splits:
        return options
    named = {name: tuple(days) for name, days in splits.items() if name is not None}
    if None in splits:
        series = read_price_file(file, options).series
        if len(series) != 1:
            raise InputError(f"{file}: holds {len(series)} series, and --splits names none",
                             fix=f"write --splits {series[0].name}:2021-12-28=4:1")  # fmt: skip
        named[series[0].name] = (*named.get(series[0].name, ()), *splits[None])
    return replace(options, splits=named)
