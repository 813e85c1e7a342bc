"""Run the examples of README.md and docs/, and compare what they print with what the pages show, or write it there.

A fenced block whose info string has `title="my-book.csv"` is a file of that name, there before the page's commands run.
A block of language `console` holds commands, each behind `$ `, with what they print to stdout below them. All pages
share one folder and one home, README first, so that a page may use the files and runs of the pages before it. Run ids
on a page stand for the latest run of that title. What two honest runs may differ in is left out of the comparison: see
`comparable`.

    python -m docs.examples --check      # exit 1 and the differences, if a page shows what its commands do not print
    python -m docs.examples --write      # put what the commands print into the pages
    python -m docs.examples --write audit.md record.md    # of these pages alone, behind README
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEND = "if the new output is right, run 'make docs-examples' and commit the pages"
LONGEST = 600.0
"""s that one command may take, the first one on an empty home too, on a machine that has much else to do."""
BLOCK = re.compile(r"^```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"/]+)"')
RUN_ID = re.compile(r"\b\d{8}-\d{6}-([a-z0-9-]+?)-[0-9a-f]{4}\b")
PICTURE = (Path("out", "report.html"), ROOT / "docs" / "img" / "report.svg")
"""README's picture is the first chart of the report that its own example makes."""
VARYING = (
    (re.compile(r"\bs-\d{6}-\d{4}-[0-9a-f]{4}\b"), "SESSION"),
    (RUN_ID, r"RUN-\1"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(Z|\+00:00)?"), "WHEN"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "DIGEST"),
    (re.compile(r"\d[\d.,]* +(ms|s|J|kJ|Wh|gCO₂e|tok/s|GiB|MiB|GB|MB)\b"), r"# \1"),  # measured here, now
    (re.compile(r"\(\d+ %\)"), "(# %)"),  # a model's probabilities: they move with the CPU's arithmetic
    (re.compile(r"\b\d{1,3}%(?=\)$| \(next|$)", re.MULTILINE), "#%"),
    (re.compile(r"[─━]+"), "─"),
    (re.compile(r" +"), " "),
)


@dataclass(frozen=True)
class Difference:
    """A command whose output is not what its page shows."""

    page: str
    command: str
    shown: str
    printed: str

    def __str__(self) -> str:
        lines = difflib.unified_diff(
            comparable(self.shown), comparable(self.printed), "on the page", "printed", lineterm="", n=1
        )
        return f"{self.page}: {self.command}\n" + "\n".join(lines)


def pages(names: Sequence[str] = ()) -> list[Path]:
    """README first, then the pages of docs/ by name, or those of `names` alone; design notes have no examples."""
    found = sorted((ROOT / "docs").glob("*.md"))
    return [ROOT / "README.md", *(page for page in found if not names or page.name in names)]


def comparable(output: str) -> list[str]:
    """The output's lines without what varies: run ids, times of now, digests, measured times, energy and sizes,
    a model's probabilities in brackets, and the spacing of columns."""
    for pattern, instead in VARYING:
        output = pattern.sub(instead, output)
    return [line.strip() for line in output.strip().splitlines()]


@dataclass
class Session:
    """One folder and one home in which commands run; remembers the run ids that they printed, by title."""

    folder: Path
    runs: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(self, command: str) -> str:
        """What the command prints to stdout. RuntimeError where it fails."""
        command = RUN_ID.sub(lambda found: self.runs.get(found[1], found[0]), command)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FINLLM_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
        changed = {"PATH": path, "FINLLM_HOME": str(self.home), "FINLLM_SLOTS": "1", "COLUMNS": "100", "TERM": "dumb"}
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=kept | changed, capture_output=True, text=True,
            timeout=LONGEST, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(
                f"$ {command}\nexited with {done.returncode}:\n{done.stderr[-2000:]}{done.stdout[-500:]}"
            )
        self.runs |= {found[1]: found[0] for found in RUN_ID.finditer(done.stdout)}
        said = done.stdout.replace(str(self.home), "~/.finllm").replace(f"{self.folder}/", "")
        return "\n".join(line.rstrip() for line in said.splitlines())


def parts(body: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block as it is written, `$ ` and continued lines included, with the output below it."""
    for part in re.split(r"^(?=\$ )", body, flags=re.MULTILINE):
        if part.startswith("$ "):
            lines = part.splitlines()
            end = next(at for at, line in enumerate(lines) if not line.endswith("\\")) + 1
            yield "\n".join(lines[:end]), "\n".join(lines[end:]).strip("\n")


def play(page: Path, session: Session, tell: Callable[[Difference], None]) -> str:
    """Run a page's examples in order, tell each difference, and return the page's text with what was printed."""
    text = page.read_text(encoding="utf-8")
    ids = {found[1]: found[0] for found in RUN_ID.finditer(text)}
    for block in BLOCK.finditer(text):
        if title := TITLE.search(block["info"]):
            (session.folder / title[1]).write_text(block["body"], encoding="utf-8")

    def played(block: re.Match[str]) -> str:
        if block["language"] != "console":
            return block[0]
        body: list[str] = []
        for command, shown in parts(block["body"]):
            printed = session.run(command.removeprefix("$ ")).strip("\n")
            printed = RUN_ID.sub(lambda found: ids.get(found[1], found[0]), printed)
            same = comparable(printed) == comparable(shown)
            if not same:
                tell(Difference(page.name, command, shown, printed))
            body += [command, shown if same else printed]
        lines = "\n".join(line for line in body if line)
        return f"```console{block['info']}\n{lines}\n```"

    return BLOCK.sub(played, text)


def write_picture(folder: Path) -> None:
    """Put the first chart of the report that the examples made beside the pages, as an image that stands alone."""
    made, picture = PICTURE
    chart = re.search(r"<svg .*?</svg>", (folder / made).read_text(encoding="utf-8"), re.DOTALL)
    if chart is None:
        sys.exit(f"{str(made)!r} of the examples has no chart; run its command and look at the report")
    picture.write_text(
        chart[0].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n", encoding="utf-8"
    )


def main(argument: str, names: Sequence[str] = ()) -> None:
    """`--write` writes the pages; anything else checks them; `names`: of these alone, behind README, which they need.
    SystemExit with the differences."""
    found: list[Difference] = []
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder).resolve())
        for page in pages(names):
            text = play(page, session, found.append)
            if argument == "--write":
                page.write_text(text, encoding="utf-8")
        if argument == "--write":
            write_picture(session.folder)
    if argument == "--write":
        print(f"{len(found)} outputs written")
    elif found:
        sys.exit("\n\n".join(map(str, found)) + f"\n\n{MEND}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "--check", sys.argv[2:])
