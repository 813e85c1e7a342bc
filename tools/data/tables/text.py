"""Text files: their encoding, their separator, and their rows."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from pathlib import Path

from finllm.errors import InputError
from finllm.tools.data.tables.table import Caps, Cell, Sheet

SEPARATORS = {",": "a comma", ";": "';'", "\t": "a tab", "|": "'|'"}
SAMPLE = 200
"""Lines by which the separator is told."""
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_SAID = {
    "utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "utf-32": "UTF-32",
    "cp1252": "Windows-1252, as it is not UTF-8", "latin-1": "Latin-1, as it is neither UTF-8 nor Windows-1252",
}  # fmt: skip
_OTHERS = ((b"PK\x03\x04", ".xlsx"), (b"PAR1", ".parquet"), (b"\xd0\xcf\x11\xe0", ".xls"))
csv.field_size_limit(1 << 20)


def read_text(path: Path, data: bytes, caps: Caps) -> Sheet:
    """The rows of a separated text file, each with the number of its first line.

    Its encoding and separator are said in the notes where they are not UTF-8 and a comma. Errors: InputError.
    """
    for magic, suffix in _OTHERS:
        if data.startswith(magic):
            raise InputError(f"{path}: is no text: its content is that of a {suffix} file",
                             fix=f"rename it to end in {suffix}, or export it again as text")  # fmt: skip
    text, notes = _decoded(path, data)
    separator, declared = _declared(text)
    if separator is None:
        separator = _separator(path, text)
    if separator != ",":
        notes.append(f"cells are separated by {SEPARATORS.get(separator, repr(separator))}")
    rows, numbers = _rows(path, text, separator, caps)
    return Sheet(rows[declared:], numbers[declared:], tuple(notes))


def _decoded(path: Path, data: bytes) -> tuple[str, list[str]]:
    """The text, by its byte order mark; else UTF-8, UTF-16 where every second byte is zero, else Windows-1252."""
    head = data[:4000]
    marked = [encoding for mark, encoding in _BOMS if data.startswith(mark)]
    if marked:
        tries = marked[:1]
    elif head[1::2].count(0) > len(head) / 4:
        tries = ["utf-16-le"]
    elif head[0::2].count(0) > len(head) / 4:
        tries = ["utf-16-be"]
    else:
        tries = ["utf-8", "cp1252", "latin-1"]
    for encoding in tries:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        return text, [f"read as {_SAID[encoding]}"] if encoding in _SAID else []
    raise InputError(f"{path}: is no text in UTF-8, UTF-16, Windows-1252 or Latin-1",
                     fix="export it again as CSV in UTF-8")  # fmt: skip


def _declared(text: str) -> tuple[str | None, int]:
    """The separator that a first line such as `sep=;` declares, as Excel writes it, and how many lines that takes."""
    first = text[:10].split("\n", 1)[0].strip('\r\ufeff" ')
    if first.lower().startswith("sep=") and len(first) <= 5:
        return first[4:] or "\t", 1
    return None, 0


def _separator(path: Path, text: str) -> str:
    """The sign at which most of the first lines have as many cells as each other, more than one of them.

    Where two do so alike, it is the one that makes more cells; where they make as many, it is ambiguous.
    """
    lines = [line for line in text[: 2000 * SAMPLE].splitlines()[:SAMPLE] if line.strip(' \t,;|"')]
    best: dict[str, tuple[int, int]] = {}
    for separator in SEPARATORS:
        try:
            widths = Counter(len(row) for row in csv.reader(lines, delimiter=separator))
        except csv.Error:
            continue
        best[separator] = max(((count, width) for width, count in widths.items() if width > 1), default=(0, 0))
    most = max(best.values(), default=(0, 0))
    winners = [separator for separator, score in best.items() if score == most]
    if most[1] < 2:
        return ","
    if len(winners) > 1:
        raise InputError(f"{path}: its cells may be separated by {' or '.join(SEPARATORS[one] for one in winners)}",
                         fix="export it with one of them, and with cells that hold the other in quotes")  # fmt: skip
    return winners[0]


def _rows(path: Path, text: str, separator: str, caps: Caps) -> tuple[list[list[Cell]], list[int]]:
    rows: list[list[Cell]] = []
    numbers: list[int] = []
    cells = before = 0
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for row in lines:
            rows.append([cell.strip() or None for cell in row])
            numbers.append(before + 1)
            if lines.line_num > before + 1:
                _check_quotes(path, row, separator, before + 1)
            before = lines.line_num
            cells += len(row)
            if cells > caps.cells or len(rows) > caps.rows or len(row) > caps.columns:
                caps.check(path, rows=len(rows), columns=len(row), cells=cells)
    except csv.Error as error:
        raise InputError(f"{path}: row {before + 1} cannot be read: {error}", fix="export it again as CSV") from error
    return rows, numbers


def _check_quotes(path: Path, row: list[str], separator: str, number: int) -> None:
    """Errors: InputError for a cell with whole lines in it, which only a quote that is missing makes one."""
    for cell in row:
        if "\n" in cell and max(line.count(separator) for line in cell.splitlines()) >= max(2, len(row) - 1):
            raise InputError(f"{path}: row {number}: a cell in quotes holds whole lines, as where a quote is missing",
                             fix="close or remove the quote in that row")  # fmt: skip
