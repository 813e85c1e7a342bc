"""How far a run's total moves where the story is told a little otherwise: sixty neutral edits of the shipped scenarios.

Each scenario is run as it is and with five edits that say nothing: another title, a sentence of no news at the end, one
at the beginning, one in the middle, and a source of no news. Prints each total; writes to docs/stability.md how many of
the edits change it by at most 5 % of it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finllm.desk.desk import Desk, open_desk
from finllm.desk.request import RunRequest
from finllm.events import EventBus
from finllm.graphs.flow import run_stress_test
from finllm.scenarios import PORTFOLIOS_DIR, SCENARIOS_DIR
from finllm.settings import load_settings
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.limits import load_limits
from finllm.tools.data.scenario import Scenario, SourceText, load_scenario

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "stability.md"
BOUND = 0.05
"""Change of the total, as a share of it, up to which an edit counts as having changed nothing."""
LEAST = 1e-4
"""Of the book's value: a total below it counts as none, and so does a change of it."""
ENDING = "The report was filed from the news room on the second floor."
OPENING = "Here is what is known at this hour."
ASIDE = "Further details can be found on our pages."
EMPTY = ("The editors remind readers that the office is open from nine to five and that the canteen is closed on "
         "Friday. Letters can be handed in at the desk.")  # fmt: skip


@dataclass(frozen=True)
class Edited:
    """A total beside that of the scenario as it is shipped, both as shares of the book's value."""

    scenario: str
    edit: str
    before: float
    after: float

    @property
    def change(self) -> float:
        """The change as a share of the total; 0 where both are next to nothing."""
        gap = abs(self.after - self.before)
        return 0.0 if gap < LEAST else gap / max(abs(self.before), LEAST)


def edits(scenario: Scenario) -> Iterator[tuple[str, Scenario]]:
    """The scenario told otherwise in ways that say nothing of the event."""
    told = scenario.narrative.rstrip()
    yield "another title", scenario.model_copy(update={"title": "Case seventeen"})
    yield "a sentence at the end", scenario.model_copy(update={"narrative": f"{told} {ENDING}"})
    yield "a sentence at the beginning", scenario.model_copy(update={"narrative": f"{OPENING} {told}"})
    middle = told.replace(". ", f". {ASIDE} ", 1)
    yield "a sentence in the middle", scenario.model_copy(update={"narrative": middle})
    none = SourceText(id="of-no-news", publisher="City Gazette", url="https://example.com/notice", text=EMPTY,
                      published_at=dt.datetime.combine(scenario.as_of, dt.time(6), dt.UTC))  # fmt: skip
    yield "a source of no news", scenario.model_copy(update={"sources": (*scenario.sources, none)})


def share_of(scenario: Scenario, run_id: str, desk: Desk) -> float:
    """The total of a run on the shipped book, over the book's value."""
    portfolio, limits = load_portfolio(PORTFOLIOS_DIR / "default.csv"), load_limits(PORTFOLIOS_DIR / "limits.yaml")
    request = RunRequest(scenario=scenario, portfolio=portfolio, limits=limits, on_unresolved="withhold")
    report = asyncio.run(run_stress_test(run_id, request, desk)).report
    assert report is not None
    return report.total.value / report.book_value.value


def measure(desk: Desk) -> list[Edited]:
    found: list[Edited] = []
    for path in sorted(SCENARIOS_DIR.glob("*.yaml")):
        scenario = load_scenario(path)
        before = share_of(scenario, path.stem, desk)
        for at, (edit, told) in enumerate(edits(scenario)):
            found.append(Edited(path.stem, edit, before, share_of(told, f"{path.stem}-{at}", desk)))
            print(f"{path.stem}, {edit}: {before:+.2%} → {found[-1].after:+.2%}", file=sys.stderr, flush=True)
    return found


def page(found: list[Edited]) -> str:
    kept = sum(one.change <= BOUND for one in found)
    rows = [f"| {one.scenario} | {one.edit} | {one.before:+.2%} | {one.after:+.2%} | {one.change:.1%} |"
            for one in found if one.change > BOUND]  # fmt: skip
    return "\n".join([
        "# Stability: the same event, told a little otherwise", "",
        "Written by `make bench-stability`. Each shipped scenario is run as it is and with five edits that say nothing "
        "of the event: another title, a neutral sentence at the end, at the beginning or in the middle, and a source "
        "of no news.", "",
        f"Of {len(found)} edits {kept} change the total by at most {BOUND:.0%} of it. Those that change it by more:",
        "", "| scenario | edit | as shipped | edited | change |", "| --- | --- | --- | --- | --- |",
        *(rows or ["| none | | | | |"]),
    ]) + "\n"  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings().settings
        settings = settings.model_copy(update={"home": Path(folder)}) if "--fresh" in sys.argv else settings
        with open_desk(settings, EventBus()) as desk:
            found = measure(desk)
    DOCUMENT.write_text(page(found), encoding="utf-8")
    print(f"{sum(one.change <= BOUND for one in found)} of {len(found)} within {BOUND:.0%}")


if __name__ == "__main__":
    main()
