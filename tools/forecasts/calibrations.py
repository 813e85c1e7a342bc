"""Keeps forecasts' calibrations as JSON files, one per series and month, so that they are computed once."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from finllm.files import make_private
from finllm.tools.forecasts.ensemble import Calibration, Pace, calibrate_ensemble

VERSION = 1
"""Part of every key: raise it when the same data should give another calibration."""
KEPT = 512
"""Calibrations kept in memory."""


class Calibrations:
    """Calibrations by content: in memory, and under `folder` where one is given. Kept or computed, they are equal.

    Safe to share between threads, which take turns: one that comes for what another is computing finds it done.

    A file is keyed by the observations before the month, the pace and the steps, so it serves every day of that month;
    one that cannot be read is computed again and replaced. A folder that cannot be written raises OSError.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Calibration] = {}
        self._lock = threading.Lock()

    def get(self, name: str, levels: pd.Series, pace: Pace, horizons: Sequence[int]) -> dict[int, Calibration]:
        """Calibrations of these levels by horizon in steps; a horizon with too little history is missing."""
        keys = {steps: key(levels, pace, steps) for steps in horizons}
        with self._lock:
            found = {steps: one for steps in horizons if (one := self._recall(name, keys[steps]))}
            missing = [steps for steps in horizons if steps not in found]
            if missing:
                for steps, made in calibrate_ensemble(levels, pace, missing).items():
                    found[steps] = made
                    self._keep(name, keys[steps], made)
        return found

    def _recall(self, name: str, known: str) -> Calibration | None:
        if known in self._known:
            return self._known[known]
        if self._folder is None:
            return None
        try:
            made = Calibration.model_validate_json((self._folder / _file(name, known)).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        self._known[known] = made
        return made

    def _keep(self, name: str, known: str, made: Calibration) -> None:
        while len(self._known) >= KEPT:
            self._known.pop(next(iter(self._known)))
        self._known[known] = made
        if self._folder is not None:
            make_private(self._folder)
            path = self._folder / _file(name, known)
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_text(made.model_dump_json(indent=1) + "\n", encoding="utf-8")
            part.replace(path)


def key(levels: pd.Series, pace: Pace, steps: int) -> str:
    """sha256 of everything that a calibration depends on."""
    content = hashlib.sha256(f"{VERSION} {pace} {steps} ".encode())
    content.update(pd.DatetimeIndex(levels.index).asi8.tobytes())
    content.update(levels.to_numpy(dtype="float64").tobytes())
    return content.hexdigest()


def _file(name: str, known: str) -> str:
    safe = "".join(one if one.isalnum() else "_" for one in name)[:40]
    return f"{safe}-{known[:20]}.json"
