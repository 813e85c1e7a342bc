"""Tables and texts as Markdown data: what sources wrote can open no cell, link, image or tag of its own."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return ["None."]
    lines = [header, tuple("---" for _ in header), *rows]
    return ["| " + " | ".join(markdown_text(cell) for cell in line) + " |" for line in lines]


def markdown_text(text: str) -> str:
    """Text as Markdown data: it can open no table cell, link, image or HTML tag of its own."""
    flat = " ".join(text.split()).replace("\\", "\\\\").replace("<", "&lt;").replace(">", "&gt;")
    return flat.replace("|", "\\|").replace("`", "\\`").replace("](", "]\\(")
