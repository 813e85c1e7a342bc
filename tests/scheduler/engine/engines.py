"""What the engine is asked in tests, and a face of it that waits for the answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from finllm.scheduler.decoding.template import Choose, Force, Template, Write
from finllm.scheduler.engine.engine import EngineConfig
from finllm.scheduler.engine.job import Finished, Job, Work
from finllm.scheduler.placement.task import Prompt

SYSTEM = "You are a risk analyst at a bank. You read news about markets and answer briefly, in plain words. " * 3
SAYS: Template = (Write("text", 12, None),)
JUDGES: Template = (Force('{"oil":"'), Choose("oil", ("up", "down", "none")), Force('"}'))
NOISE = 0.85
"""How far batching may move the lead of one value over another, nat; docs/benchmarks.md has it measured."""
Result = Finished | Exception


def config(path: Path, **changes: object) -> EngineConfig:
    values = {"path": path, "threads": 1, "slots": 4, "context": 512, "cells": 1024, "store": 16 << 20, **changes}
    return EngineConfig(**values)  # pyright: ignore[reportArgumentType]


class Engines:
    """An engine's face with a way to wait for answers."""

    def __init__(self, submit: Callable[[Job], None]) -> None:
        self._submit = submit

    def ask(self, count: int, template: Template = SAYS) -> Callable[[], Sequence[Result]]:
        answers: list[Result] = []
        all_in = threading.Event()

        def done(result: Result) -> None:
            answers.append(result)
            if len(answers) == count:
                all_in.set()

        for i in range(count):
            self._submit(Job(Work(Prompt(SYSTEM, f"Case {i}"), template), done))

        def wait() -> Sequence[Result]:
            assert all_in.wait(60), "not everybody was answered"
            return answers

        return wait
