"""Runs being explained: what would flip a result is asked of the models in a process of its own, within a bound.

The explanation itself is on record when it is done; here is only how far it is, and what went wrong.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from finllm.errors import FinllmError, InputError, as_finllm_error
from finllm.web.at_work import forking

if TYPE_CHECKING:
    from finllm.events import Event
    from finllm.settings import Settings

SECONDS = 180.0
"""s for which the models are asked; what is left out by then is said, and another asking goes on with it."""
LONGEST = SECONDS + 120.0
"""s after which it is stopped, whatever it does: opening models and telling what was found takes the rest."""
BETWEEN = 0.5
"""s between two words on how far it is."""
KEPT = 200
"""Runs whose last asking is remembered."""


@dataclass(frozen=True)
class Explained:
    """How far it is. `who` asked, `since` a monotonic time, s; `failed`: what was wrong, and the mend; `at` counts
    what changed, also for pages that keep what they made."""

    who: str
    since: float
    busy: bool = True
    done: int = 0
    total: int = 0
    failed: tuple[str, str] | None = None
    at: int = 0

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        asked = f"{self.done} of {self.total} questions" if self.total else "opening the models and the ledger"
        return f"{asked}, for {time.monotonic() - self.since:.0f} s; it asks for {SECONDS:.0f} s at most"


Work = Callable[[Connection, str, Any], None]
"""Explains a run in the process that it is called in, and tells on the pipe how far it is and what failed."""


class Explaining:
    """The runs that are explained, one at a time: each takes a core and a model. Thread-safe."""

    def __init__(self, settings: Settings, work: Work | None = None, longest: float = LONGEST) -> None:
        self._settings, self._work, self._longest = settings, work or explain_apart, longest
        self._lock = threading.Lock()
        self._of: dict[str, Explained] = {}
        self._process: Any = None
        self._changed: Callable[[], None] = lambda: None

    def on_change(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def now(self, run: str) -> Explained | None:
        """How far a run's explanation is; None where nobody has asked for one since the server began."""
        with self._lock:
            return self._of.get(run)

    def begin(self, run: str, who: str) -> None:
        """Explain a run, unless it is being explained. Errors: InputError while another one is."""
        with self._lock:
            going = next((name for name, one in self._of.items() if one.busy), None)
            if going == run:
                return
            if going is not None:
                raise InputError("another run is being explained", fix="wait for it: one is at a time")
            before = self._of.pop(run, None)
            self._of[run] = Explained(who, time.monotonic(), at=before.at + 1 if before else 1)
            for name in list(self._of)[:-KEPT]:
                del self._of[name]
        threading.Thread(target=self._explain, args=(run,), daemon=True).start()
        self._changed()

    def close(self) -> None:
        """Stop what is going on; what was answered is on record."""
        with self._lock:
            if self._process is not None and self._process.is_alive():
                self._process.kill()

    def _explain(self, run: str) -> None:
        ours, theirs = forking().Pipe()
        process = forking().Process(target=self._work, args=(theirs, run, self._settings), daemon=True)
        with self._lock:
            self._process = process
        try:
            process.start()
        except (OSError, EOFError, MemoryError) as error:
            told = as_finllm_error(error)
            self._put(run, {"busy": False, "failed": (told.message, told.fix)})
            return
        theirs.close()
        until, failed = time.monotonic() + self._longest, None
        with contextlib.closing(ours):
            while (left := until - time.monotonic()) > 0 and ours.poll(left):
                try:
                    told = ours.recv()
                except (EOFError, OSError):
                    failed = ("the process that worked on it has ended", "what was answered is kept: ask again")
                    break
                self._put(run, told)
                if told.get("busy") is False:
                    break
            else:
                failed = (
                    f"it was stopped after {self._longest:.0f} s",
                    "what was answered is kept: ask again to go on",
                )
        process.kill() if failed else process.join(10)
        if failed:
            self._put(run, {"busy": False, "failed": failed})

    def _put(self, run: str, told: Mapping[str, Any]) -> None:
        with self._lock:
            self._of[run] = replace(self._of[run], **told, at=self._of[run].at + 1)
        self._changed()


def explain_apart(pipe: Connection, run: str, settings: Settings) -> None:
    """What `finllm explain` does, told on a pipe."""
    from finllm import running
    from finllm.desk.desk import open_desk
    from finllm.events import EventBus
    from finllm.review.explain import explain
    from finllm.review.explanation import Bound
    from finllm.sessions.requests import check_model

    with contextlib.suppress(OSError):
        os.nice(15)  # whoever reads a page comes first
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(OSError):
        try:
            check_model(settings)
            with open_desk(settings, EventBus(_telling(pipe))) as desk:
                running.run(explain(run, desk, Bound(seconds=SECONDS)))
        except (FinllmError, OSError, MemoryError, KeyboardInterrupt) as error:
            told = as_finllm_error(error)
            pipe.send({"busy": False, "failed": (told.message, told.fix)})
        else:
            pipe.send({"busy": False})


def _telling(pipe: Connection) -> Callable[[Event], None]:
    from finllm.events import Progress

    last = 0.0

    def tell(event: Event) -> None:
        nonlocal last
        if isinstance(event, Progress) and event.total and time.monotonic() - last > BETWEEN:
            last = time.monotonic()
            with contextlib.suppress(OSError):  # nobody listens any more
                pipe.send({"done": event.done, "total": event.total})

    return tell
