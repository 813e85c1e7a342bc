"""Reports of runs as pages show them: read once, since a report is written once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from finllm.memory.review_facts import report_digest
from finllm.web.refusals import not_found

if TYPE_CHECKING:
    from markupsafe import Markup

    from finllm.desk.request import RunRequest
    from finllm.graphs.report import Report
    from finllm.memory.reading import LedgerReader
    from finllm.review.diff import Diff
    from finllm.review.page import Page

KEPT = 64
"""Runs whose report is kept at hand."""
MADE = 1024
"""Pages and parts of pages that are kept once they are made: rows that were opened most of all."""
T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """A run as it stands; `report`, `page` and `digest` once it has ended."""

    id: str
    status: str
    created_ns: int
    request: RunRequest
    report: Report | None
    page: Page | None
    digest: str


class Remembered:
    """The newest of what was worked out, by its key. Thread-safe; who asks while it is worked out waits for it."""

    def __init__(self, most: int = KEPT) -> None:
        self._most, self._lock = most, threading.Lock()
        self._of: OrderedDict[Any, Any] = OrderedDict()
        self._making: dict[Any, threading.Lock] = {}

    def get(self, key: Any, make: Callable[[], T], *, keep: Callable[[T], bool] = lambda _made: True) -> T:
        """What was made for that key, or is made now; kept where `keep` says so."""
        with self._lock:
            if key in self._of:
                self._of.move_to_end(key)
                return self._of[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._of:
                    return self._of[key]
            try:
                made = make()
                if keep(made):
                    self._keep(key, made)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return made

    def _keep(self, key: Any, made: Any) -> None:
        with self._lock:
            self._of[key] = made
            while len(self._of) > self._most:
                self._of.popitem(last=False)


class Reports:
    """The runs of a ledger. Thread-safe."""

    def __init__(self, ledger: LedgerReader) -> None:
        self._ledger = ledger
        self._runs, self.made = Remembered(), Remembered(MADE)

    def get(self, run_id: str) -> Shown:
        """A run on record. Errors: NotFound; RecordAltered for one that is not what was recorded."""
        return self._runs.get(run_id, lambda: self._read(run_id), keep=lambda found: found.report is not None)

    def _read(self, run_id: str) -> Shown:
        from finllm.desk.request import RunRequest
        from finllm.graphs.report import Report
        from finllm.review.html import run_page
        from finllm.review.outputs import in_order

        row = self._ledger.run(run_id)
        if row is None:
            raise not_found("run")
        report = None if row.result is None else in_order(Report.model_validate(row.result))
        return Shown(row.id, row.status, row.created_ns, RunRequest.model_validate(row.request), report,
                     None if report is None else run_page(report, ()),
                     "" if row.result is None else report_digest(row.result))  # fmt: skip

    def diff(self, first: str, second: str) -> Diff:
        """Two runs beside each other; of those that have ended worked out once. Errors: NotFound; RecordAltered."""
        from finllm.review.diff import diff_runs

        ended = [self.get(run).report is not None for run in (first, second)]
        key = ("diff", first, second, *(self._ledger.count_uses(run) for run in (first, second)))
        return self.made.get(key, lambda: diff_runs(first, second, self._ledger), keep=lambda _made: all(ended))

    def body(self, run_id: str, base: str, tables: Callable[[], list[Any]]) -> Markup:
        """What the page of a run that has ended holds below its first lines: the same for whoever looks."""
        from markupsafe import Markup

        from finllm.web.rendering import render

        def made() -> Markup:
            run = self.get(run_id)
            shown = {"run": run, "base": base, "charts": self.charts(run_id), "tables": tables(), "token": ""}
            return Markup(render("body.html.j2", shown))

        return self.made.get(("body", run_id, base), made)

    def chart(self, run_id: str, name: str) -> str:
        """A chart of a run as SVG. Errors: NotFound for a name that is none of its charts."""
        drawn = self.made.get(("charts", run_id), lambda: self._charts(run_id))
        if name not in drawn:
            raise not_found("chart")
        return drawn[name]

    def charts(self, run_id: str) -> list[tuple[str, str, str]]:
        """Name, title and caption of each chart of a run, drawn or not."""
        from finllm.review.html import run_charts

        report = self.get(run_id).report
        return [] if report is None else [(one.name, one.title, one.caption) for one in run_charts(report)]

    def _charts(self, run_id: str) -> dict[str, str]:
        from finllm.review.drawing import draw
        from finllm.review.html import run_charts

        report = self.get(run_id).report
        pictures = draw(run_charts(report)) if report is not None else ()
        return {one.chart.name: _standing_alone(one.svg) for one in pictures if one.svg}


def _standing_alone(svg: str) -> str:
    """An SVG that is an image of its own needs its namespace, which on a page it does not."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace("<svg ", f"<svg {names} ", 1)
