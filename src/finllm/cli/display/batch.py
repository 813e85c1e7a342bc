"""A batch's events on stderr: one live line per run on a terminal, plain lines, or JSON lines that name their run."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from finllm.cli.display.events import NOTICED_AFTER, Silent, line_of
from finllm.cli.display.terminal import err_console
from finllm.events import (
    RUN,
    Abstained,
    BatchStarted,
    CallFinished,
    Event,
    MemberEnded,
    NodeFinished,
    NodeStarted,
    Noted,
    Progress,
    Renderer,
    RunStarted,
)
from finllm.plain_text import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@contextlib.contextmanager
def open_batch_display(*, as_json: bool, quiet: bool) -> Iterator[Renderer]:
    """The display that suits stderr: silent, JSON lines, live on a terminal, or plain lines."""
    if quiet:
        yield Silent()
    elif as_json:
        yield RunLines(sys.stderr)
    elif sys.stderr.isatty():
        with LiveBatch(err_console()) as live:
            yield live
    else:
        yield PlainBatch(sys.stderr)


class RunLines:
    """Every event as one JSON object on a line of its own, with the `run` that it is of where it is of one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()  # runs emit from threads, too

    def __call__(self, event: Event) -> None:
        line = json.dumps({"run": RUN.get(), **event.model_dump(mode="json")})
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


class _Names:
    """Lines of a batch: which run they are of stands in front, by its scenario's name."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._noted: set[str] = set()

    def line(self, event: Event) -> str | None:
        """What a person wants to know of an event of a batch; a note that several runs share is told once."""
        name = self.of(RUN.get())
        match event:
            case BatchStarted():
                self._names = dict(event.runs)
                before = f", {event.done} of them done before" if event.done else ""
                return clean(f"batch {event.batch_id}: {len(event.runs)} runs{before}")
            case MemberEnded():
                said = f"{event.number} of {event.total}: {self.of(event.run_id)}: {event.status}"
                why = f": {event.error['message']}; {event.error['fix']}" if event.error else ""
                return clean(f"{said} after {event.seconds:.1f} s{why}")
            case Noted():
                line = line_of(event) or ""
                if line in self._noted:
                    return None
                self._noted.add(line)
                return clean(f"{name}: {line}" if name and event.level == "warning" else line)
            case Abstained():
                return clean(f"{name}: {line_of(event)}")
            case _:
                return None

    def of(self, run_id: str | None) -> str:
        return "" if run_id is None else self._names.get(run_id, run_id)


class PlainBatch:
    """A line when the batch starts, when a run ends, and for warnings; the steps of a wait every two seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._names = _Names()
        self._lock = threading.Lock()
        self._last = -NOTICED_AFTER

    def __call__(self, event: Event) -> None:
        with self._lock:
            line = self._wait(event) if isinstance(event, Progress) else self._names.line(event)
            if line is not None:
                self._stream.write(line + "\n")
                self._stream.flush()

    def _wait(self, event: Progress) -> str | None:
        if event.done >= event.total or self._clock() - self._last < NOTICED_AFTER:
            return None
        self._last = self._clock()
        return line_of(event)


class LiveBatch:
    """What is going on now, redrawn in place: a line per run under way, and the counts; what lasts scrolls above."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = console
        self._clock = clock
        self._lock = threading.Lock()
        self._names = _Names()
        self._nodes: dict[str, dict[str, float]] = {}
        self._waits: dict[str, Progress] = {}
        self._total = self._ended = self._failed = self._asked = self._reused = 0
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self._draw, transient=True, refresh_per_second=4)

    def __enter__(self) -> LiveBatch:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        from rich.text import Text

        with self._lock:
            self._keep(event, RUN.get())
            line = self._names.line(event)
        if line is not None:
            bad = isinstance(event, Abstained | Noted) or (isinstance(event, MemberEnded) and event.error)
            self._console.print(Text(line, style="yellow" if bad else ""))

    def _keep(self, event: Event, run: str | None) -> None:
        nodes = self._nodes.setdefault(run, {}) if run is not None else {}
        match event:
            case BatchStarted():
                self._total = len(event.runs)
            case RunStarted():
                nodes.clear()
            case NodeStarted():
                nodes[event.node] = self._clock()
            case NodeFinished():
                nodes.pop(event.node, None)
            case CallFinished():
                self._asked += not event.reused
                self._reused += event.reused
            case MemberEnded():
                self._nodes.pop(event.run_id, None)
                self._ended += 1
                self._failed += event.error is not None
            case Progress():
                self._waits[event.what] = event
                if event.done >= event.total:
                    del self._waits[event.what]
            case _:
                pass

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        with self._lock:
            now = self._clock()
            lines = [
                f"  {self._names.of(run)}: " + ", ".join(f"{node} {now - since:.0f} s" for node, since in nodes.items())
                for run, nodes in self._nodes.items()
            ]
            parts = [f"{self._ended} of {self._total} runs done"] if self._total else []
            parts += [f"{self._failed} failed"] if self._failed else []
            parts += [line_of(wait) or "" for wait in self._waits.values()]
            if self._asked or self._reused:
                parts.append(f"{self._asked} calls, {self._reused} from the ledger")
        self._spinner.update(text=Text(clean(" · ".join(parts) or "working"), no_wrap=True, overflow="ellipsis"))
        return Group(
            *(Text(clean(line), no_wrap=True, overflow="ellipsis", style="dim") for line in lines), self._spinner
        )
