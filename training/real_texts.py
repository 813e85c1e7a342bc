"""Reads JSON lines, gzipped or not, and tells where the real texts lie that a training may read and nothing carries."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[2] / "shared" / "text"
"""Beside the repository; what needs it skips or stops with a word where it is absent."""


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def needed() -> None:
    """Stop with a word where the real texts are absent."""
    if not SHARED.is_dir():
        sys.exit(f"the real texts are missing: {SHARED}")
