"""Write docs/files.md, every module with the first line of its docstring, and docs/design/index.md; or check them.

The pages are made from the tree itself, so nothing can be missing. Tests have one line per folder. Links are not
followed: src/finllm/ links to the folders at the root, which are listed there.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path("docs", "files.md")
NOTES = Path("docs", "design", "index.md")
MEND = "run 'make format' (or 'python -m docs.file_list --write') and commit docs/"
HEAD = """\
# Files

Every module, with the first line of its docstring. This page is written by `make format` and checked by `make check`.
"""
NOTES_HEAD = """\
# Design notes

Why things are as they are: what was chosen, what was rejected, and the figure that decided. Written by `make format`.

"""


def modules(root: Path) -> Iterator[Path]:
    """Every .py file below `root`, relative to it, folder by folder; hidden and built folders left out."""
    for folder, names, files in os.walk(root, followlinks=False):
        here = Path(folder)
        names[:] = sorted(n for n in names if not (n.startswith((".", "__")) or n.endswith(".egg-info")))
        if here == root:
            names[:] = [n for n in names if n not in {"build", "dist"}]
        yield from (here.joinpath(name).relative_to(root) for name in sorted(files) if name.endswith(".py"))


def first_line(root: Path, name: Path) -> str:
    """The first line of the module's docstring, as Markdown. SystemExit naming the module where it has none."""
    docstring = ast.get_docstring(ast.parse((root / name).read_text(encoding="utf-8")))
    if not docstring:
        sys.exit(f"{str(name)!r} has no docstring; open it with one line that says what the module does")
    parts = docstring.splitlines()[0].split("`")  # every second one is code, in which Markdown escapes nothing
    return "`".join(p if i % 2 else p.replace("*", "\\*").replace("<", "&lt;") for i, p in enumerate(parts))


def line(root: Path, name: Path) -> str:
    """A module's line on the page; all modules of one folder of tests have the same."""
    if name.parts[0] != "tests":
        return f"- `{name}`: {first_line(root, name)}"
    subject = "/".join(name.parent.parts[1:])
    return f"- `{name.parent}/`: " + (
        f"tests of {subject}" if subject else "what all tests share, and tests of the whole"
    )


def page(root: Path) -> str:
    """The text of docs/files.md for the tree at `root`. SystemExit for a module without a docstring."""
    sections: dict[str, dict[str, None]] = {}  # the keys of a dict: an ordered set, so a folder of tests has one line
    for name in modules(root):
        title = "tests" if name.parts[0] == "tests" else str(name.parent)
        sections.setdefault(title, {})[line(root, name)] = None
    return HEAD + "".join(f"\n## {title}\n\n" + "\n".join(lines) + "\n" for title, lines in sections.items())


def notes(root: Path) -> str:
    """The text of docs/design/index.md for the design notes at `root`: one line per note, its title."""
    lines: list[str] = []
    for note in sorted((root / NOTES.parent).glob("[0-9]*.md")):
        title = note.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({note.name})\n")
    return NOTES_HEAD + "".join(lines)


def main(argument: str) -> None:
    """`--write` writes the pages; anything else checks them. SystemExit naming the mend where one is out of date."""
    for name, wanted in ((PAGE, page(ROOT)), (NOTES, notes(ROOT))):
        target = ROOT / name
        if argument == "--write":
            target.parent.mkdir(exist_ok=True)
            target.write_text(wanted, encoding="utf-8")
            continue
        there = target.read_text(encoding="utf-8") if target.exists() else ""
        if there != wanted:
            differing = sorted(set(there.splitlines()) ^ set(wanted.splitlines()))[:3]
            sys.exit(f"{name} is out of date, for example at {'; '.join(differing)!r}; {MEND}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "--check")
