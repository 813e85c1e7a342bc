"""The calibration of a backend on this machine, and whether it still holds."""

from __future__ import annotations

import datetime as dt

from finllm.scheduler.backends import Offer
from finllm.scheduler.calibration.lookup import Calibrated, calibrated
from finllm.scheduler.calibration.measured import read_calibrations
from finllm.scheduler.money import energy
from finllm.settings import Settings


def calibrated_here(settings: Settings, offer: Offer) -> Calibrated:
    """The calibration of a backend's weights on this CPU, build and number of threads."""
    if not offer.calibratable:
        return Calibrated(None, None, None, measurable=False)
    return calibrated(
        read_calibrations(settings.engine_calibration_path), offer, cpu=energy.read_cpu().name,
        threads=settings.threads, now=dt.datetime.now(dt.UTC), days=settings.calibration_days,
    )  # fmt: skip
