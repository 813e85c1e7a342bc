"""Text made safe to show: without control and formatting characters, which could steer a terminal or hide a part."""

from __future__ import annotations

import json
import unicodedata
from typing import Any


def trading_days(count: int) -> str:
    """`1 trading day`, `20 trading days`."""
    return f"{count} trading day{'' if count == 1 else 's'}"


def clean(text: str) -> str:
    """Text on one line, without control and formatting characters: it can neither steer a terminal nor hide a part."""
    return " ".join("".join(char if _shown(char) else " " for char in text).split())


def clean_lines(text: str) -> str:
    """Like `clean`, with the line breaks and the blanks kept."""
    return "".join(char if char == "\n" or _shown(char) else " " if char == "\t" else "" for char in text)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON in which every control and formatting character is escaped: it reads back the same, and shows what it is."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    return "".join(char if char == "\n" or _shown(char) else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def cut(text: str, cells: int) -> str:
    """Text that takes no more than so many cells of a terminal; where a part is left out, it ends with `…`."""
    widths = [2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text]
    if sum(widths) <= cells:
        return text
    room, kept = cells - 1, 0
    while kept < len(text) and (room := room - widths[kept]) >= 0:
        kept += 1
    return f"{text[:kept].rstrip()}…"


def _shown(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
