"""Replay on many runs: is every state's digest the recorded one, and is one byte off refused with the cause by name?

Most runs are answered by scripted backends, which differ from run to run, on the real graph, tools, ledger and
knowledge base; a few by the real models, which are then asked again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from finllm.agents.agent import PROMPTS
from finllm.desk.desk import Desk, assemble, open_desk
from finllm.desk.request import PriceFile, RunRequest
from finllm.errors import FinllmError, ReplayRefused
from finllm.events import EventBus
from finllm.files import sha256_of_file
from finllm.graphs import basis as standing
from finllm.graphs.flow import run_stress_test
from finllm.guardrails.audit import open_recorder
from finllm.guardrails.audit.reading import open_recorded
from finllm.review.replay import regenerate, regenerated_json, replay
from finllm.scenarios import PORTFOLIOS_DIR, SCENARIOS_DIR
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.factors import FACTOR_IDS
from finllm.tools.data.limits import load_limits
from finllm.tools.data.scenario import load_scenario

SHIPPED = sorted(SCENARIOS_DIR.glob("*.yaml"))
CAUSES = ("input", "prompt", "weights")


def request_of(path: Path, seed: int, files: tuple[Path, ...] = ()) -> RunRequest:
    book, limits = PORTFOLIOS_DIR / "default.csv", PORTFOLIOS_DIR / "limits.yaml"
    return RunRequest(scenario=load_scenario(path), portfolio=load_portfolio(book), limits=load_limits(limits),
                      seed=seed, files=tuple(map(PriceFile.of, files)))  # fmt: skip


def script(draw: random.Random) -> list[dict[str, Any]]:
    """Judgements drawn at random; one run in ten has an agent that fails."""
    say = {f"factors.{factor}.direction": draw.choice(("up", "down", "none")) for factor in FACTOR_IDS}
    rules: list[dict[str, Any]] = [{"when": "What kind of event", "say": say}]
    return [{"fail": "the engine is down"}, *rules] if draw.random() < 0.1 else rules


@contextmanager
def scripted_desk(home: Path, draw: random.Random, weights: Path) -> Iterator[Desk]:
    settings = Settings(home=home)
    digest = sha256_of_file(weights)
    with closing(open_recorder(settings)) as ledger:
        known: dict[str, Any] = {"weights": digest, "weights_file": str(weights)}
        edge = ScriptedBackend(script(draw), name="edge", **known)
        deep = ScriptedBackend(script(draw), name="deep", tier="deep", precision="F16", **known)
        yield assemble(settings, EventBus(), ledger, [edge, deep])


def one_byte_off(path: Path, draw: random.Random) -> bytes:
    """Flip one bit anywhere in the file; what was there before."""
    before = path.read_bytes()
    data = bytearray(before)
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return before


def is_refused(run_id: str, desk: Desk, path: Path, names: str, draw: random.Random) -> bool:
    """Whether a replay with one bit of the file flipped is refused, the file named."""
    before = one_byte_off(path, draw)
    try:
        asyncio.run(replay(run_id, desk))
    except ReplayRefused as error:
        return names in error.message
    except FinllmError:
        return False
    finally:
        path.write_bytes(before)
    return False


def scripted(home: Path, first: int, count: int) -> tuple[int, int, int, int]:
    """Runs replayed with every digest equal, states compared, and of the spoilt replays those refused by name."""
    prompts = home / "prompts"
    prompts.mkdir(parents=True, exist_ok=True)
    for path in PROMPTS.glob("*.j2"):
        (prompts / path.name).write_bytes(path.read_bytes())
    standing.PROMPTS = prompts
    same = states = spoilt = refused = 0
    for at in range(first, first + count):
        draw = random.Random(at)
        weights, scenario = home / "weights.bin", home / f"scenario-{at}.yaml"
        weights.write_bytes(random.Random(0).randbytes(100_000))
        scenario.write_bytes(SHIPPED[at % len(SHIPPED)].read_bytes())
        with scripted_desk(home, draw, weights) as desk:
            run_id = f"scripted-{at}"
            asyncio.run(run_stress_test(run_id, request_of(scenario, at, (scenario,)), desk))
            found = asyncio.run(replay(run_id, desk))
            same += found.node == "report"
            states += len(found.hashes)
            prompt = draw.choice(sorted(prompts.glob("*.j2")))
            for path, names in ((scenario, scenario.name), (prompt, prompt.name), (weights, weights.name)):
                spoilt += 1
                refused += is_refused(run_id, desk, path, names, draw)
        print(f"\r{at - first + 1}/{count}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return same, states, spoilt, refused


def real(home: Path, first: int, count: int) -> tuple[int, int, int, float]:
    """Runs on the real models replayed with every digest equal; calls asked again, those that matched, largest gap."""
    same = asked = matched = 0
    gap = 0.0
    with open_desk(Settings(home=home), EventBus()) as desk:
        for at in range(first, first + count):
            run_id = f"real-{at}"
            asyncio.run(run_stress_test(run_id, request_of(SHIPPED[at % len(SHIPPED)], at), desk))
            same += asyncio.run(replay(run_id, desk)).node == "report"
            with open_recorded(desk.settings, run_id) as ledger:
                told = regenerated_json(asyncio.run(regenerate(run_id, ledger, desk.broker.backends)))
            asked, matched, gap = asked + told["calls"], matched + told["matched"], max(gap, told["largest_gap"])
            print(f"\r{at - first + 1}/{count}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return same, asked, matched, gap


def main() -> int:
    """Print what held. Exit code 1 where a replay differed, or a spoilt one was not refused by name."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--scripted", type=int, default=96)
    parse.add_argument("--real", type=int, default=4)
    parse.add_argument("--first", type=int, default=0, help="number of the first run, to go on in a kept home")
    parse.add_argument("--home", type=Path, help="keep ledger and calibrations here  [default: a temporary folder]")
    options = parse.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        failed = False
        if options.real:  # before the prompts are copied
            same, asked, matched, gap = real(home, options.first, options.real)
            print(f"real models: {same} of {options.real} runs identical in every state; asked again, "
                  "one call at a time: "
                  f"{matched} of {asked} answers matched, largest change of a probability {gap:.1e}")  # fmt: skip
            failed |= same < options.real
        if options.scripted:
            same, states, spoilt, refused = scripted(home, options.first, options.scripted)
            print(f"scripted models: {same} of {options.scripted} runs identical in every state ({states} states)")
            print(f"one bit of {', '.join(CAUSES)} flipped: {refused} of {spoilt} replays refused, the file named")
            failed |= same < options.scripted or refused < spoilt
        print(f"{time.monotonic() - started:.0f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
