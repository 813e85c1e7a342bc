"""How long a file and a function may be, so that each can be read at one sitting."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = 400
FUNCTION_LINES = 60
"""Of a function whole, but for a command's parameters: each is an option with its help, and many lines of options are
no harder to read than few."""


def test_no_file_is_too_long_to_read() -> None:
    long = {f"{path}: {len(text.splitlines())} lines" for path, text in _modules()
            if len(text.splitlines()) > FILE_LINES}  # fmt: skip
    assert not long, f"over {FILE_LINES} lines; look for the two rooms in one"


def test_no_function_is_too_long_to_read() -> None:
    long: set[str] = set()
    for path, text in _modules():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0].lineno if _is_command(node) else node.lineno
                lines = (node.end_lineno or 0) - first + 1
                if lines > FUNCTION_LINES:
                    long.add(f"{path}: {node.name}, {lines} lines")
    assert not long, f"over {FUNCTION_LINES} lines; give the steps names"


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a parameter is an option or argument of the command line: `Annotated[…, typer.Option(…)]`."""
    return any("typer." in ast.unparse(one.annotation) for one in node.args.args if one.annotation)


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
