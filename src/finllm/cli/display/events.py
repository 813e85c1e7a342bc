"""Three ways to show a run's events on stderr: a live status on a terminal, plain lines, JSON lines."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TextIO

from finllm.cli.display.terminal import err_console
from finllm.events import (
    Abstained,
    CallFinished,
    CallStarted,
    Event,
    NodeFinished,
    NodeStarted,
    Noted,
    Placed,
    Progress,
    RunFinished,
    RunStarted,
)
from finllm.plain_text import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

NOTICED_AFTER = 2.0
"""Seconds between two lines about the same wait where lines cannot be overwritten."""

_LASTING = (RunStarted, NodeFinished, Placed, Abstained, Noted, RunFinished)
"""Events whose line stays on a terminal; the others only move what is redrawn."""


class Display(Protocol):
    """A renderer that a person may be asked beside."""

    def __call__(self, event: Event) -> None: ...

    def pause(self) -> contextlib.AbstractContextManager[None]:
        """Nothing is drawn meanwhile."""
        ...


@contextlib.contextmanager
def open_display(*, as_json: bool, quiet: bool) -> Iterator[Display]:
    """The display that suits stderr: silent, JSON lines, live on a terminal, or plain lines."""
    if quiet:
        yield Silent()
    elif as_json:
        yield JsonLines(sys.stderr)
    elif sys.stderr.isatty():
        with LiveDisplay(err_console()) as live:
            yield live
    else:
        yield Plain(sys.stderr)


@contextlib.contextmanager
def open_when_noticed(
    *, as_json: bool, quiet: bool = False, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[Event], None]]:
    """`open_display`, opened by the first event after two seconds: a command that is quick as a rule says nothing."""
    started = clock()
    with contextlib.ExitStack() as opened:
        display: list[Display] = []

        def show(event: Event) -> None:
            if not display and clock() - started >= NOTICED_AFTER:
                display.append(opened.enter_context(open_display(as_json=as_json, quiet=quiet)))
            if display:
                display[0](event)

        yield show


class Silent:
    def __call__(self, event: Event) -> None:
        del event

    def pause(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class JsonLines:
    """Every event as one JSON object on a line of its own, flushed at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        self._stream.write(json.dumps(event.model_dump(mode="json")) + "\n")
        self._stream.flush()

    def pause(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class _News:
    """Tells whether a placement is the first of its agent on its backend: the later ones are not shown."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> bool:
        if not isinstance(event, Placed):
            return True
        known = (event.agent, event.chosen) in self._seen
        self._seen.add((event.agent, event.chosen))
        return not known


class Plain:
    """A line for each event that a person wants to know of; the steps of a wait at most every two seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._waits: dict[str, float] = {}
        self._is_news = _News()

    def __call__(self, event: Event) -> None:
        if not self._is_news(event) or (isinstance(event, Progress) and not self._due(event)):
            return
        line = line_of(event)
        if line is not None:
            self._stream.write(line + "\n")
            self._stream.flush()

    def pause(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def _due(self, event: Progress) -> bool:
        now = self._clock()
        if event.what in self._waits and now - self._waits[event.what] < NOTICED_AFTER:
            return False
        self._waits[event.what] = now
        return event.done < event.total


class LiveDisplay:
    """What is going on now, redrawn in place: nodes, model calls and waits with their age; what lasts scrolls above."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = console
        self._clock = clock
        self._lock = threading.Lock()  # rich redraws from a thread of its own
        self._nodes: dict[str, float] = {}
        self._calls: dict[str, tuple[CallStarted, float]] = {}
        self._waits: dict[str, Progress] = {}
        self._asked = self._reused = 0
        self._is_news = _News()
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self._draw, transient=True, refresh_per_second=8)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._keep(event)
        if isinstance(event, _LASTING) and self._is_news(event):
            from rich.text import Text

            self._console.print(Text(line_of(event) or "", style=_style(event)))

    def _keep(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._nodes.clear()  # of a node that asked a person and is run again
            case NodeStarted():
                self._nodes[event.node] = self._clock()
            case NodeFinished():
                self._nodes.pop(event.node, None)
            case CallStarted():
                self._calls[event.key] = (event, self._clock())
            case CallFinished():
                self._calls.pop(event.key, None)
                self._asked += not event.reused
                self._reused += event.reused
            case Progress():
                self._waits[event.what] = event
                if event.done >= event.total:
                    del self._waits[event.what]
            case RunFinished():
                self._calls.clear()
            case _:
                pass

    def _draw(self) -> RenderableType:
        from rich.text import Text

        with self._lock:
            now = self._clock()
            parts = [f"{node} {now - since:.0f} s" for node, since in self._nodes.items()]
            parts += [f"{call.agent} asks {call.backend} {now - since:.0f} s" for call, since in self._calls.values()]
            parts += [_wait(wait) for wait in self._waits.values()]
            if self._asked or self._reused:
                parts.append(f"{self._asked} calls, {self._reused} from the ledger")
        self._spinner.update(text=Text(clean(" · ".join(parts) or "working"), no_wrap=True, overflow="ellipsis"))
        return self._spinner


def line_of(event: Event) -> str | None:
    """An event as one line, or None where it is not worth one."""
    line: str | None = None
    match event:
        case RunStarted():
            line = f"run {event.run_id}: {event.title}, as of {event.as_of}" + (" (resumed)" if event.resumed else "")
        case NodeStarted():
            line = f"{event.node}: started"
        case NodeFinished():
            line = f"{event.node}: done in {event.seconds:.1f} s"
        case Progress():
            line = _wait(event)
        case Placed():
            refused = "".join(f"; {name} refused: {why}" for name, why in event.refused.items())
            twice = f" and on {event.twin}, whoever is first" if event.twin else ""
            twice += f", in one domain alone: {event.alone}" if event.alone else ""
            line = f"{event.node}: {event.agent} placed on {event.chosen}{twice}{refused}"
        case CallFinished(reused=True):
            line = f"{event.agent}: answered from the ledger ({event.backend})"
        case CallFinished():
            line = f"{event.agent}: {event.backend} answered in {event.seconds:.1f} s, {event.tokens} tokens"
        case Abstained():
            line = f"{event.agent} abstained: {event.reason}"
        case Noted():
            line = f"{'warning' if event.level == 'warning' else 'note'}: {event.message}"
        case RunFinished():
            line = f"run {event.run_id}: {event.status}"
        case _:
            pass
    return None if line is None else clean(line)


def _wait(event: Progress) -> str:
    return f"{event.what}: {event.done} of {event.total}" if event.total > 1 else f"{event.what} …"


def _style(event: Event) -> str:
    if isinstance(event, Abstained) or (isinstance(event, Noted) and event.level == "warning"):
        return "yellow"
    return "dim" if isinstance(event, Placed | NodeFinished) else ""
