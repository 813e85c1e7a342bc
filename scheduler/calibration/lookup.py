"""Which calibration still holds for a backend as it is now; where none does, why, and the default profile stands in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from finllm.scheduler.backends import Offer
from finllm.scheduler.calibration.measured import RungCalibration

MEND = "run 'finllm calibrate'"


@dataclass(frozen=True)
class Calibrated:
    """`calibration` where it holds. `stale` says why the newest does not; None where it holds, or there never was one.

    `taken_at`: of the newest for these weights, held or stale; None without one. `measurable`: `finllm calibrate` would
    take one.
    """

    calibration: RungCalibration | None
    stale: str | None
    taken_at: dt.datetime | None
    measurable: bool = True

    @property
    def words(self) -> str:
        """Such as `2026-03-01 12:00Z`, or why there is none and what mends it."""
        if not self.measurable:
            return "not measured here: the default profile stands in"
        if self.taken_at is None:
            return f"never: the default profile stands in; {MEND}"
        when = f"{self.taken_at:%Y-%m-%d %H:%MZ}"
        return when if self.stale is None else f"{when}, stale: {self.stale}; the default profile stands in; {MEND}"


def calibrated(
    calibrations: Sequence[RungCalibration], offer: Offer, *, cpu: str, threads: int, now: dt.datetime, days: float
) -> Calibrated:
    """The calibration of a backend's weights, if they were calibrated on this build, CPU and threads, lately enough.

    `days`: the longest age. A calibration of other weights says nothing; where there is only one of the same tier's
    precision, it is named as stale for its weights.
    """
    same = [one for one in calibrations if one.key.weights_sha256 == offer.weights_sha256]
    if not same:
        others = [one for one in calibrations if one.precision == offer.precision]
        newest = max(others, key=_taken, default=None)
        if newest is None:
            return Calibrated(None, None, None)
        return Calibrated(None, f"the weights of {offer.precision} were others then", _taken(newest))
    fitting = [one for one in same if not _changed(one, offer, cpu, threads)]
    newest = max(fitting or same, key=_taken)
    changed = _changed(newest, offer, cpu, threads)
    age = (now - _taken(newest)).total_seconds() / 86400
    if not changed and age < -1 / 24:
        changed = [f"it was taken in the future, by {-age:.1f} days: mend the clock"]
    if not changed and age > days:
        changed = [f"it is {age:.0f} days old, and {days:g} are allowed"]
    if changed:
        return Calibrated(None, "; ".join(changed), _taken(newest))
    return Calibrated(newest, None, _taken(newest))


def _changed(one: RungCalibration, offer: Offer, cpu: str, threads: int) -> list[str]:
    pairs = (("build", one.key.build, offer.build), ("CPU", one.key.cpu, cpu), ("threads", one.key.threads, threads))
    return [f"{name} was {before}, is {now}" for name, before, now in pairs if before != now]


def _taken(one: RungCalibration) -> dt.datetime:
    when = dt.datetime.fromisoformat(one.taken_at)
    return when if when.tzinfo else when.replace(tzinfo=dt.UTC)
