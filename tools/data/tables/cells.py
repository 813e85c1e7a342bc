"""Single cells: whether one is empty, and what it is as text."""

from __future__ import annotations

import datetime as dt
import math
import re

_BLANKS = frozenset(
    ("", "nan", "na", "n/a", "n.a.", "null", "none", "nat", "<na>", "-", "--", "---", "–", "—", ".", "n/d", "nil")
)
_NUMBER = re.compile(r"[-+(]?[^\w\s]?\s?\d[\d.,' \u00a0\u202f\u2019]*(?:[eE][-+]?\d+)?\s?[%)\-]?")
_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([T ].*)?")


def blank(cell: object) -> bool:
    """Whether a cell holds nothing, or one of the words for it: `n/a`, `--`, `.`, `NaN`, Excel's `#N/A` and so on."""
    if cell is None:
        return True
    if isinstance(cell, float):
        return math.isnan(cell)
    text = str(cell).strip().lower()
    return text in _BLANKS or text.startswith("#n/a")


def as_text(cell: object) -> str:
    """A cell as a person wrote it: "" where it is empty, `7203` for a whole number of any type, a day in ISO form."""
    if isinstance(cell, str):
        return cell
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    if isinstance(cell, dt.datetime) and cell.time() == dt.time():
        return cell.date().isoformat()
    return str(cell).strip()


def is_value(cell: object) -> bool:
    """Whether a cell is a number or a date, in whatever form, and so no name of a column."""
    if isinstance(cell, str):
        return bool(_NUMBER.fullmatch(cell) or _DATE.fullmatch(cell))
    return cell is not None
