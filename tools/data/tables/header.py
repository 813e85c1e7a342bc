"""Where the header of a table is: below blank lines and a preamble, of one line or several, its merged cells filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from finllm.tools.data.tables.cells import as_text, is_value
from finllm.tools.data.tables.table import Cell, Sheet

LOOK = 100
"""Rows in which the header is looked for."""
WIDE = 0.6
"""Share of the widest row's cells that a header fills at least."""

Known = Callable[[str], bool]


def find_header(sheet: Sheet, known: Known | None) -> tuple[int, int] | None:
    """The header's first row and how many lines it has, as places in `sheet.rows`; None where there is no row at all.

    `known` tells whether a text is the name of a column: the row with most of them is the header, if it has two. Else
    it is the first row of texts, no number or date among them, that fills most of the table's width, or the first row.
    """
    rows = sheet.rows[:LOOK]
    if not any(map(_filled, rows)):
        return None
    if sheet.levels is not None:
        return 0, sheet.levels
    at = _by_names(rows, known) if known is not None else None
    if at is None:
        at = _by_shape(rows)
    return _with_levels(sheet, at)


def _filled(row: Sequence[Cell]) -> int:
    return sum(cell is not None for cell in row)


def _by_names(rows: Sequence[Sequence[Cell]], known: Known) -> int | None:
    counts = [sum(isinstance(cell, str) and known(cell) for cell in row) for row in rows]
    most = max(counts)
    return counts.index(most) if most >= 2 else None


def _by_shape(rows: Sequence[Sequence[Cell]]) -> int:
    widths = [_filled(row) for row in rows]
    wide = [at for at, width in enumerate(widths) if width and width >= WIDE * max(widths)]
    named = [at for at in wide if not any(map(is_value, rows[at]))]
    mixed = [at for at in wide if sum(map(is_value, rows[at])) < widths[at] and not is_value(_first(rows[at]))]
    return (named or mixed or [at for at, width in enumerate(widths) if width])[0]


def _first(row: Sequence[Cell]) -> Cell:
    return next((cell for cell in row if cell is not None), None)


def _with_levels(sheet: Sheet, at: int) -> tuple[int, int]:
    """A header of two lines has a first one with names that repeat or span, and texts alone in the second.

    A third line may name the index alone, as pandas writes it.
    """
    below = sheet.rows[at + 1] if at + 1 < len(sheet.rows) else []
    above = sheet.rows[at - 1] if at else []
    if _spans(sheet, at) and _filled(below) > 1 and not any(map(is_value, below)):
        third = sheet.rows[at + 2] if at + 2 < len(sheet.rows) else []
        alone = _filled(third) == 1 and third[0] is not None and not is_value(third[0])
        return at, 3 if alone else 2
    if above and _merged_over(sheet, at - 1) and not any(map(is_value, above)):
        return at - 1, 2
    return at, 1


def _spans(sheet: Sheet, at: int) -> bool:
    """Whether a row's names repeat one after the other, or are merged over several columns of the row below."""
    names = [cell for cell in sheet.rows[at] if cell is not None]
    repeats = any(one == other for one, other in pairwise(names))
    return (repeats and len(set(names)) < len(names)) or _merged_over(sheet, at)


def _merged_over(sheet: Sheet, at: int) -> bool:
    number = sheet.numbers[at]
    wide = [one for one in sheet.merged if one[0] == one[2] == number and one[3] > one[1]]
    return bool(wide) and _filled(sheet.rows[at]) > 1


def header_levels(sheet: Sheet, at: int, depth: int, width: int) -> list[list[str]]:
    """The header's lines, every merged cell filled with the value of its first."""
    lines = [[as_text(cell) for cell in row[:width]] + [""] * (width - len(row)) for row in sheet.rows[at : at + depth]]
    for first, left, last, right in sheet.merged:
        for row in range(first, last + 1):
            for column in range(left, right + 1):
                inside = sheet.numbers[at] <= row < sheet.numbers[at] + depth and column <= width
                if inside and first >= sheet.numbers[at] and row == first:
                    lines[row - sheet.numbers[at]][column - 1] = lines[first - sheet.numbers[at]][left - 1]
    return lines
