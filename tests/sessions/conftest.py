"""A session on scripted models for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from finllm.running import Runner
from finllm.sessions.session import Session
from tests.sessions.opened import SAY, Make, open_on


@pytest.fixture
def runner() -> Iterator[Runner]:
    with Runner() as one:
        yield one


@pytest.fixture
def session(scripted_desk: Make, runner: Runner) -> Iterator[Session]:
    with open_on(scripted_desk(SAY), runner) as one:
        yield one
