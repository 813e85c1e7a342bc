"""A path as a table of people: a row for each step, its days and the moves of the factors that its columns name."""

from __future__ import annotations

import csv
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finllm.errors import InputError
from finllm.tools.data.scenario import PathTable, load_scenario
from finllm.tools.data.yaml_files import plain_words

EXAMPLE = "its header is step,days,EQUITY_US,RATE_US_10Y and so on, a cell such as -12% or +50bp, empty for no move"
MOST_BYTES = 1_000_000


def is_scenario(file: Path) -> bool:
    """Whether a path's file is a scenario's YAML, and no table."""
    return file.suffix.lower() in (".yaml", ".yml")


def load_path(file: Path) -> PathTable:
    """The path of a scenario's YAML, or of a CSV table whose moves are each step's own.

    Errors: InputError for a scenario without a path, or a table that is none.
    """
    if is_scenario(file):
        scenario = load_scenario(file)
        if scenario.path is None:
            raise InputError(f"{file}: this scenario has no 'path'", fix="add one, or give its shocks with --shock")
        return scenario.path
    try:
        if file.stat().st_size > MOST_BYTES:
            raise InputError(f"{file} is too large for a path", fix=EXAMPLE)
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = list(csv.DictReader(text))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as a table: {error}", fix=EXAMPLE) from error
    if not rows or "days" not in rows[0]:
        raise InputError(f"{file}: no column 'days', or no step", fix=EXAMPLE)
    steps = [_step(row, f"{file}, row {at}") for at, row in enumerate(rows, start=2)]
    try:
        return PathTable.model_validate({"moves": "step", "steps": steps})
    except ValidationError as error:
        raise InputError(_in_words(file, error.errors()[0]), fix=EXAMPLE) from error


def _in_words(file: Path, problem: ErrorDetails) -> str:
    """What the schema says of a cell, by its row and column."""
    where = problem["loc"]
    if len(where) < 2 or not isinstance(where[1], int):
        return f"{file}: {plain_words(problem)}"
    row = f"{file}, row {where[1] + 2}"
    if where[-1] == "shocks":
        return f"{row}: it names no move"
    named = {"days": "column 'days': ", "label": "column 'step': ", "move": "a move: ",
             "factor": "the name of a column: "}  # fmt: skip
    return f"{row}: {named.get(str(where[-1]), '')}{plain_words(problem)}"


def _step(row: dict[str, str | None], where: str) -> dict[str, object]:
    """One row as the schema has it."""
    shocks = [{"factor": name, "move": (cell or "").strip()} for name, cell in row.items()
              if name not in ("step", "days") and name is not None and (cell or "").strip()]  # fmt: skip
    days = (row.get("days") or "").strip()
    if not days.isdigit():
        raise InputError(f"{where}: {days!r} is no number of trading days", fix=EXAMPLE)
    label = (row.get("step") or "").strip()
    return {"days": int(days), "shocks": shocks, **({"label": label} if label else {})}
