"""The session behind every door: one person's line of versions of a scenario on a book, each a run on record.

with Session.open("hormuz-blockade") as session:
    session.do('shock OIL_WTI +60% because "two lanes are mined"').figures.total
"""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from finllm.errors import Cancelled, FinllmError, RunHeld, as_finllm_error
from finllm.events import EventBus
from finllm.sessions.answers import Answer, Figures, beside
from finllm.sessions.grammar import Line, parse
from finllm.sessions.trading import traded
from finllm.sessions.tree import Tree, Version, moment

if TYPE_CHECKING:
    from types import TracebackType

    from finllm.desk.desk import Desk
    from finllm.graphs.report import Report
    from finllm.memory.sessions import Row
    from finllm.running import Runner
    from finllm.sessions.in_hand import InHand
    from finllm.settings import Settings

Show = Callable[[Answer], None]
"""Is given what the tools say of an edit at once, before its run is on record: it is provisional, and says so."""


def person() -> str:
    """Who is at the keyboard, by the name that the system knows."""
    import getpass

    try:
        return getpass.getuser() or "a person"
    except (KeyError, OSError):
        return "a person"


def _load() -> None:
    from importlib import import_module

    for name in ("scipy.optimize", "QuantLib", "finllm.sessions.hedge", "finllm.tools.pnl.hedge"):
        with contextlib.suppress(ImportError):  # who needs it says so
            import_module(name)


class Session:
    """See the module. Not for several threads at once. `reading`: another process has it, and this one only reads."""

    def __init__(self, desk: Desk, runner: Runner, tree: Tree, who: str, closing: contextlib.ExitStack) -> None:
        self.desk, self.runner, self.tree, self.who = desk, runner, tree, who
        self._closing = closing
        self._hand: InHand | None = None
        self.reading: RunHeld | None = None

    @classmethod
    def open(
        cls, start: str, *, portfolio: Path | None = None, limits: Path | None = None, prices: Sequence[Path] = (),
        as_of: dt.date | None = None, who: str | None = None, settings: Settings | None = None,
        bus: EventBus | None = None, fork: bool = False, currency: str | None = None,
    ) -> Session:  # fmt: skip
        """Open on a scenario's file or name, a story in plain words, a run on record, or a session (`s-…`) again.

        `fork`: leave a session at the version in hand, and go on in one of one's own. Its first version is run where
        it was not. Errors: InputError for a start or book that cannot be used; those of the run.
        """
        from finllm.desk.desk import open_desk
        from finllm.running import Runner
        from finllm.sessions.opening import opening
        from finllm.settings import load_settings

        settings = settings or load_settings().settings
        begin = opening(start, settings, portfolio=portfolio, limits=limits, prices=prices, as_of=as_of,
                        currency=currency)  # fmt: skip
        with contextlib.ExitStack() as closing:
            desk = closing.enter_context(open_desk(settings, bus or EventBus()))
            runner = closing.enter_context(Runner())
            return cls.on(begin, desk, runner, who=who, fork=fork, closing=closing.pop_all())

    @classmethod
    def on(
        cls, start: Any, desk: Desk, runner: Runner, *, who: str | None = None, fork: bool = False,
        closing: contextlib.ExitStack | None = None,
    ) -> Session:  # fmt: skip
        """Open at a desk that is open; `start` as `sessions.opening` gives it. The session closes what is given it."""
        from finllm.sessions.opening import tree_of

        closing = closing or contextlib.ExitStack()
        try:
            tree, held = tree_of(start, desk, who or person(), fork=fork, closing=closing)
            session = cls(desk, runner, tree, who or person(), closing)
            session.reading = held
        except BaseException:
            closing.close()
            raise
        return session

    @property
    def id(self) -> str:
        return self.tree.opened.session

    @property
    def version(self) -> Version:
        """The version in hand."""
        return self.tree.version

    def begin(self) -> Answer:
        """The opening: the version in hand, run or gone on with where it has no report. Errors: those of the run."""
        started = time.monotonic()
        had = self.report_of(self.version) is not None
        report = self._finished(self.version)
        base = self.base(self.version)
        figures = Figures.of(report)
        asked, reused = self.calls(self.version)
        asked, reused = (0, asked + reused) if had else (asked, reused)
        return Answer("open", self.tree.opened.start, self.version.id, self.version.run, time.monotonic() - started,
                      figures, *base, asked, reused, tuple(beside(figures, *base)),
                      command=self.command())  # fmt: skip

    def do(self, typed: str, show: Show | None = None) -> Answer:
        """Carry out a line. What is wrong with it, or stops it, is in the answer's `error`; the session stands.

        `show` is given an edit's provisional figures at once. Errors: none but those of a bug.
        """
        started, verb = time.monotonic(), typed.split(None, 1)[0] if typed.strip() else ""
        try:
            line = parse(typed)
            verb = line.verb.name
            return self._done(line, started, show)
        except (FinllmError, OSError, MemoryError, KeyboardInterrupt) as error:
            told = as_finllm_error(error)
            if isinstance(told, Cancelled):
                told = Cancelled("the answer was stopped; the session stands, and what was recorded is kept",
                                 fix="type it again to go on")  # fmt: skip
            return Answer(verb, typed, self.version.id, self.version.run, time.monotonic() - started, error=told)

    def _done(self, line: Line, started: float, show: Show | None) -> Answer:
        from finllm.sessions.questions import answer

        match line.verb.kind:
            case "edit":
                return self._edit(line, started, show)
            case "move":
                return self._move(line, started)
            case _:
                return answer(self, line, started)

    def _edit(self, line: Line, started: float, show: Show | None) -> Answer:
        from finllm.graphs.flow import new_run_id
        from finllm.memory.sessions import VersionRow
        from finllm.sessions.edits import Hand, edited
        from finllm.sessions.in_hand import NO_MODEL, differs

        self.may_write()
        parent = self.version
        report = self._finished(parent)
        hand = self.hand()
        request = edited(parent.request, line, Hand(self.who, hand.run.market, report))
        base, shown = Figures.of(report), None
        number = self.tree.next_number
        if line.verb.name in NO_MODEL:
            shown = hand.provisional(request)
            if show is not None:
                show(Answer(line.verb.name, line.typed, f"v{number}", "", time.monotonic() - started, shown, base,
                            parent.id, said=tuple(beside(shown, base, parent.id)), provisional=True))  # fmt: skip
        run = new_run_id(request.scenario.title, dt.datetime.now(dt.UTC), secrets.token_hex(2))
        self.note(VersionRow(who=self.who, at=moment(), line=line.typed, number=number, parent=parent.number,
                             verb=line.verb.name, why=line.because, run=run,
                             request=request.model_dump(mode="json")))  # fmt: skip
        found = Figures.of(self._recorded(parent))
        asked, reused = self.calls(self.version)
        said = beside(found, base, parent.id)
        if line.verb.name == "trade":
            said = [traded(line.words[0], parent.request, request), *said]
        if shown is not None and (other := differs(shown, found)):
            said = [*said, *(f"the run on record: {one}" for one in other)]
        return Answer(line.verb.name, line.typed, self.version.id, run, time.monotonic() - started, found, base,
                      parent.id, asked, reused, tuple(said), self.command())  # fmt: skip

    def _recorded(self, parent: Version) -> Report:
        """The report of the version that was just begun; where it is stopped, its parent is in hand again."""
        from finllm.memory.sessions import MovedRow

        try:
            return self._finished(self.version)
        except BaseException:
            with contextlib.suppress(FinllmError):
                self.note(MovedRow(who=self.who, at=moment(), verb="stopped", to=parent.number))
            raise

    def _move(self, line: Line, started: float) -> Answer:
        from finllm.memory.sessions import MovedRow
        from finllm.sessions.grammar import misused

        self.may_write()
        before = self.version
        match line.verb.name:
            case "undo":
                to, verb = self.tree.undo_to(), "undo"
            case "redo":
                to, verb = self.tree.redo_to(), "redo"
            case _:
                if not line.text:
                    raise misused(line.verb)
                to, verb = self.tree.find(line.text), "goto"
        base = Figures.of(self._finished(before)) if self.report_of(before) else None
        self.note(MovedRow(who=self.who, at=moment(), line=line.typed, verb=verb, to=to.number))  # pyright: ignore[reportArgumentType]
        figures = Figures.of(self._finished(to))
        return Answer(line.verb.name, line.typed, to.id, to.run, time.monotonic() - started, figures, base, before.id,
                      said=(f"{to.id} is in hand; {before.id} is kept", *beside(figures, base, before.id)),
                      command=self.command())  # fmt: skip

    def warm(self) -> threading.Thread:
        """Load behind the talk what hedges and options are worked out with, so that the first of them is no slower.

        The thread that does it.
        """
        found = threading.Thread(target=_load, name="warming", daemon=True)
        found.start()
        return found

    def hand(self) -> InHand:
        """The version in hand with its engine; rebuilt where this process did not run it."""
        from finllm.sessions.in_hand import rebuilt

        self._finished(self.version)
        if self._hand is None or self._hand.run.run_id != self.version.run:
            self._hand = rebuilt(self.version.run, self.version.request, self.desk, self.runner)
        return self._hand

    def report_of(self, version: Version) -> Report | None:
        """The report of a version, None where its run has none yet."""
        from finllm.graphs.report import Report

        row = self.desk.ledger.run(version.run)
        return None if row is None or row.result is None else Report.model_validate(row.result)

    def _finished(self, version: Version) -> Report:
        """The report of a version, whose run is begun or gone on with where it has none. Errors: those of the run."""
        if (found := self.report_of(version)) is not None:
            return found
        if self.reading is not None:
            raise self.reading
        from finllm.desk.desk import open_run
        from finllm.graphs import flow
        from finllm.sessions.in_hand import InHand

        row = self.desk.ledger.run(version.run)
        begun = flow.run_stress_test(version.run, version.request, self.desk) if row is None else \
            flow.resume(version.run, self.desk)  # fmt: skip
        self.runner.rearm()
        outcome = self.runner.run(begun)
        if outcome.report is None:
            raise FinllmError(f"run {version.run!r} ended without a report", fix=f"finllm trace {version.run}")
        if outcome.state is not None:
            run = open_run(self.desk, version.run, version.request)
            self._hand = InHand.of(outcome.state, run, self._hand)
        return outcome.report

    def base(self, version: Version) -> tuple[Figures | None, str | None]:
        """The figures of the version that another was made of."""
        if version.parent is None:
            return None, None
        parent = self.tree.versions[version.parent]
        report = self.report_of(parent)
        return (None, None) if report is None else (Figures.of(report), parent.id)

    def calls(self, version: Version) -> tuple[int, int]:
        """Model calls that a version's run made, and those that the ledger answered."""
        uses = self.desk.ledger.uses(version.run, "call")
        return sum(not use.reused for use in uses), sum(use.reused for use in uses)

    def note(self, row: Row) -> None:
        """Put what is done on record, then let it change the tree. Errors: RecordError; RunHeld for a reader."""
        from finllm.memory.sessions import append

        self.may_write()
        append(self.id, self.tree.rows, row, self.desk.ledger)
        self.tree.take(row)

    def may_write(self) -> None:
        """Errors: RunHeld where another process has the session."""
        if self.reading is not None:
            raise self.reading

    def command(self) -> str:
        """What shows the version in hand outside the session, figure by figure."""
        return f"finllm trace {self.version.run}"

    def _repr_html_(self) -> str:
        from finllm.sessions.notebook import session_html

        return session_html(self)

    def close(self) -> None:
        """Give the session back; it is opened again by its id."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
