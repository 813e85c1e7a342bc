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
    """A door: its command, what it waits for, what is typed at it and what then ends each answer."""

    name: str
    arguments: tuple[str, ...]
    prompt: str
    typed: tuple[str, ...]


RECORDINGS = (
    Recording("session", ("session", "hormuz-blockade"), "> ", (
        'shock OIL_WTI +60% because "two lanes are mined, see the navy note"', "hold", "trade AAPL -999999", "undo",
        "hedge 5%", "E1",
    )),
    Recording("chat", ("chat",), "> ", (
        "what does the book lose?", "who loses most and why", "what did the navy say",
        "what does the book lose without the bond", "will oil fall after that?",
    )),
)  # fmt: skip


def played(one: Recording, home: Path) -> str:
    """What the terminal showed, from the first prompt on. AssertionError where it does not come to its end."""
    env = {"FINLLM_HOME": str(home), "TERM": "dumb", "PYTHONPATH": str(ROOT / "src"), "COLUMNS": str(COLUMNS)}
    at = Terminal(list(one.arguments), env, columns=COLUMNS)
    try:
        shown = at.wait_for(one.prompt, LONGEST)
        for line in (*one.typed, "quit"):
            at.send(f"{line}\n")
            if line != "quit":
                shown += (
                    at.wait_for("repeat:", LONGEST) if line != "trade AAPL -999999" else at.wait_for("yes", LONGEST)
                )
                shown += at.wait_for(one.prompt, LONGEST)
        shown += at.wait_for("ack: finllm", LONGEST)
        at.end()
    finally:
        at.kill()
    return shown


def lines(shown: str, home: Path) -> Iterator[str]:
    """The lines of a screen, without what is of this machine."""
    for line in shown.replace("\r\n", "\n").replace("\r", "\n").splitlines():
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
