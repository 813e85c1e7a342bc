"""What the tools of a run take, without models, imports and the record; the last section of docs/numbers.md.

`python -m benchmarks.run_tools`, or with `make bench-numbers`.
"""

from __future__ import annotations

import asyncio
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finllm.desk.desk import Desk, assemble
from finllm.desk.request import RunRequest
from finllm.events import EventBus
from finllm.graphs.flow import run_stress_test
from finllm.graphs.nodes import against, validation
from finllm.guardrails.audit.recorder import open_recorder
from finllm.models.channel_reader import ChannelReader
from finllm.models.embedding import Embedder
from finllm.models.injection import InjectionJudge
from finllm.models.second_opinion import SecondOpinion
from finllm.scenarios import PORTFOLIOS_DIR, SCENARIOS_DIR
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.limits import load_limits
from finllm.tools.data.scenario import load_scenario

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "numbers.md"
TITLE = "## What a run's tools take"
ROUNDS, BAR = 5, 1.0
LINES = 3_000
SAYS = [{"when": "What kind of event",
         "say": {"factors.EQUITY_US.direction": "down", "factors.OIL_WTI.direction": "up"}}]  # fmt: skip
HEAD = f"""\
CPU seconds on the threads that the tools run on, those of the models (embeddings, second opinion, channel reader, judge
of instructions) taken out: the least of {ROUNDS} runs of hormuz-blockade in one process, after one that loads and
computes what is kept. The models answer from a script, so that directions are the same each time.
`python -m benchmarks.run_tools`."""
BOOKS = ("the shipped book", f"{LINES:,} lines: 60 % shares, 10 % options, 20 % bonds, 10 % cash, in three currencies")
MODELS = ((SecondOpinion, "judge"), (InjectionJudge, "instructions"), (ChannelReader, "read"), (Embedder, "embed"))
"""What the models of a run's tools are asked by."""
LABELS = {
    "_intake": "reading, valuing, market signals",
    "planned": "betas, shocks, past events",
    "_stressed": "P&L, bands, VaR, evidence",
    "held": "text against the market",
    "learn": "what answers were worth",
}


class Watch:
    """CPU s by what was done, on whichever thread; that of models is taken out of what contains it."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}
        self._models: dict[str, float] = {}
        self._inside: list[str] = []

    def tool(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            self._inside.append(name)
            start = time.thread_time()
            try:
                return work(*given, **named)
            finally:
                spent = time.thread_time() - start - self._models.pop(name, 0.0)
                self.taken[name] = self.taken.get(name, 0.0) + spent
                self._inside.remove(name)

        return timed

    def model(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            nested = bool(self._inside and self._inside[-1] == "model")
            self._inside.append("model")
            start = time.thread_time()
            try:
                return work(*given, **named)
            finally:
                self._inside.pop()
                if not nested and self._inside:
                    within = self._inside[-1]
                    self._models[within] = self._models.get(within, 0.0) + time.thread_time() - start

        return timed


def watched(watch: Watch) -> None:
    """Put the watch on the tools' ways in, and on the models."""
    threaded = asyncio.to_thread

    async def to_thread(work: Callable[..., Any], *given: Any, **named: Any) -> Any:
        return await threaded(watch.tool(getattr(work, "__name__", "?"), work), *given, **named)

    asyncio.to_thread = to_thread  # type: ignore[assignment]
    validation.hold_to_market = watch.tool("held", against.hold_to_market)  # type: ignore[attr-defined]
    for kind, name in MODELS:
        setattr(kind, name, watch.model(getattr(kind, name)))


def main() -> None:
    write()


def write() -> None:
    """Measure, print, and replace the section of the page."""
    watch = Watch()
    watched(watch)
    with tempfile.TemporaryDirectory() as folder:
        mixed = mixed_book(Path(folder) / "mixed.csv")
        found = [measured(watch, book, Path(folder) / f"home-{at}")
                 for at, book in enumerate((PORTFOLIOS_DIR / "default.csv", mixed))]  # fmt: skip
    rows = [f"| {LABELS.get(name, name)} | {' | '.join(f'{one.get(name, 0.0):.2f}' for one in found)} |"
            for name in found[0]]  # fmt: skip
    whole = [sum(one.values()) for one in found]
    judged = " | ".join(f"{one:.2f}, {'met' if one <= BAR else '**missed**'}" for one in whole)
    table = "\n".join([
        f"| CPU s | {' | '.join(BOOKS)} |", "|---|---|---|", *rows,
        f"| together, wanted ≤ {BAR:g} | {judged} |",
    ])  # fmt: skip
    print(table)
    kept = DOCUMENT.read_text(encoding="utf-8").partition(f"\n{TITLE}\n")[0].rstrip()
    DOCUMENT.write_text(f"{kept}\n\n{TITLE}\n\n{HEAD}\n\n{table}\n", encoding="utf-8")


def measured(watch: Watch, book: Path, home: Path) -> dict[str, float]:
    """The least CPU s of each part over the rounds."""
    return asyncio.run(_measured(watch, book, home))


async def _measured(watch: Watch, book: Path, home: Path) -> dict[str, float]:
    desk = scripted(home)
    scenario, limits = (
        load_scenario(SCENARIOS_DIR / "hormuz-blockade.yaml"),
        load_limits(PORTFOLIOS_DIR / "limits.yaml"),
    )
    request = RunRequest(scenario=scenario, portfolio=load_portfolio(book), limits=limits)
    least: dict[str, float] = {}
    for at in range(ROUNDS + 1):
        watch.taken.clear()
        await run_stress_test(f"run-{at}", request, desk)
        if at:
            least = {name: min(spent, least.get(name, spent)) for name, spent in watch.taken.items()}
    return least


def scripted(home: Path) -> Desk:
    """A desk whose models answer from a script."""
    settings = Settings(home=home)
    backends = [ScriptedBackend(SAYS, name="edge"),
                ScriptedBackend(SAYS, name="deep", tier="deep", precision="F16")]  # fmt: skip
    return assemble(settings, EventBus(), open_recorder(settings), backends)


def mixed_book(path: Path) -> Path:
    """Made-up positions, no two alike."""
    header: tuple[str, ...] = (
        "id", "quantity", "market_value", "currency", "asset_class", "sector", "beta", "underlying", "option_type",
        "strike", "expiry", "volatility", "multiplier", "coupon", "maturity", "yield",
    )  # fmt: skip
    rows: list[dict[str, object]] = []
    for at in range(LINES):
        kind = at % 10
        row: dict[str, object] = {"id": f"P{at}", "currency": "USD"}
        if kind < 6:
            row |= {"market_value": 10_000 + at, "currency": "USD" if at % 3 else "EUR", "asset_class": "equity",
                    "sector": f"Sector {at % 11}", "beta": 0.5 + 0.001 * (at % 1000)}  # fmt: skip
        elif kind < 7:
            row |= {"quantity": 10, "asset_class": "option", "sector": "Options", "underlying": "SP500",
                    "option_type": "put" if at % 2 else "call", "strike": 3300 + at % 900, "expiry": "2026-12-18",
                    "volatility": 0.2 + 0.0001 * (at % 500), "multiplier": 100}  # fmt: skip
        elif kind < 9:
            row |= {"quantity": 100_000, "asset_class": "bond", "sector": "Corporate", "coupon": 0.02 + 0.00001 * at,
                    "maturity": f"20{30 + at % 20}-06-15", "yield": 0.04}  # fmt: skip
        else:
            row |= {"market_value": 5000 + at, "currency": "GBP", "asset_class": "cash", "sector": "Cash"}
        rows.append(row)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, header)
        table.writeheader()
        table.writerows(rows)
    return path


if __name__ == "__main__":
    main()
