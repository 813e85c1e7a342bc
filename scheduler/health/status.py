"""One small status file per process with an open desk, written each second, for `finllm nodes`."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finllm.files import make_private
from finllm.processes import lives, ticks_of

EVERY = 1.0
"""Seconds between two writings."""
STALE = 5.0
"""A file not written for so many seconds tells nothing any more."""


class StatusFile:
    """Writes `tell()`, JSON-able, to FOLDER/PID.json from a thread of its own; `close` removes it.

    Showing must not stop a run: what cannot be written is left out.
    """

    def __init__(self, folder: Path, tell: Callable[[], dict[str, Any]]) -> None:
        self._path = folder / f"{os.getpid()}.json"
        self._tell = tell
        self._about = {"pid": os.getpid(), "started": time.time(), "ticks": ticks_of(os.getpid())}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(EVERY)
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                self._write()
            self._closed.wait(EVERY)

    def _write(self) -> None:
        text = json.dumps({**self._about, "written": time.time(), **self._tell()})
        make_private(self._path.parent)
        partial = self._path.with_suffix(".part")
        partial.write_text(text, encoding="utf-8")
        if not self._closed.is_set():
            partial.replace(self._path)
        else:
            partial.unlink(missing_ok=True)


def live_processes(folder: Path, now: float | None = None) -> list[dict[str, Any]]:
    """What the processes that live have written lately, oldest first; files of those that are gone are removed."""
    now = time.time() if now is None else now
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            pid, written, ticks = int(said["pid"]), float(said["written"]), said["ticks"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if not lives(pid, ticks):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        elif now - written <= STALE:
            found.append(said)
    return sorted(found, key=lambda said: said["started"])
