"""Text made safe to show: without control and formatting characters, which could steer a terminal or hide a part."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """Text on one line, without control and formatting characters: it can neither steer a terminal nor hide a part."""
    return " ".join("".join(char if _shown(char) else " " for char in text).split())


def clean_lines(text: str) -> str:
    """Like `clean`, with the line breaks and the blanks kept."""
    return "".join(char if char == "\n" or _shown(char) else " " if char == "\t" else "" for char in text)


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
