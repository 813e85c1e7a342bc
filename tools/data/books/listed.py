"""Rows of a list that are no positions: totals, headings of groups and remarks; and whether their sums agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from finllm.tools.data.books.fields import IDENTIFIERS, plain, words
from finllm.tools.data.books.values import Values
from finllm.tools.data.tables.cells import as_text
from finllm.tools.data.tables.table import Cell, Table

AGREE = 0.005
"""How near a total is to the sum of its rows where it agrees with them, as a share of it."""
LONG = 40
"""Letters from which a text alone in a row is a sentence, and no name."""
_IDENTIFIERS = IDENTIFIERS[:-1]
_TOTALS = ("total ", "subtotal ", "gesamt ", "summe ")

Kind = Literal["position", "total", "heading", "remark"]


@dataclass
class Listed:
    """By place of a row: what is no position and what it is; the heading above a position."""

    skipped: dict[int, Kind] = field(default_factory=dict)
    groups: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def look_over(table: Table, values: Values, own: bool) -> Listed:
    """Find the rows that are no positions.

    A total has the name of one or none, no identifier, and figures. A heading is a text alone in its row, or has beside
    it the sum of rows below. In finllm's own form such a row is taken for a damaged position, unless its word is known.
    """
    kinds: list[Kind] = ["position"] * len(table.rows)
    for at in _suspects(table.rows, values):
        kinds[at] = _kind(table.rows[at], at, values, own)
    sizes = np.nan_to_num(np.array(_sizes(values) or [math.nan] * len(kinds)))
    summed = _confirmed(kinds, sizes, table.rows)
    found = Listed()
    heading, since = "", 0
    for at, kind in enumerate(kinds):
        if kind == "heading" and at not in summed and _filled(table.rows[at]) > 1:
            kinds[at] = "position"
    inside = np.where([kind == "position" for kind in kinds], sizes, 0.0)
    for at, kind in enumerate(kinds):
        if kind == "position":
            if heading:
                found.groups[at] = heading
            continue
        label, number = _label(table.rows[at]), table.numbers[at]
        found.skipped[at] = kind
        if kind == "total":
            says = _agrees(sizes[at], inside[:at].sum(), inside[since:at].sum())
            found.notes.append(f"row {number}, {label or 'without a name'!r}, is a total and no position{says}")
            heading, since = "", at
        elif kind == "heading":
            heading, since = label, at
            found.notes.append(f"row {number}, {label!r}, is the heading of a group and no position")
        else:
            found.notes.append(f"row {number} is a remark and no position: {label[:60]!r}")
    return found


def _suspects(rows: Sequence[Sequence[Cell]], values: Values) -> list[int]:
    """The rows to look at: those without a quantity and a currency, or whose label begins as a total's name does."""
    stems = {word[:3] for word in words().totals}
    currencies = values.texts.get("currency") or [""] * len(rows)
    quantities = values.numbers.get("quantity") or [math.nan] * len(rows)
    return [at for at, (row, currency, quantity) in enumerate(zip(rows, currencies, quantities, strict=True))
            if (not currency and math.isnan(quantity)) or (label := _label(row))[:3].lower() in stems
            or label[-5:].lower() == "total"]  # fmt: skip


def _sizes(values: Values) -> list[float]:
    return values.numbers.get("value_base") or values.numbers.get("market_value") or []


def _agrees(size: float, whole: float, part: float) -> str:
    if not size:
        return ""
    for what, total in (("all rows", whole), ("its rows", part)):
        if abs(size - total) <= AGREE * abs(size):
            return f"; it agrees with the sum of {what}, {total:,.0f}"
    return f"; it says {size:,.0f}, and the rows above it sum to {whole:,.0f}"


def _confirmed(kinds: Sequence[Kind], sizes: np.ndarray, rows: Sequence[Sequence[Cell]]) -> set[int]:
    """The places of headings whose figure is the sum of rows that follow; none where half of the rows look like one."""
    likely = [at for at, kind in enumerate(kinds) if kind == "heading" and _filled(rows[at]) > 1]
    if 2 * len(likely) >= len(kinds):
        return set()
    up_to = np.cumsum(np.where([kind == "position" for kind in kinds], sizes, 0.0))
    off = {at: np.abs(up_to[at + 1 :] - up_to[at] - sizes[at]) for at in likely if sizes[at]}
    return {at for at, some in off.items() if np.any(some <= AGREE * abs(sizes[at]))}


def _label(row: Sequence[Cell]) -> str:
    return next((cell for cell in row if isinstance(cell, str)), "")


def _filled(row: Sequence[Cell]) -> int:
    return sum(cell is not None for cell in row)


def _has(name: str, at: int, values: Values) -> bool:
    if name in values.numbers:
        return not math.isnan(values.numbers[name][at])
    return bool(values.texts[name][at]) if name in values.texts else False


def _kind(row: Sequence[Cell], at: int, values: Values, own: bool) -> Kind:
    """What a row looks like by itself."""
    label = _label(row)
    named = [values.texts[name][at] for name in _IDENTIFIERS if name in values.texts]
    if any(text and text != as_text(label) for text in named) or _has("price", at, values):
        return "position"
    sized = _has("market_value", at, values) or _has("value_base", at, values)
    bare = label.lower() if label.isascii() and label.isalnum() else plain(label)
    if bare in words().totals or bare.startswith(_TOTALS) or bare.endswith(" total"):
        return "total" if sized or not _has("quantity", at, values) else "position"
    if _has("quantity", at, values) or _has("currency", at, values):
        return "position"
    if not label:
        return "total" if sized else "position"
    if _filled(row) == 1:
        if bare in words().sectors or bare in words().asset_classes:
            return "heading"
        return "position" if own else "remark" if len(label) > LONG else "heading"
    return "heading" if sized and not own else "position"
