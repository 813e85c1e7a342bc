"""README.md, CONTRIBUTING.md and docs/: links resolve, files and commands that they name exist, README stays short."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from docs.commands import commands
from docs.examples import BLOCK
from finllm.cli.app import app

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = [page for page in PAGES if page.parent.name != "design"]
"""Pages that say how things are. A design note also says how things were."""
FINLLM: Any = get_command(app)
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w./-]+/[\w.-]+\.(?:py|md|yaml|toml|csv|json|j2|svg)|[\w-]+\.(?:py|md)")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def basenames() -> set[str]:
    tops = [top for top in ROOT.iterdir() if top.is_dir() and not top.name.startswith(".") and top.name != "build"]
    return {path.name for top in tops for path in top.rglob("*")} | {path.name for path in ROOT.iterdir()}


def test_the_readme_can_be_read_in_three_minutes() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 9_000


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_resolves(page: Path) -> None:
    links = LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_every_file_that_a_page_names_exists(page: Path, basenames: set[str]) -> None:
    text = page.read_text(encoding="utf-8")
    known = basenames | set(re.findall(r'title="([^"]+)"', "".join(p.read_text(encoding="utf-8") for p in GUIDES)))
    missing: list[str] = []
    for code in INLINE.findall(FENCED.sub("", text)):
        if FILE.fullmatch(code) and "NAME" not in code:
            places = [ROOT, ROOT / "scheduler", page.parent]
            if not (any((place / code).exists() for place in places) or ("/" not in code and code in known)):
                missing.append(code)
    assert not missing


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for code in INLINE.findall(page.read_text(encoding="utf-8")):
        file, _, test = code.partition("::")
        if test:
            assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), code


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_every_command_in_a_block_of_its_own_is_run(page: Path) -> None:
    blocks = [block for block in BLOCK.finditer(page.read_text(encoding="utf-8")) if block["language"] != "console"]
    told = [line for block in blocks for line in block["body"].splitlines() if re.match(r"(\$ |\S+/)?finllm ", line)]
    assert not told, "blocks of language console are run; make these one"


def commands_in(text: str) -> Iterator[list[str]]:
    """The arguments of every `finllm …` in backticks, as a shell would split them."""
    for code in INLINE.findall(FENCED.sub("", text)):
        if re.match(r"(FINLLM_\w+=\S+ )*finllm( |$)", code):
            words = shlex.split(code)
            yield words[words.index("finllm") + 1 :]


@cache
def inner_commands(command: Any) -> dict[str, Any]:
    return dict(commands(command))


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    for words in commands_in(page.read_text(encoding="utf-8")):
        command: Any = FINLLM
        for word in words:
            if inner := inner_commands(command).get(word):
                command = inner
            elif word.startswith("--") and word != "--help":
                options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
                assert word in options, words
            elif inner_commands(command) and word not in ("COMMAND", "…", "--help"):
                pytest.fail(f"no command {word!r} in {words}")


def test_every_command_takes_json_as_the_readme_says() -> None:
    def without(command: Any, name: str) -> list[str]:
        inner = inner_commands(command)
        if not inner:
            return [] if any("--json" in option.opts for option in command.params) else [name]
        return [found for word, one in inner.items() for found in without(one, f"{name} {word}")]

    assert without(FINLLM, "finllm") == []
