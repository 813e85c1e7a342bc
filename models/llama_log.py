"""llama.cpp's log, kept off the terminal: dropped, or collected while somebody asks for it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_listeners: list[Callable[[int, str], None]] = []
_callback: Any = None  # llama.cpp keeps only the pointer: without this reference Python would free the function
ERROR_LEVEL = 4


def silence() -> None:
    """Send llama.cpp's log to the current listeners, none of them the terminal. Safe to call again."""
    global _callback  # noqa: PLW0603  the library has one log per process, and so one callback
    import llama_cpp

    with _lock:
        if _callback is None:

            def deliver(level: int, text: bytes, _user_data: object) -> None:
                for listener in list(_listeners):
                    listener(level, text.decode("utf-8", "replace"))

            _callback = llama_cpp.llama_log_callback(deliver)
        llama_cpp.llama_log_set(_callback, ctypes.c_void_p(0))


@contextmanager
def listening(listener: Callable[[int, str], None]) -> Iterator[None]:
    """Call `listener(level, text)` for every line logged inside the block, by any thread.

    The listener runs inside a C callback, so it must not raise.
    """
    silence()
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
