"""Reading a table of people: any CSV, text, Parquet or Excel file becomes a header and rows of cells."""

from __future__ import annotations

import zlib
from pathlib import Path
from zipfile import BadZipFile

from finllm.errors import InputError
from finllm.tools.data.tables.header import Known, find_header, header_levels
from finllm.tools.data.tables.table import Caps, Cell, Sheet, Table
from finllm.tools.evidence import sha256_of

TEXT = (".csv", ".tsv", ".txt")
DAMAGE = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, SyntaxError, RuntimeError, BadZipFile,
    zlib.error,
)  # fmt: skip
"""What zipfile, zlib, openpyxl and pyarrow raise at a file that is not what its suffix says."""
SHOWN = 3
"""Rows that an error names."""


def read_table(
    path: Path, *, what: str, sheet: str | None = None, known: Known | None = None, caps: Caps | None = None
) -> Table:
    """Read a file by its suffix: .csv, .tsv and .txt as separated text, .parquet, .xlsx.

    `what` names the content in errors. `sheet`: of a workbook. `known` tells whether a text is a column's name, by
    which the header is found below a preamble. Whatever was decided (encoding, separator, sheet, header) is in the
    table's notes. Nothing of a file beyond `caps` is read, by default those of the settings.
    Errors: InputError for a missing, unreadable or empty file, another suffix, several sheets of which none is named,
    a formula that was never calculated, and rows with more cells than the header.
    """
    suffix = path.suffix.lower()
    _check_kind(path, what, suffix, sheet)
    try:
        found, data = _read(path, what, suffix, sheet, caps or Caps.of_settings())
    except FileNotFoundError as error:
        raise InputError(f"no {what} at {str(path)!r}", fix="correct the path") from error
    except DAMAGE as error:
        raise InputError(f"{path}: cannot be read: {error}", fix=f"export it again as {suffix}") from error
    return _table(path, what, found, data, known)


def _check_kind(path: Path, what: str, suffix: str, sheet: str | None) -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a {what}", fix="name a file in it")
    if suffix not in (*TEXT, ".parquet", ".xlsx"):
        mend = "open and save it in Excel as .xlsx" if suffix in (".xls", ".xlsb", ".xlsm", ".ods") else (
            "export it in one of these")  # fmt: skip
        raise InputError(f"{path}: a {what} is a .csv, .tsv, .txt, .parquet or .xlsx file, not {suffix!r}", fix=mend)
    if sheet is not None and suffix != ".xlsx":
        raise InputError(f"{path}: a {suffix} file has no sheets", fix="leave out --sheet")


def _read(path: Path, what: str, suffix: str, sheet: str | None, caps: Caps) -> tuple[Sheet, bytes]:
    """The file's cells and bytes. Its size is looked at before anything is unpacked."""
    if (size := path.stat().st_size) > caps.bytes:
        raise InputError(f"{path}: is larger than the {caps.bytes:,} bytes that are read ({size:,})",
                         fix="split it, keep only what is needed, or raise the setting table_bytes (FINLLM_TABLE_BYTES)"
                         )  # fmt: skip
    if not size:
        raise _empty(path, what)
    if suffix in TEXT:
        from finllm.tools.data.tables.text import read_text

        data = path.read_bytes()
        return read_text(path, data, caps), data
    if suffix == ".parquet":
        from finllm.tools.data.tables.columnar import check_parquet, read_parquet

        check_parquet(path, caps)
        data = path.read_bytes()
        return read_parquet(path, data, caps), data
    from finllm.tools.data.tables.workbook import check_workbook, read_workbook

    check_workbook(path, caps)
    data = path.read_bytes()
    return read_workbook(path, data, sheet), data


def _empty(path: Path, what: str) -> InputError:
    return InputError(f"{path}: the {what} is empty", fix="add a header row and at least one row under it")


def _table(path: Path, what: str, sheet: Sheet, data: bytes, known: Known | None) -> Table:
    found = find_header(sheet, known)
    if found is None:
        raise _empty(path, what)
    at, depth = found
    body = [(number, row) for number, row in zip(sheet.numbers[at + depth :], sheet.rows[at + depth :], strict=True)
            if any(cell is not None for cell in row)]  # fmt: skip
    if not body:
        raise _empty(path, what)
    width = _width(sheet.rows[at:])
    if sheet.name is None:  # of a workbook the cells are where they are, whatever the header's width
        width = min(width, max(len(row) for row in sheet.rows[at : at + depth]))
    _check_widths(path, body, width)
    levels = header_levels(sheet, at, depth, width)
    header = tuple(" ".join(dict.fromkeys(filter(None, names))) for names in zip(*levels, strict=True))
    rows = [row if len(row) == width else (row + [None] * (width - len(row)))[:width] for _, row in body]
    return Table(
        path=path, header=header, levels=tuple(map(tuple, levels)), rows=rows, numbers=[number for number, _ in body],
        sha256=sha256_of(data), bytes=len(data), sheet=sheet.name, epoch=sheet.epoch,
        notes=(*sheet.notes, *_about_header(sheet, at, depth)), header_row=sheet.numbers[at + depth - 1],
    )  # fmt: skip


def _width(rows: list[list[Cell]]) -> int:
    """Columns up to the last one that holds anything."""
    return max(next((at for at in range(len(row), 0, -1) if row[at - 1] is not None), 0) for row in rows)


def _about_header(sheet: Sheet, at: int, depth: int) -> list[str]:
    """What was above the header, and how many lines it has."""
    notes: list[str] = []
    first = sheet.numbers[at]
    skipped = [row for row in sheet.rows[:at] if any(cell is not None for cell in row)]
    if first > 1:
        texts = "; ".join(repr(" ".join(str(cell) for cell in row if cell is not None)[:60]) for row in skipped[:SHOWN])
        above = f"; above it: {texts}" if texts else ""
        more = f" and {len(skipped) - SHOWN} more rows" if len(skipped) > SHOWN else ""
        notes.append(f"the header is in row {first}{above}{more}")
    if depth > 1:
        notes.append(f"the header has {depth} lines, rows {first} to {sheet.numbers[at + depth - 1]}")
    return notes


def _check_widths(path: Path, body: list[tuple[int, list[Cell]]], width: int) -> None:
    beyond = [(number, len(row)) for number, row in body
              if len(row) > width and any(cell is not None for cell in row[width:])]  # fmt: skip
    if beyond:
        named = ", ".join(f"row {number} has {cells}" for number, cells in beyond[:SHOWN])
        more = f", and {len(beyond) - SHOWN} more rows have too many" if len(beyond) > SHOWN else ""
        raise InputError(f"{path}: the header has {width} cells, but {named}{more}",
                         fix="put cells that hold the separator into quotes, or name every column")  # fmt: skip
