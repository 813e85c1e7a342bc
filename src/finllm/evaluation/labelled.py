"""Labelled files that judgements are scored on: CSV or JSON lines, read row by row, every error with its line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from finllm.errors import InputError
from finllm.tools.data.factors import FACTOR_IDS

MOST_ROWS = 100_000
LONGEST_TEXT = 20_000
"""Characters of one text."""
SIGNS = {"+": "up", "-": "down", "0": "none"}
"""How a file writes a direction."""
_LONGEST_LINE = 4 * LONGEST_TEXT


@dataclass(frozen=True)
class Labelled:
    """A row: its line in the file, the text, and the right value by name: `label`, or each factor that is scored."""

    line: int
    text: str
    right: Mapping[str, str]


def read_labelled(path: Path, labels: Sequence[str]) -> Iterator[Labelled]:
    """The rows of a file whose labels are among `labels`, in any case.

    Errors: InputError naming the file and the line for anything else, and for a file without rows.
    """
    yield from _rows(path, lambda line, row: Labelled(line, _text(path, line, row), _label(path, line, row, labels)))


def read_directions(path: Path) -> Iterator[Labelled]:
    """The rows of a JSON lines file with `{"text", "signs": {"EQUITY_US": "+", …}}`. Errors: as `read_labelled`."""
    if path.suffix.lower() == ".csv":
        raise InputError(f"{str(path)!r} is a CSV file, which holds no signs by factor",
                         fix='give JSON lines such as {"text": "…", "signs": {"EQUITY_US": "+"}}')  # fmt: skip
    yield from _rows(path, lambda line, row: Labelled(line, _text(path, line, row), _signs(path, line, row)))


def _rows(path: Path, make: Any) -> Iterator[Labelled]:
    reader = {".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines}.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{str(path)!r} is neither CSV nor JSON lines", fix="name the file .csv or .jsonl")
    count = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, row in reader(path, file):
                count += 1
                if count > MOST_ROWS:
                    raise InputError(f"{str(path)!r}, line {line}: more than {MOST_ROWS} rows", fix="split the file")
                yield make(line, row)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{str(path)!r} is not UTF-8 behind row {count}: {error.reason}", fix="save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot read {str(path)!r}: {error.strerror or error}", fix="give a file that can be read"
        ) from error
    if not count:
        raise InputError(f"{str(path)!r} has no rows", fix="give a text and its label in each row")


def _csv(path: Path, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    rows = csv.reader(_bounded(path, file), strict=True)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        if header and not {"text", "label"} <= set(header):
            raise _bad(path, 1, f"the columns are {', '.join(header)}", "name two of them 'text' and 'label'")
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise _bad(path, rows.line_num, f"{len(row)} cells under {len(header)} columns",
                           "quote cells that hold a comma")  # fmt: skip
            yield rows.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise _bad(path, rows.line_num, str(error), "write it as CSV, quotes inside a cell doubled") from error


def _json_lines(path: Path, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate(_bounded(path, file), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _bad(path, line, f"no JSON: {error}", "write one JSON object a line") from error
        if not isinstance(row, dict):
            raise _bad(path, line, "no JSON object", "write one JSON object a line")
        yield line, row


def _bounded(path: Path, file: TextIO) -> Iterator[str]:
    """The lines of a file, none so long that it would fill the memory."""
    line = 0
    while text := file.readline(_LONGEST_LINE):
        line += 1
        if len(text) == _LONGEST_LINE:
            raise _bad(path, line, f"the line has {_LONGEST_LINE} characters or more", "shorten the text")
        yield text


def _text(path: Path, line: int, row: Mapping[str, Any]) -> str:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise _bad(path, line, "no 'text'", "give the text that is judged")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise _bad(path, line, "the text holds half a character", "write the text as UTF-8")
    if len(text) > LONGEST_TEXT:
        raise _bad(path, line, f"the text has {len(text)} characters, and at most {LONGEST_TEXT} are read",
                   "shorten it")  # fmt: skip
    return text


def _label(path: Path, line: int, row: Mapping[str, Any], labels: Sequence[str]) -> dict[str, str]:
    label = row.get("label")
    named = str(label).strip().lower() if isinstance(label, str) else None
    if named is None or named not in labels:
        said = "no 'label'" if label is None else f"unknown label {label!r}"
        raise _bad(path, line, said, f"use one of {', '.join(labels)}")
    return {"label": named}


def _signs(path: Path, line: int, row: Mapping[str, Any]) -> dict[str, str]:
    signs = row.get("signs")
    if not isinstance(signs, dict) or not signs:
        raise _bad(path, line, "no 'signs'", 'write them as {"EQUITY_US": "+", "OIL_WTI": "-"}')
    for factor, sign in signs.items():
        if factor not in FACTOR_IDS:
            raise _bad(path, line, f"unknown factor {factor!r}", f"use {', '.join(FACTOR_IDS)}")
        if sign not in list(SIGNS):
            raise _bad(path, line, f"unknown sign {sign!r} of {factor}", "use + (up), - (down) or 0 (no move)")
    return {factor: str(sign) for factor, sign in signs.items()}


def _bad(path: Path, line: int, what: str, fix: str) -> InputError:
    return InputError(f"{str(path)!r}, line {line}: {what}", fix=fix)
