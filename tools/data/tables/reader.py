"""Reading a table: the rows of a CSV, Parquet or Excel file as they stand, and its bytes."""

from __future__ import annotations

import io
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd

from finllm.errors import InputError

_BLANKS = ("", "nan", "na", "n/a", "null", "none", "nat", "<na>")


def read_table(path: Path, what: str) -> tuple[list[list[object]], bytes]:
    """Rows of a CSV, Parquet or Excel file, header first and as they stand, and the bytes that were read.

    `what` names the content in errors: InputError for a missing, unreadable or empty file or another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet", ".xlsx"):
        raise InputError(
            f"{path}: a {what} is a .csv, .parquet or .xlsx file, not {suffix!r}", fix="export it in one of these"
        )
    try:
        data = path.read_bytes()
        rows = _READ[suffix](io.BytesIO(data)) if data else []
    except FileNotFoundError as error:
        raise InputError(f"no {what} at {str(path)!r}", fix="correct the path") from error
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path}: cannot be read: {error}", fix=f"export it again as {suffix}") from error
    while rows and all(blank(cell) for cell in rows[-1]):
        rows.pop()
    if len(rows) < 2:
        raise InputError(f"{path}: the {what} is empty", fix="add a header row and at least one row under it")
    return rows, data


def _csv_rows(data: io.BytesIO) -> list[list[object]]:
    frame = pd.read_csv(data, header=None, dtype=str, keep_default_na=False, skip_blank_lines=False)
    return frame.to_numpy(dtype=object).tolist()


def _parquet_rows(data: io.BytesIO) -> list[list[object]]:
    frame = pd.read_parquet(data)
    if isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.reset_index()
    return [list(frame.columns), *frame.astype(object).to_numpy().tolist()]


def _excel_rows(data: io.BytesIO) -> list[list[object]]:
    from openpyxl import load_workbook

    book = load_workbook(data, read_only=True, data_only=True)
    try:
        return [list(row) for row in book.worksheets[0].iter_rows(values_only=True)]
    finally:
        book.close()


_READ = {".csv": _csv_rows, ".parquet": _parquet_rows, ".xlsx": _excel_rows}


def blank(cell: object) -> bool:
    """Whether a cell holds nothing, or one of the words for it."""
    return cell is None or str(cell).strip().lower() in _BLANKS
