"""Reading grid intensity: an Electricity Maps export, or `time,gco2_per_kwh` with an optional zone."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from finllm.errors import InputError
from finllm.scheduler.money.amount import IntensityKind
from finllm.scheduler.money.carbon import CarbonSeries, Constant, Grid

Accounting = Literal["lca", "direct"]
"""`lca`: with the making of plants and fuels. `direct`: what leaves the chimney."""

_FORM = "give columns 'time,gco2_per_kwh' (and 'zone'), or an Electricity Maps export"
_MAPS: dict[Accounting, tuple[str, ...]] = {"lca": ("(lca)", "(life cycle)"), "direct": ("(direct)",)}


def open_grid(given: str, zone: str | None, kind: IntensityKind, accounting: Accounting = "lca") -> Grid:
    """The grid as the settings give it: a number in gCO₂e/kWh of `zone`, or a CSV file.

    Errors: InputError for a number below 0 or a file that cannot be read.
    """
    try:
        value = float(given)
    except ValueError:
        return read_grid(Path(given).expanduser(), zone, kind, accounting)
    return Grid([Constant(zone or "local", value, kind)])


def read_grid(path: Path, zone: str | None, kind: IntensityKind, accounting: Accounting = "lca") -> Grid:
    """The zones of a file. `zone` names that of a file without such a column.

    Errors: InputError, naming the line, for a form that is not known, a value that is negative or no number, a time
    that goes back; for `marginal` where the file is an Electricity Maps export, which holds averages.
    """
    rows: dict[str, tuple[list[float], list[float]]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for name, time, value in _rows(csv.DictReader(file), path, zone, kind, accounting):
                times, values = rows.setdefault(name, ([], []))
                times.append(time)
                values.append(value)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the grid intensity {str(path)!r}: {error}", fix=_FORM) from error
    if not rows:
        raise InputError(f"{str(path)!r} holds no grid intensity", fix=_FORM)
    return Grid([CarbonSeries(name, *columns, kind, f"{name}, {path.name}") for name, columns in rows.items()])


def _rows(
    reader: csv.DictReader[str], path: Path, zone: str | None, kind: IntensityKind, accounting: Accounting
) -> Iterator[tuple[str, float, float]]:
    names = {name.strip().lower(): name for name in reader.fieldnames or ()}
    maps = next((name for name in names if name.startswith("datetime (utc)")), None)
    if maps is not None:
        if kind == "marginal":
            raise InputError(
                f"{str(path)!r} is an Electricity Maps export, which holds average intensity, not marginal",
                fix="set FINLLM_CARBON_KIND=average, or give a marginal series as 'time,gco2_per_kwh'",
            )
        found = [name for name in names if name.startswith("carbon intensity") and name.endswith(_MAPS[accounting])]
        zones, when = names.get("zone id"), names[maps]
    else:
        found = [name for name in names if name == "gco2_per_kwh"]
        zones, when = names.get("zone"), names.get("time", "")
    if not found or not when or (zones is None and zone is None and maps is not None):
        raise InputError(f"{str(path)!r} has the columns {', '.join(names.values()) or 'of an empty file'}", fix=_FORM)
    for row in reader:
        at = f"{str(path)!r}, line {reader.line_num}"
        name = (row[zones] or "") if zones is not None else zone or "local"
        yield name, _time(row, when, at), _value(row, names[found[0]], at)


def _time(row: Mapping[str, str | None], column: str, at: str) -> float:
    text = row[column] or ""
    try:
        time = dt.datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InputError(f"{at}: {text!r} is no time", fix="write it as 2022-01-01T00:00:00Z") from error
    return (time if time.tzinfo else time.replace(tzinfo=dt.UTC)).timestamp()


def _value(row: Mapping[str, str | None], column: str, at: str) -> float:
    text = row[column] or ""
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{at}: {text!r} is no intensity", fix="write gCO₂e/kWh, or leave the row out") from error
    if not 0 <= value < float("inf"):
        raise InputError(f"{at}: the grid intensity is {text}", fix="correct that row: from 0 up, in gCO₂e/kWh")
    return value
