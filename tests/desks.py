"""Desks for tests: on the scripted backend, and on the real model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from finllm.desk.desk import Desk, assemble, open_desk
from finllm.desk.request import RunRequest
from finllm.events import Event, EventBus
from finllm.graphs.flow import Outcome, resume, run_stress_test
from finllm.guardrails.audit.recorder import open_recorder
from finllm.memory.knowledge import KnowledgeBase
from finllm.scenarios import PORTFOLIOS_DIR, SCENARIOS_DIR
from finllm.scheduler.backends import Backend
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.limits import load_limits
from finllm.tools.data.scenario import load_scenario
from tests.conftest import LONGEST_RUN
from tests.warm import Warm


def request_for(scenario: str, portfolio: str = "default.csv", **changes: Any) -> RunRequest:
    """A request on shipped files; `changes` replace fields of the scenario."""
    loaded = load_scenario(SCENARIOS_DIR / f"{scenario}.yaml").model_copy(update=changes)
    return RunRequest(
        scenario=loaded,
        portfolio=load_portfolio(PORTFOLIOS_DIR / portfolio),
        limits=load_limits(PORTFOLIOS_DIR / "limits.yaml"),
    )


def run(request: RunRequest, desk: Desk, run_id: str = "run-1") -> Outcome:
    async def bounded() -> Outcome:
        with anyio.fail_after(LONGEST_RUN):
            return await run_stress_test(run_id, request, desk)

    return asyncio.run(bounded())


def go_on(desk: Desk, run_id: str = "run-1", **options: Any) -> Outcome:
    async def bounded() -> Outcome:
        with anyio.fail_after(LONGEST_RUN):
            return await resume(run_id, desk, **options)

    return asyncio.run(bounded())


class Seen(list[Event]):
    """A renderer that keeps what it was shown."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def kinds(self, kind: str) -> list[Any]:
        return [event for event in self if getattr(event, "kind", None) == kind]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="session")
def shared_knowledge(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    return KnowledgeBase(warm.knowledge(tmp_path_factory.mktemp("base") / "knowledge"), warm.embedder)


@pytest.fixture
def scripted_desk(
    tmp_path: Path, seen: Seen, warm: Warm, shared_knowledge: KnowledgeBase
) -> Iterator[Callable[..., Desk]]:
    """Make a desk whose edge, deep and served backends answer from scripts; the rest is real."""
    calibrations = warm.calibrations
    with contextlib.ExitStack() as closing:

        def make(
            edge: list[dict[str, Any]],
            deep: list[dict[str, Any]] | None = None,
            served: list[dict[str, Any]] | None = None,
            model: str = "",
        ) -> Desk:
            """`model` names the weights: another one is not answered from the ledger for the first."""
            settings = Settings(home=tmp_path, encoder_cache=warm.shared.encoder_dir)
            ledger = open_recorder(settings)
            closing.callback(ledger.close)
            backends: list[Backend] = [ScriptedBackend(edge, name="edge", weights=model)]
            if deep is not None:
                backends.append(
                    ScriptedBackend(deep, name="deep", tier="deep", precision="F16", weights=model and f"{model}-deep")
                )
            if served is not None:
                backends.append(ScriptedBackend(served, name="served", tier="deep", precision="BF16"))
            desk = assemble(settings, EventBus(seen), ledger, backends)
            return replace(desk, knowledge=shared_knowledge, embedder=warm.embedder, calibrations=calibrations,
                           second=warm.second, channels=None)  # fmt: skip

        yield make


@pytest.fixture(scope="session")
def real_home(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warm.home(tmp_path_factory.mktemp("real-home"))


@pytest.fixture(scope="session")
def real_desk(real_home: Path) -> Iterator[Desk]:
    """A desk on the real model, real Chroma, real ledger and checkpointer, shared by the session's tests."""
    with open_desk(Settings(home=real_home, threads=1), EventBus()) as desk:
        yield desk
