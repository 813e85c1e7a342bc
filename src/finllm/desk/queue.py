"""Opens the queue of a desk: each backend with its calibration on this machine, and the grid it draws power from."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence

import numpy as np

from finllm.desk.calibrated import calibrated_here
from finllm.desk.spending import open_source
from finllm.errors import InputError
from finllm.scheduler.backends import Backend, Offer
from finllm.scheduler.health.services import Services
from finllm.scheduler.money.carbon import ZoneIntensity
from finllm.scheduler.placement.dispatch import Dispatch, spec_of
from finllm.scheduler.placement.fleet import BackendSpec, Floats, Profile
from finllm.settings import Settings


def open_dispatch(settings: Settings, backends: Sequence[Backend], services: Services) -> Dispatch:
    """The queue of a desk. A backend without a calibration that holds stands in with the default profile.

    Errors: InputError for a grid that cannot be used.
    """
    specs = [_spec(settings, backend.offer) for backend in backends]
    return Dispatch(specs, services.shut, intensity=_intensity(settings, specs))


def _spec(settings: Settings, offer: Offer) -> BackendSpec:
    found = calibrated_here(settings, offer).calibration
    if found is None:
        return spec_of(offer)
    return spec_of(offer, Profile.of(found.speed), {agent: one.lower for agent, one in found.quality.items()})


def _intensity(settings: Settings, specs: Sequence[BackendSpec]) -> Callable[[float], Floats] | None:
    source: ZoneIntensity | None = open_source(settings)
    if source is None:
        return None
    last = [0.0]

    def now(_time: float) -> Floats:
        with contextlib.suppress(InputError):  # the series has ended: its last figure stands, as in what is charged
            last[0] = source.at(dt.datetime.now(dt.UTC)).value
        return np.full(len(specs), last[0])

    return now
