"""The thread and the process around the engine: whatever dies, everybody is answered and the next request works."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from finllm.errors import BackendError
from finllm.scheduler.decoding.template import Write
from finllm.scheduler.engine.engine import Engine
from finllm.scheduler.engine.job import Finished
from finllm.scheduler.engine.native import Native, Run
from finllm.scheduler.engine.process import EngineProcess
from tests.scheduler.engine.engines import JUDGES, Engines, config


def test_a_failure_in_the_engine_s_thread_answers_everybody_and_the_next_request_works(
    edge_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(config(edge_weights))
    decode = Native.decode
    steps = iter(range(100))

    def failing(self: Native, runs: Sequence[Run]) -> list[int]:
        if next(steps) == 3:
            raise RuntimeError("a bug")
        return decode(self, runs)

    monkeypatch.setattr(Native, "decode", failing)
    answers = Engines(engine.submit).ask(6)()
    assert any("the engine failed: RuntimeError: a bug" in str(answer) for answer in answers)
    assert all(isinstance(answer, Finished | BackendError) for answer in answers)
    assert isinstance(Engines(engine.submit).ask(1)()[0], Finished)
    engine.close()


def test_workers_share_the_requests_and_a_failure_of_one_is_only_its_own(
    edge_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(config(edge_weights, threads=2, workers=2))
    assert all(isinstance(answer, Finished) for answer in Engines(engine.submit).ask(12)())
    decode, steps, failed = Native.decode, iter(range(1000)), threading.Event()

    def failing(self: Native, runs: Sequence[Run]) -> list[int]:
        if next(steps) == 3:
            failed.set()
            raise RuntimeError("a bug")
        return decode(self, runs)

    monkeypatch.setattr(Native, "decode", failing)
    answers = Engines(engine.submit).ask(12, JUDGES)()
    assert failed.is_set()
    assert sum(isinstance(answer, Finished) for answer in answers) >= 6
    assert all(isinstance(answer, Finished | BackendError) for answer in answers)
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        Engines(engine.submit).ask(1)


def test_a_context_that_no_memory_holds_is_a_typed_error(edge_weights: Path) -> None:
    engine = Engine(config(edge_weights, cells=1 << 25))
    (answer,) = Engines(engine.submit).ask(1)()
    assert isinstance(answer, BackendError)
    assert "no memory for a context" in answer.message
    engine.close()


def test_more_requests_than_the_queue_holds_are_refused_at_once(
    edge_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finllm.scheduler.engine.engine.MOST_WAITING", 4)
    engine = Engine(config(edge_weights))
    with pytest.raises(BackendError, match="4 requests wait already"):
        Engines(engine.submit).ask(40)
    engine.close()


@pytest.fixture
def process() -> Iterator[EngineProcess]:
    opened = EngineProcess()
    yield opened
    opened.close()


@pytest.mark.parametrize(("blow", "why", "within"), [("SIGKILL", "signal 9", 2.0), ("SIGSTOP", "no sign of life", 5.0)])
def test_a_process_that_dies_or_hangs_answers_everybody_in_time_and_starts_again(
    process: EngineProcess, edge_weights: Path, blow: str, why: str, within: float
) -> None:
    engine = process.open("edge", config(edge_weights))
    assert isinstance(Engines(engine.submit).ask(1)()[0], Finished)
    wait = Engines(engine.submit).ask(6, (Write("text", 200, None),))
    time.sleep(0.3)
    assert process.pid is not None
    os.kill(process.pid, getattr(signal, blow))
    started = time.monotonic()
    answers = wait()
    assert time.monotonic() - started < within
    assert all(isinstance(answer, BackendError) and why in answer.message for answer in answers)
    assert isinstance(Engines(engine.submit).ask(1)()[0], Finished)


def test_a_process_that_keeps_dying_is_not_started_for_ever(process: EngineProcess, edge_weights: Path) -> None:
    engine = process.open("edge", config(edge_weights))
    for _ in range(3):
        wait = Engines(engine.submit).ask(1)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        wait()
    with pytest.raises(BackendError, match="ended 3 times within 60 s; check the model"):
        Engines(engine.submit).ask(1)


def test_two_engines_of_one_process_take_turns(process: EngineProcess, edge_weights: Path) -> None:
    engines = [process.open(name, config(edge_weights)) for name in ("edge", "deep")]
    waits = [Engines(engine.submit).ask(3) for engine in engines]
    answers = [answer for wait in waits for answer in wait()]
    assert all(isinstance(answer, Finished) for answer in answers), answers
    engines[0].close()
    with pytest.raises(BackendError, match="'edge' is closed"):
        Engines(engines[0].submit).ask(1)
    assert isinstance(Engines(engines[1].submit).ask(1)()[0], Finished)
