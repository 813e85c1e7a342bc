"""Opens the queue of a desk: each backend with its calibration on this machine, and the grid it draws power from."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finllm.desk.calibrated import calibrated_here
from finllm.desk.spending import open_source
from finllm.errors import InputError
from finllm.scheduler.backends import Backend
from finllm.scheduler.executors import Executor, Measured
from finllm.scheduler.health.services import Services
from finllm.scheduler.money.carbon import ZoneIntensity
from finllm.scheduler.placement.dispatch import Dispatch, spec_of
from finllm.scheduler.placement.fleet import BackendSpec, Floats, Profile
from finllm.settings import Settings


def open_dispatch(settings: Settings, backends: Sequence[Backend], services: Services) -> Dispatch:
    """The queue of a desk. A backend without a calibration that holds stands in with the default profile.

    Errors: InputError for a grid that cannot be used.
    """
    dispatch = Dispatch([spec_here(settings, backend) for backend in backends], services.shut)
    dispatch.intensity = dispatch.policy.intensity = _intensity(settings, dispatch)
    return dispatch


@dataclass(frozen=True)
class LaterHere:
    """Backends that an executor gets later, as the broker takes them in: each with its speed."""

    settings: Settings
    executor: Executor

    def joined(self) -> Sequence[Backend]:
        return self.executor.joined()

    def spec(self, backend: Backend) -> BackendSpec:
        return spec_here(self.settings, backend)


def spec_here(settings: Settings, backend: Backend) -> BackendSpec:
    """A backend as placing sees it, by what was measured where it runs, or here."""
    offer = backend.offer
    measured = isinstance(backend, Measured)
    found = backend.calibration if measured else calibrated_here(settings, offer).calibration
    spec = spec_of(offer)
    if found is not None:
        quality = {agent: one.lower for agent, one in found.quality.items()}
        spec = spec_of(offer, Profile.of(found.speed), quality)
    return replace(spec, link=backend.link) if measured else spec


def _intensity(settings: Settings, dispatch: Dispatch) -> Callable[[float], Floats] | None:
    source: ZoneIntensity | None = open_source(settings)
    if source is None:
        return None
    last = [0.0]

    def now(_time: float) -> Floats:
        with contextlib.suppress(InputError):  # the series has ended: its last figure stands, as in what is charged
            last[0] = source.at(dt.datetime.now(dt.UTC)).value
        return np.full(len(dispatch.specs), last[0])

    return now
