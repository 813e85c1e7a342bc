"""Excel workbooks: their size by a look at the archive, which sheet is meant, formulas without a value, their rows."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import iterparse
from zipfile import ZipFile

from finllm.errors import InputError
from finllm.tools.data.tables.table import MIB, Caps, Cell, Sheet

_FILLED = re.compile(rb"<(?:\w+:)?(?:v|f|is)[ />]")
_FORMULA = re.compile(rb"<(?:\w+:)?f[ />]")
_HIDDEN = re.compile(rb"<(?:\w+:)?row (?=[^>]*\bhidden=\"(?:1|true)\")[^>]*\br=\"(\d+)\"")
_MERGED = re.compile(rb"<(?:\w+:)?mergeCell ref=\"([A-Z]+)(\d+):([A-Z]+)(\d+)\"")
_TAIL = 400
"""Bytes of a piece that are looked at with the next one too, as a tag may lie across both."""
SHOWN = 3
"""Cells that an error names."""


@dataclass(frozen=True)
class _Look:
    """What the XML of a sheet tells before it is parsed."""

    filled: bool
    formulas: bool
    hidden: tuple[int, ...]
    merged: tuple[tuple[int, int, int, int], ...]


def check_workbook(path: Path, caps: Caps) -> None:
    """Errors: InputError where the archive unpacks to more than `caps` allow, or a sheet holds more rows or cells."""
    with ZipFile(path) as archive:
        caps.check(path, unpacked=sum(one.file_size for one in archive.infolist()))
        for name in archive.namelist():
            if not name.startswith("xl/worksheets/") or not name.endswith(".xml"):
                continue
            rows = cells = 0
            for piece in _pieces(archive, name):
                rows += piece.count(b"<row") + piece.count(b":row")
                cells += piece.count(b"<c ") + piece.count(b"<c>") + piece.count(b":c ")
                caps.check(path, rows=rows, cells=cells)


def read_workbook(path: Path, data: bytes, sheet: str | None) -> Sheet:
    """The rows of the sheet that is meant. Errors: InputError where several may be, and for an uncalculated formula."""
    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions that hold no cell
        book = load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        try:
            with ZipFile(io.BytesIO(data)) as archive:
                looks = {one.title: _look(archive, _part(one)) for one in book.worksheets}
                chosen, notes = _chosen(path, book, looks, sheet)
                look = looks[chosen.title]
                if look.formulas and (cells := _uncalculated(archive, _part(chosen))):
                    raise _never_calculated(path, cells)
            chosen.reset_dimensions()  # vendors write wrong ones, and what lies beyond would not be read
            rows = [[_cell(one) for one in row] for row in chosen.iter_rows(values_only=True)]
        finally:
            book.close()
    if look.hidden:
        notes.append(f"{len(look.hidden)} hidden rows are read too: row {', '.join(map(str, look.hidden[:SHOWN]))}"
                     f"{' and more' if len(look.hidden) > SHOWN else ''}")  # fmt: skip
    epoch = 1904 if book.epoch.year == 1904 else 1900
    return Sheet(rows, list(range(1, len(rows) + 1)), tuple(notes), look.merged, chosen.title, epoch)


def _part(sheet: Any) -> str:
    """The name in the archive of a read-only sheet, which openpyxl offers in no other way."""
    return sheet._worksheet_path


def _chosen(path: Path, book: Any, looks: dict[str, _Look], sheet: str | None) -> tuple[Any, list[str]]:
    """The sheet asked for, or the one that is visible and not empty."""
    by_name = {one.title: one for one in book.worksheets}
    if sheet is not None:
        named = [name for name in by_name if name == sheet] or [n for n in by_name if n.lower() == sheet.lower()]
        if len(named) != 1:
            raise InputError(f"{path}: has no sheet {sheet!r}", fix=f"name one of {_listed(by_name)}")
        others = [name for name in by_name if name != named[0]]
        return by_name[named[0]], [f"sheet {named[0]!r} is read, not {_listed(others)}"] if others else []
    filled = [name for name in by_name if looks[name].filled]
    seen = [name for name in filled if by_name[name].sheet_state == "visible"]
    if len(seen) == 1:
        hidden = [name for name in filled if name not in seen]
        return by_name[seen[0]], [f"hidden sheets are not read: {_listed(hidden)}"] if hidden else []
    if seen:
        active = book.active.title if book.active is not None else ""
        raise InputError(f"{path}: has {len(seen)} sheets with cells: {_listed(seen)}"
                         f"{f'; {active!r} is the one shown' if active in seen else ''}",
                         fix=f"name one, such as --sheet {(active if active in seen else seen[-1])!r}")  # fmt: skip
    if filled:
        raise InputError(f"{path}: every sheet with cells is hidden: {_listed(filled)}",
                         fix=f"name one, such as --sheet {filled[0]!r}")  # fmt: skip
    if not by_name:
        raise InputError(f"{path}: has no sheet of cells", fix="export it again as .xlsx")
    return next(iter(by_name.values())), []


def _listed(names: Sequence[str] | dict[str, Any]) -> str:
    return ", ".join(repr(name) for name in names)


def _pieces(archive: ZipFile, name: str) -> Iterator[bytes]:
    with archive.open(name) as file:
        while piece := file.read(MIB):
            yield piece


def _look(archive: ZipFile, name: str) -> _Look:
    filled = formulas = False
    hidden: dict[int, None] = {}
    merged: dict[tuple[int, int, int, int], None] = {}
    tail = b""
    for piece in _pieces(archive, name):
        text = tail + piece
        filled = filled or _FILLED.search(text) is not None
        formulas = formulas or _FORMULA.search(text) is not None
        hidden |= {int(row): None for row in _HIDDEN.findall(text)} if b"hidden=" in text else {}
        if b"mergeCell" in text:
            merged |= {(int(b), _column(a), int(d), _column(c)): None for a, b, c, d in _MERGED.findall(text)}
        tail = text[-_TAIL:]
    return _Look(filled, formulas, tuple(hidden), tuple(merged))


def _column(letters: bytes) -> int:
    at = 0
    for letter in letters:
        at = at * 26 + letter - 64
    return at


def _uncalculated(archive: ZipFile, name: str) -> list[str]:
    """Cells whose formula has no value beside it. One that is a text may be empty: that was calculated."""
    found: list[str] = []
    with archive.open(name) as file:
        for _, element in iterparse(file):
            tag = element.tag.rpartition("}")[2]
            if tag == "c":
                children = {one.tag.rpartition("}")[2]: one for one in element}
                value = children.get("v")
                if "f" in children and (value is None or not value.text) and element.get("t") != "str":
                    found.append(element.get("r", "?"))
            if tag == "row":
                element.clear()
    return found


def _never_calculated(path: Path, cells: list[str]) -> InputError:
    more = f", and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
    some = "cell" if len(cells) == 1 else "cells"
    was = "is a formula that was" if len(cells) == 1 else "are formulas that were"
    return InputError(f"{path}: {some} {', '.join(cells[:SHOWN])}{more} {was} never calculated",
                      fix="open and save it in Excel")  # fmt: skip


def _cell(value: Any) -> Cell:
    return value.strip() or None if isinstance(value, str) else value
