"""Draw docs/img/rooms.svg, the rooms in the order that import-linter holds, or check that it is up to date.

The order is read from pyproject.toml and what a room is for from its docstring, so the picture cannot go stale.

    python -m docs.rooms --check | --write
"""

from __future__ import annotations

import ast
import sys
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = Path("docs", "img", "rooms.svg")
MEND = "run 'make format' (or 'python -m docs.rooms --write') and commit docs/img/rooms.svg"
WIDTH, ROW, GAP, LEFT = 880, 48, 6, 48
"""Sizes in px: the picture, a room's height, between two rooms, and the margin in which the arrow stands."""


def rooms(root: Path) -> list[tuple[str, str]]:
    """Each layer from the top: where it is (`agents/`, or several modules), and the first line of its docstring."""
    configured = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[tuple[str, str]] = []
    for layer in configured["tool"]["importlinter"]["contracts"][0]["layers"]:
        names = [name.strip().removeprefix("finllm.") for name in layer.split(":")]
        if len(names) > 1:
            found.append((" · ".join(names), "What everything may import: settings, errors, events and files."))
            continue
        folder = Path(names[0]) if (root / names[0]).is_dir() else Path("src", "finllm", names[0])
        docstring = ast.get_docstring(ast.parse((root / folder / "__init__.py").read_text(encoding="utf-8")))
        found.append((f"{folder}/", (docstring or "").partition("\n")[0]))
    return found


def picture(root: Path) -> str:
    """The drawing as SVG: one box per room from top to bottom, and an arrow for the direction of imports."""
    listed = rooms(root)
    height = len(listed) * (ROW + GAP) + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<path d="M20 {GAP} V{height - GAP - 8}" stroke="#26486b" stroke-width="2"/>',
        f'<path d="M14 {height - GAP - 10} L20 {height - GAP} L26 {height - GAP - 10} Z" fill="#26486b"/>',
        f'<text x="38" y="{height / 2:.0f}" transform="rotate(-90 38 {height / 2:.0f})" text-anchor="middle" '
        'fill="#26486b">imports go down, never up</text>',
    ]
    for at, (name, purpose) in enumerate(listed):
        top = GAP + at * (ROW + GAP)
        lines += [
            f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - GAP}" height="{ROW}" rx="4" fill="#eef3f8" '
            'stroke="#26486b"/>',
            f'<text x="{LEFT + 12}" y="{top + 29}" font-weight="bold" fill="#16283c">{escape(name)}</text>',
        ]
        wrapped = textwrap.wrap(purpose, 78)[:2]
        first = top + (29 if len(wrapped) == 1 else 21)
        lines += [
            f'<text x="{LEFT + 230}" y="{first + 17 * row}" fill="#333333">{escape(line)}</text>'
            for row, line in enumerate(wrapped)
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def main(argument: str) -> None:
    """`--write` writes the picture; anything else checks it. SystemExit naming the mend where it is out of date."""
    wanted, target = picture(ROOT), ROOT / PICTURE
    if argument == "--write":
        target.write_text(wanted, encoding="utf-8")
    elif not target.exists() or target.read_text(encoding="utf-8") != wanted:
        sys.exit(f"{PICTURE} is not the order of pyproject.toml with the rooms' docstrings; {MEND}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "--check")
