"""Work that may wait: the cleanest moment of its window to begin it, by the grid's series, and the wait until then."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from finllm.desk.spending import open_source
from finllm.errors import InputError
from finllm.scheduler.money.carbon import GreenStart
from finllm.settings import Settings

LOOK = 30.0
"""s between two looks at the clock: a machine that slept goes on at once."""


def cleanest(settings: Settings, now: dt.datetime, window: float, seconds: float) -> GreenStart:
    """When to begin work that takes about so many s and must be done within `window` s, so that it emits least.

    Work that fills its window begins at once. Errors: InputError without a grid intensity, or where its series does not
    cover the window.
    """
    source = open_source(settings)
    if source is None:
        raise InputError(
            "--defer needs the grid's intensity by hour", fix="set FINLLM_CARBON to a series, and FINLLM_ZONE"
        )
    latest = now + dt.timedelta(seconds=max(window - seconds, 0.0))
    return source.cheapest(now, latest, seconds)


def wait_until(start: dt.datetime, clock: Callable[[], dt.datetime], sleep: Callable[[float], None]) -> None:
    """Return once it is `start`."""
    while (left := (start - clock()).total_seconds()) > 0:
        sleep(min(left, LOOK))


def words(start: GreenStart, now: dt.datetime) -> str:
    """What is done, and what it saves."""
    if start.at <= now:
        return f"no hour of the window is cleaner than now, at {start.now:.0f} gCO₂e/kWh"
    saved = 1 - start.value / start.now if start.now else 0.0
    return (f"waits until {start.at:%Y-%m-%d %H:%M} UTC: {start.value:.0f} gCO₂e/kWh instead of {start.now:.0f}, "
            f"{saved:.0%} less")  # fmt: skip
