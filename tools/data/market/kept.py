"""The series that a user added to a home: a Parquet file each, which tells where it is from and how it was read."""

from __future__ import annotations

import datetime as dt
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from finllm.errors import InputError
from finllm.files import write_file
from finllm.tools.data.market.bars import BARS, Bars
from finllm.tools.data.market.names import known_as
from finllm.tools.data.market.series import Frequency, Series, SeriesUnit, Step, day_of, stamp_of
from finllm.tools.evidence import sha256_of

KEY = b"finllm"
"""Under which a file's metadata tell about its series."""


class Provenance(BaseModel):
    """Where a kept series is from. `rule`: how its file was read; `steps`: changes of level, as day, ratio and whether
    the move across is used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    unit: SeriesUnit
    frequency: Frequency
    rows: int
    first: dt.date
    last: dt.date
    file: str
    file_sha256: str
    added: dt.datetime
    rule: str
    notes: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    steps: tuple[tuple[dt.date, float, bool], ...] = ()


@dataclass(frozen=True)
class Kept:
    """A kept series with where it is from; `sha256` is that of its Parquet file."""

    series: Series
    about: Provenance
    path: Path
    sha256: str


@dataclass(frozen=True)
class MarketFolder:
    """The folder of a home's kept series."""

    folder: Path

    def paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def all(self) -> list[Kept]:
        """Every kept series, by file name. Errors: see `load`."""
        return [load(path) for path in self.paths()]

    def find(self, name: str) -> Kept:
        """The series of a name, or of one that it is also known by. Errors: InputError where there is none."""
        known = known_as(name)
        for one in (name, known.series if known else name):
            if (path := self.folder / _file_name(one)).is_file():
                return load(path)
        found = [one for one in self.all() if one.about.name == name or name in one.about.also]
        if not found:
            names = ", ".join(one.about.name for one in self.all()) or "nothing"
            raise InputError(f"no series {name!r} was added", fix=f"'finllm data list' shows what was: {names}")
        return found[0]

    def keep(self, series: Sequence[Series], *, file: Path, rule: str, at: dt.datetime) -> list[Kept]:
        """Put series in place, each in one step, over those of the same names. Errors: FinllmError."""
        done: list[Kept] = []
        for one in series:
            about = Provenance(
                name=one.name, unit=one.unit, frequency=one.frequency, rows=len(one.values),
                first=day_of(one.values.index[0]), last=day_of(one.values.index[-1]), file=str(file),
                file_sha256=one.sha256, added=at, rule=rule, notes=one.notes, also=one.also,
                steps=tuple((day_of(step.day), step.ratio, step.used) for step in one.steps),
            )  # fmt: skip
            path = self.folder / _file_name(one.name)
            write_file(path, _parquet(one, about), fix="free some space, or set FINLLM_HOME to another folder")
            done.append(load(path))
        return done

    def remove(self, names: Sequence[str]) -> list[Provenance]:
        """Remove series, all or none. Errors: InputError for a name that was never added."""
        found = [self.find(name) for name in dict.fromkeys(names)]
        for one in found:
            one.path.unlink(missing_ok=True)
        return [one.about for one in found]


def load(path: Path) -> Kept:
    """A kept series. Errors: InputError for a file that is damaged or not finllm's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = path.read_bytes()
        table = pq.read_table(io.BytesIO(data))
        about = Provenance.model_validate_json((table.schema.metadata or {})[KEY])
        index = pd.DatetimeIndex(table.column("day").to_pandas())
        values = pd.Series(table.column("value").to_numpy(), index=index, dtype="float64", name=about.name)
        beside = {name: table.column(name).to_numpy() for name in BARS if name in table.column_names}
    except (OSError, KeyError, ValueError, pa.ArrowException, ValidationError) as error:
        raise InputError(f"{path}: not a series that finllm keeps: {type(error).__name__}",
                         fix="remove the file, then 'finllm data add' it again") from error  # fmt: skip
    if values.empty or values.isna().any() or not index.is_monotonic_increasing or not index.is_unique:
        raise InputError(f"{path}: its days are not ascending or a figure is missing",
                         fix="remove the file, then 'finllm data add' it again")  # fmt: skip
    sha256 = sha256_of(data)
    steps = tuple(Step(stamp_of(day), ratio, used) for day, ratio, used in about.steps)
    uri = path.resolve().as_uri()
    bars = Bars(pd.DataFrame(beside, index=index, dtype="float64"), uri, sha256) if beside else None
    series = Series(about.name, values, about.unit, about.frequency, uri, sha256, steps,
                    stamp_of(index[0]), about.notes, about.also, bars=bars)  # fmt: skip
    return Kept(series, about, path, sha256)


def _parquet(series: Series, about: Provenance) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    days = pa.array(pd.DatetimeIndex(series.values.index).as_unit("ns"))
    columns = {"day": days, "value": pa.array(series.values.to_numpy())}
    if series.bars is not None:
        columns |= {str(name): pa.array(cells.to_numpy()) for name, cells in series.bars.frame.items()}
    table = pa.table(columns)
    table = table.replace_schema_metadata({KEY: about.model_dump_json().encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _file_name(name: str) -> str:
    """A name as that of a file: what is no letter or digit of ASCII written as its bytes in hex."""
    safe = re.sub(r"[^A-Za-z0-9.=_-]|^\.", lambda one: "".join(f"%{byte:02X}" for byte in one[0].encode()), name)
    return f"{safe}.parquet"
