"""The examples of README.md and docs/ print what the pages show, on the real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import examples
from tests.warm import Warm

PAGE = """
```csv title="numbers.csv"
1,2
```

```console
$ cat numbers.csv
1,2
$ echo 20221130-090000-oil-up-4ac6 and \\
    five
old words
```
"""


@pytest.mark.slow
def test_every_example_prints_what_its_page_shows(tmp_path: Path, warm: Warm) -> None:
    found: list[examples.Difference] = []
    session = examples.Session(tmp_path)
    warm.home(session.home)
    for page in examples.pages():
        examples.play(page, session, found.append)
    assert not found, "\n\n".join(map(str, found)) + f"\n\n{examples.MEND}"


def test_a_page_that_shows_something_else_is_told_and_rewritten(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    found: list[examples.Difference] = []
    text = examples.play(page, examples.Session(tmp_path), found.append)
    assert text == PAGE.replace("old words", "20221130-090000-oil-up-4ac6 and five")
    assert len(found) == 1
    assert "-old words" in str(found[0])
    page.write_text(text, encoding="utf-8")
    assert examples.play(page, examples.Session(tmp_path), found.append) == text
    assert len(found) == 1


def test_the_run_of_a_page_stands_for_the_run_that_was_made(tmp_path: Path) -> None:
    session = examples.Session(tmp_path, {"oil-up": "20991231-235959-oil-up-ffff"})
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo 20221130-090000-oil-up-4ac6 > it; cat it\nx\n```\n", encoding="utf-8")
    examples.play(page, session, lambda _difference: None)
    assert (tmp_path / "it").read_text(encoding="utf-8") == "20991231-235959-oil-up-ffff\n"


def test_a_command_that_fails_is_told_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no good"):
        examples.Session(tmp_path).run("echo no good >&2; exit 3")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("time 38.4 s", "time 1.2 s", True),
        ("energy  82.93   J", "energy 1.00 J", True),
        ("run 20221130-090000-oil-up-4ac6", "run 20991231-235959-oil-up-ffff", True),
        ("event policy (95 %)", "event policy (93 %)", True),
        ("event policy (95 %)", "event blockade (95 %)", False),
        ("AAPL  -38,076 USD", "AAPL   -38,076 USD", True),
        ("AAPL  -38,076 USD", "AAPL   -38,077 USD", False),
        ("moves the book by -5.24 % of its value", "moves the book by -5.25 % of its value", False),
    ],
)
def test_what_two_honest_runs_may_differ_in_is_not_compared(one: str, other: str, same: bool) -> None:
    assert (examples.comparable(one) == examples.comparable(other)) is same
