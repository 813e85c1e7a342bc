"""Record the doors at a pseudo-terminal, as pictures for the pages: `python -m docs.recordings`, on the real model.

What is typed and what is shown is played into `docs/img/session.svg` and `docs/img/chat.svg`; the first run of a home
takes minutes. The pictures name no address: they need no network, as the pages.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from tests.cli.terminals import Terminal

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "img"
COLUMNS, LONGEST = 100, 600.0
PROMPT = re.compile(r"^(s-\S+ v\d+> |> )")
_FACE = re.compile(r"@font-face \{.*?\}", re.DOTALL)


@dataclass(frozen=True)
class Recording:
    """A door: its command, its prompt, and what is typed there with what each answer ends on."""

    name: str
    arguments: tuple[str, ...]
    prompt: str
    typed: tuple[tuple[str, str], ...]


RECORDINGS = (
    Recording("session", ("session", "hormuz-blockade"), "> ", (
        ('shock OIL_WTI +60% because "two lanes are mined, see the navy note"', "repeat:"),
        ("trade AAPL -999999", "fix: if that is meant"), ("undo", "repeat:"), ("hedge 5%", "repeat:"),
    )),
    Recording("chat", ("chat",), "> ", (
        ("what does the book lose?", "repeat:"), ("who loses most and why", "repeat:"),
        ("what did the navy say", "repeat:"), ("what does the book lose without the bond", "repeat:"),
        ("will it rain tomorrow?", "nothing on record"),
    )),
)  # fmt: skip


def played(one: Recording, home: Path) -> str:
    """All that the terminal showed. AssertionError where it does not come to its end."""
    env = {"FINLLM_HOME": str(home), "TERM": "dumb", "PYTHONPATH": str(ROOT / "src"), "COLUMNS": str(COLUMNS)}
    at = Terminal(list(one.arguments), env, columns=COLUMNS)
    try:
        at.wait_for(one.prompt, LONGEST)
        for line, ends in one.typed:
            at.send(f"{line}\n")
            at.wait_for(ends, LONGEST)
            at.wait_for(one.prompt, LONGEST)
        at.send("quit\n")
        at.end()
    finally:
        at.kill()
    return at.text


def lines(shown: str, home: Path) -> Iterator[str]:
    """The lines of a screen, without progress and what is of this machine."""
    for line in shown.replace("\r\n", "\n").replace("\r", "\n").splitlines():
        if not line.startswith(("  … ", "opening the models")):
            yield line.replace(str(home), "~/.finllm").rstrip()


def picture(shown: Sequence[str], title: str) -> str:
    """The screen as SVG: what was typed bold, what is provisional dim. No font is fetched."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    for line in shown:
        style = "bold" if PROMPT.match(line) else "dim" if "provisional" in line or "repeat:" in line else ""
        console.print(Text(line, style=style), soft_wrap=False, overflow="fold")
    drawn = console.export_svg(title=title, unique_id=title.replace(" ", "-"))
    return _FACE.sub("", drawn).replace("Fira Code, monospace", "monospace")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(os.environ.get("FINLLM_RECORD_HOME", folder))
        for one in RECORDINGS:
            shown = list(lines(played(one, home), home))
            path = IMAGES / f"{one.name}.svg"
            path.write_text(picture(shown, f"finllm {one.name}"), encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {len(shown)} lines")


if __name__ == "__main__":
    sys.exit(main())
