"""Every test has a home of its own and no network; the real model is derived once for all that want it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from finllm.models.ladder import ensure_rung
from finllm.models.registry import default_source
from finllm.scheduler.backends.llama_cpp import LlamaCppBackend, llama_backends
from finllm.scheduler.engine.process import EngineProcess
from finllm.settings import Settings

pytest_plugins = ["tests.warm", "tests.desks", "tests.soak"]
LONGEST_WAIT = 60.0
LONGEST_RUN = 600.0
"""s that a whole command or run may take, a first one on the real model too, on a machine that has much else to do."""
_attempts: list[str] = []
T = TypeVar("T")


def bounded(coroutine: Coroutine[Any, Any, T], seconds: float = LONGEST_WAIT) -> T:
    """Run a coroutine to its end; TimeoutError if that takes longer than `seconds`."""

    async def within() -> T:
        with anyio.fail_after(seconds):
            return await coroutine

    return asyncio.run(within())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a worker that takes one of them last would work on alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _network() -> Iterator[None]:
    """Refuse every connection and name look-up that leaves this machine, and remember it."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse(host: object) -> None:
        _attempts.append(str(host))
        raise OSError(f"tests have no network: {host!r}")

    def is_far(address: Any) -> bool:
        host = address[0] if isinstance(address, tuple) else address
        return not (host is None or str(host) in ("", "localhost", "::1", "0.0.0.0") or str(host).startswith("127."))

    def leaves(connection: socket.socket, address: Any) -> bool:
        return connection.family in (socket.AF_INET, socket.AF_INET6) and is_far(address)

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if leaves(self, address):
            refuse(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        if leaves(self, address):
            refuse(address)
        return connect_ex(self, address)

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if is_far(name) and name != socket.gethostname():
            refuse(name)
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


@pytest.fixture(autouse=True)
def _offline() -> Iterator[None]:
    """Fail a test that tried to reach the network, also where its code swallowed the refusal."""
    _attempts.clear()
    yield
    assert not _attempts, f"tried to reach {_attempts}"


@pytest.fixture(autouse=True)
def _sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_home: Settings) -> None:
    for name in [name for name in os.environ if name.startswith("FINLLM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FINLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINLLM_ENCODER_CACHE", str(shared_home.encoder_dir))  # 440 MB: once, not once a home


@pytest.fixture(scope="session")
def ladder_home(shared_home: Settings) -> Settings:
    """A home whose ladder holds the real edge and deep rungs, as the model comes, once a backend has been asked for."""
    return shared_home.model_copy(update={"threads": 1, "adapter": "none"})


@pytest.fixture(scope="session")
def real_backends(ladder_home: Settings) -> Iterator[list[LlamaCppBackend]]:
    """The real edge and deep backends, loaded on their first call."""
    process = EngineProcess()
    yield llama_backends(ladder_home, process)
    process.close()


@pytest.fixture(scope="session")
def edge_weights(ladder_home: Settings) -> Path:
    """The file of the real edge rung."""
    return ensure_rung(default_source(ladder_home), ladder_home.edge_precision, ladder_home).path


@pytest.fixture(scope="session")
def real_edge(real_backends: list[LlamaCppBackend]) -> LlamaCppBackend:
    return real_backends[0]
