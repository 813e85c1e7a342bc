"""Numbers as people write them: which sign is the decimal mark is told from all cells, and never guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from finllm.errors import InputError
from finllm.tools.data.tables.cells import blank
from finllm.tools.data.tables.table import Cell

Mark = Literal[".", ","]
MARKS: dict[str, Mark] = {"point": ".", "comma": ","}
"""The decimal marks, as `--decimal` names them."""

_PLAIN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_SIGNS = "$€£¥₹₩₽₺₪₫฿"
_PARTS = re.compile(
    rf"(?P<open>\()?(?P<minus>[-+])?(?P<before>[A-Z]{{0,3}}[{_SIGNS}]|[A-Z]{{3}})?\s?(?P<inner>[-+])?"
    rf"(?P<body>[\d.,' ]*\d[\d.,' ]*?(?:[eE][-+]?\d+)?)\s?(?P<percent>%)?\s?"
    rf"(?P<after>[A-Z]{{0,3}}[{_SIGNS}]|[A-Z]{{3}})?(?P<trailing>-)?(?P<close>\))?", re.ASCII,
)  # fmt: skip
_SAME = str.maketrans({
    "−": "-", "–": "-", "‒": "-", "﹣": "-", "－": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2007": " ",
    "’": "'", "‘": "'", "´": "'", "`": "'",
})  # fmt: skip
_EXPONENT = r"(?:[eE][-+]?\d+)?"


def _shape(thousands: str, mark: str) -> re.Pattern[str]:
    """Digits in groups of three (or of two before the last, as in India) or in none, then a decimal part."""
    grouped = rf"[1-9]\d{{0,2}}(?:{thousands}\d{{3}})+|[1-9]\d?(?:{thousands}\d\d)+{thousands}\d{{3}}"
    return re.compile(rf"(?:(?P<whole>{grouped}|\d+)(?:{mark}(?P<part>\d*))?|{mark}(?P<only>\d+))(?P<exp>{_EXPONENT})",
                      re.ASCII)  # fmt: skip


_READINGS: dict[Mark, tuple[re.Pattern[str], ...]] = {
    mark: tuple(_shape(thousands, re.escape(mark)) for thousands in (re.escape("," if mark == "." else "."), " ", "'"))
    for mark in MARKS.values()
}


@dataclass(frozen=True)
class Marks:
    """What the cells say about the decimal mark: the first cell that must have a point, a comma, or may have either."""

    point: str | None = None
    comma: str | None = None
    either: str | None = None

    def __add__(self, other: Marks) -> Marks:
        return Marks(self.point or other.point, self.comma or other.comma, self.either or other.either)


@dataclass(frozen=True)
class Numbers:
    """`values`: NaN where a cell is empty or not a number. `bad`: what is wrong with the cell at that place.

    `percents` are the places of cells with a percent sign, whose value is divided by 100; `signs` the currency signs
    or codes that stand beside a number, by place.
    """

    values: list[float]
    bad: dict[int, str] = field(default_factory=dict)
    percents: list[int] = field(default_factory=list)
    signs: dict[int, str] = field(default_factory=dict)


def marks_of(cells: Iterable[Cell], fits: Callable[[float], bool] | None = None) -> Marks:
    """What a column says of the decimal mark. `fits` tells which values are possible: what it refuses is no reading."""
    point = comma = either = None
    for cell in cells:
        if not isinstance(cell, str) or cell.isdecimal():
            continue
        if point and cell.count(".") < 2 and "," not in cell:
            continue  # nothing new: a second sign for the point, or one that follows it
        parts = _parts(cell)
        if parts is None:
            continue
        by_point, by_comma = _reading(parts["body"], "."), _reading(parts["body"], ",")
        if by_point == by_comma:
            continue
        if fits is not None and by_point is not None and by_comma is not None and fits(by_point) != fits(by_comma):
            by_point, by_comma = (by_point, None) if fits(by_point) else (None, by_comma)
        if by_comma is None:
            point = point or cell
        elif by_point is None:
            comma = comma or cell
        else:
            either = either or cell
    return Marks(point, comma, either)


def decimal_mark(own: Marks, others: Marks, given: Mark | None, where: str) -> Mark:
    """The decimal mark of a column: the one given, else its own cells', else what the other columns agree on.

    Errors: InputError that names both readings where the cells contradict each other, or none of them tells.
    """
    if given is not None:
        return given
    if own.point and own.comma:
        raise InputError(f"{where}: {own.point!r} has a decimal point, and {own.comma!r} a decimal comma",
                         fix="write them alike, or say which holds: --decimal point or --decimal comma")  # fmt: skip
    if own.point or own.comma:
        return "." if own.point else ","
    if own.either is None:
        return "."
    if bool(others.point) != bool(others.comma):
        return "." if others.point else ","
    parts = _parts(own.either)
    assert parts is not None
    readings = [f"{_reading(parts['body'], mark):.15g}" for mark in MARKS.values()]
    raise InputError(f"{where}: {own.either!r} may be {readings[0]} or {readings[1]}",
                     fix="say which: --decimal point or --decimal comma")  # fmt: skip


def read_numbers(cells: Sequence[Cell], mark: Mark = ".") -> Numbers:
    """Each cell as a number: minus signs of any kind and parentheses, percent and currency signs, thousands marks.

    A word for nothing (`n/a`, `--`) is NaN. A cell that is no number, or not finite, is told in `bad`.
    """
    values: list[float] = []
    found = Numbers(values)
    for at, cell in enumerate(cells):
        if cell is None:
            values.append(math.nan)
            continue
        if isinstance(cell, str):
            plain = cell.isascii() and (cell.isdigit() or (mark == "." and _PLAIN.fullmatch(cell)))
            values.append(float(cell) if plain else _written(cell, mark, at, found))
        elif isinstance(cell, (int, float)) and not isinstance(cell, bool):
            values.append(_finite(cell))
        else:
            values.append(math.nan)
            found.bad[at] = f"{str(cell)!r} is not a number"
        if math.isinf(values[-1]):
            values[-1] = math.nan
            found.bad[at] = f"{str(cell)!r} is not a finite number"
    return found


def _finite(cell: float) -> float:
    try:
        return float(cell)
    except OverflowError:
        return math.inf


def _written(cell: str, mark: Mark, at: int, found: Numbers) -> float:
    parts = _parts(cell)
    value = None if parts is None else _reading(parts["body"], mark)
    if parts is None or value is None:
        if cell.lower().lstrip("+-") in ("inf", "infinity"):
            return math.inf
        if not blank(cell):
            found.bad[at] = f"{cell!r} is not a number"
        return math.nan
    if sign := parts["before"] or parts["after"]:
        found.signs[at] = sign
    if parts["percent"]:
        found.percents.append(at)
        value = round(value / 100, 14)
    negative = parts["open"] or parts["trailing"] or "-" in (parts["minus"], parts["inner"])
    return -value if negative else value


def _parts(cell: str) -> dict[str, str | None] | None:
    """The parts of a written number; None where it is none, or says twice that it is negative."""
    match = _PARTS.fullmatch(cell.translate(_SAME).strip())
    if match is None:
        return None
    parts = match.groupdict()
    says = [bool(parts["open"]), bool(parts["minus"] or parts["inner"]), bool(parts["trailing"])]
    twice = parts["minus"] and parts["inner"]
    if sum(says) > 1 or twice or bool(parts["open"]) != bool(parts["close"]) or (parts["before"] and parts["after"]):
        return None
    return parts


def _reading(body: str | None, mark: Mark) -> float | None:
    """The number, if the text is one with this decimal mark."""
    for shape in _READINGS[mark]:
        if match := shape.fullmatch((body or "").strip()):
            whole = re.sub(r"\D", "", match["whole"] or "0")
            return float(f"{whole}.{match['part'] or match['only'] or '0'}{match['exp']}")
    return None
