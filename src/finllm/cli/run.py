"""`finllm run` and `finllm resume`: stress tests from their inputs to their files, and on from where they stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm.cli.batch import Shown, go_on, run_scenarios
from finllm.cli.book_options import (
    AgeFlag,
    CurrencyOption,
    FactorsOption,
    LimitsOption,
    PricesOption,
    PropagateFlag,
)
from finllm.cli.display.terminal import err_console, out_console, print_json
from finllm.cli.options import (
    AsOfOption,
    BudgetOption,
    DeferOption,
    FailOn,
    FailOnOption,
    JsonFlag,
    OutOption,
    QuietFlag,
    examples,
    parse_as_of,
    parse_budget,
    wait_for_cleaner,
)
from finllm.errors import FinllmError, HumanNeeded, InputError
from finllm.events import EventBus, Noted, Progress
from finllm.files import check_folder
from finllm.plain_text import clean, clean_lines
from finllm.running import Runner
from finllm.sessions.batch_driver import JOBS, BatchWanted, check_files
from finllm.sessions.failing import against_report
from finllm.sessions.requests import Checked, build_request, check_books, check_model, merge_budgets, shipped_scenarios
from finllm.sessions.run_driver import Begin, drive_run, new_run, resumable, resumed_run, write_run
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.cli.display.events import Display
    from finllm.desk.desk import Desk
    from finllm.graphs.report import Report


class PersonAnswer(StrEnum):
    withhold = "withhold"
    accept = "accept"


EACH = 60.0
"""s that a run takes about, for when it may wait."""


@dataclass(frozen=True)
class Wanted:
    """How a run is to be shown, where its files go, and what makes it exit with 3."""

    out: Path | None
    as_json: bool
    quiet: bool
    fail_on: Sequence[FailOn]
    explain: bool = False
    explain_placement: bool = False
    refine: bool = False


def add_to(app: typer.Typer) -> None:
    app.command(epilog=examples(
        "finllm run hormuz-blockade",
        "finllm run my.yaml --portfolio book.csv --as-of 2022-06-30 --out report",
        "finllm run my.yaml --prices mine.parquet --budget 60s,20000tokens --json",
        "finllm run lehman-2008 --fail-on breach --fail-on block --quiet",
        "finllm run scenarios/*.yaml -p growth.csv -p income.csv --heatmap map.html --heatmap map.parquet",
        "finllm run scenarios/*.yaml --jobs 8 --fail-on breach --junit junit.xml --summary night.parquet --json",
    ))(run)  # fmt: skip
    app.command(epilog=examples(
        "finllm resume 20220630-081500-hormuz-closed-for-a-month-1f3a",
        "finllm resume 20220630-081500-hormuz-closed-for-a-month-1f3a --answer withhold",
        "finllm resume 20220630-220000-batch-of-40-9c1e --summary night.parquet",
    ))(resume)  # fmt: skip


def _complete_scenario(incomplete: str) -> list[str]:
    return [name for name in shipped_scenarios() if name.startswith(incomplete)]


JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, max=64, help=f"Runs of a batch side by side.  \\[default: {JOBS}]"),
]
JunitOption = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE", help="JUnit XML of a batch: a test case per scenario; --fail-on decides "
                                                 "what a failure is, a run without a report is an error."),
]  # fmt: skip
SummaryOption = Annotated[
    list[Path] | None,
    typer.Option("--summary", metavar="FILE", help="A batch's runs, a row each: .parquet, .csv or .json. "
                                                   "May be repeated."),
]  # fmt: skip


HeatmapOption = Annotated[
    list[Path] | None,
    typer.Option("--heatmap", metavar="FILE", help="A batch as a map, scenario by book: .html, .png or .parquet. "
                                                   "May be repeated."),
]  # fmt: skip
ExplainPlacementFlag = Annotated[
    bool, typer.Option("--explain-placement", help="Then tell on stderr where each task ran, which backends were "
                                                   "refused and why, and what it took.")]  # fmt: skip


def run(
    scenarios: Annotated[
        list[str], typer.Argument(metavar="SCENARIO...", help="A scenario file, or the name of a shipped one. Several "
                                  "make a batch; so do --jobs, --junit and --summary.",
                                  autocompletion=_complete_scenario)],
    portfolio: Annotated[
        list[Path] | None, typer.Option("--portfolio", "-p", help="CSV, Parquet or Excel. Several make a batch: every "
                                        "scenario on every book.  \\[default: the shipped book]")] = None,
    limits: LimitsOption = None,
    prices: PricesOption = None,
    factor: FactorsOption = None,
    propagate: PropagateFlag = None,
    currency: CurrencyOption = None,
    as_of: AsOfOption = None,
    age: AgeFlag = None,
    out: OutOption = None,
    budget: BudgetOption = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Recorded with every model call.")] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask a person where text and measurements stay at odds, instead of "
                                         "withholding those shocks.")] = False,
    jobs: JobsOption = None,
    junit: JunitOption = None,
    summary: SummaryOption = None,
    heatmap: HeatmapOption = None,
    fail_on: FailOnOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="When the report is out, explain it too, in the background: what drove "
                                             "it, what would flip it, who dissented.")] = False,
    refine: Annotated[
        bool, typer.Option("--refine", help="When the report is out, verify it at the deep tier's precision, in the "
                                            "background: what is judged otherwise makes a new version.")] = False,
    explain_placement: ExplainPlacementFlag = False,
    defer: DeferOption = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Run stress tests: what the event would do to the portfolio, through which factors, and how sure that is.

    Several scenarios or books are a batch, which runs side by side and shares the models; budgets are each run's own.
    What fails stops no other run. The same command goes on with a batch that was stopped or killed. Exit codes of a
    batch: 1 if a run has no report, else 3 as --fail-on asks.
    """
    wanted = Wanted(out, as_json, quiet, fail_on or (), explain, explain_placement, refine)
    batch = BatchWanted(out, fail_on or (), jobs or JOBS, junit, summary or (), heatmap or ())
    day, limit = parse_as_of(as_of), parse_budget(budget)
    settings = load_settings().settings

    def build(scenario: str, book: Path | None) -> Checked:
        return build_request(
            scenario, portfolio=book, limits=limits, prices=prices or (), as_of=day, budget=limit,
            seed=settings.seed if seed is None else seed, on_unresolved="ask" if ask else "withhold",
            factors=factor or (), propagate=propagate, currency=currency, age=age,
        )  # fmt: skip

    books: list[Path | None] = [*(portfolio or [None])]
    if len(scenarios) * len(books) > 1 or _asks_for_a_batch(jobs, junit, summary, heatmap):
        if explain:
            raise InputError("--explain explains one run, and this is a batch", fix="run 'finllm explain RUN' for each")
        if refine:
            raise InputError("--refine verifies one run, and this is a batch", fix="run 'finllm refine RUN' for each")
        if explain_placement:
            raise InputError("--explain-placement tells of one run, and this is a batch",
                             fix="see 'finllm trace RUN' for each")  # fmt: skip
        several = check_books(scenarios, books, build)
        check_files(batch)
        _check_places(settings, wanted)
        wait_for_cleaner(defer, settings, EACH * len(scenarios) * len(books))
        run_scenarios(several, settings, batch, Shown(as_json, quiet))
        return
    checked = build(scenarios[0], books[0])
    _check_places(settings, wanted)
    wait_for_cleaner(defer, settings, EACH)
    _carry_out(new_run(checked.request), settings, wanted, checked.notes)


def resume(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The id that 'finllm runs list' shows, or a batch's.")],
    answer: Annotated[
        PersonAnswer | None, typer.Option("--answer", help="A person's answer where the run waits for one: withhold "
                                                     "the shocks in dispute, or accept them.")] = None,
    budget: BudgetOption = None,
    out: OutOption = None,
    jobs: JobsOption = None,
    junit: JunitOption = None,
    summary: SummaryOption = None,
    heatmap: HeatmapOption = None,
    fail_on: FailOnOption = None,
    explain_placement: ExplainPlacementFlag = False,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Go on with a run that was stopped, killed or waits for an answer, or with a batch and its runs that failed.

    No recorded model call is made again.
    """
    from finllm.cli.history import batch_on_record, find_run

    wanted = Wanted(out, as_json, quiet, fail_on or (), explain_placement=explain_placement)
    limit = parse_budget(budget)
    settings = load_settings().settings
    if (batch := batch_on_record(run_id, settings)) is not None:
        if answer is not None:
            raise InputError(f"{run_id!r} is a batch, and an answer is a run's",
                             fix="give the run's id, which 'finllm runs list' shows")  # fmt: skip
        several = BatchWanted(out, fail_on or (), jobs or JOBS, junit, summary or (), heatmap or ())
        check_files(several)
        _check_places(settings, wanted)
        go_on(batch, settings, several, Shown(as_json, quiet), limit)
        return
    if _asks_for_a_batch(jobs, junit, summary, heatmap):
        raise InputError(f"{run_id!r} is no batch on record, and --jobs, --junit, --summary, --heatmap are a batch's",
                         fix="leave them out, or give the id that the batch's own output shows")  # fmt: skip
    row = find_run(run_id, settings)
    if row.status == "running" and row.holder is not None:  # before a model is opened in vain
        from finllm.memory.leases import held

        raise held(run_id, row.holder)
    _check_places(settings, wanted)
    if limit is not None:
        from finllm.desk.request import RunRequest

        limit = merge_budgets(RunRequest.model_validate(row.request).scenario.budget, limit)
    said = None if answer is None else answer.value
    _carry_out(resumed_run(run_id, said, limit), settings, wanted, ())


def _asks_for_a_batch(
    jobs: int | None, junit: Path | None, summary: list[Path] | None, heatmap: list[Path] | None
) -> bool:
    return jobs is not None or junit is not None or bool(summary) or bool(heatmap)


def _check_places(settings: Settings, wanted: Wanted) -> None:
    check_model(settings)
    if wanted.out is not None:
        check_folder(wanted.out, "--out")


def _carry_out(start: Begin, settings: Settings, wanted: Wanted, notes: Sequence[str]) -> None:
    from finllm.cli.display.events import open_display

    with open_display(as_json=wanted.as_json, quiet=wanted.quiet) as display:
        bus = EventBus(display)
        for note in notes:
            bus.emit(Noted(level="info", message=note))
        with resumable(bus):
            report = _finish(start, settings, bus, display, wanted)
    if not (wanted.explain or wanted.refine):
        _show(report, wanted)
    if against_report(report).failed_on(wanted.fail_on):
        raise typer.Exit(3)


def _show(report: Report, wanted: Wanted) -> None:
    if wanted.as_json:
        print_json(report.model_dump(mode="json"))
    else:
        from finllm.cli.display.report import report_view

        out_console().print(report_view(report))


def _finish(start: Begin, settings: Settings, bus: EventBus, display: Display, wanted: Wanted) -> Report:
    """Drive the run to its report and files, asking the person at the terminal where the run waits for one."""
    bus.emit(Progress(what="opening the models and the ledger", done=0, total=1))
    from finllm.desk.desk import open_desk

    with open_desk(settings, bus) as desk, Runner() as runner:
        bus.emit(Progress(what="opening the models and the ledger", done=1, total=1))
        report = drive_run(start, desk, runner, lambda run_id, question: _ask(run_id, question, display, wanted))
        folder = wanted.out or settings.runs_dir / report.run_id
        write_run(report, desk, folder)
        files = "report.html, report.md, report.json, the charts and trace.jsonl"
        bus.emit(Noted(level="info", message=f"{files} are in {str(folder)!r}"))
        if wanted.explain_placement:
            from finllm.cli.display.placements import placement_view
            from finllm.review.placements import placements_of

            with display.pause():
                err_console().print(placement_view(placements_of(report.run_id, desk.ledger)))
        if wanted.explain or wanted.refine:
            with display.pause():
                _show(report, wanted)
                sys.stdout.flush()
        if wanted.refine:
            _refine(report, desk, runner, display, wanted)
        if wanted.explain:
            _explain(report, folder, desk, runner, display, wanted)
        return report


def _refine(report: Report, desk: Desk, runner: Runner, display: Display, wanted: Wanted) -> None:
    """Verify the report that is out. Whatever stops this, the report stands, and a warning says how to go on."""
    from finllm.cli.refine import refined_text, verified

    try:
        found = runner.run(verified(report.run_id, desk))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the run is done, and its exit code is its own
        why = error.message if isinstance(error, FinllmError) else str(error) or type(error).__name__
        message = f"it is not verified: {why}; the result stands; try: finllm refine {report.run_id}"
        desk.bus.emit(Noted(level="warning", message=message))
        return
    if wanted.as_json:
        desk.bus.emit(Noted(level="info", message=refined_text(found, desk).partition("\n")[0]))
        return
    with display.pause():
        print(clean_lines(refined_text(found, desk)), end="")


def _explain(report: Report, folder: Path, desk: Desk, runner: Runner, display: Display, wanted: Wanted) -> None:
    """Explain the report that is out. Whatever stops this, the report stands, and a warning says how to go on."""
    from finllm.cli.explain import explanation_text
    from finllm.review.explain import explain

    try:
        found = runner.run(explain(report.run_id, desk))
        write_run(report, desk, folder, found)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the run is done, and its exit code is its own
        why = error.message if isinstance(error, FinllmError) else str(error) or type(error).__name__
        message = f"there is no explanation: {why}; the result stands; try: finllm explain {report.run_id}"
        desk.bus.emit(Noted(level="warning", message=message))
        return
    desk.bus.emit(
        Noted(
            level="info",
            message="the explanation is in the report and explanation.json there"
            + ("" if found.complete else f"; not finished, go on with: finllm explain {report.run_id}"),
        )
    )
    if not wanted.as_json:
        with display.pause():
            print(clean_lines(explanation_text(found, report)), end="")


def _ask(run_id: str, question: dict[str, Any], display: Display, wanted: Wanted) -> str:
    """The person's answer. Errors: HumanNeeded where nobody is at the terminal."""
    options = [str(option) for option in question.get("options") or [answer.value for answer in PersonAnswer]]
    factors = ", ".join(str(factor) for factor in question.get("factors", ())) or "some factors"
    disputed = clean(f"text and measurements stay at odds about {factors}")
    if not wanted.as_json and sys.stdin.isatty() and sys.stderr.isatty():
        with display.pause():
            print(f"{disputed}.", file=sys.stderr)
            while True:
                print(f"Their shocks: {' or '.join(options)}? ", end="", file=sys.stderr, flush=True)
                line = sys.stdin.readline()
                if line.strip().lower() in options:
                    return line.strip().lower()
                if not line:
                    break
    raise HumanNeeded(f"run {run_id!r} waits for a person: {disputed}",
                      fix=f"finllm resume {run_id} --answer {'|'.join(options)}")  # fmt: skip
