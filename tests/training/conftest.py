"""The corpus, built once."""

from __future__ import annotations

import pytest

from training.corpus.build import Corpus, build_corpus


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return build_corpus()
