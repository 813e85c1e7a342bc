"""Live faults of a cluster: processes of a node are killed or stopped under calls; what is lost, and found when.

`python -m benchmarks.cluster.faults [FAULTS]`; each fault is a line of build/cluster/faults.jsonl, and a campaign
that is broken off goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.scheduler.executors.nodes import Nodes
from tests.scheduler.executors.play import Play

from finllm.scheduler.broker import Answer
from finllm.settings import load_settings

FOUND_WITHIN = 5.0
"""Bar: longest time until a fault is found, s."""
LONGEST = 90.0
"""Longest wait for the tasks of one fault, s."""
TASKS, OVER, TOKENS = 24, 1.5, 400
"""Tasks of one fault, the s over which they are asked, and the tokens that each writes."""
WARM = 6
"""Calls before anything is measured."""
RESULTS = Path("build/cluster/faults.jsonl")
KINDS: dict[str, tuple[str, signal.Signals]] = {
    "room killed": ("ray::Room", signal.SIGKILL),
    "room stopped": ("ray::Room", signal.SIGSTOP),
    "engine killed": ("engine", signal.SIGKILL),
    "engine stopped": ("engine", signal.SIGSTOP),
    "node stopped": ("", signal.SIGSTOP),
    "node killed": ("", signal.SIGKILL),
}
"""What is struck, by the beginning of its command line ("": all of a node's processes), and with which signal."""


@dataclass(frozen=True)
class Struck:
    """A fault and what came of it. `found`: s until a call failed or the node was taken to be gone; None: it struck
    no call, and was over before anybody had to know. `extra`: s by which the 95th of 100 tasks was later than `solo`.
    """

    kind: str
    processes: int
    found: float | None
    under_calls: bool
    tasks: int
    lost: int
    twice: int
    slowest: float
    solo: float
    extra: float
    why: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        found = self.found is not None or not self.under_calls
        return found and not self.lost and not self.twice and (self.found or 0.0) <= FOUND_WITHIN


class Campaign:
    """Two nodes that are struck, and the first, from which calls are asked and which is left alone."""

    def __init__(self, nodes: Nodes, play: Play, seed: int) -> None:
        self.nodes, self.play, self.dice = nodes, play, random.Random(seed)
        self.seeds = self.dice.randrange(1_000_000) * 1_000
        self.fresh = 0
        self.warm, self.solo = 0, 0.0

    def strike(self, kind: str) -> Struck:
        victim = self.dice.choice([name for name in self.nodes.names if name != self.nodes.names[0]])
        try:
            return asyncio.run(self._strike(kind, victim))
        finally:
            self._mend(kind, victim)

    async def _strike(self, kind: str, victim: str) -> Struck:
        await self._settled()
        while self.warm < WARM:  # engines load at their first call
            started = time.monotonic()
            await self.play.ask(self._seed(), TOKENS)
            self.warm, self.solo = self.warm + 1, time.monotonic() - started
        took: list[float] = []

        async def one(at: int) -> Answer:
            await asyncio.sleep(OVER * at / TASKS)
            started = time.monotonic()
            answer = await self.play.ask(self._seed(), TOKENS)
            took.append(time.monotonic() - started)
            return answer

        work = [asyncio.create_task(one(at)) for at in range(TASKS)]
        await asyncio.sleep(self.dice.uniform(0.2, OVER))
        words, number = KINDS[kind]
        while not (there := self._busy(victim)) and not all(one.done() for one in work):
            await asyncio.sleep(0.005)
        struck = time.monotonic()
        count = self._send(victim, words, number)
        async with asyncio.timeout(LONGEST):
            answers = await asyncio.gather(*work, return_exceptions=True)
        if number == signal.SIGSTOP and words != "engine":
            await asyncio.sleep(max(FOUND_WITHIN - (time.monotonic() - struck), 0.0))
        sums = self.play.sums(answers)
        found = [at - struck for at in (*self.play.failed, *(at for at, what, _ in self.play.told
                                                            if what == "cluster.lost")) if at >= struck]  # fmt: skip
        return Struck(kind, count, min(found, default=None), there, TASKS, sums["lost"], sums["twice"],
                      max(took, default=0.0), self.solo, _extra(took, self.solo), tuple(sums["why"]))  # fmt: skip

    def _busy(self, victim: str) -> bool:
        """Whether a node has calls under way, as the broker knows."""
        return any(state.running for state in self.play.broker.services.state() if state.name.endswith(f"@{victim}"))

    def _send(self, victim: str, words: str, number: signal.Signals) -> int:
        if words != "engine":
            return self.nodes.strike(victim, words, number)
        engines = [pid for pid in self.nodes.processes(victim, sys.executable)
                   if b"engine" in Path(f"/proc/{pid}/cmdline").read_bytes()]  # fmt: skip
        for pid in engines:
            os.kill(pid, number)
        return len(engines)

    def _mend(self, kind: str, victim: str) -> None:
        """Let a stopped node go on; one that was killed is taken out, and another joins under a new name."""
        _, number = KINDS[kind]
        if number == signal.SIGSTOP:
            self.nodes.strike(victim, "", signal.SIGCONT)
        elif kind == "node killed":
            self.nodes.names.remove(victim)
            self.nodes.finllm(self.nodes.names[0], "cluster", "revoke", victim, "--because", "it was killed")
            self.fresh += 1
            self.nodes.join(f"node-{os.getpid()}-{self.fresh}")

    async def _settled(self) -> None:
        """Wait until the nodes that live take calls again."""
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            self.play.broker._take_in()  # pyright: ignore[reportPrivateUsage]
            shut = self.play.broker.services.shut()
            serving = {offer.name.rpartition("@")[2] for offer in self.play.broker.offers if offer.name not in shut}
            if serving >= set(self.nodes.names):
                return
            await asyncio.sleep(0.2)
        raise AssertionError(f"{self.nodes.names} do not all take calls again: {self.play.broker.services.shut()}")

    def _seed(self) -> int:
        self.seeds += 1
        return self.seeds


def campaign(count: int, seed: int = 7, *, keep: bool = False, kinds: Sequence[str] = tuple(KINDS)) -> list[Struck]:
    """Strike `count` times, each kind in turn. `keep`: lines that are there already count, and each fault adds one."""
    done = [Struck(**json.loads(line)) for line in _lines()] if keep else []
    with tempfile.TemporaryDirectory(prefix="finllm-faults-") as folder, contextlib.ExitStack() as closing:
        if len(done) >= count:
            return done
        nodes = Nodes(Path(folder))
        closing.callback(nodes.close)
        nodes.begin("first")
        nodes.join("second")
        nodes.join("third")
        os.environ.update(nodes.environment("first"))
        playing = closing.enter_context(contextlib.ExitStack())
        battle = Campaign(nodes, Play(load_settings().settings, playing), seed + len(done))
        while len(done) < count:
            one = battle.strike(kinds[len(done) % len(kinds)])
            done.append(one)
            print(json.dumps(asdict(one)), flush=True)
            if keep:
                RESULTS.parent.mkdir(parents=True, exist_ok=True)
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(one)) + "\n")
    return done


def _extra(took: Sequence[float], solo: float) -> float:
    """s by which all but one in twenty of the tasks were later than alone, at most."""
    return sorted(took)[min(int(0.95 * len(took)), len(took) - 1)] - solo if took else 0.0


def _lines() -> list[str]:
    return RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []


def table(faults: Sequence[Struck]) -> list[str]:
    """The faults by kind, as lines of Markdown."""
    lines = ["| fault | struck | under calls | tasks | lost | twice | found, longest (s) | p95 later (s), alone |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for kind in dict.fromkeys(fault.kind for fault in faults):
        those = [fault for fault in faults if fault.kind == kind]
        found = [fault.found for fault in those if fault.found is not None]
        lines.append(
            f"| {kind} | {len(those)} | {sum(f.under_calls for f in those)} | {sum(f.tasks for f in those)} | "
            f"{sum(f.lost for f in those)} | {sum(f.twice for f in those)} | {max(found, default=0.0):.2f} | "
            f"{statistics.median(f.extra for f in those):.1f}, {statistics.median(f.solo for f in those):.1f} |"
        )
    return lines


def main() -> None:
    """Play the campaign to its end, print the table, and exit with 1 where a bar is missed."""
    faults = campaign(int((sys.argv[1:] or ["300"])[0]), keep=True)
    print("\n".join(table(faults)))
    if not all(fault.good for fault in faults):
        sys.exit("a task was lost or answered twice, or a fault was found too late")


if __name__ == "__main__":
    main()
