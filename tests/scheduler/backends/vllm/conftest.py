"""One real vLLM server for all tests of this folder: starting it takes a minute."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from finllm.models.hf_export import export_hf
from finllm.models.registry import default_source
from finllm.scheduler.backends.vllm import VllmBackend, connect
from finllm.settings import Settings
from tests.conftest import bounded
from tests.scheduler.backends.vllm.asking import again
from tests.scheduler.vllm_server import KEY, MODEL, Server, write_adapter


@pytest.fixture(scope="package")
def server(ladder_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    export_hf(default_source(ladder_home), folder / "model")
    served = Server(folder / "model", write_adapter(folder / "adapter"), folder / "server.log")
    served.start()
    yield served
    served.kill()


@pytest.fixture(scope="package")
def opened(server: Server) -> Iterator[Callable[..., VllmBackend]]:
    """Open backends that are closed after the tests."""
    backends: list[VllmBackend] = []

    def make(model: str | None = MODEL) -> VllmBackend:
        backends.append(connect(server.url, model=model, api_key=KEY))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()


@pytest.fixture(scope="package")
def backend(opened: Callable[..., VllmBackend]) -> VllmBackend:
    made = opened()
    bounded(made.generate(again()))
    return made
