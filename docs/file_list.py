"""Write the README's list of files from the first lines of their docstrings, or check that it is up to date."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- files: written by docs/file_list.py -->", "<!-- end of files -->"
FOLDERS = (
    "src/finllm/cli", "src/finllm", "graphs", "agents", "guardrails", "guardrails/audit", "memory", "scheduler",
    "scheduler/backends", "models", "tools", "scenarios", "benchmarks", "docs",
)  # fmt: skip


def file_list() -> str:
    """One line per module: its path and the first line of its docstring. SystemExit for a module without one."""
    lines: list[str] = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.py")):
            if not path.stat().st_size:
                continue
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if not docstring:
                sys.exit(f"{path.relative_to(ROOT)} has no docstring; open it with one line that says what it is for")
            lines.append(f"{path.relative_to(ROOT)!s:<38} {docstring.splitlines()[0]}")
    return "```\n" + "\n".join(lines) + "\n```"


def main(argument: str) -> None:
    text = README.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _old, tail = rest.split(END)
    wanted = f"{head}{BEGIN}\n{file_list()}\n{END}{tail}"
    if argument == "--write":
        README.write_text(wanted, encoding="utf-8")
    elif text != wanted:
        sys.exit("the README's list of files is out of date; run 'make format'")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "--check")
