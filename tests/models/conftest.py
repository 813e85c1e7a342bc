"""A home whose ladder is derived once for all the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from finllm.models.registry import ModelSource, default_source
from finllm.settings import Settings


@pytest.fixture(scope="session")
def ladder_home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("ladder"), threads=2)  # pyright: ignore[reportCallIssue]


@pytest.fixture(scope="session")
def embedded(ladder_home: Settings) -> ModelSource:
    return default_source(ladder_home)


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", threads=2)  # pyright: ignore[reportCallIssue]
