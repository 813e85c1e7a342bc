"""Calibrating: taken once, again when something changed, and what was taken stays when a later rung fails."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from finllm.agents.roles import AGENTS
from finllm.errors import BackendError
from finllm.evaluation.calibrate import CalibratedRung, calibrate
from finllm.events import Event, EventBus, Progress
from finllm.models.cards import AdapterCard, FieldCalibration
from finllm.models.ladder import Rung
from finllm.models.source import ModelSource
from finllm.scheduler.backends import Backend
from finllm.scheduler.calibration.measured import Speed, read_calibrations
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from tests.models.tiny import write_tiny_model
from tests.scheduler.calibration.test_measured import SPEED


class Bench:
    """A home with a tiny model; speed and answers come from fakes that count how often they are asked."""

    def __init__(self, folder: Path) -> None:
        model = write_tiny_model(folder / "tiny.gguf")
        self.settings = Settings(home=folder / "home", model=model, threads=1)
        self.measured: list[str] = []
        self.fails: str | None = None
        self.events: list[Event] = []

    def measure(self, rung: Rung, threads: int) -> Speed:
        del threads
        if rung.precision == self.fails:
            raise BackendError("llama.cpp died", fix="try again")
        self.measured.append(rung.precision)
        return SPEED

    def open(self, source: ModelSource, rung: Rung, settings: Settings) -> contextlib.AbstractContextManager[Backend]:
        del source, settings
        backend: Backend = ScriptedBackend([{}], precision=rung.precision)
        return contextlib.nullcontext(backend)

    def calibrate(self, *precisions: str, force: bool = False, threads: int = 1) -> list[CalibratedRung]:
        bus = EventBus()
        bus.subscribe(self.events.append)
        settings = self.settings.model_copy(update={"threads": threads})
        return calibrate(settings, bus, precisions, force=force, measure=self.measure, open_backend=self.open)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_rung_is_measured_once_and_used_again(bench: Bench) -> None:
    first = bench.calibrate("Q8_0", "F16")
    again = bench.calibrate("Q8_0", "F16")
    assert bench.measured == ["Q8_0", "F16"]
    assert [one.fresh for one in first + again] == [True, True, False, False]
    assert [one.calibration for one in again] == [one.calibration for one in first]
    assert set(first[0].calibration.quality) == {agent.role for agent in AGENTS}
    assert len(read_calibrations(bench.settings.engine_calibration_path)) == 2


def test_it_is_measured_again_on_other_threads_or_by_force(bench: Bench) -> None:
    bench.calibrate("Q8_0")
    bench.calibrate("Q8_0", threads=2)
    bench.calibrate("Q8_0", force=True)
    assert bench.measured == ["Q8_0"] * 3


def test_it_is_measured_again_when_the_card_calibrates_otherwise(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    card = AdapterCard(name="a", base_sha256="", adapter_sha256="", prompts={}, calibration={})
    for temperature in (1.0, 1.0, 2.0):
        field = FieldCalibration(temperature=temperature, bias={})
        told = card.model_copy(update={"calibration": {"narrative.stance": field}})
        monkeypatch.setattr("finllm.evaluation.calibrate.adapter_for", lambda *_, told=told: (None, told))
        bench.calibrate("Q8_0")
    assert bench.measured == ["Q8_0"] * 2
    assert len(read_calibrations(bench.settings.engine_calibration_path)) == 1


def test_what_was_taken_stays_when_a_later_rung_fails(bench: Bench) -> None:
    bench.fails = "F16"
    with pytest.raises(BackendError, match="died"):
        bench.calibrate("Q8_0", "F16")
    bench.fails = None
    assert [one.fresh for one in bench.calibrate("Q8_0", "F16")] == [False, True]


def test_progress_runs_to_the_last_agent(bench: Bench) -> None:
    bench.calibrate("Q8_0", "F16")
    steps = [event for event in bench.events if isinstance(event, Progress)]
    assert [event.done for event in steps] == list(range(steps[-1].total))
    assert "calibrating F16" in steps[-1].what
