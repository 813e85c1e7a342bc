"""docs/benchmarks.md: one section per benchmark command, each replaced when its command is run again."""

from __future__ import annotations

import os
import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def write_section(title: str, command: str, body: str) -> None:
    """Replace the section `title` of the page, or add it at the end."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Benchmarks\n"
    section = f"## {title}\n\nWritten by `{command}`; {os.cpu_count()} cores.\n\n{body.strip()}\n"
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    text = (
        f"{text.rstrip()}\n\n{section}"
        if found is None
        else text[: found.start()] + section + "\n" + text[found.end() :]
    )
    PAGE.write_text(text.rstrip() + "\n", encoding="utf-8")
