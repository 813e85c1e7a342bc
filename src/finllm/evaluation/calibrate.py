"""Measures every precision of the model on this machine: speed, memory, energy and each agent's quality."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from finllm import running
from finllm.agents.probing import measure_quality, probes_digest
from finllm.agents.roles import AGENTS
from finllm.events import EventBus, Progress
from finllm.interrupts import undisturbed
from finllm.models.cards import AdapterCard, adapter_for
from finllm.models.ladder import PRUNED, Rung, ensure_rung
from finllm.models.registry import default_source
from finllm.models.source import ModelSource
from finllm.scheduler.backends import Backend, Offer
from finllm.scheduler.backends.llama_cpp import LlamaCppBackend, engine_config, llama_build
from finllm.scheduler.calibration.measured import Key, RungCalibration, Speed, find, keep, read_calibrations
from finllm.scheduler.calibration.probe import measure_rung
from finllm.scheduler.engine.process import EngineProcess
from finllm.scheduler.money import energy
from finllm.settings import Settings

LADDER = ("F16", "Q8_0", "Q4_K_M", "Q4_0", PRUNED)
"""The rungs that are calibrated unless others are asked for; the last where there is an adapter for it."""
_BACKEND = "llama_cpp"

OpenBackend = Callable[[ModelSource, Rung, Settings], AbstractContextManager[Backend]]


@dataclass(frozen=True)
class CalibratedRung:
    """A rung's calibration, and whether it was taken now or is an earlier one that is still true."""

    calibration: RungCalibration
    fresh: bool


@contextlib.contextmanager
def open_llama(source: ModelSource, rung: Rung, settings: Settings) -> Iterator[Backend]:
    """The backend that runs use, on one rung."""
    process = EngineProcess()
    name = f"calibration:{source.name}:{rung.precision}"
    config = engine_config(rung.path, settings)
    offer = Offer(name, "edge", rung.precision, rung.sha256, llama_build(), settings.context)
    try:
        yield LlamaCppBackend(process.open(name, config), offer, rung.path)
    finally:
        with undisturbed():
            process.close()


def calibrate(
    settings: Settings,
    bus: EventBus,
    precisions: Sequence[str] | None = None,
    *,
    force: bool = False,
    measure: Callable[[Rung, int], Speed] = lambda rung, threads: measure_rung(rung.path, threads),
    open_backend: OpenBackend = open_llama,
) -> list[CalibratedRung]:
    """Calibrate rungs of the default model, each kept as soon as it is taken.

    One taken before is used again while its weights, build, CPU, threads, probes and the adapter's card are
    the same, unless `force`.
    Errors: InputError for a model or precision that cannot be used; BackendError where a measurement fails.
    """
    source = default_source(settings)
    if precisions is None:
        pruned, _card = adapter_for(source, settings, PRUNED)
        precisions = [one for one in LADDER if one != PRUNED or (pruned is not None and pruned.layers is not None)]
    done: list[CalibratedRung] = []
    steps = len(AGENTS) + 1
    for at, precision in enumerate(precisions):

        def progress(what: str, step: int, at: int = at, precision: str = precision) -> None:
            what = f"calibrating {precision}: {what}"
            bus.emit(Progress(what=what, done=at * steps + step, total=len(precisions) * steps))

        adapter, card = adapter_for(source, settings, precision)
        rung = ensure_rung(source, precision, settings, adapter=adapter)
        with open_backend(source, rung, settings) as backend:
            key = _key(rung, backend, settings, card)
            kept = None if force else find(read_calibrations(settings.engine_calibration_path), key)
            if kept is not None:
                done.append(CalibratedRung(kept, fresh=False))
                continue
            started = time.monotonic()
            progress("speed", 0)
            speed = measure(rung, settings.threads)
            quality = {}
            for step, agent in enumerate(AGENTS):
                progress(agent.role, step + 1)
                quality[agent.role] = running.run(measure_quality(backend, agent, card))
        taken = RungCalibration(
            key=key, model=source.name, precision=precision, speed=speed, quality=quality,
            taken_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), seconds=time.monotonic() - started,
        )  # fmt: skip
        keep(settings.engine_calibration_path, taken)
        done.append(CalibratedRung(taken, fresh=True))
    return done


def _key(rung: Rung, backend: Backend, settings: Settings, card: AdapterCard | None) -> Key:
    return Key(
        backend=_BACKEND, weights_sha256=rung.sha256, build=backend.offer.build, cpu=energy.read_cpu().name,
        threads=settings.threads, probes=probes_digest(), card="" if card is None else card.calibration_sha256,
    )  # fmt: skip
