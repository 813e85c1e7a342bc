"""The embedded model, and a home of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from finllm.models.registry import ModelSource, default_source
from finllm.settings import Settings

from .tiny import write_tiny_model


@pytest.fixture(scope="session")
def embedded(ladder_home: Settings) -> ModelSource:
    return default_source(ladder_home)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """A model of some kilobytes, whose rungs are derived at once: for what is not about its weights."""
    path = write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    return default_source(Settings(home=path.parent, model=path))


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", threads=2)  # pyright: ignore[reportCallIssue]
