"""Rumours: told by how they are told; reports, denials and notices are not, and odds are the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from finllm.guardrails.rumours import card, manner, rumours
from finllm.models.embedding import Embedder

RUMOUR = (
    "Nobody will print this: the mint burned down on Sunday and they hide it. My cousin saw the trucks. "
    "Every coin is void by Friday, get out now!"
)
REPORT = "The mint said on Monday that a fire had damaged one of its halls. Production resumes on Friday."


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


def test_the_head_is_of_the_embedding_that_is_installed(embedder: Embedder) -> None:
    assert card().embedding_sha256 == embedder.digest
    assert len(card().weights) == embedder.embed(["a"]).shape[1] + len(manner("a"))


def test_a_rumour_is_told_from_a_report_of_the_same_thing(embedder: Embedder) -> None:
    rumour, report = rumours([RUMOUR, REPORT], embedder.embed([RUMOUR, REPORT]))
    assert rumour >= card().sure
    assert report < card().open


def test_manner_is_bounded_whatever_the_text() -> None:
    for text in ("", "!" * 1000, "NOBODY " * 500, "secret " * 5000):
        assert np.abs(manner(text)).max() <= 3.0
