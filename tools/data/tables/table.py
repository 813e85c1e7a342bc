"""A table as it was read, whatever its file was, and the size beyond which none is read."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finllm.errors import InputError

Cell = str | float | int | bool | dt.datetime | dt.date | dt.time | None
"""A cell as the file has it: text without blanks around it, a typed value, or None where it is empty."""
Epoch = Literal[1900, 1904]

MIB = 1 << 20


@dataclass(frozen=True)
class Caps:
    """The largest table that is read: bytes of the file, bytes that it unpacks to, rows, columns and cells.

    The defaults are those of the settings `table_bytes`, `table_unpacked` and so on.
    """

    bytes: int = 128 * MIB
    unpacked: int = 512 * MIB
    rows: int = 1_000_000
    columns: int = 10_000
    cells: int = 12_000_000

    def check(self, path: Path, *, rows: int = 0, columns: int = 0, cells: int = 0, unpacked: int = 0) -> None:
        """Errors: InputError that says which figure is beyond what."""
        found = (
            (rows, self.rows, "rows"), (columns, self.columns, "columns"), (cells, self.cells, "cells"),
            (unpacked, self.unpacked, "bytes unpacked"),
        )  # fmt: skip
        for size, most, what in found:
            if size > most:
                setting = f"table_{what.split()[-1]}"
                raise InputError(f"{path}: is larger than the {most:,} {what} that are read",
                                 fix=f"split it, keep only the rows and columns that are needed, or raise the setting"
                                     f" {setting} (FINLLM_{setting.upper()})")  # fmt: skip

    @classmethod
    def of_settings(cls) -> Caps:
        """What the user's settings allow."""
        from finllm.settings import load_settings

        mine = load_settings().settings
        return cls(mine.table_bytes, mine.table_unpacked, mine.table_rows, mine.table_columns, mine.table_cells)


@dataclass(frozen=True)
class Table:
    """A header and the rows below it, empty rows left out.

    `header`: one name a column, "" where it has none; of a header of several lines the names joined, and `levels` the
    lines themselves; `header_row` is the file's row of the last of them. `rows[i]` has as many cells as the header, and
    stands in row `numbers[i]` of the file, the first being 1. `epoch`: what a workbook counts days
    from. `notes`: what was decided about the file, for a person.
    """

    path: Path
    header: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    rows: list[list[Cell]]
    numbers: list[int]
    sha256: str
    bytes: int
    sheet: str | None = None
    epoch: Epoch = 1900
    notes: tuple[str, ...] = ()
    header_row: int = 1

    def column(self, at: int) -> list[Cell]:
        return [row[at] for row in self.rows]


@dataclass(frozen=True)
class Sheet:
    """Cells before a header was looked for: `rows` may be of different lengths; `numbers` are their rows in the file.

    `merged`: ranges that hold one value, as (first row, first column, last row, last column), from 1.
    """

    rows: list[list[Cell]]
    numbers: list[int]
    notes: tuple[str, ...] = ()
    merged: tuple[tuple[int, int, int, int], ...] = ()
    name: str | None = None
    epoch: Epoch = 1900
    levels: int | None = None
    """How many of the first rows are the header, where the file's own form says so."""
