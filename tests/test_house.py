"""How long a file and a function may be, so that each can be read at one sitting."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = 400
FUNCTION_LINES = 60
"""Of a function's body; its signature, which for a command declares the options, is not counted."""

BUILT = ("build", "dist", "site")

LONG_FILES = {
    "tests/scheduler/backends/test_vllm.py",  # all of it shares one real server, which takes a minute to start
}
LONG_FUNCTIONS = {
    ("benchmarks/narratives.py", "made_up_table"),  # one entry per row of the made-up table
    ("benchmarks/broker/escalation.py", "escalation"),  # one experiment, whose steps share every array
}


def test_no_file_is_too_long_to_read() -> None:
    long = {f"{path}: {len(text.splitlines())} lines" for path, text in _modules()
            if len(text.splitlines()) > FILE_LINES and path not in LONG_FILES}  # fmt: skip
    assert not long, f"over {FILE_LINES} lines; look for the two rooms in one"


def test_no_function_is_too_long_to_read() -> None:
    long: set[str] = set()
    for path, text in _modules():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (path, node.name) not in LONG_FUNCTIONS:
                lines = (node.end_lineno or 0) - node.body[0].lineno + 1
                if lines > FUNCTION_LINES:
                    long.add(f"{path}: {node.name}, {lines} lines")
    assert not long, f"over {FUNCTION_LINES} lines; give the steps names"


def _modules() -> Iterator[tuple[str, str]]:
    """Every module, by its path; links and hidden or built folders left out."""
    for folder, names, files in os.walk(ROOT, followlinks=False):
        names[:] = [
            name for name in names if not name.startswith((".", "__")) and name not in ("build", "dist", "site")
        ]
        for name in files:
            if name.endswith(".py"):
                path = Path(folder, name)
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
