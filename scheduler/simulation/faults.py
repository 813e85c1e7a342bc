"""Faults of a simulated fleet: a backend dies or freezes for a while; the broker has to notice by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Fault:
    """`kind`: `kill` loses what the backend was doing, `freeze` stops it, and what it did goes on afterwards."""

    time: float
    backend: int
    kind: Literal["kill", "freeze"]
    seconds: float


@dataclass(frozen=True)
class Found:
    """A fault, and the s, since there was work for it to stop, until the broker took the backend out."""

    fault: Fault
    after: float
