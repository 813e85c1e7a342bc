"""Long campaigns: tests marked `soak` play rounds, each from its own seed; what was played is shown in a table.

A test asks its `soak` fixture for rounds and plays one per seed. How many, the command says:

- `make test` leaves these tests out; naming one to pytest plays a single round of it.
- `make soak` gives each its part of `--soak-minutes` and draws seeds from `--soak-seed`, so every call plays a slice.
- `make soak-full` plays all rounds, keeps each that ended in build/soak, and goes on where it was stopped.

A round that fails names its seed; `--soak-round SEED` plays that one again.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "soak"


@dataclass(frozen=True)
class Round:
    """A round that ended well: how long it took, s, and the figures that its test gave."""

    test: str
    seed: int
    seconds: float
    figures: dict[str, float]


@dataclass
class Plan:
    """What the command line asked for. `share`: s that each test has; None: no bound."""

    seed: int
    full: bool
    again: int | None
    share: float | None = None
    kept: Path | None = None
    done: set[tuple[str, int]] = field(default_factory=set)
    played: list[Round] = field(default_factory=list)

    def seeds(self, test: str, most: int) -> list[int]:
        """The rounds to play, in order."""
        if self.again is not None:
            return [self.again]
        if self.full:
            return [seed for seed in range(most) if (test, seed) not in self.done]
        drawn = random.Random(f"{self.seed} {test}").sample(range(most), most)
        return drawn if self.share is not None else drawn[:1]

    def keep(self, one: Round) -> None:
        self.played.append(one)
        if self.kept is not None:
            with self.kept.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(one.__dict__))  # a line of its own, whatever a dying process left


@dataclass
class Soak:
    """One test's rounds."""

    test: str
    plan: Plan
    seed: int | None = None
    figures: dict[str, float] = field(default_factory=dict)

    def rounds(self, most: int) -> Iterator[int]:
        """The seeds to play, of `most` that there are; each counts once the test comes back for the next."""
        begun = time.monotonic()
        for seed in self.plan.seeds(self.test, most):
            self.seed, self.figures, started = seed, {}, time.monotonic()
            yield seed
            now = time.monotonic()
            self.plan.keep(Round(self.test, seed, round(now - started, 3), self.figures))
            if self.plan.share is not None and now - begun > self.plan.share:
                return

    def figure(self, **figures: float) -> None:
        """Figures of this round, for the table: their sums are shown."""
        self.figures |= figures


PLAN = pytest.StashKey[Plan]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("soak", "tests marked soak")
    group.addoption("--soak-minutes", type=float, help="play rounds for so long, shared by all these tests")
    group.addoption("--soak-seed", type=int, default=1, help="draws which rounds are played")
    group.addoption("--soak-round", type=int, help="play this round only")
    group.addoption("--soak-full", action="store_true", help="play every round that was not played at this commit")


def pytest_configure(config: pytest.Config) -> None:
    options = config.option
    plan = Plan(options.soak_seed, options.soak_full, options.soak_round)
    if plan.full:
        KEPT.mkdir(parents=True, exist_ok=True)
        plan.kept = KEPT / f"{_commit()}.jsonl"
        plan.played = read(plan.kept)
        plan.done = {(one.test, one.seed) for one in plan.played}
    config.stash[PLAN] = plan


def pytest_collection_finish(session: pytest.Session) -> None:
    minutes, tests = session.config.option.soak_minutes, sum("soak" in item.keywords for item in session.items)
    if minutes is not None and tests:
        session.config.stash[PLAN].share = minutes * 60 / tests


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> Soak:
    """Which rounds a test marked `soak` plays."""
    return Soak(request.node.nodeid, request.config.stash[PLAN])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    report = yield
    of = getattr(item, "funcargs", {}).get("soak")
    if report.failed and isinstance(of, Soak) and of.seed is not None:
        again = f"python -m pytest '{item.nodeid}' --soak-round {of.seed}"
        report.sections.append(("soak", f"round {of.seed} failed; to play it again: {again}"))
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    plan = config.stash[PLAN]
    if not plan.played:
        return
    terminalreporter.section("soak")
    terminalreporter.write_line(f"seed {plan.seed}" if plan.kept is None else f"kept in {plan.kept.relative_to(ROOT)}")
    lines = table(plan.played)
    terminalreporter.write_line("\n".join(lines))
    if plan.kept is not None:
        plan.kept.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(played: Sequence[Round]) -> list[str]:
    """Rounds, time and the sums of figures by test, as lines of Markdown."""
    lines = ["| test | rounds | s | s a round, median | figures |", "|---|---|---|---|---|"]
    for test in dict.fromkeys(one.test for one in played):
        those = [one for one in played if one.test == test]
        names = dict.fromkeys(name for one in those for name in one.figures)
        figures = ", ".join(f"{name} {sum(one.figures.get(name, 0) for one in those):g}" for name in names)
        seconds = [one.seconds for one in those]
        middle = statistics.median(seconds)
        lines.append(f"| {test} | {len(those)} | {sum(seconds):.1f} | {middle:.2f} | {figures or '-'} |")
    return lines


def read(path: Path) -> list[Round]:
    """The rounds kept there; a line that a dying process left unfinished is not one."""
    if not path.exists():
        return []
    found: list[Round] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(Round(**json.loads(line)))
        except ValueError:
            continue
    return found


def _commit() -> str:
    """What the tree is: rounds of another one say nothing about it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"
