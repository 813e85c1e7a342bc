"""The calibration that a node joins with: the one that holds, or its rungs' speed measured now, at two batch sizes."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

from finllm.scheduler.backends import Offer
from finllm.scheduler.calibration.lookup import calibrated
from finllm.scheduler.calibration.measured import Key, RungCalibration, keep, read_calibrations
from finllm.scheduler.calibration.probe import measure_rung
from finllm.scheduler.money import energy
from finllm.settings import Settings

BATCHES = (1, 4)
"""Sequences decoded together: fewer than 'finllm calibrate' takes, since calls wait for the node."""


def calibrated_to_join(settings: Settings, offer: Offer) -> RungCalibration | None:
    """What a node says of a backend's speed; None for one that is not measured here. Errors: BackendError."""
    if not offer.calibratable or offer.weights_file is None:
        return None
    cpu, now = energy.read_cpu().name, dt.datetime.now(dt.UTC)
    found = calibrated(read_calibrations(settings.engine_calibration_path), offer, cpu=cpu, threads=settings.threads,
                       now=now, days=settings.calibration_days)  # fmt: skip
    if found.calibration is not None:
        return found.calibration
    started = time.monotonic()
    speed = measure_rung(Path(offer.weights_file), settings.threads, BATCHES)
    key = Key(backend=offer.kind, weights_sha256=offer.weights_sha256, build=offer.build, cpu=cpu,
              threads=settings.threads, probes="")  # fmt: skip
    taken = RungCalibration(key=key, model=offer.name, precision=offer.precision, speed=speed, quality={},
                            taken_at=now.isoformat(timespec="seconds"), seconds=time.monotonic() - started)  # fmt: skip
    keep(settings.engine_calibration_path, taken)
    return taken
