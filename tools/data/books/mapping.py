"""A map beside a portfolio: how its columns, days and numbers are to be read where the file alone does not say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from finllm.errors import InputError
from finllm.files import write_file
from finllm.tools.data.books.fields import FIELDS
from finllm.tools.data.tables.numbers import MARKS, Mark
from finllm.tools.data.unique_keys import refuse_repeated_keys

SUFFIX = ".map.yaml"
"""What is put behind a portfolio's name for the map that every command reads with it."""


class Map(BaseModel):
    """How a file is to be read.

    `columns`: from a column of the file to a field, or to null where it is only a tag. `constants`: a field's value for
    all rows, where the file has none. `sheet`, `dates` and `decimal` settle what may be read in two ways.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, str | None] = {}
    constants: dict[str, str] = {}
    sheet: str | None = None
    dates: Literal["day-first", "month-first"] | None = None
    decimal: Literal["point", "comma"] | None = None

    @property
    def mark(self) -> Mark | None:
        return MARKS[self.decimal] if self.decimal else None

    def over(self, constants: dict[str, str], **given: str | None) -> Map:
        """The map with what the options of a command say in place of its own. Errors: InputError for no field."""
        _check_fields("--set", constants)
        changed = {name: value for name, value in given.items() if value is not None}
        return self.model_copy(update={**changed, "constants": {**self.constants, **constants}})


def beside(portfolio: Path) -> Path:
    """Where the map of a portfolio lies: `book.csv.map.yaml` beside `book.csv`."""
    return portfolio.parent / (portfolio.name + SUFFIX)  # not with_name, which raises at "." and "/"


def load_map(path: Path) -> Map:
    """Read a map. Errors: InputError with the file and the field."""
    mend = "write it as docs/portfolio.md shows: columns, constants, sheet, dates, decimal"
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text)
        if node is not None:
            refuse_repeated_keys(node)
        found = Map.model_validate(yaml.safe_load(text) or {})
    except FileNotFoundError as error:
        raise InputError(f"no map at {str(path)!r}", fix="correct the path") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: field {where!r}: {first['msg']}", fix=mend) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a map: {str(error).splitlines()[0]}", fix=mend) from error
    _check_fields(str(path), [*found.columns.values(), *found.constants])
    return found


def _check_fields(where: str, fields: Iterable[str | None]) -> None:
    for field in fields:
        if field is not None and field not in FIELDS:
            raise InputError(f"{where}: {field!r} is no field of a position", fix=f"use one of {', '.join(FIELDS)}")


def save_map(portfolio: Path, found: Map) -> Path:
    """Write a map beside a portfolio, from where every command reads it; its path. Errors: FinllmError."""
    data = found.model_dump(mode="json", exclude_none=False)
    kept = {name: value for name, value in data.items() if value}
    text = "# How finllm reads the portfolio of that name; 'finllm portfolio check' shows what comes of it.\n"
    text += yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
    path = beside(portfolio)
    write_file(path, text.encode(), fix="choose a folder that can be written, or leave out --save-map")
    return path
