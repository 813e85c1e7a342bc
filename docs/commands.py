"""Write docs/commands.md from the `--help` of every command, or check that it is up to date.

python -m docs.commands --check | --write
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent / "commands.md"
MEND = "run 'make format' (or 'python -m docs.commands --write') and commit docs/commands.md"
HEAD = """\
# Commands

What `--help` says of every command. This page is written by `make format` and checked by `make check`.
"""


def commands(group: Any) -> Iterator[tuple[str, Any]]:
    """A group's commands by name, in the order of its help, each loaded; none for a command that is no group."""
    if hasattr(group, "list_commands"):
        context = group.make_context("finllm", ["--help"], resilient_parsing=True)
        yield from ((name, group.resolve_command(context, [name])[1]) for name in group.list_commands(context))


def helps() -> Iterator[tuple[str, str]]:
    """Every command's name, groups' own included, with its help page at a width of 100 columns."""
    os.environ |= {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "TERM": "dumb", "NO_COLOR": "1"}
    from typer.main import get_command
    from typer.testing import CliRunner

    from finllm.cli.app import app

    def walk(group: Any, names: list[str]) -> Iterator[list[str]]:
        yield names
        for name, command in commands(group):
            yield from walk(command, [*names, name])

    for names in walk(get_command(app), []):
        said = CliRunner().invoke(app, [*names, "--help"], prog_name="finllm").stdout
        yield " ".join(["finllm", *names]), "\n".join(line.rstrip() for line in said.strip("\n").splitlines())


def page() -> str:
    """The text of docs/commands.md."""
    return HEAD + "".join(f"\n## {name}\n\n```text\n{said}\n```\n" for name, said in helps())


def main(argument: str) -> None:
    """`--write` writes the page; anything else checks it. SystemExit naming the mend where it is out of date."""
    wanted = page()
    if argument == "--write":
        PAGE.write_text(wanted, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted:
        sys.exit(f"docs/commands.md is not what the commands' --help says; {MEND}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "--check")
