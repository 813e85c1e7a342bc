"""A batch driven to its report: opens the desk, lets the runs go side by side, and writes each run's files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.errors import Cancelled, FinllmError, HumanNeeded, InputError, as_finllm_error
from finllm.events import EventBus, MemberEnded, Noted, Progress
from finllm.files import check_folder
from finllm.running import Runner
from finllm.settings import Settings

if TYPE_CHECKING:
    from finllm.desk.desk import Desk
    from finllm.graphs.flow import Outcome
    from finllm.sessions.batch import Batch, Ended, Member
    from finllm.sessions.batch_report import BatchReport
    from finllm.tools.data.scenario import BudgetEntry

JOBS = 8
"""Runs side by side unless told otherwise: as many as an engine serves at once by default."""
SUMMARIES = (".parquet", ".csv", ".json")
HEATMAPS = (".html", ".png", ".parquet")


@dataclass(frozen=True)
class BatchWanted:
    """How a batch is to be run, where its files go, and what makes it fail (see `Against`)."""

    out: Path | None = None
    fail_on: Sequence[str] = ()
    jobs: int = JOBS
    junit: Path | None = None
    summaries: Sequence[Path] = ()
    heatmaps: Sequence[Path] = ()


def check_files(wanted: BatchWanted) -> None:
    """The files of the summary can be written, and are of a known form. Errors: InputError."""
    for path in wanted.summaries:
        if path.suffix.lower() not in SUMMARIES:
            raise InputError(f"--summary {str(path)!r}: {path.suffix!r} is no form of a summary",
                             fix=f"end it with {', '.join(SUMMARIES)}")  # fmt: skip
    for path in wanted.heatmaps:
        if path.suffix.lower() not in HEATMAPS:
            raise InputError(f"--heatmap {str(path)!r}: {path.suffix!r} is no form of a map",
                             fix=f"end it with {', '.join(HEATMAPS)}")  # fmt: skip
    maps = [("--heatmap", path) for path in wanted.heatmaps]
    for option, path in (*maps, ("--junit", wanted.junit), *(("--summary", path) for path in wanted.summaries)):
        if path is not None:
            check_folder(path.parent, option)
            if path.is_dir():
                raise InputError(f"{option} {str(path)!r} is a folder", fix="give a file")


def drive_batch(
    choose: Callable[[Desk], Batch],
    settings: Settings,
    bus: EventBus,
    wanted: BatchWanted,
    budget: BudgetEntry | None = None,
) -> BatchReport:
    """Run a batch, chosen at the open desk, and write each run's files. What stops one run stops no other.

    Errors: those of opening the desk; Cancelled for an interrupt, which says how to go on.
    """
    from finllm.desk.desk import open_desk
    from finllm.sessions.batch import run_batch
    from finllm.sessions.batch_report import BatchReport, row_of

    what = "opening the models and the ledger"
    bus.emit(Progress(what=what, done=0, total=1))
    shared = settings.model_copy(update={"call_timeout": settings.call_timeout * wanted.jobs})  # they share the machine
    batch: Batch | None = None
    ended: list[Ended] = []
    with open_desk(shared, bus, wanted.jobs) as desk, _interruptible(lambda: batch, ended):
        bus.emit(Progress(what=what, done=1, total=1))
        batch = choose(desk)
        keep = _keeper(settings, wanted, desk)

        def on_end(one: Ended) -> None:
            ended.append(one)
            assert batch is not None
            bus.emit(_told(one, len(ended), len(batch.members)))

        with Runner() as runner:
            results = runner.run(run_batch(batch, desk, wanted.jobs, keep, on_end, budget))
        rows = [row_of(one, _error_of(one), _folder(settings, wanted, one.member), wanted.fail_on) for one in results]
        report = BatchReport(batch.id, tuple(rows))
        _record_summaries(report, wanted, desk)
    return report


def _record_summaries(report: BatchReport, wanted: BatchWanted, desk: Desk) -> None:
    """Put the digests of the files of a batch on record, by folder, before they are written."""
    from finllm.review.outputs import record_files
    from finllm.sessions.batch_report import summary_files

    by_folder: dict[Path, dict[str, bytes]] = {}
    for path, content in summary_files(report, wanted.junit, wanted.summaries, wanted.heatmaps).items():
        by_folder.setdefault(path.parent, {})[path.name] = content
    for folder, contents in by_folder.items():
        record_files(desk.ledger, report.id, folder, contents)


def _keeper(settings: Settings, wanted: BatchWanted, desk: Desk) -> Callable[[Member, Outcome], None]:
    """Writes a run's files, if they are not there."""

    def keep(member: Member, outcome: Outcome) -> None:
        from finllm.review.drawn import DrawnBefore
        from finllm.review.outputs import write_outputs
        from finllm.review.trace import trace_rows

        assert outcome.report is not None
        folder = _folder(settings, wanted, member)
        if not (folder / "report.json").exists():  # it is written last
            lost = write_outputs(folder, outcome.report, desk.ledger, trace_rows(member.run_id, desk.ledger),
                                 drawn=DrawnBefore(settings.drawn_dir))  # fmt: skip
            if lost is not None:
                desk.bus.emit(Noted(level="warning", message=f"{member.run_id}: {lost}"))

    return keep


def _folder(settings: Settings, wanted: BatchWanted, member: Member) -> Path:
    return (wanted.out or settings.runs_dir) / member.run_id


def _error_of(one: Ended) -> FinllmError | None:
    """What kept a run from its report, with the command that goes on with it."""
    run_id = one.member.run_id
    if one.error is not None:
        known = as_finllm_error(one.error)
        if run_id not in known.fix:
            known.fix = f"{known.fix}; go on with: finllm resume {run_id}"
        return known
    if one.outcome is not None and one.outcome.report is None:
        question: dict[str, Any] = one.outcome.question or {}
        factors = ", ".join(map(str, question.get("factors", ()))) or "some factors"
        options = "|".join(map(str, question.get("options", ())))
        return HumanNeeded(f"run {run_id!r} waits for a person: text and measurements stay at odds about {factors}",
                           fix=f"finllm resume {run_id} --answer {options}")  # fmt: skip
    return None


def _told(one: Ended, number: int, total: int) -> MemberEnded:
    error = _error_of(one)
    status = "failed" if error or one.outcome is None else one.outcome.status
    return MemberEnded(run_id=one.member.run_id, status=status, number=number, total=total, seconds=one.seconds,
                       error=None if error is None else error.to_json()["error"])  # fmt: skip


@contextlib.contextmanager
def _interruptible(batch: Callable[[], Batch | None], ended: Sequence[Ended]) -> Generator[None]:
    """Make a Ctrl-C say what is kept, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        begun = batch()
        if begun is None:
            raise Cancelled("interrupted before the batch began", fix="run the command again") from error
        done = sum(one.outcome is not None and one.outcome.report is not None for one in ended)
        raise Cancelled(
            f"batch {begun.id!r} was interrupted, {done} of {len(begun.members)} runs done; what it recorded is kept",
            fix=f"run the same command again, or: finllm resume {begun.id}",
        ) from error
