"""`finllm session`: scripts with an object for each verb, and a real terminal that it is typed at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import finllm
from finllm.cli.session import script_lines
from finllm.cli.session_terminal import candidates, lines_of
from finllm.errors import InputError
from tests.cli.terminals import Terminal
from tests.conftest import LONGEST_RUN

pytestmark = pytest.mark.slow
CODE = "import sys; from finllm.cli.main import main; sys.exit(main())"
SCRIPT = """
# what the desk did this morning
shock OIL_WTI +60% because "two lanes are mined"
nonsense
undo
E1
"""


class Words:
    """What a session knows, without one."""

    def words(self, kind: str) -> list[str]:
        return {"factor": ["OIL_WTI", "GOLD"], "source": ["wire-1", "add"], "evidence": ["E1", "E61"],
                "version": ["v1", "v2"]}.get(kind, [])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [("sho", ["shock", "show"]), ("shock oil", ["OIL_WTI"]), ("E6", ["E61"]), ("source w", ["wire-1"]),
     ("source wire-1 o", ["on", "off"]), ("read GOLD d", ["down"]), ("read GOLD down la", ["large"]),
     ("goto ", ["v1", "v2"]), ("shock OIL_WTI +5% b", ["because"])],
)  # fmt: skip
def test_words_are_completed_by_where_they_stand(text: str, found: list[str]) -> None:
    assert list(candidates(text, Words())) == found  # pyright: ignore[reportArgumentType]


def test_a_pasted_story_is_one_line_and_pasted_verbs_are_many() -> None:
    assert list(lines_of("undo\n\n# no\nredo")) == ["undo", "redo"]
    assert list(lines_of("story The strait\nis open")) == ["story The strait\nis open"]
    assert list(script_lines('undo\nstory """\na\nb\n"""\nredo', "x")) == ["undo", 'story """\na\nb\n"""', "redo"]
    with pytest.raises(InputError, match="x:2"):
        list(script_lines('undo\nstory """\na', "x"))


def finllm_command(home: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **of_home(home)}
    return subprocess.run([sys.executable, "-c", CODE, *arguments], input=given, env=env, capture_output=True,
                          text=True, timeout=LONGEST_RUN, check=False)  # fmt: skip


def of_home(home: Path) -> dict[str, str]:
    return {"FINLLM_HOME": str(home), "FINLLM_THREADS": "1", "PYTHONPATH": str(Path(finllm.__file__).parents[1])}


@pytest.fixture(scope="module")
def played(real_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], int, Path]:
    """A script on the real model: its home, an object for each line, the exit code, and the saved scenario."""
    saved = tmp_path_factory.mktemp("saved") / "v2.yaml"
    script = f"{SCRIPT}redo\nsave {saved}\n"
    done = finllm_command(real_home, "session", "non-event", "--script", "-", "--json", "--quiet", "--as", "risk1",
                          given=script)  # fmt: skip
    return real_home, [json.loads(line) for line in done.stdout.splitlines()], done.returncode, saved


def test_a_script_gives_an_object_for_each_verb_the_opening_first(
    played: tuple[Path, list[dict[str, Any]], int, Path],
) -> None:
    _, rows, code, _ = played
    assert [row["verb"] for row in rows] == ["open", "shock", "nonsense", "undo", "evidence", "redo", "save"]
    assert [row["version"] for row in rows] == ["v1", "v2", "v2", "v1", "v1", "v2", "v2"]
    assert all({"verb", "version", "total", "by_factor", "took_s", "asked", "reused"} <= row.keys() for row in rows)
    assert rows[2]["error"]["kind"] == "bad_input"
    assert code == 2
    assert rows[1]["base"]["total"] == rows[0]["total"] == rows[3]["total"]
    assert rows[1]["reused"] > 0


def test_a_saved_version_is_run_to_the_same_cent(played: tuple[Path, list[dict[str, Any]], int, Path]) -> None:
    home, rows, _, saved = played
    done = finllm_command(home, "run", str(saved), "--json", "--quiet")
    report = json.loads(done.stdout)
    assert report["total"]["value"] == rows[1]["total"]
    assert report["hand"][0]["because"] == "two lanes are mined"


@pytest.fixture
def terminal(played: tuple[Path, list[dict[str, Any]], int, Path], request: pytest.FixtureRequest) -> Iterator[Any]:
    home, rows, _, _ = played
    started: list[Terminal] = []

    def start(term: str) -> Terminal:
        started.append(Terminal(["session", rows[0]["run"]], {**of_home(home), "TERM": term}))
        started[-1].wait_for("v1>", LONGEST_RUN)
        return started[-1]

    yield start
    for one in started:
        one.kill()


def test_at_a_terminal_nothing_that_is_typed_ends_the_session(terminal: Any) -> None:
    at = terminal("xterm")
    at.send("sho\t\t")
    at.wait_for("shock")
    at.send("\x03")
    at.wait_for("v1>")
    at.send("vers\t\r")
    at.wait_for("* v1")
    at.resize(40, 120)
    at.send("\x1b[200~" + "? undo\n" * 200 + "\x1b[201~\r")
    for _ in range(200):
        at.wait_for("such as: undo")
    at.send("story It is quiet, and nothing has happened at all\r")
    at.wait_for("story It is quiet")
    stopped = at.wait_for_one(["(^C stops)", "repeat: finllm trace"], LONGEST_RUN) == "(^C stops)"
    if stopped:  # else it was answered within two seconds, and there is nothing to stop
        at.send("\x03")
        at.wait_for("the answer was stopped", LONGEST_RUN)
    at.send("show\r")
    at.wait_for("repeat: finllm trace", LONGEST_RUN)
    at.wait_for("v1>" if stopped else "v2>")
    at.send("\x04")
    at.wait_for("Back: finllm session s-", LONGEST_RUN)
    assert at.end() == 0


def test_ctrl_c_while_a_session_opens_leaves_a_session_to_go_on_with(
    played: tuple[Path, list[dict[str, Any]], int, Path],
) -> None:
    home, _, _, _ = played
    at = Terminal(["session", "A quiet day on which nothing at all has happened"], {**of_home(home), "TERM": "xterm"})
    try:
        at.wait_for("? for verbs", LONGEST_RUN)
        at.send("\x03")
        at.wait_for("v1>", LONGEST_RUN)
        at.send("\x03\x03")
        at.send("undo\r")
        at.wait_for("first version", LONGEST_RUN)
        at.wait_for("v1>", LONGEST_RUN)
        at.send("\x04")
        at.wait_for("Back: finllm session s-", LONGEST_RUN)
        assert at.end() == 0
        assert "\x1b[?1049h" not in at.shown, "the whole screen was taken"
    finally:
        at.kill()


def test_without_a_terminal_the_lines_of_a_pipe_are_a_script(
    played: tuple[Path, list[dict[str, Any]], int, Path],
) -> None:
    home, rows, _, _ = played
    done = finllm_command(home, "session", rows[0]["run"], "--quiet", given="show\nversions\n")
    assert done.returncode == 0
    assert done.stdout.count("repeat: finllm trace") >= 2
    assert "\x1b" not in done.stdout


def test_a_dumb_terminal_is_shown_plain_lines(terminal: Any) -> None:
    at = terminal("dumb")
    at.send("show\n")
    at.wait_for("P&L")
    at.send("shok\n")
    at.wait_for("did you mean 'shock'")
    at.send("quit\n")
    at.wait_for("Back: finllm session s-")
    assert at.end() == 0
    assert "\x1b" not in at.shown


@pytest.mark.parametrize("command", [("session", "list"), ("runs", "list")])
def test_a_home_that_is_no_folder_is_named_and_not_taken_for_an_empty_one(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("")
    done = finllm_command(tmp_path / "home", *command)
    assert done.returncode == 2
    assert "is no folder" in done.stderr
