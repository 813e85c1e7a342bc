"""Random sessions of thirty verbs whose processes are killed at any moment, on scripted models and on the real one.

However they went, the tree is that of the record, a version has one total for ever, and a saved version run afresh in
another home gives it to the cent.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from finllm.guardrails.audit.reading import open_reading
from finllm.memory.sessions import Row, session_rows, sessions
from finllm.sessions.tree import Tree
from finllm.settings import Settings
from tests.cli.test_kills import Ended, copied, forking
from tests.conftest import LONGEST_RUN
from tests.graphs.test_kill_and_resume import CONTEXT, ROOT, STORY
from tests.models.tiny import write_tiny_model
from tests.soak import Soak
from tests.warm import Warm

VERBS, KILLS = 30, 2
CHECKED = 3
"""Versions of a session that are run afresh."""
BOOK = """id,quantity,market_value,currency,asset_class,sector,duration
AAPL,2000,,USD,equity,Technology,
XOM,1500,,USD,equity,Energy,
BOND,,400000,USD,bond,Credit,4.6
"""
LINES = (
    'shock OIL_WTI {n}% because "x"', 'shock EQUITY_US -{n}% because "y"', 'shock OIL_WTI none because "r"', "undo",
    "undo", "redo", "goto v1", "goto v2", 'read EQUITY_US down because "z"', 'read GOLD up large because "w"',
    'read VIX none because "calm"', 'source post off because "v"', 'source post mute because "m"',
    'source post on because "u"', "hold", "complete", "horizon 5", "horizon 20", "level 95", "level 99",
    "trade AAPL -{n}", "trade XOM {n}", "trade BOND -{n}000", "name v1 base", "goto base", "replay lehman-2008",
    "replay off", 'withhold VIX because "t"', 'accept GOLD because "s"', "currency EUR", "currency USD", "compare v1",
    "drives", "hedge 5%", "E1", "versions", "nonsense", "shock NOWHERE 5% because s", "trade AAPL -99999999",
    "story Mines are cleared from the strait {n}, and crude falls",
)  # fmt: skip


class Command(Protocol):
    """Runs `finllm` with arguments in a home, and sends it a signal after so many seconds if it has not ended."""

    def __call__(self, home: Path, *arguments: str, number: int = 0, after: float = LONGEST_RUN) -> Ended: ...


@dataclass
class Played:
    """A session as its processes told it: their answers, one list a process, and how often one was killed."""

    session: str = ""
    processes: list[list[dict[str, Any]]] = field(default_factory=list[list[dict[str, Any]]])
    kills: int = 0

    def totals(self) -> dict[str, set[tuple[float, str]]]:
        """By version every total that was told of it, with its currency."""
        found: dict[str, set[tuple[float, str]]] = {}
        for row in (row for rows in self.processes for row in rows if row.get("total") is not None):
            found.setdefault(row["version"], set()).add((row["total"], row["currency"]))
        return found


def record(home: Path, session: str) -> list[Row]:
    with open_reading(Settings(home=home), lambda _line: None) as ledger:
        return session_rows(session, ledger)


def started(home: Path) -> str:
    """The one session of a home, whose process may have died before it said its name; nothing where there is none."""
    if not Settings(home=home).ledger_path.exists():
        return ""
    with open_reading(Settings(home=home), lambda _line: None) as ledger:
        return next((one["session"] for one in sessions(ledger)), "")


def play(command: Command, home: Path, story: Path, draw: random.Random, seconds: float) -> Played:
    """Thirty random lines, two kills at any moment of so many `seconds`; what was in flight then may be lost."""
    played, rest = Played(), [draw.choice(LINES).format(n=draw.randint(5, 40)) for _ in range(VERBS)]
    script, book = home / "script.txt", home / "book.csv"
    book.write_text(BOOK, encoding="utf-8")
    while True:
        script.write_text("\n".join(rest) + "\n", encoding="utf-8")
        first = (str(story), "-p", str(book)) if not played.session else (played.session,)
        killed = played.kills < KILLS
        ended = command(home, "session", *first, "--script", str(script), "--as", "risk1", "--quiet",
                        number=signal.SIGKILL if killed else 0,
                        after=draw.uniform(0.0, seconds) if killed else LONGEST_RUN * 3)  # fmt: skip
        text = ended.said if isinstance(ended.said, str) else json.dumps(ended.said)
        rows = [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]
        played.processes.append(rows)
        played.session = played.session or started(home)
        rest = rest[max(0, len(rows) - 1) :]
        if ended.code != -signal.SIGKILL:
            assert ended.code in (0, 2), ended.talk
            return played
        played.kills += 1
        if played.session:
            Tree.of(record(home, played.session))


def check(command: Command, played: Played, home: Path, fresh: Path, draw: random.Random) -> int:
    """The tree and the totals; how many versions there are."""
    tree = Tree.of(record(home, played.session))
    for rows in played.processes:
        at: str | None = None
        for row in rows:
            version = tree.versions[int(row["version"].removeprefix("v"))]
            if at is not None and row["version"] != at and row["verb"] not in ("undo", "redo", "goto", "open"):
                assert version.parent == int(at.removeprefix("v")), row
            at = row["version"]
    if played.processes[-1]:
        assert played.processes[-1][-1]["version"] == tree.version.id
    told = played.totals()
    assert all(len(totals) == 1 for totals in told.values()), told
    wanted = [tree.version.id, *draw.sample(sorted(told), min(CHECKED - 1, len(told)))]
    lines = [line for one in wanted for line in (f"goto {one}", f"save {home / f'{one}.yaml'}")]
    script = home / "check.txt"
    script.write_text("\n".join([f"goto {tree.version.id}", *dict.fromkeys(lines), "versions"]), encoding="utf-8")
    ended = command(home, "session", played.session, "--script", str(script), "--as", "risk1", "--quiet")
    answers = [json.loads(line) for line in ended.said.splitlines()]
    listed = {row["version"]: row for row in answers[-1]["data"]["versions"]}
    shape = tree.shape()["versions"]
    assert {int(id.removeprefix("v")): (int(row["parent"][1:]) if row["parent"] else None, row["line"], row["why"],
                                        row["who"], row["run"]) for id, row in listed.items()} == shape  # fmt: skip
    for one in dict.fromkeys(wanted):
        again = command(fresh, "run", str(home / f"{one}.yaml"), "-p", str(home / "book.csv"), "--quiet")
        assert again.code == 0, again.talk
        assert again.said["total"]["value"] == listed[one]["total"], one
        assert not told.get(one) or {(listed[one]["total"], again.said["currency"])} == told[one]
    return len(tree.versions)


def campaign(command: Command, ready: Path, story: Path, seed: int, folder: Path, seconds: float) -> dict[str, float]:
    draw = random.Random(seed)
    home, fresh = copied(ready, folder / "home"), copied(ready, folder / "fresh")
    played = play(command, home, story, draw, seconds)
    versions = check(command, played, home, fresh, draw)
    lines = [row for rows in played.processes for row in rows if row["verb"] != "open"]
    shutil.rmtree(folder)
    return {"versions": versions, "lines": len(lines), "refused": sum("error" in row for row in lines),
            "kills": played.kills}  # fmt: skip


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    with forking(tmp_path_factory.mktemp("forked-sessions")) as forker:
        yield forker


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("story") / "strait.yaml"
    path.write_text(STORY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ready(warm: Warm, forked: Command, story: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which texts, series and charts were read before, and no run is on record."""
    base = tmp_path_factory.mktemp("ready")
    home = warm.home(base / "home")
    write_tiny_model(home / "tiny.gguf", context=CONTEXT)
    used = copied(home, base / "used")
    assert forked(used, "run", str(story), "--quiet").code == 0
    for name in ("vectors.sqlite", "drawn"):
        if (used / name).is_dir():
            shutil.copytree(used / name, home / name)
        elif (used / name).exists():
            shutil.copy(used / name, home / name)
    return home


@pytest.mark.soak
def test_killed_sessions_on_scripted_models(
    soak: Soak, forked: Command, ready: Path, story: Path, tmp_path: Path
) -> None:
    for seed in soak.rounds(200):
        soak.figure(**campaign(forked, ready, story, seed, tmp_path / str(seed), seconds=25.0))


class Started:
    """Starts `finllm` itself, on the real model."""

    def __call__(self, home: Path, *arguments: str, number: int = 0, after: float = LONGEST_RUN) -> Ended:
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        env = {**os.environ, "FINLLM_HOME": str(home), "FINLLM_THREADS": "1", "PYTHONPATH": path}
        code, begun = "import sys; from finllm.cli.main import main; sys.exit(main())", time.monotonic()
        with subprocess.Popen([sys.executable, "-c", code, *arguments, "--json"], env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
            try:
                out, err = process.communicate(timeout=after)
            except subprocess.TimeoutExpired:
                process.send_signal(number or signal.SIGABRT)
                out, err = process.communicate()
        said: Any = out
        if arguments[0] == "run":
            said = json.loads(out)
        return Ended(process.returncode, said, [], err.splitlines()[-20:], time.monotonic() - begun)


@pytest.mark.soak
def test_killed_sessions_on_the_real_model(soak: Soak, real_home: Path, story: Path, tmp_path: Path) -> None:
    for seed in soak.rounds(10):
        home = copied(real_home, tmp_path / f"ready-{seed}")
        soak.figure(**campaign(Started(), home, story, seed, tmp_path / str(seed), seconds=90.0))
