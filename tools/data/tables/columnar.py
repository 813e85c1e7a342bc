"""Parquet files: their size by their metadata, then their rows."""

from __future__ import annotations

import ast
import io
import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finllm.errors import InputError
from finllm.tools.data.tables.table import Caps, Cell, Sheet

BATCH = 65_536
_UNNAMED = re.compile(r"__index_level_\d+__")


def check_parquet(path: Path, caps: Caps) -> None:
    """Errors: InputError where the metadata tell of more than `caps` allow, or of columns that hold no single cells."""
    with pq.ParquetFile(path) as file:
        about, schema = file.metadata, file.schema_arrow
        unpacked = sum(about.row_group(at).total_byte_size for at in range(about.num_row_groups))
        width = len(schema.names)
        caps.check(path, rows=about.num_rows, columns=width, cells=about.num_rows * width, unpacked=unpacked)
    for field in schema:
        if pa.types.is_nested(field.type):
            raise InputError(f"{path}: column {field.name!r} holds {field.type}, not single cells",
                             fix="write a table of plain columns")  # fmt: skip


def read_parquet(path: Path, data: bytes, caps: Caps) -> Sheet:
    """The rows below their header; a stored index comes first. A text that repeats is held once. Errors: InputError."""
    with pq.ParquetFile(io.BytesIO(data)) as file:
        schema = file.schema_arrow
    texts = [one.name for one in schema if pa.types.is_string(one.type) or pa.types.is_large_string(one.type)]
    index = [name for name in (schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)]
    counting = [name for name in index if _UNNAMED.fullmatch(name) and pa.types.is_integer(schema.field(name).type)]
    order = [name for name in [*index, *schema.names] if name not in counting]
    order = list(dict.fromkeys(order))
    rows: list[list[Cell]] = []
    size = 0
    with pq.ParquetFile(io.BytesIO(data), read_dictionary=texts) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=order):
            size += batch.nbytes
            caps.check(path, unpacked=size)
            rows += map(list, zip(*(_cells(batch.column(name)) for name in order), strict=True))
    head = _header(order)
    notes = ("a stored index that only counts the rows is not read",) if counting else ()
    return Sheet([*head, *rows], list(range(1, len(head) + len(rows) + 1)), notes, levels=len(head))


def _header(names: list[str]) -> list[list[Cell]]:
    """The header's lines: one, or as many as pandas wrote into each name of a header of several."""
    tuples: list[Any] = []
    for name in names:
        try:
            tuples.append(ast.literal_eval(name) if name.startswith("(") else None)
        except (ValueError, SyntaxError):
            tuples.append(None)
    depth = max((len(one) for one in tuples if isinstance(one, tuple)), default=0)
    if depth < 2 or sum(isinstance(one, tuple) for one in tuples) < len(names) - 1:
        return [[None if _UNNAMED.fullmatch(name) else name for name in names]]
    whole = [[*map(str, one)] if isinstance(one, tuple) else [name] + [""] * (depth - 1)
             for name, one in zip(names, tuples, strict=True)]  # fmt: skip
    return [[name[at] or None for name in whole] for at in range(depth)]


def _cells(column: Any) -> list[Cell]:
    if pa.types.is_dictionary(column.type):
        held = [_cell(one) for one in column.dictionary.to_pylist()]
        return [None if at is None else held[at] for at in column.indices.to_pylist()]
    return [_cell(one) for one in column.to_pylist()]


def _cell(value: Any) -> Cell:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, Decimal):
        return float(value)
    return value.strip() or None if isinstance(value, str) else value
