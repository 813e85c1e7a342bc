"""The kinds of entries: each declared once, by the folder that writes it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("agents", "graphs", "guardrails", "memory", "models", "scheduler", "tools", "src/finllm")


def declared() -> Iterator[tuple[str, str]]:
    """Every `NAME = EntryKind("kind")` of the sources: the kind and its file."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            if path.is_relative_to(ROOT / "src/finllm") and path.relative_to(ROOT / "src/finllm").parts[0] in FOLDERS:
                continue  # the same file by its symlink
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                value = node.value if isinstance(node, ast.Assign) else None
                if isinstance(value, ast.Call) and getattr(value.func, "id", None) == "EntryKind":
                    (kind,) = value.args
                    assert isinstance(kind, ast.Constant)
                    yield str(kind.value), str(path.relative_to(ROOT))


def test_each_kind_of_entry_is_one_word_and_declared_once() -> None:
    kinds = list(declared())
    assert {("call", "scheduler/record.py"), ("state", "graphs/basis.py")} <= set(kinds)
    assert max(Counter(kind for kind, _path in kinds).values()) == 1
    assert all(kind.isidentifier() for kind, _path in kinds)
